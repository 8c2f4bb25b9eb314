"""A trial's checkpoints, each in a folder of its own: which there are, and the one that is wanted.

A checkpoint holds the training state, and the weights of the best generator until then. The newest
one and the one before it are kept. Earlier versions kept the best generator in the checkpoint of
its own iteration instead.

A checkpoint may be damaged on its disk, or cut off by the loss of its node. Whole ones that lie
beside it are used instead, and whoever asked is told why.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from raygan import local_files
from raygan.errors import CheckpointError
from raygan.folder import (
    checkpoint_file,
    checkpoint_folder,
    checksum_file,
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

    Looked up where they lie. There are two of one iteration if a worker that was thought dead has
    written one, too. They hold the same training, up to float rounding, so that either will do;
    their names decide which is first.
    """
    return found_in(checkpoint_folders(trial))


def checkpoint_folders(trial: Storage) -> dict[str, list[str]]:
    """The files in each folder of a trial that is named as those of checkpoints are."""
    return {
        folder: trial.files(folder) for folder in trial.folders() if is_checkpoint_folder(folder)
    }


def found_in(folders: dict[str, list[str]]) -> list[tuple[int, str]]:
    """:func:`find_checkpoints` in what :func:`checkpoint_folders` has listed."""
    kept = [
        (step, folder)
        for folder, files in folders.items()
        for file in files
        if (step := step_of_checkpoint(file)) is not None
    ]
    return sorted(kept, reverse=True)


