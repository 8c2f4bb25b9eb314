"""The MLflow runs of one sweep: finds or creates them, and logs what the records have."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan import recipe
from raygan.folder import SPEC_FILE, recipe_file
from raygan.gan.config import TrainConfig
from raygan.records import TrialRecord
from raygan.storage import Storage
from raygan.tracking import images
from raygan.tracking.context import DIGEST, NO_PARAMS, PARAMS, Status, of_dataset
from raygan.tracking.model import Model, register
from raygan.tracking.problems import in_short
from raygan.tracking.trial_run import (
    INTERRUPTED,
    MOST_TEXT,
    Point,
    TrialLog,
    TrialRun,
    described,
    fresh,
    is_whole,
    now,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or an experiment's description, in Markdown."""
_MOST_KEY = 250
"""Most characters of the name of a metric in MLflow."""
_NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow does not allow in the name of a metric."""
_SWEEP_TAG, _TRIAL_TAG, _PARENT_TAG = "raygan.sweep", "raygan.trial", "mlflow.parentRunId"
_PAGE = 1000
"""Runs that are asked for in one request."""
_MOST_POINTS = 100
"""Most points of the parent run in one request; each has a few metrics."""


@dataclass(frozen=True)
class Ending:
    """What is logged to the parent run of a sweep at its end."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    """Step of the metrics."""
    files: tuple[Path, ...] = ()
    """Artifacts: files and folders, which keep their names."""
    note: str = ""
    """The run's description, in Markdown."""
    models: tuple[Model, ...] = ()
    """The generators to register."""
    made: int = field(default_factory=now)
    """Time of the metrics, in milliseconds since 1970."""


