"""What is wrong with a sweep beyond the type of each key: what its keys mean together."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig, recipe_tables
from raygan.gan.judge import quality
from raygan.gan.judge.metrics import METRICS
from raygan.gan.nets.architectures import check_size
from raygan.records import DATASET, WARMUP_SUFFIX
from raygan.shown import shown
from raygan.sweep.spec import claims, plan, scales
from raygan.sweep.spec.mistakes import message
from raygan.sweep.spec.space import Space, ends, is_within, search_method, trials_per_cell
from raygan.sweep.spec.yaml_sections import MOST_SEEDS, MOST_TRIALS, Range, Scalar, Stop
from raygan.sweep.stopping.rules import RULES, first_stop, grace, rule_of

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

_NEEDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("stop", ("grace",), "stop.rule"),
    ("replicate", ("top", "until", "resplit"), "replicate.seeds"),
    ("train", ("warmup_factor",), "train.warmup"),
)
"""Section and keys that have no effect as long as another key is at its default.

Whoever writes that other key knows it: ``rule: none`` or ``seeds: 0`` switches off what the keys
say, and they may stay.
"""
_WORD = re.compile(r"[A-Za-z0-9_.=+-]{1,64}")
MOST_NAME, MOST_TITLE = 200, 500
"""Characters of a trial's name and title. A name is a folder's, of at most 255 characters; there is
room for what extends a sweep."""
_NUMBER = 10
"""Characters of the longest number in a title."""
_SIZED = ("norm", "architecture", "levels", "batch_size")
"""Fields that decide, together, whether images of some size can be trained on."""


def check(spec: SweepSpec) -> None:
    """Every field stands in one place, and the ends of what it may be can be trained.

    Raises ValueError, as :func:`check_new` does.
    """
    axes, space = spec.axes(), spec.space()
    _check_labels(spec)
    for name in axes.keys() & space.keys():
        raise ValueError(f"`{name}` is under both `grid` and `search`; keep one")
    for name in (axes.keys() | space.keys()) & spec.train.model_fields_set:
        raise ValueError(f"`{name}` is under `train` and also under `grid` or `search`; keep one")
    for number, one in enumerate(spec.listed):
        for name in (axes.keys() | space.keys()) & one.train.model_fields_set:
            raise ValueError(
                f"`{DATASET}.{number}.train.{name}` is also under `grid` or `search`; keep one"
            )
        _check_point(spec, {DATASET: spec.labels[number]}, f"{DATASET}.{number}.train")
    axes.pop(DATASET, None)
    for where, values in (("grid", axes), ("search", space)):
        for name, value in values.items():
            candidates = [value.min, value.max] if isinstance(value, Range) else value
            for candidate in candidates:
                if isinstance(candidate, str) and not _WORD.fullmatch(candidate):
                    raise ValueError(
                        f"`{where}.{name}` (={shown(candidate)!r}) names cells and folders: it "
                        "must be letters, digits, '_', '.', '=', '+' or '-'"
                    )
                _check_point(spec, {name: candidate}, f"{where}.{name}")
            if len(set(candidates)) != len(candidates):
                raise ValueError(
                    f"`{where}.{name}` holds a value twice; remove one: {shown(candidates)}"
                )
    scales.check(spec)
    _check_search(spec, space)
    _check_stages(spec)
    searched = trials_per_cell(spec) + spec.replicate.most * spec.replicate.top
    axes = spec.axes()
    count = math.prod(map(len, axes.values())) * (spec.search.repeats or 1) * searched
    if count > MOST_TRIALS:
        raise ValueError(
            f"{'`dataset`, ' * bool(spec.listed)}`grid` and `search` define {count} trials; at "
            f"most {MOST_TRIALS} are allowed: remove values, or lower `search.trials`"
            f"{' or `search.repeats`' if spec.search.repeats else ''}"
        )
    _check_cells(spec, axes, space)


def check_new(spec: SweepSpec) -> None:
    """What is asked of a YAML that people write, but not of a sweep that has begun already.

    Each value of a range can be trained, no key is without effect, and the claims name what is
    compared.
    """
    _check_effect(spec)
    _check_heeded(spec)
    _check_stop(spec)
    claims.check(spec)
    scales.check_new(spec)
    for point in spec.search.try_first:
        _check_point(spec, point, "search.try_first")
    for label, images in spec.datasets().items():
        if (shape := images.shape()) is not None:
            for config in extremes(spec, label):
                _check_size(spec, label, config, shape)


def _check_labels(spec: SweepSpec) -> None:
    folded = [label.casefold() for label in spec.labels]
    axes = {name: values for name, values in spec.axes().items() if name != DATASET}
    for number, label in enumerate(spec.labels):
        if label in spec.labels[:number]:
            raise ValueError(
                f"`{DATASET}.{number}`: two data sets are called {shown(label)!r}; give one of "
                "them another `label`"
            )
        if folded[number] in folded[:number]:
            other = spec.labels[folded.index(folded[number])]
            raise ValueError(
                f"`{DATASET}.{number}`: the labels {shown(label)!r} and {shown(other)!r} differ "
                "only in case, and some file systems do not tell such folders apart; give one of "
                "them another `label`"
            )
        for name, values in axes.items() if len(folded) > 1 else ():
            if label in map(str, values):
                raise ValueError(
                    f"`{DATASET}.{number}`: the label {shown(label)!r} is also a value of "
                    f"`grid.{name}`, and claims name both; give the data set another `label`"
                )


def _check_size(
    spec: SweepSpec, label: str, config: TrainConfig, shape: tuple[int, int, int]
) -> None:
    try:
        check_size(config, shape[0], shape[1])
    except ConfigError as error:
        if not spec.listed:
            raise
        raise ValueError(f"`{DATASET}.{spec.labels.index(label)}`: {error}") from error


def check_fair(spec: SweepSpec) -> None:
    """What is asked of a sweep before it begins, but not of one that an earlier version began.

    Early stopping is fair between cells; raises :class:`~raygan.errors.ConfigError` if not.
    """
    stop = spec.stopping()
    for label in spec.labels:
        longest = max(_values(spec, "iterations", label))
        rule_of(stop).check_grace(grace(stop, longest), longest)


def check_names(spec: SweepSpec, before: SweepSpec | None = None) -> None:
    """Each cell has a name of its own, and its trials have names and titles that can be stored.

    ``before``: the sweep that ``spec`` resumes or extends. The cells that it has are not checked:
    an earlier version accepted them. Raises :class:`~raygan.errors.ConfigError`.
    """
    accepted = set() if before is None else set(map(_point, plan.cells(before)))
    params = sum(len(f" {name}=") + _longest(values) for name, values in spec.space().items())
    named: dict[str, plan.Cell] = {}
    for cell in plan.cells(spec):
        other = named.setdefault(cell.name.casefold(), cell)
        if other != cell and not {_point(cell), _point(other)} <= accepted:
            raise ConfigError(_same_name(other, cell))
        if _point(cell) not in accepted:
            _check_length(spec, cell, params)


def _point(cell: plan.Cell) -> frozenset[tuple[str, Scalar]]:
    return frozenset(cell.values.items())


def _same_name(one: plan.Cell, other: plan.Cell) -> str:
    points = [
        ", ".join(f"{name}: {value}" for name, value in cell.values.items())
        for cell in (one, other)
    ]
    called = f"would both be called `{one.name}`"
    if one.name != other.name:
        called = (
            f"would be called `{one.name}` and `{other.name}`, and some file systems do not tell "
            "such folders apart"
        )
    return shown(
        f"the cells ({points[0]}) and ({points[1]}) {called}, but each needs a name of its own: "
        "rename one of the recipes, or give a data set another `label`",
        1000,
    )


def _longest(values: list[Scalar] | Range) -> int:
    """Characters of the longest value that a search may try, in a title."""
    known = ends(values) if isinstance(values, Range) else values
    return max(_NUMBER, *(len(plan.format_value(value)) for value in known))


def _check_length(spec: SweepSpec, cell: plan.Cell, params: int) -> None:
    """The longest name and title of the cell's trials can be stored; ``params``: characters of the
    searched values in a title."""
    searched = trials_per_cell(spec)
    name = f"{cell.name}-{searched - 1:03d}" if searched else cell.name
    if last := spec.replicate.most:
        name = plan.replicate_id(spec, cell, last - 1, name)
    name += WARMUP_SUFFIX if spec.warmup else ""
    title = len(name) + params
    for what, length, most in (("name", len(name), MOST_NAME), ("title", title, MOST_TITLE)):
        if length > most:
            raise ConfigError(
                f"the {what} of a trial of the cell `{shown(cell.name)}` may have up to {length} "
                f"characters, and at most {most} are allowed: take a field out of `grid`"
                f"{' or `search`' if what == 'title' else ''}, or give your recipes and data sets "
                "shorter names"
            )


def check_quality(spec: SweepSpec) -> None:
    """This machine can measure the quality of samples that the sweep asks for.

    Raises :class:`~raygan.errors.ConfigError` if not, or if a metric of the user's own has the name
    of one of the measures.
    """
    kind = spec.quality()
    if kind == "none":
        return
    quality.check(kind)
    for name in quality.MEASURES[kind]:
        if name in METRICS.names:
            raise ConfigError(
                f"your own metric `{name}` has the name of a measure of sample quality; rename it, "
                "or set `train.quality: none`"
            )


def extremes(spec: SweepSpec, label: str) -> list[TrainConfig]:
    """Configurations that stand for all trials on the data set ``label`` where the size of the
    images matters.

    If :func:`~raygan.gan.nets.levels.check_size` passes them, it passes every trial.
    """
    points = itertools.product(*(_values(spec, name, label) for name in _SIZED))
    return [
        spec.train_config(**{DATASET: label}, **dict(zip(_SIZED, point, strict=True)))
        for point in points
    ]


def _values(spec: SweepSpec, name: str, label: str) -> list[Any]:
    """What a field of the training configuration may be in the trials on the data set ``label``;
    of numbers, the ends."""
    varied = spec.axes().get(name) or spec.space().get(name)
    return [spec.fixed(name, label)] if varied is None else list(ends(varied))


def _check_cells(spec: SweepSpec, axes: dict[str, list[Scalar]], space: Space) -> None:
    """Values that can be trained each by itself may exclude each other, two by two."""
    _check_varied(spec, axes.keys() | space.keys())
    searched = [(name, value) for name, values in space.items() for value in ends(values)]
    for point in itertools.product(*axes.values()):
        cell = dict(zip(axes, point, strict=True))
        if len(cell) > 1:
            _check_point(spec, cell, "grid")
        for name, value in searched:
            _check_point(spec, {**cell, name: value}, f"search.{name}")
        for (name, value), (other, second) in itertools.combinations(searched, 2):
            if name != other:
                _check_point(spec, {**cell, name: value, other: second}, f"search.{other}")


def possible(spec: SweepSpec, name: str, label: str | None = None) -> list[str]:
    """The recipes that trials, on the data set ``label`` or on any, may use under the key ``name``
    of the training configuration."""
    varied = spec.axes().get(name) or spec.space().get(name)
    if isinstance(varied, list):
        return list(map(str, varied))
    labels = spec.labels if label is None else [label]
    return list(dict.fromkeys(str(spec.fixed(name, label)) for label in labels))


def _check_varied(spec: SweepSpec, varied: Collection[str]) -> None:
    """Trials that differ in a recipe's parameter use that recipe."""
    for key, table in recipe_tables().items():
        for name in table.parameters().keys() & varied:
            without = [used for used in possible(spec, key) if used not in table.heed(name)]
            if without:
                raise ValueError(
                    f"`{name}` applies to `{key}: {' or '.join(table.heed(name))}` only: trials "
                    f"of {without[0]} that differ in it would be the same; fix `{name}`, or leave "
                    f"out {without[0]}"
                )


