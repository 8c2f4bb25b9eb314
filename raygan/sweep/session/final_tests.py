"""The final tests of a sweep: which there are, how far each is, and making all that are due.

A trial's test of its ``best`` or ``last`` generator lies beside its record, under ``final/``:
``<which>-quality.json`` (the quality of samples, where the trial was trained with measures of it),
``<which>.json`` (what :func:`.final_making.make_test` returns of the reconstruction test; written
last, so that what has it is whole), ``<which>.parquet`` (a row per image), ``<which>-hardest.png``
and ``<which>-easiest.png``. While the test runs, or after it has failed, ``<which>-progress.json``
says how far it is.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter

from raygan import stored
from raygan.addresses import first_line
from raygan.checkpoints import kept_generators
from raygan.folder import (
    final_progress,
    trial_folder,
)
from raygan.gan.config import Quality
from raygan.gan.judge.final_config import FinalConfig
from raygan.records import WHOLE, TrialRecord
from raygan.report import finals
from raygan.report.finals import GENERATORS
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job

if TYPE_CHECKING:
    from raygan.sweep.study.study import Study

logger = logging.getLogger(__name__)

PROGRESS_SECONDS, PROGRESS_SECONDS_REMOTE = 1.0, 10.0
"""Between two notes of how far a test is, on a file system and on object storage."""


@dataclass(frozen=True)
class Generator:
    """A generator that a trial has kept."""

    trial: str
    """The trial's id."""
    title: str
    """The trial's, for people."""
    checkpoint: str
    """The folder, within the trial's, of the checkpoint that holds it."""
    which: tuple[str, ...]
    """What it is of the trial: ``best``, ``last``, or both."""

    def __str__(self) -> str:
        return f"{self.title}, {' and '.join(self.which)}"


@dataclass(frozen=True)
class PlannedTest:
    """A final test that a sweep asks for, whether it has been made or not."""

    generator: Generator
    config: FinalConfig
    """With 0 steps, there is no reconstruction test."""
    quality: Quality = "none"
    """The measures of sample quality that are made, too."""


@dataclass(frozen=True)
class FinalJob:
    """One final test and all that the process that makes it needs."""

    test: PlannedTest
    job: Job
    """Of the trial: its images, its configuration and the resources of its workers."""


def read(trial: Storage, which: str) -> dict[str, Any] | None:
    """The result of the final test of a trial's ``which`` generator, if it has been made; what is
    damaged, or lacks something, is made again."""
    test = finals.read_final(trial, which)
    if test is None or not test["asked"] or test["loss"] is None:
        return None
    audit = (test["audited_loss"], test["restarts_loss"])
    return None if test["audited"] and not all(audit) else test


def tested(study: Study) -> list[TrialRecord]:
    """The trials whose generators the final test is for: once all trials have ended, the
    replicates that carry the verdict."""
    if not study.complete:
        return []
    verdicts = (record for cell in study.cells.values() for record in cell.verdict_records())
    return [record for record in verdicts if record.outcome in WHOLE]


def due(
    sweep: Storage,
    trials: Iterable[TrialRecord],
    config: FinalConfig,
    which: Iterable[str] = GENERATORS,
    quality: Quality | None = None,
) -> list[PlannedTest]:
    """The tests of ``trials`` that have not been made as :func:`asked`, one per generator: each
    with what of it is missing."""
    tests = sweep.map(partial(_missing, sweep), asked(sweep, trials, config, which, quality))
    return [test for test in tests if not _is_nothing(test)]


def asked(
    sweep: Storage,
    trials: Iterable[TrialRecord],
    config: FinalConfig,
    which: Iterable[str] = GENERATORS,
    quality: Quality | None = None,
) -> list[PlannedTest]:
    """The tests of ``trials`` that ``config`` and ``quality`` ask for, made or not, one per
    generator. ``quality``: by default what each trial was trained with."""
    records = list(trials)
    measures = {r.id: quality or r.config.get("quality", "none") for r in records}
    judged = [record for record in records if config.steps or measures[record.id] != "none"]
    kept = generators(sweep, judged, which)
    return [PlannedTest(one, config, measures[one.trial]) for one in kept]


