"""What a sweep's YAML may say, and what it means."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

import pydantic
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
)

from raygan.data.config import DatasetConfig
from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig
from raygan.gan.final_config import FinalConfig
from raygan.sweep import yaml_loader
from raygan.sweep.mistakes import explain, message
from raygan.sweep.sections import (
    MOST_TRIALS,
    RESERVED,
    Budget,
    Dataset,
    Final,
    Grid,
    Range,
    Replicate,
    Scalar,
    Scale,
    Search,
    SearchBase,
    Section,
    Stop,
    Tracking,
    Train,
    Warmup,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class SweepSpec(Section):
    """A sweep: one YAML file."""

    name: str = Field(
        pattern=NAME,
        description="names the sweep's folder and runs: letters, digits, '.', '_' and '-'",
    )
    dataset: Dataset = Dataset()
    grid: Grid = Grid()
    search: Search = Search()
    stop: Stop = Stop()
    warmup: Warmup | None = Field(
        None, description="retry of a trial that fails within its first iterations; by default none"
    )
    replicate: Replicate = Replicate()
    final: Final = Final()
    train: Train = Train()
    scale: Scale = Scale()
    budget: Budget = Budget()
    storage: str = Field("results", min_length=1, max_length=1000)
    tracking: Tracking = Tracking()

    @pydantic.model_validator(mode="after")
    def _check(self) -> SweepSpec:
        if ".." in self.name or self.name in RESERVED:
            raise ValueError(
                f"`name` (={self.name!r}) must not hold '..' nor be one of {', '.join(RESERVED)}"
            )
        self.dataset_config()
        self.train_config()
        self.final_config()
        _check_places(self)
        return self

    def dataset_config(self) -> DatasetConfig:
        """The images of the sweep."""
        return DatasetConfig(**self.dataset.model_dump())

    def train_config(self, **changes: Any) -> TrainConfig:
        """What every trial has in common, with some fields changed."""
        return TrainConfig(**{**self.train.model_dump(), **changes})

    def final_config(self) -> FinalConfig:
        """The final test of the replicates."""
        return FinalConfig(**self.final.model_dump())

    def axes(self) -> dict[str, list[Scalar]]:
        """The grid's axes, in the order of the training configuration's fields."""
        return _given(self.grid)

    def space(self) -> dict[str, list[Scalar] | Range]:
        """The searched fields, in the order of the training configuration's fields."""
        own = SearchBase.model_fields
        return {name: value for name, value in _given(self.search).items() if name not in own}

    def resolved(self) -> dict[str, Any]:
        """Everything that the sweep will use, defaults included, as plain values."""
        resolved = self.model_dump(mode="json", exclude_none=True)
        for name in self.axes().keys() | self.space().keys():
            resolved["train"].pop(name, None)  # it stands where it varies
        return resolved


def _given(section: BaseModel) -> dict[str, Any]:
    return {
        name: getattr(section, name)
        for name in section.model_dump(exclude_unset=True)
        if getattr(section, name) is not None
    }


def _check_places(spec: SweepSpec) -> None:
    """Every field stands in one place, and every value that it may take can be trained."""
    axes, space = spec.axes(), spec.space()
    for name in axes.keys() & space.keys():
        raise ValueError(f"`{name}` stands under both `grid` and `search`; keep one")
    for name in (axes.keys() | space.keys()) & spec.train.model_fields_set:
        raise ValueError(f"`{name}` stands under `train` and also varies; keep one")
    for where, values in (("grid", axes), ("search", space)):
        for name, value in values.items():
            candidates = [value.min, value.max] if isinstance(value, Range) else value
            for candidate in candidates:
                _check_point(spec, {name: candidate}, f"{where}.{name}")
            if len(set(candidates)) != len(candidates):
                raise ValueError(f"`{where}.{name}` holds a value twice: {candidates}")
    if not (axes.keys() | space.keys()) & {"batch_size"}:
        _check_point(spec, {}, "train.batch_size")
    _check_search(spec, space)
    _check_stages(spec)
    each = (spec.search.trials or _grid_size(space)) + spec.replicate.seeds * spec.replicate.top
    count = math.prod(map(len, axes.values())) * each
    if count > MOST_TRIALS:
        raise ValueError(f"`grid` and `search` ask for {count} trials; {MOST_TRIALS} are allowed")
    _check_cells(spec, axes, space)