class Runs:
    """One sweep's parent run and its children, one per trial."""

    def __init__(
        self, client: MlflowClient, experiment: str, sweep: str, id: str, storage: Storage
    ) -> None:
        """``experiment``: its id. ``sweep``: the name of the sweep. ``id`` identifies the sweep:
        another one may have the same name and folder. ``storage``: of its records and pictures."""
        self._client, self._experiment, self._storage = client, experiment, storage
        self._sweep, self._id = sweep, id
        self._tags: dict[str, str] = {}
        self._trials: dict[str, TrialRun] = {}
        self._unsure: dict[str, int | None] = {}
        """By trial whose last request failed, the step up to which MLflow surely has it."""
        self._asked, self._asking = False, threading.Lock()
        self._at_parent: dict[str, tuple[int, float]] = {}
        """Step and value that the parent run has last of each metric."""
        self.parent = ""
        """Id of the parent run."""

    def ended(self) -> tuple[str, str] | None:
        """Status and description of the parent run; None if there is no run."""
        run = self._find(_SWEEP_TAG, self._id)
        return run and (str(run.info.status), str(run.data.tags.get(NOTE, "")))

    def find_parent(self) -> str | None:
        """Id of the parent run; None if there is no run."""
        run = self._find(_SWEEP_TAG, self._id)
        return run and str(run.info.run_id)

    def open(
        self,
        spec_yaml: str,
        tags: dict[str, str],
        plans: Sequence[str] = (),
        *,
        running: bool = True,
    ) -> None:
        """Find or create the parent run.

        ``tags``: of the parent run and of all trials' runs. ``plans``: SHA-256 of the plan and of
        its changes. ``running``: whether the sweep runs now. If not, the parent run keeps its
        status; it is KILLED if it has none until :meth:`close`, which may never come.
        """
        self._tags = {"sweep": self._sweep, **tags}
        found = self._find(_SWEEP_TAG, self._id)
        runs = found is None or found.info.status == "RUNNING"
        if found is not None:
            self.parent = str(found.info.run_id)
            for key, value in self._tags.items():  # a data set may have been added
                if key.startswith(DIGEST) and found.data.tags.get(key) != value:
                    self._client.set_tag(self.parent, key, value)
            self._at_parent = {
                metric.key: (int(metric.step), metric.value)
                for metric in found.data.to_proto().metrics
            }
        else:
            tags = {_SWEEP_TAG: self._id, **self._tags}
            self.parent = self._create(self._sweep, tags).run_id
            self._asked = True  # a new run has no children
        if running and not runs:
            self._client.update_run(self.parent, status="RUNNING")
        elif runs and not running:
            self._client.set_terminated(self.parent, "KILLED")
        if plans:
            self._client.set_tag(self.parent, "raygan.plan", plans[0])
        if len(plans) > 1:
            self._client.set_tag(self.parent, "raygan.plan.latest", plans[-1])
        self._client.log_text(self.parent, spec_yaml, SPEC_FILE)
        for file, _ in recipe.in_use().values():  # what the trials were trained by
            self._client.log_text(self.parent, file.source, recipe_file(file.name))

    def logged(self, trial: str) -> int | None:
        """Step of the last evaluation of a trial that is surely logged; None: not known."""
        run = self._trials.get(trial)
        return self._unsure.get(trial) if run is None else run.logged

    def log_parent(self, points: list[Point]) -> None:
        """Log metrics of the parent run, but those that it has last with this step and value.

        Points that are logged are removed from ``points``: after an error, the rest is left.
        """
        while points:
            some = [replace(point, values=_named(point.values)) for point in points[:_MOST_POINTS]]
            metrics, known = fresh(some, self._at_parent)
            self._client.log_batch(self.parent, metrics=metrics)
            self._at_parent = known
            del points[: len(some)]

    def close(self, status: Status, ending: Ending) -> None:
        """Log ``ending`` and end the parent run. A repeated call does not log the metrics again."""
        self.log_parent([Point(dict(ending.metrics), ending.step, ending.made)])
        for path in ending.files:
            if path.is_dir():
                self._client.log_artifacts(self.parent, str(path), path.name)
            else:
                self._client.log_artifact(self.parent, str(path))
        if ending.note:
            self._client.set_tag(self.parent, NOTE, ending.note)
        for model in ending.models:
            self._register(model)
        self._client.set_terminated(self.parent, status)

    def _register(self, model: Model) -> None:
        name = model_name(self._sweep, model.label)
        try:
            register(self._client, self._experiment, self.parent, name, self._id, model)
        except Exception as error:  # a registry that may not be used must not keep a run open
            reason = in_short(error)
            logger.warning("the best generator is not registered as %s: %s", name, reason)

    def copy(
        self,
        record: TrialRecord,
        *,
        ended: bool,
        summary: Sequence[Point],
        if_lacking: Callable[[], Point] | None = None,
        times: dict[int, int] | None = None,
    ) -> None:
        """Log what a trial's run lacks of ``record``. Trials may be copied on several threads, each
        on one at a time.

        ``summary``: metrics of the whole trial, logged when it has ended and whenever they change.
        ``if_lacking``: makes these metrics; called only if the run does not have the trial's end.
        ``times``: as in :meth:`~raygan.tracking.trial_run.TrialLog.log_history`.
        """
        try:
            run = self._run_of(record, ended)
            log = TrialLog(self._client, self._storage, run, record)
            if ended and is_whole(run, record):
                log.log_summary(summary)
                return
            log.log_history({} if times is None else times)
            if ended and run.outcome != (record.outcome or INTERRUPTED):
                log.log_end([*([if_lacking()] if if_lacking else []), *summary])
            elif ended:
                log.log_summary(summary)
        except Exception:
            # whether the last request has had an effect is not known: MLflow is asked
            self._unsure[record.id] = self.logged(record.id)
            self._trials.pop(record.id, None)
            raise

    def _find(self, tag: str, key: str) -> Any:
        query = f"tags.`{tag}` = '{key}'"
        return next(iter(self._client.search_runs([self._experiment], query, max_results=1)), None)

    def _create(self, name: str, tags: dict[str, str]) -> TrialRun:
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        return TrialRun(str(run.info.run_id))

    def _run_of(self, record: TrialRecord, ended: bool) -> TrialRun:
        """The trial's run, found in MLflow or created; it runs unless the trial has ended.

        One that is created for a trial that has ended is KILLED until all of the trial is logged:
        whatever cuts that off, no run stays open.
        """
        from mlflow.entities import Param

        self._ask_once()
        key = f"{self._id}/{record.id}"
        run = self._trials.get(record.id)
        if run is None and record.id in self._unsure:
            found = self._find(_TRIAL_TAG, key)
            run = found and described(found)
        if run is None:
            tags = of_dataset(self._tags, record.dataset) | self._trial_tags(record, key)
            run = self._create(record.title, tags)
            if ended:
                self._client.set_terminated(run.run_id, "KILLED")
                run.running = False
        if run.outcome is None or not ended:
            params = {"cell": record.cell} | _dataset(record) | _params(record.config)
            missing = [Param(*item) for item in params.items() if item[0] not in run.params]
            self._client.log_batch(run.run_id, params=missing)
            run.params |= params.keys()
        if not (ended or run.running):
            self._client.update_run(run.run_id, status="RUNNING")
            run.running, run.outcome = True, None
        self._trials[record.id] = run
        self._unsure.pop(record.id, None)
        return run

    def _trial_tags(self, record: TrialRecord, key: str) -> dict[str, str]:
        return {
            _TRIAL_TAG: key,
            _PARENT_TAG: self.parent,
            "trial": record.id,
            "cell": record.cell,
            "kind": record.kind,
            "seed": str(record.config["seed"]),
            images.SHOWN_TAG: "True",
        } | _dataset(record)

    def _ask_once(self) -> None:
        """Ask MLflow once what it has of all trials; the other threads wait for that."""
        with self._asking:
            token = None
            while not self._asked:
                page = self._client.search_runs(
                    [self._experiment],
                    f"tags.`{_PARENT_TAG}` = '{self.parent}'",
                    max_results=_PAGE,
                    page_token=token,
                )
                for run in page:
                    trial = run.data.tags.get(_TRIAL_TAG, "").removeprefix(f"{self._id}/")
                    self._trials[trial] = described(run)
                token = page.token
                self._asked = not token


def cut(note: str) -> str:
    """``note``, cut after a line if it is longer than MLflow allows."""
    return note if len(note) <= MOST_TEXT else note[:MOST_TEXT].rsplit("\n", 1)[0]


def model_name(sweep: str, label: str = "") -> str:
    """Name of the champion's generator in the model registry; ``label``: of its data set, if the
    sweep has several."""
    return f"raygan-{sweep}+{label}" if label else f"raygan-{sweep}"  # no name has a +


def _named(metrics: Mapping[str, float]) -> dict[str, float]:
    """``metrics`` by names that MLflow allows."""
    return {_NOT_IN_KEYS.sub(":", key)[:_MOST_KEY]: value for key, value in metrics.items()}


def _dataset(record: TrialRecord) -> dict[str, str]:
    """The label of the data set, if the record has it: those of earlier versions lack it."""
    return {"dataset": record.dataset} if record.dataset else {}


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a training configuration that are logged as parameters."""
    default = TrainConfig().to_dict()
    return {
        name: str(value)
        for name, value in config.items()
        if name in PARAMS or (name not in NO_PARAMS and value != default.get(name))
    }
