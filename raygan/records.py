"""The record of each trial, one JSON file per trial in the sweep's storage.

Tables and reports are made from these files, and a sweep is resumed from them.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import pairwise
from operator import itemgetter
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, FailFast, Field, StringConstraints, TypeAdapter

from raygan import stored
from raygan.errors import RayganError
from raygan.folder import (
    RECORD_FILE,
    TRIALS,
    history_file,
    is_checkpoint_folder,
    trial_folder,
)
from raygan.gan.config import TrainConfig, fields
from raygan.shown import shown
from raygan.storage import Storage

Outcome = Literal["ok", "stopped", "collapsed", "untrained", "diverged", "early-failure", "failed"]
Kind = Literal["search", "replicate"]

DATASET = "dataset"
"""The axis of the data sets, if a sweep has several."""
WARMUP_SUFFIX = "-warmup"
"""Ends the id of a trial that is trained with a warm-up, since its setting has failed early."""
WHOLE: tuple[Outcome, ...] = ("ok", "collapsed", "untrained")
"""Outcomes of trials that ran to their end: their losses are results."""
_MOST_STEPS = 2**40
"""Most iterations of a trial."""
END_EVALUATIONS, END_SHARE = 5, 0.1
"""The end of a trial, for :func:`end_loss`: its last evaluations, or those in the last share of its
iterations, whichever are more."""
END_LOSS = (
    "value at the end of a robust line through the last evaluations (Theil–Sen on the log loss)"
)
"""What :func:`end_loss` is, for people."""
LEAST_LOSS = 1e-12
"""Lower losses are set to this, since the logarithm of 0 is not defined."""
_MOST_POINTS = 50
"""Most evaluations whose slopes are computed; of more, this many, evenly spaced."""
STEP, LOSS = "step", "val/reconstruction_loss"
CHUNK = 50
"""Evaluations of a running trial that are written once, to a file of their own."""
MOST_REASON, MOST_NOTES = 4000, 100
"""Characters of a reason or note, and notes, that are kept."""

_Title = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ .=+-]*$", max_length=500)]
_VALUE: TypeAdapter[Any] = TypeAdapter(
    bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | stored.Metric | str | None,
    config=stored.STRICT,
)
_Value = Annotated[Any, AfterValidator(_VALUE.validate_python)]
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_/.-]+$", max_length=100)]
_Point = dict[_Name, stored.Metric]


def end_loss(curve: Sequence[tuple[int, float]]) -> float:
    """The end loss of a trial, by which trials are compared.

    ``curve``: iteration and loss of each evaluation, ascending; at least one. The end loss is the
    value, at the last iteration, of the Theil–Sen line through log L: its slope is the median of
    the slopes between two evaluations, its level the median of log L − slope · t. The line goes
    through the last :data:`END_EVALUATIONS` evaluations, or through those in the last
    :data:`END_SHARE` of the iterations if they are more. Losses that are not finite are left out.

    Unlike the lowest loss, the end loss does not reward the luck of a rough curve. Unlike a median
    of the losses, it does not lag behind a curve that still falls or rises. NaN if none of these
    losses is finite.
    """
    end = curve[-1][0]
    first = bisect_left(curve, (1 - END_SHARE) * end, key=itemgetter(0))
    points = np.array(curve[max(min(first, len(curve) - END_EVALUATIONS), 0) :], dtype=float)
    points = points[np.isfinite(points[:, 1])]
    if not len(points):
        return math.nan
    times, losses = points[:, 0] - end, np.maximum(points[:, 1], LEAST_LOSS)
    logs = np.log(losses / losses[-1])  # of a flat curve exactly 0, so that its end is its loss
    if len(points) > 1:
        one, other = _pairs(len(points))
        slope = _median((logs[other] - logs[one]) / (times[other] - times[one]))
        logs -= slope * times
    return float(losses[-1]) * math.exp(_median(logs))


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[Any, Any]:
    """The pairs among so many evaluations whose slopes are computed."""
    some = np.unique(np.linspace(0, count - 1, _MOST_POINTS).round().astype(int))
    one, other = np.triu_indices(len(some), 1)
    return some[one], some[other]


def _median(values: Any) -> float:
    """The median of finite numbers, with less ado than NumPy's."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    upper = float(ordered[middle])
    return upper if len(ordered) % 2 else (float(ordered[middle - 1]) + upper) / 2


