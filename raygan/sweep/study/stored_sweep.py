"""What a sweep's folder holds of earlier runs, and whether the YAML of today may resume them."""

from __future__ import annotations

import difflib
import json
import logging
from functools import partial
from operator import itemgetter
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, StringConstraints, TypeAdapter

from raygan import own_recipes, records, stored
from raygan.errors import ConfigError, RayganError
from raygan.folder import (
    DATA_FILE,
    RECIPES_FILE,
    SPEC_FILE,
    SUMMARY,
    TRIALS,
    UNSYNCED_FILE,
    trial_folder,
)
from raygan.records import DATASET, TrialRecord
from raygan.shown import shown
from raygan.storage import Storage
from raygan.sweep.spec import plan, yaml_loader
from raygan.sweep.spec.sweep_spec import SweepSpec, validate
from raygan.sweep.study import prepared
from raygan.sweep.study.prepared import Prepared

logger = logging.getLogger(__name__)

VERSIONS = "versions"
"""Key in ``result.json``: versions of the packages that the last run trained with."""
_END = "...\n"
"""YAML's end of a document; a file without it is truncated, which YAML alone often cannot tell."""
MAY_CHANGE = ("scale", "tracking", "storage", "budget", "final", "claims", "train.checkpoint_every")
"""Keys of the YAML that may change. They say how and where a sweep runs, or what follows its
trials; they do not change a trial."""
MAY_GROW = ("search.trials", "replicate.seeds", "replicate.until", "grid.seed", DATASET)
"""Keys of the YAML that may grow, which extends the sweep."""


_MOST_YAML = 4 * yaml_loader.MAX_BYTES
"""Most bytes of the stored YAML, which has a line per list item and all defaults."""
_Text = Annotated[str, StringConstraints(max_length=1000)]


class _Summary(BaseModel):
    """The part of ``result.json`` that is read."""

    model_config = stored.STRICT

    finished: bool = False
    versions: dict[_Text, _Text] = {}
    spent: dict[_Text, stored.Seconds] = {}


_SUMMARY = TypeAdapter(_Summary)