def generators(
    sweep: Storage, trials: Iterable[TrialRecord], which: Iterable[str] = GENERATORS
) -> Iterator[Generator]:
    """The generators of ``trials`` that are kept; one that is both best and last comes once."""
    records = list(trials)
    found = sweep.map(partial(kept_generators, sweep), records)
    for record, kept in zip(records, found, strict=True):
        for one in dict.fromkeys(kept[name] for name in which if name in kept):
            names = tuple(name for name in which if kept.get(name) == one)
            yield Generator(record.id, record.title, one[1], names)


def _missing(sweep: Storage, test: PlannedTest) -> PlannedTest:
    """``test`` without what of it has been made."""
    config = replace(test.config, steps=0) if _has_loss(sweep, test) else test.config
    return replace(
        test, config=config, quality="none" if _has_quality(sweep, test) else test.quality
    )


def _is_nothing(test: PlannedTest) -> bool:
    return not test.config.steps and test.quality == "none"


def is_done(sweep: Storage, test: PlannedTest) -> bool:
    """Whether all that ``test`` asks for has been made."""
    return _has_loss(sweep, test) and _has_quality(sweep, test)


def _has_quality(sweep: Storage, test: PlannedTest) -> bool:
    """Whether the quality that ``test`` asks for has been measured. Features say more than a
    sliced Wasserstein distance, which is not made in addition."""
    if test.quality == "none":
        return True
    trial, checkpoint = sweep / trial_folder(test.generator.trial), test.generator.checkpoint
    found = (finals.read_quality(trial, which) for which in test.generator.which)
    return all(
        known is not None
        and known.get("checkpoint") == checkpoint
        and known.get("kind") in (test.quality, "features")
        for known in found
    )


def _has_loss(sweep: Storage, test: PlannedTest) -> bool:
    if not test.config.steps:
        return True
    generator = test.generator
    asked = asdict(test.config), generator.checkpoint
    results = (read(sweep / trial_folder(generator.trial), which) for which in generator.which)
    return all(
        known and (known.get("asked"), known.get("checkpoint")) == asked for known in results
    )


@dataclass(frozen=True)
class FinalStatus:
    """A test and how far it is."""

    title: str
    """The trial's."""
    which: Sequence[str]
    """The generators that it is of: ``best``, ``last``, or both if they are one."""
    state: Literal["waiting", "running", "interrupted", "failed", "done"]
    done: float = 0.0
    """Share of its searches that are done, from 0 to 1."""
    seconds: float = 0.0
    """What it has taken so far."""
    loss: float | None = None
    """Its result."""

    @property
    def left(self) -> float | None:
        """Seconds until it is done; None if that is not known."""
        return self.seconds * (1 - self.done) / self.done if self.done else None


@dataclass(frozen=True)
class _Progress:
    """The contents of ``<which>-progress.json``."""

    __pydantic_config__ = stored.STRICT

    done: Annotated[float, Field(ge=0, le=1)] = 0.0
    seconds: stored.Seconds = 0.0
    failed: bool = False


_PROGRESS = TypeAdapter(_Progress)


def statuses(
    sweep: Storage, tests: Iterable[PlannedTest], *, running: bool = True
) -> list[FinalStatus]:
    """How far each of ``tests`` is, as :func:`status` tells."""
    return sweep.map(partial(status, sweep, running=running), tests)


def status(sweep: Storage, test: PlannedTest, *, running: bool = True) -> FinalStatus:
    """How far a test is, as it is stored; ``running``: whether any test can be running."""
    generator = test.generator
    trial, title, which = sweep / trial_folder(generator.trial), generator.title, generator.which
    if is_done(sweep, test):
        result = read(trial, which[0]) or {}
        seconds, loss = result.get("seconds", 0.0), result.get("loss")
        return FinalStatus(title, which, "done", 1.0, seconds, loss)
    data = trial.read(_progress_file(generator), stored.MOST_BYTES + 1)
    try:
        progress = stored.parse(_PROGRESS, data) if data else None
    except ValueError:  # it is being written
        progress = None
    if progress is None:
        return FinalStatus(title, which, "waiting")
    if progress.failed:
        return FinalStatus(title, which, "failed")
    state: Literal["running", "interrupted"] = "running" if running else "interrupted"
    return FinalStatus(title, which, state, progress.done, progress.seconds)


def _progress_file(generator: Generator) -> str:
    return final_progress(generator.which[0])


