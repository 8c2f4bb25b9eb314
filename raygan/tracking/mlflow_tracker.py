"""A sweep in MLflow: a parent run, one child run per trial, kept in step with the records.

All of it happens on one background thread that copies what MLflow does not have yet from the
trials' records, so that training never waits for MLflow, an outage loses nothing (the records
are the spool), and a metric is logged once however often something was retried.
"""

from __future__ import annotations

import io
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raygan.errors import TrackingError
from raygan.records import LOSS, STEP, TrialRecord
from raygan.storage import Storage
from raygan.tracking.context import PARAMS, STATUS_OF, Status, first_line, is_file, quiet

PICTURES = ("samples", "reconstructions")
RETRY_SECONDS, RETRY_SECONDS_MOST = 1.0, 15.0
CLOSE_SECONDS = 60.0
INTERRUPTED = "interrupted"
"""Outcome tag of a trial whose sweep was stopped; it goes on with the sweep."""
_NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")
"""What MLflow does not take in the name of a metric."""
# the UI opens such an experiment on its runs, not on traces of language models
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_SWEEP_TAG, _TRIAL_TAG = "raygan.sweep", "raygan.trial"


@dataclass
class _Child:
    """What is known of a trial's run."""

    run_id: str
    logged: int
    """Step of the last evaluation that MLflow has; -1: none."""
    outcome: str | None
    """Outcome that MLflow has, if the trial has ended there."""


@dataclass
class _Pending:
    """Trials whose records have changed since they were copied."""

    records: dict[str, tuple[TrialRecord, bool]] = field(default_factory=dict)
    busy: bool = False


