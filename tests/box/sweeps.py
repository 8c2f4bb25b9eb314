"""A sweep that is submitted to the cluster in the box."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests.box.box import ADDRESSES, Box
from tests.box.hosts import send
from tests.clusters import LOSS, SMALL

STORAGE = "raygan/sweeps"
"""Bucket and folder of all sweeps."""


@dataclass
class BoxSweep:
    """A sweep that is submitted from the head, and what is known of it."""

    box: Box
    name: str

    @classmethod
    def of(cls, box: Box, name: str, **sections: Any) -> BoxSweep:
        """A small sweep, in the folder of a project on the head."""
        project = box.head.folder / "project"
        project.mkdir(exist_ok=True)
        content = {"name": name, "storage": f"s3://{STORAGE}", **SMALL, **sections}
        content["train"] = {**SMALL["train"], **sections.get("train", {})}
        (project / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return cls(box, name)

    @contextmanager
    def submitted(self) -> Iterator[subprocess.Popen]:
        """The user's command while the block runs; the job does not outlive it."""
        job = f"{self.name}-{time.monotonic_ns()}"
        self._log = f"{job}.log"
        submit = f"cd project && ray job submit --submission-id={job} --working-dir=."
        command = f"{submit} -- python -m raygan.sweep {self.name}.yaml"
        process = self.box.head.start(["sh", "-c", command], self._log)
        try:
            yield process
        finally:
            if process.poll() is None:
                self.box.head.run(["ray", "job", "stop", job], "stop.log")
                send(process, signal.SIGKILL)

    @property
    def output(self) -> str:
        """What the command that was submitted last has printed, in one line."""
        return " ".join((self.box.head.folder / self._log).read_text().split())

    def run(self) -> str:
        with self.submitted() as process:
            assert process.wait(400) == 0, self.output
        return self.output

    def stored(self, path: str) -> bytes | None:
        """A file of the sweep's folder."""
        return self.box.store.objects.get(f"{STORAGE}/{self.name}/{path}")

    def record(self, trial: str) -> dict[str, Any]:
        data = self.stored(f"trials/{trial}/record.json")
        return json.loads(data) if data else {"history": [], "outcome": None}

    def curve(self, trial: str) -> list[tuple[int, float]]:
        return [(int(point["step"]), point[LOSS]) for point in self.record(trial)["history"]]

    def writers(self, trial: str) -> dict[str, int]:
        """How many pictures of a trial each worker host has written, as they are now."""
        pictures = f"{STORAGE}/{self.name}/trials/{trial}/images/"
        names = {address: name for name, address in ADDRESSES.items()}
        wrote = self.box.store.writers.items()
        return Counter(names[address] for key, address in wrote if key.startswith(pictures))

    def metrics(self) -> dict[str, list[tuple[str, int, float]]]:
        """What MLflow's database has of each trial's evaluations, in the order of the
        transactions that have written it."""
        rows = self.box.query(
            "SELECT trial.value, m.key, m.step, m.value FROM metrics m"
            " JOIN tags trial ON trial.run_uuid = m.run_uuid AND trial.key = 'trial'"
            " JOIN tags sweep ON sweep.run_uuid = m.run_uuid AND sweep.key = 'sweep'"
            " WHERE sweep.value = %s AND m.step > 0 ORDER BY m.xmin::text::bigint, m.step",
            self.name,
        )
        found: dict[str, list[tuple[str, int, float]]] = {}
        for trial, *metric in rows:
            found.setdefault(trial, []).append(tuple(metric))
        return found

    def check_mlflow(self, *trials: str) -> None:
        """MLflow has each value of each record once, the steps in their order, and all runs have
        ended."""
        statuses = self.box.query(
            "SELECT status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid"
            " WHERE tags.key = 'sweep' AND tags.value = %s",
            self.name,
        )
        assert statuses == [("FINISHED",)] * (1 + len(trials))
        logged = self.metrics()
        assert sorted(logged) == sorted(trials)
        for trial in trials:
            expected = [
                (key, int(point["step"]), value)
                for point in self.record(trial)["history"]
                for key, value in point.items()
                if key != "step"
            ]
            assert sorted(logged[trial]) == sorted(expected)
            steps = [step for _, step, _ in logged[trial]]
            assert steps == sorted(steps)