def _check_cells(
    spec: SweepSpec, axes: dict[str, list[Scalar]], space: dict[str, list[Scalar] | Range]
) -> None:
    """Values that can be trained each by itself may exclude each other, two by two."""
    architectures = {*axes.get("architecture", []), *_ends(space.get("architecture", []))}
    if "blocks" in axes.keys() | space.keys() and (
        "dcgan" in (architectures or {spec.train.architecture})
    ):
        raise ValueError(
            "`blocks` is of `architecture: resnet` only: trials of dcgan that differ in it would "
            "be the same; fix `blocks`, or leave out dcgan"
        )
    searched = [(name, value) for name, values in space.items() for value in _ends(values)]
    for point in itertools.product(*axes.values()):
        cell = dict(zip(axes, point, strict=True))
        if len(cell) > 1:
            _check_point(spec, cell, "grid")
        for name, value in searched:
            _check_point(spec, {**cell, name: value}, f"search.{name}")
        for (name, value), (other, second) in itertools.combinations(searched, 2):
            if name != other:
                _check_point(spec, {**cell, name: value, other: second}, f"search.{other}")


def _ends(values: list[Scalar] | Range) -> list[Scalar]:
    """The least and the greatest number, which are refused if any number is; or all words."""
    if isinstance(values, Range):
        return [values.min, values.max]
    numbers = [value for value in values if not isinstance(value, str)]
    return [min(numbers), max(numbers)] if numbers else values


def _grid_size(space: dict[str, list[Scalar] | Range]) -> int:
    return math.prod(len(value) for value in space.values() if not isinstance(value, Range))


def _check_search(spec: SweepSpec, space: dict[str, list[Scalar] | Range]) -> None:
    method, trials, first = search_method(spec), spec.search.trials, spec.search.try_first
    if not space and (trials or first):
        raise ValueError("`search` names no field to search; give one, such as lr")
    if method == "grid":
        ranges = [name for name, value in space.items() if isinstance(value, Range)]
        if ranges:
            raise ValueError(
                f"`search.method: grid` needs lists, but `{ranges[0]}` is a range; list its "
                "values or use random or tpe"
            )
    elif trials is None and space:
        raise ValueError(f"`search.trials` is missing: how many trials per cell may {method} take?")
    for number, point in enumerate(first):
        if point.keys() != space.keys():
            raise ValueError(
                f"`search.try_first` point {point} must name the searched fields: "
                f"{', '.join(space)}"
            )
        for name, value in point.items():
            if not _is_within(value, space[name]):
                raise ValueError(f"`search.try_first`: {name}={value} lies outside `search.{name}`")
        if point in first[:number]:
            raise ValueError(f"`search.try_first` holds {point} twice")


def _check_stages(spec: SweepSpec) -> None:
    for name in ("gpu_hours", "usd"):
        if getattr(spec.budget, name) is not None and spec.scale.gpus_per_worker == 0:
            raise ValueError(
                f"`budget.{name}` would never be reached: trials take no GPU; give `wall_clock` or "
                "`trials`, or `scale.gpus_per_worker`"
            )
    spec.train_config(seed=spec.train.seed + spec.replicate.seeds)  # none beyond what is allowed
    if spec.replicate.seeds and "seed" in spec.axes():
        raise ValueError("`replicate` draws seeds of its own; remove `grid.seed`, or `replicate`")
    if spec.warmup and (spec.train.warmup or "warmup" in spec.axes().keys() | spec.space().keys()):
        raise ValueError("`warmup` is the retry's; remove the training field of that name")


def _is_within(value: Scalar, values: list[Scalar] | Range) -> bool:
    if not isinstance(values, Range):
        return value in values
    return not isinstance(value, str) and values.min <= value <= values.max


