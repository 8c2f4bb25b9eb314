"""The MLflow run of one trial: what it has, and what of the trial's record is logged to it."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan import pictures
from raygan.checkpoints import best_and_last
from raygan.folder import PICTURES, trial_folder
from raygan.records import LOSS, STEP, TrialRecord
from raygan.storage import Storage
from raygan.tracking import images
from raygan.tracking.context import STATUS_OF

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
"""Outcome tag of a trial whose sweep was stopped; the trial is resumed with the sweep."""
MOST_METRICS = 1000
"""Most metrics that MLflow takes in one request."""
MOST_TEXT = 5000
"""Most characters of a tag in MLflow."""
_SEEN = "perf/images_seen"
"""A metric that each evaluation has and that is always finite."""
_one_checkpoint = threading.Lock()
"""Held while a checkpoint is sent, which may take hundreds of MiB of memory."""


def now() -> int:
    """Now, in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Point:
    """Metrics of one step, as they were told.

    A request that is repeated has the same time, so that MLflow takes its metrics once, even if the
    first one had its effect and its answer was lost.
    """

    values: dict[str, float]
    step: int = 0
    """0 for metrics of a whole trial."""
    made: int = field(default_factory=now)
    """When they were told, in milliseconds since 1970."""


@dataclass
class TrialRun:
    """What MLflow has of a trial's run."""

    run_id: str
    running: bool = True
    """Whether its status is RUNNING."""
    logged: int = -1
    """Step of the last evaluation that was logged; -1: none."""
    pictured: int | None = -1
    """Step of the last pictures that were logged; -1: none; None: MLflow has not been asked."""
    shows_images: bool = True
    """Whether MLflow's UI looks for its pictures."""
    outcome: str | None = None
    """The outcome tag; None if the run has not ended."""
    summary: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Step, which is 0, and value of the metrics of the whole trial."""
    params: frozenset[str] = frozenset()
    """Names of its parameters."""


def described(run: Run) -> TrialRun:
    """What MLflow has of a run that it has found."""
    metrics, tags = run.data.to_proto().metrics, run.data.tags
    steps = [int(metric.step) for metric in metrics if metric.key in (LOSS, _SEEN)]
    running = run.info.status == "RUNNING"
    outcome = tags.get("outcome")
    # the tag comes before the status: what was cut off in between is made up for
    ended = STATUS_OF.get(None if outcome == INTERRUPTED else outcome) == run.info.status
    return TrialRun(
        run.info.run_id,
        running=running,
        logged=max(steps, default=-1),
        pictured=None,
        shows_images=images.SHOWN_TAG in tags,
        outcome=outcome if ended else None,
        # evaluations come after the first iteration, and these metrics have step 0
        summary={metric.key: (0, metric.value) for metric in metrics if metric.step == 0},
        params=frozenset(run.data.params),
    )


def evaluations_after(record: TrialRecord, step: int) -> list[dict[str, float]]:
    """The evaluations of a trial after ``step`` iterations."""
    history = record.history
    return history[bisect_right(history, step, key=itemgetter(STEP)) :]


def is_whole(run: TrialRun, record: TrialRecord) -> bool:
    """Whether ``run`` has ended with all of ``record``.

    That of an interrupted trial never surely has: its workers may store pictures after its end.
    """
    ended = not run.running and record.outcome is not None and run.outcome == record.outcome
    return ended and run.logged >= record.step


class TrialLog:
    """Logs a trial's record to its run. To be used by one thread at a time."""

    def __init__(
        self, client: MlflowClient, storage: Storage, run: TrialRun, record: TrialRecord
    ) -> None:
        self._client, self._storage = client, storage
        self._run, self._record = run, record

    def log_history(self, times: dict[int, int]) -> None:
        """Log the evaluations that the run lacks, many in one request, and then their pictures.

        ``times``: by step, when evaluations were made, in milliseconds since 1970; those that are
        missing there have the time of the next one. Those after the last one of ``times`` have the
        current time, which is added there: a repeated request needs it.
        """
        points = evaluations_after(self._record, self._run.logged)
        when = now()
        for step in (int(point[STEP]) for point in reversed(points)):
            if step in times:
                break
            times[step] = when
        for metrics, last in _batches(points, times):
            self._client.log_batch(self._run.run_id, metrics=metrics)
            self._run.logged = last
        self._log_pictures()

    def log_end(self, summary: Sequence[Point]) -> None:
        """Log how the trial has ended, and end its run."""
        from mlflow.entities import Param, RunTag

        record, run = self._record, self._run
        outcome = record.outcome or INTERRUPTED
        reason = (record.reason or "")[:MOST_TEXT]
        tags = [RunTag("outcome", outcome), RunTag("reason", reason)]
        # a parameter cannot be changed: set none if the trial may be resumed or retried
        final = record.outcome not in (None, "failed") and "outcome" not in run.params
        params = [Param("outcome", outcome)] if final else []
        metrics, known = fresh(summary, run.summary)
        if record.outcome in ("ok", "stopped"):
            self._log_checkpoint()  # before the tag: a run that has it lacks nothing but its status
        self._client.log_batch(run.run_id, metrics=metrics, params=params, tags=tags)
        run.summary = known
        self._client.set_terminated(run.run_id, STATUS_OF[record.outcome])
        run.outcome, run.running = outcome, False
        run.params |= {param.key for param in params}

    def log_summary(self, summary: Sequence[Point]) -> None:
        """Log those metrics of the whole trial that the run lacks or that have changed."""
        metrics, known = fresh(summary, self._run.summary)
        self._client.log_batch(self._run.run_id, metrics=metrics)
        self._run.summary = known

    def _log_pictures(self) -> None:
        """Log the pictures of the evaluations that are chosen, as far as they are stored.

        A worker writes them in order, and may do so long after it has told of the evaluation. While
        the trial runs, those that are not there yet are waited for: they, or later ones, come.
        """
        run, record = self._run, self._record
        every, iterations = record.config["evaluate_every"], record.config["iterations"]
        known = -1 if run.pictured is None else run.pictured
        ended = record.outcome is not None
        steps = [int(point[STEP]) for point in evaluations_after(record, known)]
        chosen = [step for step in steps if images.is_chosen(step, every, iterations)]
        if not (chosen or (ended and steps)):
            return
        if run.pictured is None:
            run.pictured = self._last_picture()
        stored = pictures.stored(self._storage, record.id)
        last = max((step for step in stored if step <= record.step), default=-1)
        if ended:  # the last one that there is, and none is waited for
            chosen = sorted({step for step in chosen if step <= last} | ({last} & set(steps)))
        for step in chosen:
            names = stored.get(step, {})
            whole = step < last or (step == last and len(names) == len(PICTURES))
            if not (whole or ended):
                return
            if step > run.pictured:
                self._send(self._picture_files(step, names))
                run.pictured = step

    def _last_picture(self) -> int:
        """The last step whose pictures are surely whole: the latest may have been cut off, and are
        sent again."""
        kept = self._client.list_artifacts(self._run.run_id, images.FOLDER)
        steps = (images.step_of(Path(file.path).name) for file in kept)
        return ([-1, -1, *sorted({step for step in steps if step is not None})])[-2]

    def _picture_files(self, step: int, names: Mapping[str, str]) -> dict[str, bytes]:
        """An evaluation's pictures as MLflow gets them, by name; ``names``: of those stored."""
        files: dict[str, bytes] = {}
        for kind, name in names.items():
            try:
                content = self._picture(name)
            except pictures.PictureError as error:
                logger.warning("damaged picture is not logged to MLflow: %s", error)
                continue
            if content is not None:
                # two files, since the UI wants a small one, too: this one is small enough
                files |= dict.fromkeys(images.names(kind, step), content)
        return files

    def _picture(self, name: str) -> bytes | None:
        if name.endswith(pictures.WEBP):
            return pictures.read_webp(self._storage, name)
        picture = pictures.read(self._storage, name)
        return None if picture is None else images.encoded(picture)

    def _send(self, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        run = self._run
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._client.log_artifacts(run.run_id, folder, images.FOLDER)
        if not run.shows_images:
            self._client.set_tag(run.run_id, images.SHOWN_TAG, "True")
            run.shows_images = True

    def _log_checkpoint(self) -> None:
        run_id, record = self._run.run_id, self._record
        if (name := best_and_last(self._storage, record).get("best")) is None:
            return
        home = f"{trial_folder(record.id)}/{name}"
        there = {item.path for item in self._client.list_artifacts(run_id, "checkpoint")}
        files = [f for f in self._storage.files(home) if f"checkpoint/{f}" not in there]
        for file in files:
            with _one_checkpoint, tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / file
                if self._storage.is_local:
                    path = self._storage.local / home / file
                else:
                    path.write_bytes(self._storage.read(f"{home}/{file}") or b"")
                self._client.log_artifact(run_id, str(path), "checkpoint")


def _batches(
    points: Sequence[Mapping[str, float]], times: Mapping[int, int]
) -> Iterator[tuple[list[Metric], int]]:
    """The metrics of whole evaluations, as many as MLflow takes at once, and their last step."""
    when = [0] * len(points)
    for place in reversed(range(len(points))):
        step = int(points[place][STEP])
        when[place] = times[step] if step in times else when[place + 1]  # it has the last one
    batch: list[Metric] = []
    last = -1
    for point, made in zip(points, when, strict=True):
        step = int(point[STEP])
        values = {key: value for key, value in point.items() if key != STEP}
        metrics = _as_metrics(values, step, made)
        if batch and len(batch) + len(metrics) > MOST_METRICS:
            yield batch, last
            batch = []
        batch, last = batch + metrics, step
    if points:
        yield batch, last


def fresh(
    points: Sequence[Point], known: Mapping[str, tuple[int, float]]
) -> tuple[list[Metric], dict[str, tuple[int, float]]]:
    """What of ``points`` is to be logged: values that differ from those before them.

    ``known``: step and value that a run has last of each metric. Returns the metrics, and what is
    known once they are logged.
    """
    last, metrics = dict(known), []
    for point in points:
        step, values = point.step, point.values
        changed = {key: value for key, value in values.items() if last.get(key) != (step, value)}
        metrics += _as_metrics(changed, step, point.made)
        last |= {key: (step, value) for key, value in changed.items()}
    return metrics, last


def _as_metrics(values: Mapping[str, Any], step: int, made: int) -> list[Metric]:
    """``values`` as metrics of one time; values that are not finite are left out.

    ``made``: in milliseconds since 1970.
    """
    from mlflow.entities import Metric

    return [Metric(key, value, made, step) for key, value in values.items() if math.isfinite(value)]
