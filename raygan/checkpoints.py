"""A trial's checkpoints, each in a folder of its own: which there are, and the one that is wanted.

A checkpoint may be damaged on its disk, or cut off by the loss of its node. Whole ones that lie
beside it are used instead, and whoever asked is told why.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raygan.errors import CheckpointError
from raygan.folder import (
    checkpoint_folder,
    is_checkpoint_folder,
    step_of_checkpoint,
    trial_folder,
)
from raygan.records import LOSS, TrialRecord
from raygan.retries import patiently
from raygan.shown import shown
from raygan.storage import Storage

Saved = dict[str, Any]
"""The training state in a checkpoint."""


def find_checkpoints(trial: Storage) -> list[tuple[int, str]]:
    """Iteration and folder of each checkpoint of a trial, the newest first, whole or not.

    Looked up where they lie: what a worker reported may be lost, or replaced since. Of two with the
    same iteration, the one that was written last is first.
    """
    kept = [
        (step, folder)
        for folder in filter(is_checkpoint_folder, trial.folders())
        for file in trial.files(folder)
        if (step := step_of_checkpoint(file)) is not None
    ]
    return sorted(kept, reverse=True)


def best_and_last(sweep: Storage, record: TrialRecord) -> dict[str, str]:
    """The folders of a trial's ``best`` and ``last`` checkpoint, as far as they are kept."""
    by_step: dict[int, str] = {}
    for step, folder in find_checkpoints(sweep / trial_folder(record.id)):
        by_step.setdefault(step, folder)
    known = {step: folder for step, folder in by_step.items() if step <= record.step}
    kept = {"last": known[max(known)]} if known else {}
    if record.best is not None and record.best[0] in known:
        kept["best"] = known[record.best[0]]
    return kept


def save(state: Saved, trial: Storage, step: int) -> tuple[str, int]:
    """Write ``state`` as a checkpoint of the trial; returns its folder and size in bytes.

    Waits while the storage is full or away.
    """
    from raygan.gan import checkpoint

    # two of one iteration are told apart, should a worker that was thought dead write, too
    name = checkpoint_folder(step, uuid.uuid4().hex[:8])
    what = f"{trial.uri}/{name} cannot be written"
    if trial.is_local:
        folder = trial.local / name
        path = patiently(lambda: checkpoint.save(state, folder, step), what)
        return name, path.stat().st_size
    with tempfile.TemporaryDirectory() as temporary:
        path = checkpoint.save(state, Path(temporary), step)
        # its checksum last: with it, the checkpoint is whole
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name != path.name):
            content = file.read_bytes()
            patiently(lambda n=file.name, c=content: trial.write(f"{name}/{n}", c), what)  # type: ignore[misc]
        return name, path.stat().st_size


def load(trial: Storage, folder: str) -> Saved:
    """The checkpoint in ``folder`` of a trial; raises CheckpointError if none is whole."""
    from raygan.gan import checkpoint

    with tempfile.TemporaryDirectory() as temporary:
        place = trial.local / folder if trial.is_local else Path(temporary)
        if not trial.is_local:
            for file in trial.files(folder):
                (place / file).write_bytes(trial.read(f"{folder}/{file}") or b"")
        loaded = checkpoint.load_latest(place)
    if loaded is None or not isinstance(loaded[0].get("step"), int):
        raise CheckpointError(f"{trial.uri}/{folder}: this folder holds no checkpoint")
    return loaded[0]


def load_newest(trial: Storage) -> tuple[Saved | None, list[str]]:
    """The newest whole checkpoint of a trial, and why newer ones were passed over.

    None if there is none: the trial starts at iteration 0. Raises OSError if the storage cannot be
    read.
    """
    passed_over: list[str] = []
    for step, folder in find_checkpoints(trial):
        try:
            return load(trial, folder), passed_over
        except CheckpointError as error:
            passed_over.append(f"the checkpoint after iteration {step} is damaged ({error})")
    return None, passed_over


def load_or_other(trial: Storage, folder: str, which: Iterable[str]) -> tuple[Saved, str]:
    """The checkpoint in ``folder``, or, if that is damaged, another whole one and what was done.

    In the place of the ``best`` generator stands the whole checkpoint with the lowest
    reconstruction loss at its own iteration; in the place of the ``last`` one, the newest. The
    text is empty where nothing was replaced. Raises CheckpointError if no checkpoint is whole.
    """
    try:
        return load(trial, folder), ""
    except CheckpointError as error:
        problem = error
    others: list[tuple[float, Saved]] = []
    for step, other in find_checkpoints(trial):
        try:
            saved = load(trial, other)
        except CheckpointError:
            continue
        others.append((_own_loss(saved) if "best" in which else -float(step), saved))
    if not others:
        raise problem
    _, saved = min(others, key=lambda item: item[0])
    cause = shown(str(problem).splitlines()[0], 300)
    used = f"the checkpoint after iteration {saved['step']} is used instead"
    return saved, f"{used}, since {folder} is damaged ({cause})"


def _own_loss(saved: Saved) -> float:
    try:
        return float(saved["history"][-1][LOSS])
    except (LookupError, TypeError, ValueError):  # made by somebody else
        return math.inf
