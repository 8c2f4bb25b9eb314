"""From schedule to first step: what every trial costs before it trains.

    python tests/bench/startup.py --trials 5

Runs trials of one iteration, one after another, as a sweep runs them (Tune driver → Train
controller → worker), and, in the same run, the same iteration in a plain Tune function, which is
the least that Tune can do. Prints, per trial, the seconds from the end of the trial before to the
start of this one (scheduling) and from its start to its first evaluation.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from typing import Any

import ray
import torch
from ray import tune as ray_tune

from raygan.records import TrialRecord
from raygan.storage import Storage
from raygan.sweep import spec, trial, tune
from raygan.sweep.study import Event, Study
from raygan.sweep.yaml_loader import parse

SWEEP = """
name: startup
dataset: {{name: digits, running: 8}}
grid: {{seed: [{seeds}]}}
train: {{features: 8, code_size: 8, iterations: 1, evaluate_every: 1, reconstruction_steps: 1}}
storage: {storage}
"""


class Clock:
    """Notes when a trial starts, is first heard of, and ends."""

    def __init__(self) -> None:
        self.ended: float | None = None
        self.started = 0.0
        self.gaps: list[float] = []
        self.waits: list[float] = []

    def __call__(self, event: Event, record: TrialRecord) -> None:
        now = time.perf_counter()
        if event == "waiting":
            self.started = now
            if self.ended is not None:
                self.gaps.append(now - self.ended)
        elif event == "evaluated":
            self.waits.append(now - self.started)
        elif event == "ended":
            self.ended = now


def plain(job: dict[str, Any]) -> None:
    """The same work without Ray Train: the floor."""
    from pathlib import Path

    from raygan.data import load
    from raygan.gan.config import TrainConfig
    from raygan.gan.state import TrainState
    from raygan.gan.train import train

    config = TrainConfig(**job["config"])
    images = load(Path(job["prepared"]))
    state = TrainState.create(config, images.shape)
    for evaluation in train(config, images, state):
        ray_tune.report({"step": evaluation.step, **evaluation.metrics})


def measure(trials: int, trainable: Any) -> Clock:
    with tempfile.TemporaryDirectory() as folder:
        text = SWEEP.format(storage=folder, seeds=", ".join(map(str, range(trials))))
        sweep = spec.validate(parse(text, "startup"))
        storage = Storage(folder)
        data = trial.prepare_images(trial.dataset_of(sweep), trial.data_folder(storage), [])
        study, clock = Study(sweep, storage / sweep.name), Clock()
        study.listeners.append(clock)
        tune.run(
            study,
            lambda plan: trial.job_of(plan, sweep, study.storage, data),
            max_concurrent=1,
            trainable=trainable,
        )
        return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5)
    trials = parser.parse_args().trials
    tune.connect("local", verbose=False)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, ray {ray.__version__}, torch {torch.__version__}; "
        f"n = {trials}, seconds: median [min, max]"
    )
    for name, trainable in (("Tune → Train", trial.run_trial), ("plain Tune function", plain)):
        clock = measure(trials, trainable)
        print(
            f"{name:20} scheduling {show(clock.gaps)}   start → first evaluation {show(clock.waits)}"
        )
    ray.shutdown()


def show(seconds: list[float]) -> str:
    if not seconds:
        return "—"
    return f"{statistics.median(seconds):.1f} [{min(seconds):.1f}, {max(seconds):.1f}]"


if __name__ == "__main__":
    main()