def _check_heeded(spec: SweepSpec) -> None:
    """A recipe's parameter that the YAML gives belongs to a recipe that trials use."""
    _check_heeded_in(spec, "", None, spec.train)
    for number, (label, one) in enumerate(zip(spec.labels, spec.listed, strict=False)):
        _check_heeded_in(spec, f"{DATASET}.{number}.train.", label, one.train)


def _check_heeded_in(spec: SweepSpec, where: str, label: str | None, train: Any) -> None:
    """``train``: the section that holds the values; ``where``: its place, before a key."""
    for key, table in recipe_tables().items():
        used = possible(spec, key, label)
        for name, owners in table.parameters().items():
            given = getattr(train, name)
            # a default says nothing: the YAML that an earlier version stored holds all of them
            defaults = {parameter.default for parameter in owners.values()}
            if given is None or given in defaults or set(used) & owners.keys():
                continue
            raise ValueError(
                f"`{where}{name}` applies to `{key}: {' or '.join(owners)}`, but `{key}` is "
                f"{' or '.join(used)}; remove `{name}`, or change `{key}`"
            )


def _check_search(spec: SweepSpec, space: Space) -> None:
    method, trials, first = search_method(spec), spec.search.trials, spec.search.try_first
    if spec.search.repeats and spec.replicate.until is not None:
        raise ValueError(
            "`replicate.until` has no effect with `search.repeats`: the repeats are compared, not "
            "the seeds; raise `search.repeats`, and remove `replicate.until`"
        )
    if spec.search.repeats and "seed" in spec.axes():
        raise ValueError(
            "`search.repeats` sets its own seeds; remove `grid.seed`, or `search.repeats`"
        )
    if spec.search.repeats and spec.replicate.top > 1:
        raise ValueError(
            f"`replicate.top` (={spec.replicate.top}) must be 1 with `search.repeats`: each repeat "
            "is judged by the setting that it has found"
        )
    if not space and (trials or first or spec.search.repeats):
        raise ValueError("`search` has no field to search; add one, such as lr")
    if method == "grid":
        ranges = [name for name, value in space.items() if isinstance(value, Range)]
        if ranges:
            raise ValueError(
                f"`search.method: grid` needs lists, but `{ranges[0]}` is a range; list its "
                "values or use random or tpe"
            )
    elif trials is None and space:
        raise ValueError(
            f"`search.trials` is missing: `method: {method}` needs the number of trials per cell"
        )
    for number, point in enumerate(first):
        if point.keys() != space.keys():
            raise ValueError(
                f"`search.try_first` point {shown(point)} must name the searched fields: "
                f"{', '.join(space)}"
            )
        for name, value in point.items():
            if not is_within(value, space[name]):
                raise ValueError(
                    f"`search.try_first`: {name}={shown(value)} is outside `search.{name}`; "
                    "change one of the two"
                )
        if point in first[:number]:
            raise ValueError(f"`search.try_first` holds {point} twice; remove one")