def kept_generators(sweep: Storage, record: TrialRecord) -> dict[str, tuple[int, str]]:
    """The iteration of a trial's ``best`` and ``last`` generator, as far as they are kept, and the
    folder of the checkpoint that holds it.

    A trial that was stopped early may have evaluations after its last checkpoint: ``best`` is the
    best one until that.
    """
    every = int(record.config["evaluate_every"])
    known: dict[int, str] = {}
    for step, folder in find_checkpoints(sweep / trial_folder(record.id)):
        if step < (record.step // every + 1) * every:  # of later ones, evaluations are not known
            known.setdefault(step, folder)
    if not known:
        return {}
    last = max(known)
    kept = {"last": (last, known[last])}
    # of those until then: what came later, no checkpoint holds
    if curve := [point for point in record.curve if point[0] <= last]:
        best, _ = min(curve, key=itemgetter(1))
        kept["best"] = best, known.get(best, known[last])
    return kept


def best_and_last(sweep: Storage, record: TrialRecord) -> dict[str, str]:
    """The folders of the checkpoints with a trial's ``best`` and ``last`` generator, as far as they
    are kept."""
    return {which: folder for which, (_, folder) in kept_generators(sweep, record).items()}


class Shelf:
    """The checkpoints of one trial, for the worker that trains it."""

    def __init__(self, trial: Storage) -> None:
        self._trial = trial
        self._step: int | None = None
        """Iterations of the newest whole checkpoint."""
        self.folder: str | None = None
        """The folder of the checkpoint that :meth:`newest` has found; None if there is none."""
        self._damaged: list[str] = []

    def newest(self) -> tuple[Saved | None, list[str]]:
        """The newest whole checkpoint, and why newer ones were passed over.

        None if there is none: the trial starts at iteration 0. Raises OSError if the storage cannot
        be read.
        """
        passed_over: list[str] = []
        self._damaged = []
        listed = checkpoint_folders(self._trial)
        with self._later():
            self._remove_debris(listed)
        found = found_in(listed)
        for step, folder in found:
            try:
                saved = load(self._trial, folder)
            except CheckpointError as error:
                passed_over.append(f"the checkpoint after iteration {step} is damaged ({error})")
                self._damaged.append(folder)
                continue
            self._step, self.folder = step, folder
            return self._with_best(saved, found), passed_over
        return None, passed_over

    def at(self, folder: str) -> Saved:
        """The checkpoint in ``folder``, which another worker has found; raises CheckpointError if
        it is not whole, and OSError if the storage cannot be read."""
        return self._with_best(load(self._trial, folder), find_checkpoints(self._trial))

    def _with_best(self, saved: Saved, found: list[tuple[int, str]]) -> Saved:
        """``saved`` with the best generator of an earlier version, which is in its own checkpoint;
        without it if that is lost."""
        best = saved.get("best_step")
        for step, folder in found:
            if "best" in saved or best == saved["step"] or step != best:
                continue
            try:
                other = load(self._trial, folder)
                generator = other["average" if "average" in other else "generator"]
                loss = saved["best_loss"]
            except (CheckpointError, KeyError):
                continue
            return {**saved, "best": {"step": best, "loss": loss, "generator": generator}}
        return saved

    def save(self, state: Saved) -> int:
        """Write ``state`` as a checkpoint and remove those that are older than the one before it;
        returns its size in bytes.

        Waits while the storage is full or away.
        """
        from raygan.gan import checkpoint

        step: int = state["step"]
        # two of one iteration are told apart, should a worker that was thought dead write, too
        name = checkpoint_folder(step, uuid.uuid4().hex[:8])
        what = f"{self._trial.uri}/{name} cannot be written"
        content, line = checkpoint.content_of(state, step)
        if self._trial.is_local:
            folder = self._trial.local / name
            patiently(lambda: checkpoint.write(content, line, folder, step), what)
        else:
            file = f"{name}/{checkpoint_file(step)}"
            patiently(lambda: self._trial.write(file, content), what)
            # its checksum last: with it, the checkpoint is whole
            patiently(lambda: self._trial.write(checksum_file(file), line), what)
        self._remove_old()
        self._step, self._damaged = step, []
        return len(content)

    def _remove_old(self) -> None:
        """Remove damaged ones, and those before the newest whole one but one."""
        with self._later():
            listed = checkpoint_folders(self._trial)
            for step, folder in found_in(listed):
                if folder in self._damaged or (self._step is not None and step < self._step):
                    self._trial.delete_folder(folder)
            self._remove_debris(listed)

    def _remove_debris(self, listed: dict[str, list[str]]) -> None:
        """Remove what workers have left that were killed while they wrote a checkpoint.

        Nothing is removed of another worker, which was thought dead and writes one now.
        """
        for folder, files in listed.items():
            if any(step_of_checkpoint(file) is not None for file in files):
                continue
            if not self._trial.is_local:  # a file is there once it is whole, the checkpoint first
                self._trial.delete_folder(folder)
                continue
            place = self._trial.local / folder
            if any(local_files.is_being_written(place / file) for file in files):
                continue
            if self._trial.files(folder) != files:
                continue
            for file in files:
                self._trial.delete(f"{folder}/{file}")
            with contextlib.suppress(OSError):  # somebody has just begun to write there
                place.rmdir()

    @contextlib.contextmanager
    def _later(self) -> Iterator[None]:
        """What cannot be removed in this block is removed with the next checkpoint."""
        try:
            yield
        except OSError as error:
            message = f"{self._trial.uri}: old checkpoints are not removed: {error}"
            with contextlib.suppress(OSError):  # the log may lie on the same disk
                print(shown(message), flush=True)


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


def load_or_other(trial: Storage, folder: str, which: Iterable[str]) -> tuple[Saved, str]:
    """The checkpoint in ``folder`` with the ``best`` or the ``last`` generator in its place.

    If it is damaged, another whole one, and what was done: for the ``best`` generator that with the
    lowest reconstruction loss, for the ``last`` one the newest. The text is empty where nothing was
    replaced. ``step`` is the generator's iteration. Raises CheckpointError if no checkpoint is
    whole.
    """
    best = "best" in which
    try:
        saved = load(trial, folder)
        if best and "best" not in saved and saved.get("best_step") not in (None, 0, saved["step"]):
            raise CheckpointError(f"{trial.uri}/{folder}: it does not hold the best generator")
        return _with_wanted(saved, best=best), ""
    except CheckpointError as error:
        problem = error
    others: list[tuple[float, Saved]] = []
    for step, other in find_checkpoints(trial):
        try:
            saved = _with_wanted(load(trial, other), best=best)
        except CheckpointError:
            continue
        others.append((_own_loss(saved) if best else -float(step), saved))
    if not others:
        raise problem
    _, saved = min(others, key=lambda item: item[0])
    cause = shown(str(problem).splitlines()[0], 300)
    used = f"the checkpoint after iteration {saved['step']} is used instead"
    return saved, f"{used}, since {folder} is damaged ({cause})"


def _with_wanted(saved: Saved, *, best: bool) -> Saved:
    """``saved``, with the ``best`` generator in the place of the last one if that is wanted."""
    if not best or "best" not in saved:
        return saved
    part = "average" if "average" in saved else "generator"
    try:
        own = saved["best"]
        return {**saved, part: own["generator"], "step": own["step"], "best_loss": own["loss"]}
    except (LookupError, TypeError) as error:  # made by somebody else
        raise CheckpointError(
            f"the checkpoint does not hold its best generator: {error}"
        ) from error


def _own_loss(saved: Saved) -> float:
    """The reconstruction loss at the iteration of the generator in ``saved``."""
    try:
        losses = {point["step"]: point[LOSS] for point in saved["history"]}
        return float(losses[float(saved["step"])])
    except (LookupError, TypeError, ValueError):  # made by somebody else
        return math.inf
