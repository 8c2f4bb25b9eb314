"""What a sweep costs beside its training: many short trials, against Ray Tune alone, in one run.

    python tests/bench/orchestration.py --trials 200 --seconds 1 --rounds 3
    python tests/bench/orchestration.py --memory 2000
    python tests/bench/orchestration.py --memory 2000 --alone

The same stub, which sleeps between five reports, runs under both: as a sweep runs it (searcher,
ladders, records, progress, MLflow in SQLite, all as `raygan.sweep.session.run` puts them together) and
under a plain `Tuner` with random search, without callbacks or loggers, on the same resource and
with as many trials at once. At a given step all trials have the same loss, so that ASHA's rungs
fill but stop nobody and both arms do the same work. The order of the arms is swapped from round
to round. A sweep's time ends when MLflow has everything. Trials start new processes, so on few
cores other programs sway the times: the processor time of this process, and how long Tune waited
for the study, are the steadier figures.

`--memory` lets many trials that do not sleep run under one arm, in a process of its own, and
prints the resident memory of this driver process as they end.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from optuna.storages import JournalStorage
from ray import tune as ray_tune
from rich.console import Console

from raygan.folder import JOURNAL_FILE
from raygan.records import TrialRecord
from raygan.storage import Storage
from raygan.sweep.cluster import ray_quirks, tune
from raygan.sweep.cluster.job import Job
from raygan.sweep.session.conclude import spent_metrics
from raygan.sweep.session.progress import Progress
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.plan import TrialPlan
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.ledger import Ledger
from raygan.sweep.study.search import Journal
from raygan.sweep.study.study import Event, Study, outcomes
from raygan.tracking.context import default_uri
from raygan.tracking.mlflow_tracker import Tracker

EVALUATIONS = 5
SWEEP = """
name: orchestration
grid: {{norm: [bn, wn]}}
search: {{method: random, trials: {per_cell}, lr: {{min: 1.0e-5, max: 1.0e-2, scale: log}}}}
stop: {{rule: asha, grace: 100, reduction: 2}}
train: {{iterations: 500, evaluate_every: 100}}
storage: {storage}
"""
SAMPLES = 20
"""How often the memory is read."""

Ended = Callable[[], None]


def stub(job: dict[str, Any]) -> None:
    """Report like a worker that trains, and sleep."""
    import time

    from ray import tune

    for number in range(1, EVALUATIONS + 1):
        time.sleep(job["seconds"] / EVALUATIONS)
        report = {
            "step": 100 * number,
            "train/loss_d": 1.0 / number,
            "train/loss_g": 1.0 / number,
            "train/accuracy_real": 0.5,
            "train/accuracy_fake": 0.5,
            "train/gradient_norm_d": 1.0,
            "train/gradient_norm_g": 1.0,
            "val/reconstruction_loss": 1.0 / number,
            "perf/images_per_second": 3200.0,
            "perf/images_seen": 3200.0 * number,
        }
        tune.report(report)


@dataclass(frozen=True, kw_only=True)
class StubJob(Job):
    """A job of :func:`stub`."""

    seconds: float
    """How long it takes."""


@dataclass
class Load:
    """What both arms are asked to do."""

    trials: int
    seconds: float
    at_once: int


@dataclass
class Figures:
    """What one arm took."""

    seconds: float
    """From before Tune starts to the last trial in MLflow."""
    closing: float
    """Of these, after the last trial: waiting for MLflow."""
    cpu: float
    """Processor time of this process, its threads included."""
    study: float
    """For which Tune's thread was in the study and what listens to it."""