def _check_stages(spec: SweepSpec) -> None:
    for name in ("gpu_hours", "usd"):
        if getattr(spec.budget, name) is not None and not any(
            scale.gpus for scale in scales.of(spec)
        ):
            raise ValueError(
                f"`budget.{name}` would never be reached: trials take no GPU; give `wall_clock` or "
                "`trials`, or `scale.gpus_per_worker`"
            )
    highest = ((spec.search.repeats or 1) - 1) * MOST_SEEDS + spec.replicate.most
    spec.train_config(seed=spec.train.seed + highest)  # none beyond what is allowed
    if spec.replicate.seeds and "seed" in spec.axes():
        raise ValueError("`replicate` sets its own seeds; remove `grid.seed`, or `replicate`")
    if spec.warmup and (place := _place_of_warmup(spec)):
        raise ValueError(
            f"`{place}` cannot be used with the section `warmup`, which configures the retry; "
            f"remove `{place}`"
        )


def _place_of_warmup(spec: SweepSpec) -> str | None:
    """Where the YAML asks for trials that begin with a warm-up; None if it does not."""
    for section, varied in (("grid", spec.axes()), ("search", spec.space())):
        if "warmup" in varied:
            return f"{section}.warmup"
    for number, label in enumerate(spec.labels):
        if spec.fixed("warmup", label):
            own = "warmup" in spec.own_train(label)
            return f"{DATASET}.{number}.train.warmup" if own else "train.warmup"
    return None