class Tracker:
    """Keeps MLflow in step with a sweep's records; only ``connect``, ``open``, ``close`` wait."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        sweep: str,
        storage: Storage,
    ) -> None:
        self.uri, self.experiment, self._sweep, self._storage = uri, experiment, sweep, storage
        self._tags: dict[str, str] = {}
        self._children: dict[str, _Child] = {}
        self._spent: dict[str, float] | None = None
        self._pending = _Pending()
        self._changed = threading.Condition()
        self._closing = False
        self._closed: bool | None = None
        self._thread: threading.Thread | None = None
        self.last_error: str | None = None
        """Why MLflow is behind at the moment, if it is."""
        self.run_id = ""
        """The parent run."""

    def connect(self) -> None:
        """See that MLflow can be used, and make the experiment; raises TrackingError."""
        if self.uri.startswith(("file:", "/", ".")):
            raise TrackingError(
                f"tracking.uri (={self.uri!r}): MLflow keeps runs in a database or on a server; "
                "give sqlite:///path or http://host:port"
            )
        # set before the client is made; its own default is minutes per call
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        with self._named_errors():
            self._connect()

    def status(self, sweep_id: str) -> str | None:
        """How the sweep's parent run has ended, if there is one; raises TrackingError."""
        with self._named_errors():
            found = self._find(_SWEEP_TAG, sweep_id)
        return None if found is None else str(found.info.status)

    def open(self, sweep_id: str, spec_yaml: str, tags: dict[str, str]) -> None:
        """Find or make the parent run and begin to follow; raises TrackingError.

        ``sweep_id`` tells apart two sweeps of one name, in one place even; ``tags`` are those of
        the parent and of every trial's run.
        """
        self._tags, self._id = tags, sweep_id
        with self._named_errors():
            own = {"sweep": self._sweep, **tags}
            self.run_id = self._find_or_create(_SWEEP_TAG, sweep_id, self._sweep, own)
            self._client.update_run(self.run_id, status="RUNNING")
            self._client.log_text(self.run_id, spec_yaml, "sweep.yaml")
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._thread.start()

    def update(
        self, record: TrialRecord, *, ended: bool = False, spent: dict[str, float] | None = None
    ) -> None:
        """Let MLflow catch up with ``record`` soon.

        ``spent``: metrics of the parent run by now, with the ``step`` that they belong to.
        """
        with self._changed:
            self._spent = spent or self._spent
            _, was_ended = self._pending.records.get(record.id, (None, False))
            self._pending.records[record.id] = (deepcopy(record), ended or was_ended)
            self._changed.notify_all()

    def close(
        self, status: Status, files: list[Path], metrics: dict[str, float], *, step: int = 0
    ) -> bool:
        """Wait for the rest, bounded; end the parent run. Returns whether all was copied.

        Closed is closed: another call changes nothing.
        """
        if self._closed is None:
            self._closed = self._close(status, files, metrics, step)
        return self._closed

    def _close(
        self, status: Status, files: list[Path], metrics: dict[str, float], step: int
    ) -> bool:
        deadline = time.monotonic() + CLOSE_SECONDS
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(self._idle, timeout=CLOSE_SECONDS)
            done = self._idle()
        while done:
            try:
                with quiet():
                    self._end_parent(status, files, metrics, step)
                return True
            except Exception as error:
                self.last_error = first_line(error)
                if time.monotonic() > deadline:
                    break
                time.sleep(RETRY_SECONDS)
        return False

    def _idle(self) -> bool:
        return not self._pending.records and not self._pending.busy

    def _run(self) -> None:
        pause = RETRY_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending.records or self._closing)
                if not self._pending.records:
                    return
                trial = next(iter(self._pending.records))
                record, ended = self._pending.records.pop(trial)
                self._pending.busy = True
            try:
                with quiet():
                    self._copy_trial(record, ended)
                pause, failed = RETRY_SECONDS, False
            except Exception as error:  # whatever it is, training goes on
                self.last_error, failed = first_line(error), True
            with self._changed:
                if failed:
                    # a newer record may have come meanwhile; what MLflow has is asked again
                    self._pending.records.setdefault(trial, (record, ended))
                    self._children.pop(trial, None)
                elif not self._pending.records:
                    self.last_error = None
                self._pending.busy = False
                self._changed.notify_all()
            if failed:
                time.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS_MOST)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            with quiet():
                yield
        except Exception as error:
            raise TrackingError(
                f"MLflow at {self.uri} cannot be used: {first_line(error)}; start the server, or "
                "mend `tracking.uri` or MLFLOW_TRACKING_URI"
            ) from error

    def _connect(self) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._client = MlflowClient(tracking_uri=self.uri)
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            self._experiment_id = found.experiment_id
            return
        location = None
        if is_file(self.uri) and self._storage.is_local:
            location = (self._storage.local.parent / "mlartifacts").as_uri()
        try:
            self._experiment_id = self._client.create_experiment(
                self.experiment, artifact_location=location, tags=_EXPERIMENT_TAGS
            )
        except MlflowException:  # made by another sweep just now?
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                raise
            self._experiment_id = found.experiment_id

    def _find(self, tag: str, key: str) -> Any:
        query = f"tags.`{tag}` = '{key}'"
        return next(
            iter(self._client.search_runs([self._experiment_id], query, max_results=1)), None
        )

    def _find_or_create(self, tag: str, key: str, name: str, tags: dict[str, str]) -> str:
        if (found := self._find(tag, key)) is not None:
            return str(found.info.run_id)
        run = self._client.create_run(self._experiment_id, run_name=name, tags={tag: key, **tags})
        return str(run.info.run_id)

    def _copy_trial(self, record: TrialRecord, ended: bool) -> None:
        from mlflow.entities import Metric, RunTag

        child = self._children.get(record.id)
        if child is None or (not ended and child.outcome is not None):
            child = self._children[record.id] = self._child(record, ended)
        now = int(time.time() * 1000)
        for point in record.history:
            step = int(point[STEP])
            if step <= child.logged:
                continue
            self._log_pictures(child.run_id, record.id, step)
            batch = [
                Metric(key, value, now, step)
                for key, value in point.items()
                if key != STEP and math.isfinite(value)
            ]
            self._client.log_batch(child.run_id, metrics=batch)
            child.logged = step
        outcome = record.outcome or INTERRUPTED
        if not ended or child.outcome == outcome:
            return
        tags = [RunTag("outcome", outcome), RunTag("reason", (record.reason or "")[:5000])]
        summary = []
        if record.outcome is not None and record.best is not None:
            step, loss = record.best
            summary = [
                Metric("best/reconstruction_loss", loss, now, 0),
                Metric("best/step", step, now, 0),
                Metric("last/reconstruction_loss", record.curve[-1][1], now, 0),
            ]
        self._client.log_batch(child.run_id, metrics=summary, tags=tags)
        if record.outcome in ("ok", "stopped"):
            self._log_checkpoint(child.run_id, record)
        self._client.set_terminated(child.run_id, STATUS_OF[record.outcome])
        child.outcome = outcome
        if self._spent is not None:
            spent, self._spent = self._spent, None
            step = int(spent[STEP])
            metrics = [Metric(key, spent[key], now, step) for key in spent if key != STEP]
            self._client.log_batch(self.run_id, metrics=metrics)

    def _child(self, record: TrialRecord, ended: bool) -> _Child:
        """The trial's run and how far it is, found in MLflow itself or made."""
        from mlflow.entities import Param

        run_id = self._find_or_create(
            _TRIAL_TAG,
            f"{self._id}/{record.id}",
            record.title,
            {
                **self._tags,
                "mlflow.parentRunId": self.run_id,
                "sweep": self._sweep,
                "trial": record.id,
                "cell": record.cell,
                "kind": record.kind,
                "seed": str(record.config["seed"]),
            },
        )
        logged = self._client.get_metric_history(run_id, LOSS)
        last = max((int(metric.step) for metric in logged), default=-1)
        run = self._client.get_run(run_id)
        if ended and run.info.status != "RUNNING":
            return _Child(run_id, last, run.data.tags.get("outcome"))
        params = [Param("cell", record.cell)]
        params += [Param(key, str(record.config[key])) for key in PARAMS]
        self._client.log_batch(run_id, params=params)
        self._client.update_run(run_id, status="RUNNING")
        return _Child(run_id, last, None)

    def _log_pictures(self, run_id: str, trial: str, step: int) -> None:
        from PIL import Image

        for kind in PICTURES:
            data = self._storage.read(f"trials/{trial}/images/{kind}-{step:09d}.png")
            if data is not None:
                image = Image.open(io.BytesIO(data)).convert("RGB")
                self._client.log_image(run_id, image, key=kind, step=step)

    def _log_checkpoint(self, run_id: str, record: TrialRecord) -> None:
        name = record.checkpoints.get("best")
        if name is None or any(
            item.path == "checkpoint" for item in self._client.list_artifacts(run_id)
        ):
            return
        with tempfile.TemporaryDirectory() as folder:
            home = f"trials/{record.id}/{name}"
            for file in self._storage.files(home):
                (Path(folder) / file).write_bytes(self._storage.read(f"{home}/{file}") or b"")
            self._client.log_artifacts(run_id, folder, "checkpoint")

    def _end_parent(
        self, status: Status, files: list[Path], metrics: dict[str, float], step: int
    ) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch = [
            Metric(_NOT_IN_KEYS.sub(":", key), value, now, step)
            for key, value in metrics.items()
            if math.isfinite(value)
        ]
        self._client.log_batch(self.run_id, metrics=batch)
        for file in files:
            self._client.log_artifact(self.run_id, str(file))
        self._client.set_terminated(self.run_id, status)