class TimedStudy(Study):
    """A study that knows how long it has been asked and told things."""

    busy = 0.0

    def next_trial(self) -> TrialPlan | None:
        return self._timed(super().next_trial)

    def started(self, trial: str) -> None:
        self._timed(super().started, trial)

    def heard(self, trial: str, report: dict[str, Any]) -> bool:
        return self._timed(super().heard, trial, report)

    def ended(self, trial: str, error: str | None = None) -> None:
        self._timed(super().ended, trial, error)

    def _timed(self, method: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            self.busy += time.perf_counter() - began


def in_sweep(load: Load, *, tracked: bool = True, ended: Ended = lambda: None) -> Figures:
    """``load`` as a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        text = SWEEP.format(storage=folder, per_cell=load.trials // 2)
        sweep = spec.validate(parse(text, "orchestration"))
        storage = Storage(folder)
        home = storage / sweep.name
        home.local.mkdir()
        ledger = Ledger(home)
        journal = JournalStorage(Journal(home.local / JOURNAL_FILE, ledger))
        study = TimedStudy(sweep, home, journal, ledger=ledger)
        tracker = None
        if tracked:
            uri = default_uri(storage)
            tracker = Tracker(uri, sweep.tracking.experiment, sweep.name, study.storage)
            tracker.connect()
            tracker.open(uuid.uuid4().hex, state.dump(sweep), {})
        began, cpu = time.perf_counter(), time.process_time()

        def heard(event: Event, record: TrialRecord) -> None:
            if tracker is not None:
                spent = spent_metrics(study) if event == "ended" else None
                tracker.update(record, ended=event == "ended", spent=spent)
            if event == "ended":
                ended()

        def job(planned: TrialPlan) -> StubJob:
            config = planned.config.to_dict()
            return StubJob(
                trial=planned.id, config=config, folder="", prepared="", digest="",
                seconds=load.seconds,
            )  # fmt: skip

        study.listeners.append(heard)
        with (
            (Path(folder) / "progress.txt").open("w") as file,
            Progress(study, Console(file=file), tracker),
        ):
            tune.run(study, job, load.at_once, trainable=stub)
        study.close()
        trained = time.perf_counter()
        if tracker is not None:
            copied = tracker.close("FINISHED")
            assert copied, f"MLflow is behind: {tracker.last_error}"
        done = time.perf_counter()
        assert outcomes(study) == {"ok": load.trials}, outcomes(study)
        return Figures(done - began, done - trained, time.process_time() - cpu, study.busy)


class Count(ray_tune.Callback):
    """Calls ``ended`` for each trial that ends."""

    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        self._ended()


def alone(load: Load, *, ended: Ended | None = None) -> Figures:
    """``load`` with Ray Tune and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(stub, {ray_quirks.HEAD_RESOURCE: tune.DRIVER_SHARE}),
            param_space={"seconds": load.seconds, "lr": ray_tune.loguniform(1e-5, 1e-2)},
            tune_config=ray_tune.TuneConfig(
                num_samples=load.trials, max_concurrent_trials=load.at_once
            ),
            run_config=ray_tune.RunConfig(
                name="tune",
                storage_path=folder,
                callbacks=[Count(ended)] if ended else [],
                verbose=0,
            ),
        )
        results = tuner.fit()
        seconds = time.perf_counter() - began
        assert len(results) == load.trials
        assert results.num_errors == 0
        return Figures(seconds, 0.0, time.process_time() - cpu, 0.0)


def compare(load: Load, rounds: int, *, untracked: bool) -> None:
    """Print what each arm took, round by round, and the ratios to Tune alone."""
    arms: dict[str, Callable[[Load], Figures]] = {"sweep": in_sweep, "Tune alone": alone}
    if untracked:
        arms["sweep, no MLflow"] = lambda load: in_sweep(load, tracked=False)
    for arm in arms.values():  # first imports, first processes
        arm(Load(2, 0.0, load.at_once))
    rows: dict[str, list[Figures]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms)[:: -1 if number % 2 else 1]:
            took = arms[name](load)
            rows[name].append(took)
            print(
                f"round {number + 1}  {name:16} {describe(took, load)}; load average "
                f"{os.getloadavg()[1]:.1f}",
                flush=True,
            )
    for name in arms:
        if name == "Tune alone":
            continue
        pairs = zip(rows[name], rows["Tune alone"], strict=True)
        ratios = [ours.seconds / plain.seconds for ours, plain in pairs]
        each = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name} / Tune alone: {each}; median {show(ratios)}, n = {rounds}")


def describe(took: Figures, load: Load) -> str:
    """What an arm took, per trial where that says more."""
    return (
        f"{took.seconds:6.1f} s, of which closing MLflow {took.closing:.1f} s; "
        f"{load.trials / took.seconds:.3f} trials/s; driver CPU "
        f"{1e3 * took.cpu / load.trials:4.0f} ms, study {1e3 * took.study / load.trials:3.0f} ms "
        "per trial"
    )


def show(values: list[float]) -> str:
    """Median and quartiles."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def watch_memory(load: Load, *, plain: bool) -> None:
    """Print the driver's resident memory while ``load`` runs, and its slope."""
    process, began = psutil.Process(), time.perf_counter()
    every = max(1, load.trials // SAMPLES)
    count = 0
    points: list[tuple[int, float]] = []

    def ended() -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            points.append((count, process.memory_info().rss / 2**10))
            print(
                f"{count:6} trials {points[-1][1] / 2**10:7.1f} MiB "
                f"{time.perf_counter() - began:7.0f} s",
                flush=True,
            )

    took = alone(load, ended=ended) if plain else in_sweep(load, ended=ended)
    late = points[len(points) // 2 :]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope
    print(
        f"{'Tune alone' if plain else 'sweep'}: {slope:+.1f} KiB per trial from trial {late[0][0]} "
        f"on; {describe(took, load)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="per arm and round; even")
    parser.add_argument("--seconds", type=float, default=1.0, help="that each trial sleeps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2, help="trials at once")
    parser.add_argument("--untracked", action="store_true", help="also without MLflow")
    parser.add_argument("--memory", type=int, metavar="TRIALS", help="watch the driver's memory")
    parser.add_argument("--alone", action="store_true", help="with --memory: of Tune alone")
    options = parser.parse_args()
    tune.connect("local", verbose=False)
    load = Load(options.memory or options.trials, options.seconds, options.at_once)
    if options.memory:
        load.seconds = 0.0
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, ray {ray.__version__}; {load.trials} trials of "
        f"{load.seconds:g} s and {EVALUATIONS} reports, {load.at_once} at once",
        flush=True,
    )
    if options.memory:
        watch_memory(load, plain=options.alone)
    else:
        compare(load, options.rounds, untracked=options.untracked)
    ray.shutdown()


if __name__ == "__main__":
    main()