def _check_effect(spec: SweepSpec) -> None:
    """Keys that the rest of the YAML leaves without effect."""
    for place, images in _images(spec):
        given = images.model_fields_set
        if "path" in given and images.path is not None and "name" not in given:
            raise ValueError(
                f"`{place}.path` has no effect without `{place}.name`; add `{place}.name`, or "
                f"remove `{place}.path`"
            )
    for section, fixed, switch in _NEEDS:
        keys = (*fixed, *RULES.parameters()) if section == "stop" else fixed
        needed, _, name = switch.partition(".")
        written = {*_written(spec, needed)}
        own = [one.train.model_fields_set for one in spec.listed if section == "train"]
        for number, given in enumerate(own):
            for key in sorted(given & {*keys} if name not in written | given else ()):
                place = f"{DATASET}.{number}.train"
                raise ValueError(
                    f"`{place}.{key}` has no effect without `{place}.{name}`; add "
                    f"`{place}.{name}`, or remove `{place}.{key}`"
                )
        if name in written.union(*own) or (needed == "stop" and spec.space()):
            continue  # a search has a rule by default
        for key in _written(spec, section, changed=True):
            if key in keys:
                label = key if section == "train" else f"{section}.{key}"
                raise ValueError(
                    f"`{label}` has no effect without `{switch}`; add `{switch}`, or remove "
                    f"`{label}`"
                )
    for label in spec.labels:
        every = max(_values(spec, "evaluate_every", label))
        iterations = min(_values(spec, "iterations", label))
        if {*possible(spec, "lr_decay", label)} != {"none"} and every >= iterations:
            raise ValueError(
                f"`lr_decay` has no effect with `evaluate_every` (={every}) and `iterations` "
                f"(={iterations}): the learning rates change at evaluations before the end; lower "
                "`evaluate_every`, or remove `lr_decay`"
            )
    rule = RULES[spec.stopping().rule or "none"]
    for key, owners in RULES.parameters().items():
        given = getattr(spec.stop, key)
        defaults = {parameter.default for parameter in owners.values()}
        if not (given is None or given in defaults or rule.name in owners or rule.never):
            raise ValueError(
                f"`stop.{key}` applies to `rule: {' or '.join(owners)}`, but `stop.rule` is "
                f"{rule.name}; remove `stop.{key}`, or change the rule"
            )
    search = set(_written(spec, "search", changed=True))
    if not spec.space() and search:
        raise ValueError("`search` has no field to search; add one, such as lr")
    if "seed" in search and search_method(spec) == "grid":
        raise ValueError(
            "`search.seed` applies to `method: random or tpe`, but this search is a grid, which "
            "draws no random values; remove `search.seed`, or give `search.method`"
        )