class _Dumper(yaml.SafeDumper):
    """Writes YAML that :mod:`raygan.sweep.spec.yaml_loader` reads back: without aliases, and with
    quotes around strings that would be read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if yaml_loader.is_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(spec: SweepSpec) -> str:
    """The fully resolved YAML."""
    return yaml.dump(spec.resolved(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def stored_spec(sweep: Storage, *, mend: bool = False) -> SweepSpec | None:
    """The spec that the sweep was started with; None if it has not started.

    Raises :class:`~raygan.errors.RayganError` if its stored YAML is damaged or missing.
    """
    own_recipes.enter(sweep)
    try:
        spec = sweep.read_kept(SPEC_FILE, _parse_spec, mend=mend)
    except RayganError as error:
        raise RayganError(f"{error}; {_advice(sweep)}") from error
    if spec is not None and spec.recipes and own_recipes.is_lost(sweep):
        raise RayganError(f"{sweep.uri}/{RECIPES_FILE} is missing: {_advice(sweep)}")
    if spec is None and _has_begun(sweep):
        raise RayganError(f"{sweep.uri}/{SPEC_FILE} is missing, but the sweep has begun: "
                          f"{_advice(sweep)}")  # fmt: skip
    return spec


def stored_data(sweep: Storage, spec: SweepSpec, *, mend: bool = False) -> Prepared | None:
    """What is known of the images of the sweep, whose YAML is ``spec``; None if it has not begun.

    Raises :class:`~raygan.errors.RayganError` if the file is damaged or missing.
    """
    parse = partial(prepared.parse, labels=spec.labels)
    try:
        data = sweep.read_kept(DATA_FILE, parse, mend=mend)
    except RayganError as error:
        raise RayganError(f"{error}; {_advice(sweep)}") from error
    if data is None and sweep.folders(TRIALS):
        raise RayganError(f"{sweep.uri}/{DATA_FILE} is missing, but the sweep has begun: "
                          f"{_advice(sweep)}")  # fmt: skip
    return data


def store(sweep: Storage, spec: SweepSpec, images: Prepared) -> None:
    """Write down what the sweep is, twice: nothing of it may be lost."""
    own_recipes.store(sweep)
    data = json.dumps(images.to_plain())
    for name, content in ((SPEC_FILE, dump(spec) + _END), (DATA_FILE, data)):
        for _ in range(2):  # the first copy becomes the backup of the second
            sweep.write_kept(name, content.encode())


def stored_records(sweep: Storage, spec: SweepSpec) -> dict[str, TrialRecord]:
    """All records of a sweep, by id.

    Raises :class:`~raygan.errors.RayganError` for a record that is damaged or that does not belong
    to ``spec``.
    """
    known, searched = records.load_all(sweep, only=spec.only_label), spec.space().keys()
    cells = {cell.name: cell.values for cell in plan.cells(spec)}
    for record in known.values():
        values = cells.get(record.cell, {})
        has = {DATASET: record.dataset, **record.config}
        fits = all(
            has.get(name) == value
            for name, value in {DATASET: spec.label_of(values), **values}.items()
        )
        if record.cell in cells and not (fits and record.params.keys() == searched):
            folder = f"{sweep.uri}/{trial_folder(record.id)}"
            raise RayganError(
                f"{folder} does not belong to the sweep {spec.name!r}: its settings are "
                f"{shown(record.params)}; restore it, or delete this folder"
            )
    return known


def summary(sweep: Storage) -> dict[str, Any]:
    """``result.json``, which a run writes at its end; empty if it is missing or damaged."""
    data = sweep.read(SUMMARY, stored.MOST_BYTES + 1)
    if data is None:
        return {}
    try:
        return stored.parse(_SUMMARY, data).model_dump(exclude_unset=True)
    except ValueError as error:
        logger.warning("%s/%s is damaged (%s) and ignored; the sweep's command writes it "
                       "again", sweep.uri, SUMMARY, error)  # fmt: skip
        return {}


def is_unsynced(sweep: Storage) -> bool:
    """Whether MLflow lacks results of a run that has ended, or that copies nothing to it."""
    return sweep.read(UNSYNCED_FILE, 1) is not None


def note_synced(sweep: Storage, *, synced: bool) -> None:
    """Store what :func:`is_unsynced` tells; raises OSError."""
    if synced:
        sweep.delete(UNSYNCED_FILE)
    else:
        sweep.write(UNSYNCED_FILE, b"{}", durable=True)


def comparable(spec: SweepSpec) -> dict[str, Any]:
    """``spec``, resolved, in the one form that YAMLs of the same meaning share.

    A list of one data set is a mapping, and what it changes stands under ``train``. Several data
    sets are in the order of their labels. The ``preset`` is left out, since its values are there.
    """
    whole = spec.resolved()
    whole.pop("preset", None)
    if not spec.listed:
        return whole
    whole[DATASET].sort(key=itemgetter("label"))
    if len(spec.labels) == 1:
        (only,) = whole[DATASET]
        whole["train"] |= only.pop("train", {})
        if only["label"] == only["name"]:
            del only["label"]
        whole[DATASET] = only
    return whole


def check_unchanged(spec: SweepSpec, before: SweepSpec, sweep: Storage) -> list[str]:
    """How ``spec`` extends the sweep that was started with ``before``, in words.

    Raises :class:`~raygan.errors.ConfigError`, with a diff, if ``spec`` changes anything else.
    """
    old, new = comparable(before), comparable(spec)
    # with `until`, the claims decide how many seeds are trained
    fixed = ("claims",) if before.replicate.until is not None else ()
    for key in MAY_CHANGE:
        if key not in fixed:
            for whole in (old, new):
                section, _, name = key.rpartition(".")
                (whole[section] if section else whole).pop(name, None)
    if spec.only_label and not before.listed and "split" not in old[DATASET]:
        # earlier versions read all splits; the images' digest shows whether the images are the same
        new[DATASET].pop("split", None)
    no_more = _no_more_datasets(before)
    growing = [key for key in MAY_GROW if key != DATASET or no_more is None]
    grown = [words for key in growing if (words := _grow(key, old, new))]
    if old == new:
        return grown
    diff = difflib.unified_diff(
        yaml.safe_dump(old, sort_keys=False).splitlines(),
        yaml.safe_dump(new, sort_keys=False).splitlines(),
        "the sweep's YAML",
        "the YAML now",
        lineterm="",
        n=1,
    )
    raise ConfigError(
        f"the sweep {spec.name!r} in {sweep.uri} was started with another YAML:\n"
        + "\n".join(diff)
        + "\nrestore the YAML, or start a new sweep with the changed one (--fresh, or --set "
        "name=…); "
        f"only {', '.join(growing)} may be extended, and {', '.join(MAY_CHANGE)} may change"
        + (" (but not claims, since the sweep has `replicate.until`)" if fixed else "")
        + (f"; {no_more}" if no_more and len(spec.labels) > len(before.labels) else "")
    )


def with_defaults_of(spec: SweepSpec, before: SweepSpec) -> SweepSpec:
    """``spec`` with the stop rule and the measures of sample quality that the sweep was started
    with (``before``), where it names none.

    Earlier versions stopped no trial by default, and measured no quality: their sweeps are resumed
    so. Other sweeps have what the machine that started them could measure.
    """
    if spec.stop.rule is None and before.stop.rule == "none":
        spec = spec.model_copy(update={"stop": spec.stop.model_copy(update={"rule": "none"})})
    if spec.train.quality == "auto":
        train = spec.train.model_copy(update={"quality": before.train.quality})
        spec = spec.model_copy(update={"train": train})
    return spec


def beside(spec: SweepSpec, storage: Storage) -> SweepSpec:
    """``spec`` with a name that no sweep in ``storage`` has: its own, or name-2, name-3, …"""
    number, name = 1, spec.name
    while _has_begun(storage / name) or (storage / name).read(SPEC_FILE) is not None:
        number += 1
        name = f"{spec.name[:60]}-{number}"
    return spec.model_copy(update={"name": name})


def _grow(key: str, old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Set ``key`` in ``old`` to its value in ``new`` if that is more, and say so in words."""
    section, _, name = key.rpartition(".")
    holder, holds = (whole.get(section, {}) if section else whole for whole in (old, new))
    before, now = holder.get(name), holds.get(name)
    if before is None or now is None or before == now:
        return None
    more = all(one in now for one in before) if isinstance(before, list) else before < now
    if not more or (key == DATASET and len(now) == len(before)):
        return None
    holder[name] = now
    if key == DATASET:
        return f"`{key}` by {', '.join(one['label'] for one in now if one not in before)}"
    return f"`{key}` from {before} to {now}"


def _no_more_datasets(before: SweepSpec) -> str | None:
    """Why no data set can be added to the sweep; None if one can."""
    if before.only_label:
        return (
            "no data set can be added to a sweep that began with one: the names of its cells and "
            "trials do not say on which data set they are"
        )
    if before.replicate.until is not None:
        return (
            "no data set can be added to a sweep with `replicate.until`: its number of seeds was "
            "decided without the new data set"
        )
    return None


def _has_begun(sweep: Storage) -> bool:
    return bool(sweep.folders(TRIALS)) or any(
        sweep.read(name) is not None for name in (DATA_FILE, SUMMARY)
    )


def _parse_spec(text: bytes) -> SweepSpec:
    if not text.endswith(_END.encode()):
        raise ValueError("its end is missing")
    document = yaml_loader.parse(text, SPEC_FILE, most=_MOST_YAML)
    if isinstance(document.data, dict) and isinstance(document.data.get("train"), dict):
        document.data["train"].setdefault("quality", "none")  # of an earlier version
    return validate(document, known=True)


def _advice(sweep: Storage) -> str:
    return (
        f"restore it, start a new sweep (--fresh), or delete {sweep.uri} if its results are not "
        "needed"
    )
