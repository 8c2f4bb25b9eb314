"""The runs of one sweep in MLflow: found or made, and brought up to what the records say."""

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

from raygan import pictures
from raygan.folder import PICTURES, SPEC_FILE, picture_file, trial_folder
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
"""Outcome tag of a trial whose sweep was stopped; it goes on with the sweep."""
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's or an experiment's description, in Markdown."""
_MOST_TEXT = 5000
"""Characters that MLflow takes in a tag."""
_MOST_KEY = 250
"""Characters that MLflow takes in the name of a metric."""
_NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")
"""What MLflow does not take there."""
_SEEN = "perf/images_seen"
"""A metric of each evaluation that is always finite."""
_SWEEP_TAG, _TRIAL_TAG = "raygan.sweep", "raygan.trial"


@dataclass(frozen=True)
class Ending:
    """What the parent run of a sweep has at the end."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    """Step of the metrics."""
    files: tuple[Path, ...] = ()
    """Artifacts: files, and folders by their names."""
    note: str = ""
    """The run's description, in Markdown."""
    model: Model | None = None
    """The generator to register."""


@dataclass
class _Child:
    """What is known of a trial's run."""

    run_id: str
    logged: int
    """Step of the last evaluation that MLflow has; -1: none."""
    outcome: str | None
    """Outcome that MLflow has, if the trial has ended there."""
    metrics: dict[str, float]
    """The last value of each metric that MLflow has."""
    params: Mapping[str, str]


class Runs:
    """One sweep's parent run and its children, one per trial."""

    def __init__(
        self, client: MlflowClient, experiment: str, sweep: str, id: str, storage: Storage
    ) -> None:
        """``experiment``: its id; ``sweep``: the sweep's name; ``id`` tells apart two sweeps of
        one name, in one place even; ``storage``: where its records and pictures lie."""
        self._client, self._experiment, self._storage = client, experiment, storage
        self._sweep, self._id = sweep, id
        self._tags: dict[str, str] = {}
        self._children: dict[str, _Child] = {}
        self._has_metrics = False
        self.parent = ""
        """Id of the parent run."""

    def ended(self) -> tuple[str, str] | None:
        """The parent run's status and description, if there is one."""
        found = self._find(_SWEEP_TAG, self._id)
        return found and (str(found.info.status), str(found.data.tags.get(NOTE, "")))

    def find_parent(self) -> str | None:
        """Id of the parent run, if there is one."""
        found = self._find(_SWEEP_TAG, self._id)
        return found and str(found.info.run_id)

    def open(self, spec_yaml: str, tags: dict[str, str], plans: Sequence[str] = ()) -> None:
        """Find or make the parent run; ``tags`` are those of it and of every trial's run, ``plans``
        the SHA-256 of the plan and of its changes."""
        self._tags = {"sweep": self._sweep, **tags}
        self.parent = self._find_or_create(_SWEEP_TAG, self._id, self._sweep, self._tags)
        self._client.update_run(self.parent, status="RUNNING")
        if plans:
            self._client.set_tag(self.parent, "raygan.plan", plans[0])
        if len(plans) > 1:
            self._client.set_tag(self.parent, "raygan.plan.latest", plans[-1])
        self._client.log_text(self.parent, spec_yaml, SPEC_FILE)

    def forget(self, trial: str) -> None:
        """Ask MLflow anew what it has of a trial."""
        self._children.pop(trial, None)

    def log_parent(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of the parent run."""
        named = {_NOT_IN_KEYS.sub(":", key)[:_MOST_KEY]: metrics[key] for key in metrics}
        self._client.log_batch(self.parent, metrics=_metrics(named, step))

    def close(self, status: Status, ending: Ending) -> None:
        """End the parent run; what a call before this one has logged is not logged again."""
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
        """Bring a trial's run up to ``record``; returns whether the trial has ended by this.

        ``summary``: metrics without a step, logged when the trial has ended and as they change.
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
        # a parameter is for ever: none for what may go on, or be tried again
        final = record.outcome not in (None, "failed") and "outcome" not in child.params
        params = [Param("outcome", outcome)] if final else []
        self._client.log_batch(child.run_id, tags=tags, params=params)

    def _find(self, tag: str, key: str) -> Any:
        query = f"tags.`{tag}` = '{key}'"
        return next(iter(self._client.search_runs([self._experiment], query, max_results=1)), None)

    def _find_or_create(self, tag: str, key: str, name: str, tags: dict[str, str]) -> str:
        if (found := self._find(tag, key)) is not None:
            return str(found.info.run_id)
        run = self._client.create_run(self._experiment, run_name=name, tags={tag: key, **tags})
        return str(run.info.run_id)

    def _child(self, record: TrialRecord, ended: bool) -> _Child:
        """The trial's run and how far it is, found in MLflow itself or made."""
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
        if (name := record.checkpoints.get("best")) is None:
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
    """As many whole lines of ``note`` as MLflow takes."""
    return note if len(note) <= _MOST_TEXT else note[:_MOST_TEXT].rsplit("\n", 1)[0]


def model_name(sweep: str) -> str:
    """Name of the champion's generator in the model registry."""
    return f"raygan-{sweep}"


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a training configuration that tell what it is; the others are the default."""
    default = TrainConfig().to_dict()
    return {
        name: str(value)
        for name, value in config.items()
        if name in PARAMS or (name not in NO_PARAMS and value != default.get(name))
    }


def _metrics(values: Mapping[str, float], step: int) -> list[Metric]:
    """``values`` of now; what is not finite is no number, and left out."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, value, now, step) for key, value in values.items() if math.isfinite(value)]
