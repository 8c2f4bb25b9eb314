"""What a study's decisions cost with thousands of trials, without storage, Ray and MLflow.

    python tests/bench/decisions.py --trials 1500 10000 --evaluations 10 --against ../before
    python tests/bench/decisions.py --trials 10000 --evaluations 200

A sweep of 8 cells with the median rule, two looks and a budget is rebuilt from the records of all
but its last trials, as when it is resumed; reading the records is not part of it. Then trials run,
`--at-once` at a time, and each call of the study is timed: :meth:`Study.next_trial`,
:meth:`Study.heard` and :meth:`Study.ended`. `tpe` asks Optuna, whose own time grows with the trials
of a cell; `random` does not, and so shows what raygan takes. Times are processor time of
the thread, since decisions wait for nothing. `--against FOLDER`: the same with the raygan of
another checkout, in turns.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from raygan import records
from raygan.records import LOSS, STEP, TrialRecord
from raygan.storage import Storage
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.prepared import Prepared, PreparedSet
from raygan.sweep.study.study import Study

CELLS, SEEDS = 8, 12
PREPARED = Prepared(sets={"digits": PreparedSet(digest="d", baseline=1.0)})
CALLS = ("next_trial", "heard", "ended")
SWEEP = """
name: decisions
grid: {{norm: [vanilla, bn, wn, wn-affine], architecture: [dcgan, resnet]}}
search: {{method: {method}, trials: {trials}, lr: {{min: 1.0e-5, max: 1.0e-3, scale: log}}}}
stop: {{rule: median}}
warmup: {{iterations: 100, factor: 0.1}}
replicate: {{seeds: 5, until: 12}}
train: {{iterations: {iterations}, evaluate_every: 1000}}
scale: {{workers: 2, gpus_per_worker: 1}}
budget: {{gpu_hours: 1000000}}
"""


class Unsaved(Study):
    """Writes nothing."""

    def _save(self, record: TrialRecord, **_: bool) -> None:
        pass

    def _save_clock(self, **_: bool) -> None:
        pass

    def _note_checkpoints(self, record: TrialRecord) -> None:
        pass


def main() -> None:
    """Print a table of medians, 99th percentiles and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[1500, 10_000])
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--timed", type=int, default=200, help="trials whose end is timed")
    parser.add_argument("--methods", nargs="+", default=["random", "tpe"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", metavar="FOLDER", help="another checkout of raygan")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(**json.loads(asked.one))))
        return
    folders = [str(Path.cwd()), *([asked.against] if asked.against else [])]
    for method in asked.methods:
        for trials in asked.trials:
            load = {
                "method": method,
                "trials": trials,
                "evaluations": asked.evaluations,
                "at_once": min(asked.at_once, trials // 3),
                "timed": asked.timed,
            }
            found: dict[str, list[dict[str, Any]]] = {folder: [] for folder in folders}
            for _ in range(asked.rounds):
                for folder in folders:
                    found[folder].append(_in(folder, load))
            _show(load, list(found.values()))


def _in(folder: str, load: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(load)]
    environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve())}
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, cwd=folder
    )
    return json.loads(answer.stdout)


def _show(load: dict[str, Any], found: list[list[dict[str, Any]]]) -> None:
    now, *rest = found
    print(f"\n{load['trials']} trials, {load['method']}, {load['evaluations']} evaluations each")
    for call in CALLS:
        words = f"  {call:<11}" + _figures([t for one in now for t in one[call]])
        if rest:
            before = [t for one in rest[0] for t in one[call]]
            ratio = statistics.median(before) / statistics.median(
                [t for one in now for t in one[call]]
            )
            words += f"   before{_figures(before)}   {ratio:.1f} times"
        print(words)
    for name, unit in (("rebuilt", "s"), ("kilobytes", "kB of memory per trial")):
        values = " / ".join(
            "before " * (arm is not now) + ", ".join(f"{one[name]:.2f}" for one in arm)
            for arm in found
        )
        print(f"  {name:<11}{values} {unit}", flush=True)


def _figures(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    return f" {1e3 * statistics.median(ordered):8.3f} ms, p99 {1e3 * p99:8.3f}, n {len(ordered)}"


def measure(method: str, trials: int, evaluations: int, at_once: int, timed: int) -> dict[str, Any]:
    """Seconds of each call, and of rebuilding the study."""
    each = trials // CELLS - SEEDS
    text = SWEEP.format(method=method, trials=each, iterations=evaluations * 1000)
    sweep = spec.validate(parse(text, "decisions.yaml"))
    memory = _memory()
    known = _ended(sweep, max(0, each - (at_once + timed) // CELLS), evaluations)
    records.load_all = lambda *_, **__: known  # type: ignore[assignment]
    began = time.thread_time()
    study = Unsaved(sweep, Storage("mock:///decisions"), prepared=PREPARED)
    rebuilt = time.thread_time() - began
    grown = _memory() - memory
    times: dict[str, list[float]] = {call: [] for call in CALLS}

    def time_call(name: str, *given: Any) -> Any:
        call: Callable[..., Any] = getattr(study, name)
        started = time.thread_time()
        try:
            return call(*given)
        finally:
            times[name].append(time.thread_time() - started)

    running: list[str] = []
    done = 0
    while True:
        while len(running) < at_once and (planned := time_call("next_trial")) is not None:
            study.started(planned.id)
            running.append(planned.id)
        if not running or done == timed:
            break
        trial = running.pop(0)
        for report in _reports(trial, evaluations):
            if time_call("heard", trial, report):
                break
        time_call("ended", trial)
        done += 1
    return {**times, "rebuilt": rebuilt, "kilobytes": grown / max(1, len(known))}


def _memory() -> float:
    """Resident memory of this process, in kB."""
    return psutil.Process().memory_info().rss / 1e3


def _reports(trial: str, evaluations: int) -> list[dict[str, Any]]:
    draw = random.Random(trial)
    level = 0.01 * math.exp(draw.gauss(0, 0.3))
    return [
        {STEP: 1000 * number, LOSS: level * (1 + 3 / number) * math.exp(draw.gauss(0, 0.03))}
        for number in range(1, evaluations + 1)
    ]


def _ended(sweep: SweepSpec, each: int, evaluations: int) -> dict[str, TrialRecord]:
    """Records of the first ``each`` trials of each cell; half of them were stopped midway."""
    known = {}
    draw = random.Random(0)
    for index in range(each):
        for cell in plan.cells(sweep):
            params = {"lr": 10 ** draw.uniform(-5, -3)}
            planned = plan.trial(sweep, cell, index, params)
            config, dataset = planned.config.to_dict(), planned.dataset
            record = TrialRecord(
                planned.id, cell.name, index, planned.title, params, config, dataset=dataset
            )
            stopped = draw.random() < 0.5
            count = evaluations // 2 if stopped else evaluations
            record.merge(_reports(planned.id, evaluations)[:count])
            record.outcome = "stopped" if stopped else "ok"
            record.checkpoints = {"last": "checkpoint"}
            known[record.id] = record
    return known


if __name__ == "__main__":
    main()