def search_method(spec: SweepSpec) -> str:
    """The search method: what the YAML says, or what fits its lists and ranges."""
    if spec.search.method is not None:
        return str(spec.search.method)
    all_lists = not any(isinstance(value, Range) for value in spec.space().values())
    return "grid" if all_lists else "tpe"


def _check_point(spec: SweepSpec, values: dict[str, Any], where: str) -> None:
    try:
        config = spec.train_config(**Train.model_validate(values).model_dump(exclude_unset=True))
    except ValidationError as error:
        raise ValueError(f"`{where}`: {message(error.errors()[0])}") from error
    except ConfigError as error:
        raise ValueError(f"`{where}`: {error}") from error
    if "batch_size" in values or not values:
        workers = spec.scale.workers
        if config.batch_size % workers:
            raise ValueError(
                f"`{where}` (={config.batch_size}) must be divisible by `scale.workers` "
                f"(={workers}): it counts the images of all workers"
            )


def integer_fields() -> frozenset[str]:
    """Fields of the training configuration that are whole numbers."""
    return frozenset(
        name for name, hint in get_type_hints(TrainConfig).items() if hint in (int, int | None)
    )


def load(path: Path, overrides: Iterable[str] = ()) -> SweepSpec:
    """Read a sweep from ``path``, with ``key=value`` overrides.

    Raises :class:`~raygan.errors.ConfigError`: file, line, what is wrong, the nearest key.
    """
    try:
        with path.open("rb") as file:
            text = file.read(yaml_loader.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    document = yaml_loader.parse(text, str(path))
    for override in overrides:
        _override(document, override)
    return validate(document)


def validate(document: yaml_loader.Document) -> SweepSpec:
    """Check parsed YAML; raises :class:`~raygan.errors.ConfigError`."""
    if not isinstance(document.data, dict):
        raise ConfigError(f"{document.name}: must be a mapping with at least the key `name`")
    try:
        return SweepSpec.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(explain(document, error, _KEYS)) from error


def _override(document: yaml_loader.Document, override: str) -> None:
    key, equals, value = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(re.fullmatch(r"[A-Za-z_]+", part) for part in parts):
        raise ConfigError(f"--set {override!r}: must be key=value, such as train.features=16")
    target = document.data
    if not isinstance(target, dict):
        return  # validate says so
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise ConfigError(f"--set {override!r}: `{part}` is not a section")
    try:
        target[parts[-1]] = yaml_loader.parse_scalar(value)
    except ConfigError as error:
        raise ConfigError(f"--set {override!r}: {error}") from error
    document.overrides[parts] = f"--set {override}"


_KEYS: dict[str, list[str]] = {
    "": list(SweepSpec.model_fields),
    **{
        name: list(model.model_fields)
        for name, model in {
            "train": Train,
            "dataset": Dataset,
            "grid": Grid,
            "search": Search,
            "stop": Stop,
            "warmup": Warmup,
            "replicate": Replicate,
            "final": Final,
            "scale": Scale,
            "budget": Budget,
            "tracking": Tracking,
        }.items()
    },
}
"""Allowed keys per section, for suggestions."""


def smoke(spec: SweepSpec) -> SweepSpec:
    """The same cells, shrunk to a minute: tiny networks, 20 iterations, one trial and one
    replicate per cell."""
    small: dict[str, Any] = {
        "iterations": 20,
        "evaluate_every": 10,
        "reconstruction_steps": 5,
        "features": 8,
        "code_size": 16,
    }
    varied = spec.axes().keys() | spec.space().keys()
    data = spec.model_dump(exclude_unset=True)
    data["name"] = f"{spec.name[:58]}-smoke"
    data["train"] = {**data.get("train", {}), **{k: v for k, v in small.items() if k not in varied}}
    data["stop"] = {**data.get("stop", {}), "grace": 10}
    if spec.space():
        data.setdefault("search", {})["trials"] = 1
    if spec.replicate.seeds:
        data["replicate"] = {"seeds": 1}
    if spec.final.steps:
        data["final"] = {"steps": 10, "images": 16, "restarts": 1, "audited": 4}
    return validate(yaml_loader.Document("--smoke-test", data))