@dataclass
class TrialRecord:
    """One trial, from its plan to its outcome."""

    __pydantic_config__ = stored.STRICT

    id: stored.Word
    cell: _Title
    index: stored.Count
    title: _Title
    params: dict[str, _Value]
    config: dict[str, _Value]
    outcome: Outcome | None = None
    """None until the trial has ended."""
    reason: str | None = None
    """Why it was stopped or failed."""
    history: Annotated[list[_Point], FailFast()] = field(default_factory=list)
    """Metrics of each evaluation, with its ``step``, ascending."""
    seconds: stored.Seconds = 0.0
    """From the first report of its workers to its end, summed over all attempts."""
    gpu_seconds: stored.Seconds = 0.0
    """GPUs × these seconds."""
    checkpoints: dict[str, stored.Word] = field(default_factory=dict)
    """Folders, beside this record, of the ``best`` and the ``last`` checkpoint."""
    kind: Kind = "search"
    """Whether it is part of a cell's search, or a replicate: one of the best settings with a new
    seed."""
    notes: list[str] = field(default_factory=list)
    """Events that a reader should know, such as a damaged checkpoint, in order."""
    in_chunks: stored.Count = 0
    """So many of the first evaluations lie in files of their own, written while the trial ran."""
    dataset: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)] = ""
    """Label of the data set; empty in files of earlier versions: the sweep's only one, which
    :func:`load_all` fills in."""

    @property
    def step(self) -> int:
        """Iterations at the last evaluation."""
        return int(self.history[-1][STEP]) if self.history else 0

    @property
    def curve(self) -> list[tuple[int, float]]:
        """Iteration and reconstruction loss of each evaluation."""
        return [(int(point[STEP]), point[LOSS]) for point in self.history]

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and value of the lowest reconstruction loss."""
        return min(self.curve, key=lambda point: point[1]) if self.history else None

    @property
    def end_loss(self) -> float | None:
        """:func:`end_loss` of its curve."""
        if not self.history:
            return None
        # trials are ranked by it again and again, but it changes only with a new evaluation
        now = (len(self.history), self.step, self.history[-1][LOSS])
        known = self.__dict__.get("_end_loss")
        if known is None or known[0] != now:
            known = self.__dict__["_end_loss"] = (now, end_loss(self.curve))
        return known[1]

    def merge(self, points: list[dict[str, float]]) -> list[dict[str, float]]:
        """Add evaluations that are newer than those known; returns the added ones."""
        added: list[dict[str, float]] = []
        for point in sorted(points, key=lambda point: point[STEP]):
            if point[STEP] > self.step:
                self.history.append(point)
                added.append(point)
        return added

    def save(self, storage: Storage) -> None:
        """Write it into the trial's folder of the sweep's storage, whole, and its backup, too."""
        content = json.dumps(_plain(replace(self, in_chunks=0)), indent=1)
        storage.write_twice(f"{trial_folder(self.id)}/{RECORD_FILE}", content.encode())

    def snapshot(self) -> TrialRecord:
        """What :meth:`save_running` writes, and what later changes leave as it is.

        Its history holds only the evaluations that are in no file of their own yet.
        """
        first = self.in_chunks  # read once: another thread may be writing an earlier snapshot
        history, notes = self.history[first:], self.notes[:]
        return replace(self, history=history, notes=notes, in_chunks=first)

    def save_running(self, storage: Storage) -> int:
        """Write a :meth:`snapshot`; returns how many evaluations lie in files of their own now.

        The time that this takes does not grow with the history: :data:`CHUNK` evaluations at a time
        are written once, before the record that counts on them.
        """
        folder, saved = trial_folder(self.id), self
        while len(saved.history) >= CHUNK:
            content = json.dumps(saved.history[:CHUNK]).encode()
            storage.write(f"{folder}/{history_file(saved.in_chunks)}", content, durable=True)
            saved = replace(saved, history=saved.history[CHUNK:], in_chunks=saved.in_chunks + CHUNK)
        name, content = f"{folder}/{RECORD_FILE}", json.dumps(_plain(saved)).encode()
        if saved.in_chunks > self.in_chunks or not self.history:
            storage.write_twice(name, content)  # so that a backup lacks less than a chunk
        else:
            storage.write(name, content, durable=True)
        return saved.in_chunks


def load_all(storage: Storage, *, mend: bool = False, only: str = "") -> dict[str, TrialRecord]:
    """All records of a sweep, by id; raises RayganError naming one that is damaged or lost.

    ``only``: the label of the sweep's only data set, for records of earlier versions without one.
    ``mend``: replace a damaged record by its backup. A trial that has neither a record nor a
    checkpoint is left out: the sweep was killed before its record was written.
    """
    found = storage.map(partial(_load, storage, mend), storage.folders(TRIALS))
    known = {record.id: record for record in found if record is not None}
    for record in known.values():
        record.dataset = record.dataset or only
    return known


def _load(storage: Storage, mend: bool, name: str) -> TrialRecord | None:
    folder = trial_folder(name)
    advice = f"restore it, or delete the folder {folder} to run this trial again"
    parse = partial(_parse, storage / folder)
    try:
        record = storage.read_kept(f"{folder}/{RECORD_FILE}", parse, mend=mend)
    except RayganError as error:
        raise RayganError(f"{error}; {advice}") from error
    if record is None and any(map(is_checkpoint_folder, storage.folders(folder))):
        raise RayganError(f"{storage.uri}/{folder}/{RECORD_FILE} is missing: {advice}")
    return record


_RECORD = TypeAdapter(TrialRecord)
_POINTS = TypeAdapter(Annotated[list[_Point], FailFast()], config=stored.STRICT)


def _parse(trial: Storage, data: bytes) -> TrialRecord:
    record = stored.parse(_RECORD, data)
    if record.id != trial.name:
        raise ValueError(f"it is the record of {record.id!r}")
    if unknown := (record.params.keys() | record.config.keys()) - set(fields()):
        raise ValueError(f"this version of raygan does not know {shown(sorted(unknown))}")
    # fields that are younger than the record had the effect of their defaults
    record.config = TrainConfig.of(**record.config).to_dict()
    for name, value in record.params.items():
        if record.config.get(name) != value:
            raise ValueError(f"its {name} is both {value!r} and {record.config.get(name)!r}")
    record.history[:0] = _earlier(trial, record.in_chunks)
    steps = [point.get(STEP, 0.0) for point in record.history]
    if not all(step.is_integer() and 0 < step <= _MOST_STEPS for step in steps) or not all(
        earlier < later for earlier, later in pairwise(steps)
    ):
        raise ValueError("its evaluations are not in the order of their iterations")
    if not all(point.get(LOSS, -1.0) >= 0 for point in record.history):
        raise ValueError("a loss is missing or negative")
    told = _told(record)
    record.reason, record.notes = told["reason"], told["notes"]
    return record


def _earlier(trial: Storage, count: int) -> list[_Point]:
    """The first ``count`` evaluations, from files of their own; raises ValueError."""
    points: list[_Point] = []
    size = 0
    while len(points) < count:
        name = history_file(len(points))
        data = trial.read(name, stored.MOST_BYTES + 1)
        if data is None:
            raise ValueError(f"{name} is missing")
        if (size := size + len(data)) > stored.MOST_BYTES:
            raise ValueError(f"more than {stored.MOST_BYTES // 2**20} MiB in {name} and before")
        try:
            chunk = stored.parse(_POINTS, data)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if not 0 < len(chunk) <= count - len(points):
            raise ValueError(f"{name} holds {len(chunk)} evaluations")
        points += chunk
    return points


def _plain(record: TrialRecord) -> dict[str, Any]:
    return {**vars(record), **_told(record)}


def _told(record: TrialRecord) -> dict[str, Any]:
    """Its reason and notes, which may quote anything, without what acts in a terminal."""
    reason = None if record.reason is None else shown(record.reason, MOST_REASON)
    return {
        "reason": reason,
        "notes": [shown(note, MOST_REASON) for note in record.notes[:MOST_NOTES]],
    }
