"""From schedule to first step: what every trial costs before it trains, and where it goes.

    python tests/bench/startup.py --trials 5
    python tests/bench/startup.py --trials 6 --at-once 2

Runs trials of one iteration as a sweep runs them (Tune → Train → worker), and, in the same run,
the same iteration in a plain Tune function, which is the least that Tune can do. Prints, per
trial, the seconds from the end of the trial before in the same slot to the start of this one
(scheduling), from its start to its first evaluation, and how the latter are made up. Each process
notes the time at which it passes a phase; all run on one machine and share its clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune as ray_tune

from raygan.records import TrialRecord
from raygan.storage import Storage
from raygan.sweep.cluster import preparing, tune
from raygan.sweep.cluster.job import Job, job_of
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.prepared import Prepared
from raygan.sweep.study.study import Event, Study

SWEEP = """
name: startup
dataset: {{name: digits, running: 8}}
grid: {{seed: [{seeds}]}}
train: {{features: 8, code_size: 8, iterations: 1, evaluate_every: 1, reconstruction_steps: 1}}
storage: {storage}
"""
PHASES = {
    "actor": "Tune: until it starts the process of the trial's actor",
    "called": "Tune actor: Ray's start and imports",
    "controller": "Train controller: until its process is started",
    "asked": "Train controller: Ray's start and imports, placement group",
    "worker": "worker: until its process is started",
    "train": "worker: Ray's start, Train's imports and context",
    "torch": "worker: PyTorch's import",
    "gan": "worker: raygan's imports",
    "images": "worker: images and networks",
    "first": "worker: the first step and evaluation",
    "heard": "report: back to the sweep",
}
"""What passes until each note, in their order. A trial has not all of them: a plain function has
neither controller nor worker, and a process may serve several trials, or several of these parts."""


@dataclass(frozen=True, kw_only=True)
class NotedJob(Job):
    """A job whose processes note when they pass a phase."""

    notes: str
    """The folder of the notes."""


class Clock:
    """Notes when a trial starts, is first heard of, and ends."""

    def __init__(self, at_once: int) -> None:
        self.free: list[float] = []
        self.slots = at_once
        self.gaps: list[float] = []
        self.waits: list[float] = []
        self.notes: dict[str, dict[str, float]] = {}

    def __call__(self, event: Event, record: TrialRecord) -> None:
        now = time.time()
        notes = self.notes.setdefault(record.id, {})
        if event == "waiting":
            notes["start"] = now
            if self.slots:
                self.slots -= 1
            elif self.free:
                notes["free"] = self.free.pop(0)
                self.gaps.append(now - notes["free"])
        elif event == "evaluated":
            notes["heard"] = now
            self.waits.append(now - notes["start"])
        elif event == "ended":
            self.free.append(now)

    def phases(self, folder: Path) -> dict[str, list[float]]:
        """The seconds of each phase, per trial that followed another in its slot."""
        found: dict[str, list[float]] = {}
        for id, notes in self.notes.items():
            if "free" not in notes:
                continue
            for line in (folder / id).read_text().splitlines():
                name, seconds = line.split()
                notes.setdefault(name, float(seconds))
            before = notes["free"]
            for name in PHASES:
                if notes.get(name, 0) > before:  # else its process was there before
                    found.setdefault(name, []).append(notes[name] - before)
                    before = notes[name]
        return found


def noted(job: dict[str, Any], name: str, seconds: float | None = None) -> None:
    """Note that ``job`` has reached ``name``; the first time counts."""
    with open(f"{job['notes']}/{job['trial']}", "a") as file:  # noqa: PTH123 - Path is not free
        file.write(f"{name} {time.time() if seconds is None else seconds}\n")


def born(job: dict[str, Any], name: str) -> None:
    """Note when this process was started, unless that was for an earlier trial."""
    import psutil

    noted(job, name, psutil.Process().create_time())


def imports(job: dict[str, Any]) -> None:
    import torch  # noqa: F401

    noted(job, "torch")
    import raygan.data
    import raygan.gan.train  # noqa: F401

    noted(job, "gan")


def through_train(job: dict[str, Any]) -> None:
    """A trial as a sweep runs it, with notes."""
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from raygan.sweep.cluster import trial

    class Notes(ControllerCallback, WorkerGroupCallback):
        def after_controller_start(self, train_run_context: Any) -> None:
            born(job, "controller")

        def before_worker_group_start(self, worker_group_context: Any) -> None:
            noted(job, "asked")

    whole = DataParallelTrainer._create_default_callbacks

    def callbacks(self: DataParallelTrainer) -> Any:
        return [*whole(self), Notes()]

    def worker(config: dict[str, Any]) -> None:
        import ray.train

        from raygan.sweep.cluster.worker import train_worker

        born(job, "worker")
        noted(job, "train")
        imports(job)
        report, names = ray.train.report, ["images", "first"]

        def noted_report(*args: Any, **options: Any) -> None:
            if names:
                noted(job, names.pop(0))
            report(*args, **options)

        ray.train.report = noted_report
        try:
            train_worker(config)
        finally:
            ray.train.report = report

    born(job, "actor")
    noted(job, "called")
    trial.train_worker = worker
    DataParallelTrainer._create_default_callbacks = callbacks
    try:
        trial.run_trial({name: value for name, value in job.items() if name != "notes"})
    finally:
        DataParallelTrainer._create_default_callbacks = whole


def plain(job: dict[str, Any]) -> None:
    """The same work without Ray Train: the floor."""
    born(job, "actor")
    noted(job, "called")
    imports(job)
    from pathlib import Path

    from raygan.data import load
    from raygan.gan.config import TrainConfig
    from raygan.gan.state import TrainState
    from raygan.gan.train import train

    config = TrainConfig.of(**job["config"])
    images = load(Path(job["prepared"]))
    state = TrainState.create(config, images.shape)
    noted(job, "images")
    for evaluation in train(config, images, state):
        noted(job, "first")
        ray_tune.report({"step": evaluation.step, **evaluation.metrics})


def measure(
    trials: int, at_once: int, trainable: Callable[[dict[str, Any]], None]
) -> tuple[Clock, dict[str, list[float]]]:
    with tempfile.TemporaryDirectory() as folder:
        text = SWEEP.format(storage=folder, seeds=", ".join(map(str, range(trials))))
        sweep = spec.validate(parse(text, "startup"))
        storage = Storage(folder)
        orders = preparing.preparations_of(sweep, storage)
        sets = {label: preparing.prepare_images(order) for label, order in orders.items()}
        prepared = Prepared(sets=sets)
        study, clock = Study(sweep, storage / sweep.name), Clock(at_once)
        study.listeners.append(clock)
        notes = Path(folder) / "notes"
        notes.mkdir()
        tune.run(
            study,
            lambda plan: NotedJob(
                **job_of(plan, sweep, study.storage, prepared).to_plain(), notes=str(notes)
            ),
            max_concurrent=at_once,
            trainable=trainable,
        )
        return clock, clock.phases(notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=1, help="trials that run at once")
    given = parser.parse_args()
    tune.connect("local", verbose=False)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}; "
        f"n = {given.trials}, {given.at_once} at once, seconds: median [min, max]; "
        f"load before: {os.getloadavg()[0]:.1f}"
    )
    for name, trainable in (("Tune → Train", through_train), ("plain Tune function", plain)):
        clock, phases = measure(given.trials, given.at_once, trainable)
        both = [gap + wait for gap, wait in zip(clock.gaps, clock.waits[-len(clock.gaps) :])]  # noqa: B905
        print(
            f"\n{name}: scheduling {show(clock.gaps)}, start → first evaluation "
            f"{show(clock.waits)}, both {show(both)}"
        )
        for phase, words in PHASES.items():
            if phase in phases:
                print(f"    {words:52} {show(phases[phase])}")
    print(f"\nload after: {os.getloadavg()[0]:.1f}")
    ray.shutdown()


def show(seconds: list[float]) -> str:
    if not seconds:
        return "—"
    return f"{statistics.median(seconds):5.2f} [{min(seconds):.2f}, {max(seconds):.2f}]"


if __name__ == "__main__":
    main()