def _images(spec: SweepSpec) -> list[tuple[str, Any]]:
    """The sections of the data sets, each with its place in the YAML."""
    if not spec.listed:
        return [(DATASET, spec.dataset)]
    return [(f"{DATASET}.{number}", one) for number, one in enumerate(spec.listed)]


def _written(spec: SweepSpec, section: str, *, changed: bool = False) -> Iterator[str]:
    """The keys of ``section`` that the YAML gives; ``changed``: another value than the default.

    A field of the training configuration is given where it varies, too. What equals the default
    says nothing: the YAML that is stored with a sweep holds all defaults.
    """
    values = getattr(spec, section)
    for name in sorted(values.model_fields_set):
        if not changed or getattr(values, name) != type(values).model_fields[name].default:
            yield name
    if section == "train":
        yield from (*spec.axes(), *spec.space())


def _check_stop(spec: SweepSpec) -> None:
    """Early stopping that the YAML asks for can stop a trial before its end."""
    stop: Stop = spec.stopping()
    rule = rule_of(stop)
    if rule.never or (spec.stop.rule is None and stop.grace is None):
        return
    # what serves one data set has an effect
    problems = [_never_stops(spec, label) for label in spec.labels]
    if all(problems):
        raise ValueError(problems[0])


def _never_stops(spec: SweepSpec, label: str) -> str | None:
    """Why early stopping stops no trial on the data set ``label``; None if it can stop one."""
    stop: Stop = spec.stopping()
    rule = rule_of(stop)
    longest = max(_values(spec, "iterations", label))
    given = grace(stop, longest)
    every = min(
        _values(spec, "evaluate_every", label), key=lambda every: first_stop(stop, every, longest)
    )
    first = first_stop(stop, every, longest)
    if first < longest:
        return None
    key, value = "stop.grace", given
    if first_stop(stop, 1, longest) < longest:
        key, value = "evaluate_every", every
    elif (limit := rule.limit(given)) is not None:
        key, value = f"stop.{limit}", getattr(rule, limit)
    return (
        f"`{key}` (={value}) is too large: `rule: {stop.rule}` stops trials at iteration {first} "
        f"at the earliest, but they end at {longest}; lower `{key}`, or set `rule: none`"
    )


def _check_point(spec: SweepSpec, values: dict[str, Any], where: str) -> None:
    try:
        label = {name: values[name] for name in values if name == DATASET}
        fields = {name: values[name] for name in values if name != DATASET}
        checked = type(spec.train).model_validate(fields).model_dump(exclude_unset=True)
        spec.train_config(**label, **checked)
    except ValidationError as error:
        raise ValueError(f"`{where}`: {message(error.errors()[0])}") from error
    except ConfigError as error:
        raise ValueError(f"`{where}`: {error}") from error
