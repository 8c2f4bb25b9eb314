"""The MLflow runs of one sweep: finds or creates them, and logs what the records have."""

from __future__ import annotations

import logging
import math
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan import pictures, recipe
from raygan.checkpoints import best_and_last
from raygan.folder import PICTURES, SPEC_FILE, picture_file, recipe_file, trial_folder
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, STEP, TrialRecord
from raygan.storage import Storage
from raygan.tracking.context import NO_PARAMS, PARAMS, STATUS_OF, Status
from raygan.tracking.model import Model, register
from raygan.tracking.problems import in_short

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
"""Outcome tag of a trial whose sweep was stopped; the trial is resumed with the sweep."""
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or an experiment's description, in Markdown."""
_MOST_TEXT = 5000
"""Most characters of a tag in MLflow."""
_MOST_KEY = 250
"""Most characters of the name of a metric in MLflow."""
_NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")
"""Characters that MLflow does not allow in the name of a metric."""
_SEEN = "perf/images_seen"
"""A metric that each evaluation has and that is always finite."""
_SWEEP_TAG, _TRIAL_TAG = "raygan.sweep", "raygan.trial"


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
    model: Model | None = None
    """The generator to register."""


@dataclass
class _Child:
    """What MLflow has of a trial's run."""

    run_id: str
    logged: int
    """Step of the last evaluation that was logged; -1: none."""
    outcome: str | None
    """The outcome tag; None if the run has not ended."""
    metrics: dict[str, float]
    """The last value of each metric."""
    params: Mapping[str, str]


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
        self._children: dict[str, _Child] = {}
        self._has_metrics = False
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

    def open(self, spec_yaml: str, tags: dict[str, str], plans: Sequence[str] = ()) -> None:
        """Find or create the parent run.

        ``tags``: of the parent run and of all trials' runs. ``plans``: SHA-256 of the plan and of
        its changes.
        """
        self._tags = {"sweep": self._sweep, **tags}
        self.parent = self._find_or_create(_SWEEP_TAG, self._id, self._sweep, self._tags)
        self._client.update_run(self.parent, status="RUNNING")
        if plans:
            self._client.set_tag(self.parent, "raygan.plan", plans[0])
        if len(plans) > 1:
            self._client.set_tag(self.parent, "raygan.plan.latest", plans[-1])
        self._client.log_text(self.parent, spec_yaml, SPEC_FILE)
        for file, _ in recipe.in_use().values():  # what the trials were trained by
            self._client.log_text(self.parent, file.source, recipe_file(file.name))

    def forget(self, trial: str) -> None:
        """Ask MLflow again, at the next copy, what it has of a trial."""
        self._children.pop(trial, None)

    def log_parent(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of the parent run."""
        named = {_NOT_IN_KEYS.sub(":", key)[:_MOST_KEY]: metrics[key] for key in metrics}
        self._client.log_batch(self.parent, metrics=_metrics(named, step))

    def close(self, status: Status, ending: Ending) -> None:
        """Log ``ending`` and end the parent run. A repeated call does not log the metrics again."""
        if not self._has_metrics:
            self.log_parent(ending.metrics, ending.step)
            self._has_metrics = True
        for path in ending.files:
            if path.is_dir():
                self._client.log_artifacts(self.parent, str(path), path.name)
            else:
                self._client.log_artifact(self.parent, str(path))
        if ending.note:
            self._client.set_tag(self.parent, NOTE, ending.note)
        if ending.model is not None:
            self._register(ending.model)
        self._client.set_terminated(self.parent, status)

    def _register(self, model: Model) -> None:
        name = model_name(self._sweep)
        try:
            register(self._client, self._experiment, self.parent, name, self._id, model)
        except Exception as error:  # a registry that may not be used must not keep a run open
            reason = in_short(error)
            logger.warning("the best generator is not registered as %s: %s", name, reason)

    def copy(self, record: TrialRecord, ended: bool, summary: Mapping[str, float]) -> bool:
        """Log what a trial's run lacks of ``record``; returns whether this has ended the run.

        ``summary``: metrics of the whole trial, logged when it has ended and whenever they change.
        """
        child = self._children.get(record.id)
        if child is None or (not ended and child.outcome is not None):
            child = self._children[record.id] = self._child(record, ended)
        self._log_history(child, record)
        if not ended:
            return False
        self._log_summary(child, summary)
        outcome = record.outcome or INTERRUPTED
        if child.outcome == outcome:
            return False
        self._log_outcome(child, record, outcome)
        if record.outcome in ("ok", "stopped"):
            self._log_checkpoint(child.run_id, record)
        self._client.set_terminated(child.run_id, STATUS_OF[record.outcome])
        child.outcome = outcome
        return True

    def _log_history(self, child: _Child, record: TrialRecord) -> None:
        for point in record.history:
            step = int(point[STEP])
            if step <= child.logged:
                continue
            self._log_pictures(child.run_id, record.id, step)
            batch = _metrics({key: point[key] for key in point if key != STEP}, step)
            self._client.log_batch(child.run_id, metrics=batch)
            child.logged = step

    def _log_summary(self, child: _Child, summary: Mapping[str, float]) -> None:
        fresh = {key: summary[key] for key in summary if child.metrics.get(key) != summary[key]}
        if fresh:
            self._client.log_batch(child.run_id, metrics=_metrics(fresh, 0))
            child.metrics |= fresh

    def _log_outcome(self, child: _Child, record: TrialRecord, outcome: str) -> None:
        from mlflow.entities import Param, RunTag

        reason = (record.reason or "")[:_MOST_TEXT]
        tags = [RunTag("outcome", outcome), RunTag("reason", reason)]
        # a parameter cannot be changed: set none if the trial may be resumed or retried
        final = record.outcome not in (None, "failed") and "outcome" not in child.params
        params = [Param("outcome", outcome)] if final else []
        self._client.log_batch(child.run_id, tags=tags, params=params)

    def _find(self, tag: str, key: str) -> Any:
        query = f"tags.`{tag}` = '{key}'"
        return next(iter(self._client.search_runs([self._experiment], query, max_results=1)), None)

    def _find_or_create(self, tag: str, key: str, name: str, tags: dict[str, str]) -> str:
        if (existing := self._find(tag, key)) is not None:
            return str(existing.info.run_id)
        run = self._client.create_run(self._experiment, run_name=name, tags={tag: key, **tags})
        return str(run.info.run_id)

    def _child(self, record: TrialRecord, ended: bool) -> _Child:
        """The trial's run, found in MLflow or created, and what MLflow has of it."""
        from mlflow.entities import Param

        tags = {
            **self._tags,
            "mlflow.parentRunId": self.parent,
            "trial": record.id,
            "cell": record.cell,
            "kind": record.kind,
            "seed": str(record.config["seed"]),
        }
        key = f"{self._id}/{record.id}"
        run_id = self._find_or_create(_TRIAL_TAG, key, record.title, tags)
        logged = [m for key in (LOSS, _SEEN) for m in self._client.get_metric_history(run_id, key)]
        last = max((int(metric.step) for metric in logged), default=-1)
        run = self._client.get_run(run_id)
        known = dict(run.data.metrics), run.data.params
        if ended and run.info.status != "RUNNING":
            return _Child(run_id, last, run.data.tags.get("outcome"), *known)
        params = {"cell": record.cell} | _params(record.config)
        self._client.log_batch(run_id, params=[Param(*item) for item in params.items()])
        self._client.update_run(run_id, status="RUNNING")
        return _Child(run_id, last, None, *known)

    def _log_pictures(self, run_id: str, trial: str, step: int) -> None:
        for kind in PICTURES:
            name = f"{trial_folder(trial)}/{picture_file(kind, step)}"
            try:
                image = pictures.read(self._storage, name)
            except pictures.PictureError as error:
                logger.warning("damaged picture is not logged to MLflow: %s", error)
                continue
            if image is not None:
                self._client.log_image(run_id, image, key=kind, step=step)

    def _log_checkpoint(self, run_id: str, record: TrialRecord) -> None:
        # those of a trial that has just ended are looked up meanwhile
        kept = record.checkpoints or best_and_last(self._storage, record)
        if (name := kept.get("best")) is None:
            return
        home = f"{trial_folder(record.id)}/{name}"
        there = {item.path for item in self._client.list_artifacts(run_id, "checkpoint")}
        files = [f for f in self._storage.files(home) if f"checkpoint/{f}" not in there]
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for file in files:
                (Path(folder) / file).write_bytes(self._storage.read(f"{home}/{file}") or b"")
            self._client.log_artifacts(run_id, folder, "checkpoint")


def cut(note: str) -> str:
    """``note``, cut after a line if it is longer than MLflow allows."""
    return note if len(note) <= _MOST_TEXT else note[:_MOST_TEXT].rsplit("\n", 1)[0]


def model_name(sweep: str) -> str:
    """Name of the champion's generator in the model registry."""
    return f"raygan-{sweep}"


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a training configuration that are logged as parameters."""
    default = TrainConfig().to_dict()
    return {
        name: str(value)
        for name, value in config.items()
        if name in PARAMS or (name not in NO_PARAMS and value != default.get(name))
    }


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    """``values`` as metrics with the current time; values that are not finite are left out."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, value, now, step) for key, value in values.items() if math.isfinite(value)]