class Notes:
    """Writes down how far a test is, now and then."""

    def __init__(self, trial: Storage, generator: Generator) -> None:
        self._trial, self._file = trial, _progress_file(generator)
        self._started = time.monotonic()
        self._noted = -math.inf
        self._every = PROGRESS_SECONDS if self._trial.is_local else PROGRESS_SECONDS_REMOTE

    def __call__(self, done: float) -> None:
        """``done``: share of the test, from 0 to 1."""
        now = time.monotonic()
        if now - self._noted >= self._every:
            self._noted = now
            _note(self._trial, self._file, _Progress(done, now - self._started))

    def remove(self) -> None:
        """The test does not run any more."""
        _note(self._trial, self._file, None)


def _note(trial: Storage, file: str, progress: _Progress | None) -> None:
    try:
        if progress is None:
            trial.delete(file)
        else:
            trial.write(file, json.dumps(asdict(progress)).encode())
    except OSError as error:  # a test whose progress cannot be seen is still a test
        logger.info("%s/%s cannot be written: %s", trial.uri, file, error)


class Runner(Protocol):
    """Whoever makes tests: this process, or Ray's tasks (:class:`raygan.sweep.cluster.tasks.Tasks`
    of :func:`.final_making.make_test`)."""

    def start(self, job: Job, *arguments: Any) -> object:
        """Begin with the resources of ``job``; returns a handle."""

    def ended(self, running: list[Any]) -> list[Any]:
        """Those of ``running`` that have ended, after a short wait at the most."""

    def result(self, running: Any) -> dict[str, Any]:
        """What :func:`.final_making.make_test` returned; raises what it raised."""

    def stop(self, running: Any) -> None:
        """Cancel one that may be running."""


def run(
    jobs: list[FinalJob],
    runner: Runner,
    at_once: int,
    say: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Make all tests, ``at_once`` of them at a time; returns how many could not be made.

    ``say`` hears a line per test. Once ``stopped`` answers true, those that run are cancelled
    and stay due.
    """
    waiting, failed, done = list(jobs), 0, 0
    running: dict[int, tuple[object, FinalJob]] = {}
    while waiting or running:
        if stopped():
            for handle, final_job in running.values():
                runner.stop(handle)
                _note_of(final_job, None)
            return failed
        while waiting and len(running) < at_once:
            final_job = waiting.pop(0)
            handle = runner.start(final_job.job, final_job)
            running[id(handle)] = handle, final_job
        for handle in runner.ended([handle for handle, _ in running.values()]):
            _, final_job = running.pop(id(handle))
            head = f"final test {done + failed + 1}/{len(jobs)}, {final_job.test.generator}"
            try:
                say(f"{head}: {_in_words(runner.result(handle))}")
                done += 1
            except Exception as error:  # the others can be made all the same
                _note_of(final_job, _Progress(failed=True))
                say(f"{head}: failed ({first_line(error)})")
                failed += 1
    return failed


def _note_of(final_job: FinalJob, progress: _Progress | None) -> None:
    file = _progress_file(final_job.test.generator)
    _note(Storage(final_job.job.folder), file, progress)


def _in_words(result: dict[str, Any]) -> str:
    made = [_describe(result)] if "loss" in result else []
    if "quality" in result:
        made.append(describe_quality(result["quality"]))
    return "; ".join(made)


def steps_of(tests: Sequence[PlannedTest]) -> str:
    """The steps of their reconstruction tests, in words; "" if the samples alone are judged."""
    steps = max(test.config.steps for test in tests)
    return f", {steps} steps per image" if steps else ": quality of their samples"


def describe_quality(quality: dict[str, Any]) -> str:
    """A generator's quality in words."""
    values = [
        f"{name.replace('_', ' ')} " + ("not a number" if value is None else f"{value:.5g}")
        for name in finals.QUALITIES
        if name in quality
        for value in [quality[name]]
    ]
    return f"{', '.join(values)} ({quality['images']} samples, {quality['real_images']} images)"


def _describe(result: dict[str, Any]) -> str:
    text = f"loss {result['loss']:.5f} ({result['images']} images)"
    if result["audited"]:
        text += (
            f"; audit of {result['audited']} images: {result['audited_loss']:.5f} from z = 0, "
            f"{result['restarts_loss']:.5f} with {result['restarts']} restarts"
        )
    if result["replaced"]:
        text += f"; {result['replaced']}"
    return text
