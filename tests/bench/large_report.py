"""How long the report of a large sweep takes, and whether another checkout's has the same numbers.

    python tests/bench/large_report.py
    python tests/bench/large_report.py --sweeps cells seeds --rounds 3 --against ../before

Makes sweeps of 1,000 trials that have ended, with final tests and measured samples, each large in a
way of its own: one random search (`search`), 4 cells (`trials`), 100 cells on three axes (`cells`),
one axis of 100 values (`axis`), 4 cells with 100 seeds each (`seeds`). In a process of its own each
time, as often as `--rounds` says, the report is made (`make`), which computes and draws everything,
and written (`write`). Times are processor time of the process, since it waits for nothing. `--against
FOLDER` runs another checkout, too, in turns with this one, and prints the largest relative
difference of any number in the report's tables, and how many other values differ.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
name: {name}
dataset: {{name: digits}}
grid: {grid}
search: {{method: random, trials: {trials}, lr: {{min: 1.0e-5, max: 1.0e-3, scale: log}}}}
stop: {{rule: median, grace: 2000}}
replicate: {{seeds: {seeds}}}
train: {{iterations: 20000, evaluate_every: 100, quality: features}}
storage: {storage}
"""
SWEEPS = {
    "search": ("{norm: [vanilla]}", 980, 20),
    "trials": ("{norm: [bn, wn, vanilla, gn]}", 235, 15),
    "cells": (
        "{norm: [bn, wn, vanilla, gn], features: [8, 16, 24, 32, 40], "
        "code_size: [8, 16, 32, 64, 128]}", 5, 5,
    ),
    "axis": (f"{{features: {list(range(8, 108))}}}", 5, 5),
    "seeds": ("{norm: [bn, wn, vanilla, gn]}", 150, 100),
}  # fmt: skip
"""By name, the grid, the trials of a cell's search, and its seeds."""
PARTS = ("make", "write")
LONG, SHORT, LOST = 200, 50, 5
"""Evaluations of a trial that ended ok, was stopped, or gave no result."""
FAILING, EVERY = 0.1, 5
"""Share of runs without a result, and which search trials are not stopped."""


def make(folder: Path, name: str) -> None:
    """Store the sweep ``name`` as it is at its end."""
    import numpy as np

    from raygan.records import LOSS, STEP, TrialRecord
    from raygan.storage import Storage
    from raygan.sweep.spec import plan
    from raygan.sweep.spec import sweep_spec as spec
    from raygan.sweep.spec.yaml_loader import parse
    from raygan.sweep.study import stored_sweep
    from raygan.sweep.study.cell import settings
    from tests.sweep.prepared import one_set

    os.fsync = lambda _: None  # type: ignore[assignment]
    grid, trials, seeds = SWEEPS[name]
    text = SWEEP.format(name=name, grid=grid, trials=trials, seeds=seeds, storage=folder)
    sweep = spec.validate(parse(text, "x"))
    home = Storage(str(folder)) / name
    data = one_set(id="1", digest="d", baseline=0.2, folder="/x", shape="3×32×32", train=9)
    stored_sweep.store(home, sweep, data)
    draw = np.random.default_rng(0)

    def end(planned: Any, level: float, outcome: str) -> TrialRecord:
        count = {"ok": LONG, "stopped": SHORT}.get(outcome, LOST)
        steps = 100 * np.arange(1, count + 1)
        losses = np.exp(level + np.exp(-steps / 3000) + 0.03 * draw.normal(size=count))
        distances = 2 * np.exp(np.exp(-steps / 3000) + 0.1 * draw.normal(size=count))
        record = TrialRecord(
            planned.id, planned.cell, planned.index, planned.title, planned.params,
            planned.config.to_dict(), outcome, kind=planned.kind, dataset=planned.dataset,
        )  # fmt: skip
        record.history = [
            {STEP: float(step), LOSS: float(loss), "val/variety": 0.9,
             "val/feature_energy_distance": float(distance)}
            for step, loss, distance in zip(steps, losses, distances, strict=True)
        ]  # fmt: skip
        record.reason = None if outcome == "ok" else f"{outcome}: made up"
        record.save(home)
        return record

    def test(record: TrialRecord, level: float) -> None:
        for which, factor in (("best", 1.0), ("last", 1.05)):
            loss = factor * math.exp(level + 0.03 * draw.normal())
            tested = {
                "loss": loss, "step": 100, "images": 2000, "steps": 2000, "restarts": 3,
                "audited": 200, "audited_loss": loss, "restarts_loss": 0.98 * loss,
                "asked": asdict(sweep.final_config()),
            }  # fmt: skip
            quality = {
                "feature_energy_distance": 2 * math.exp(0.1 * draw.normal()), "coverage": 0.5,
                "recall": 0.4 + 0.01 * draw.normal(), "kind": "features", "images": 1000,
                "real_images": 1000, "weights_sha256": "ab",
            }  # fmt: skip
            for file, content in ((which, tested), (f"{which}-quality", quality)):
                home.write(f"trials/{record.id}/final/{file}.json", json.dumps(content).encode())

    for number, cell in enumerate(plan.cells(sweep)):
        level = math.log(0.02) + 0.02 * (number % 7)
        searched = []
        for index in range(trials):
            rate = 10 ** -(3 + 2 * index / trials)
            lost = "diverged" if draw.random() < FAILING else "stopped"
            planned = plan.trial(sweep, cell, index, {"lr": rate})
            far = level + 0.3 * abs(index / trials - 0.5)
            searched.append(end(planned, far, lost if index % EVERY else "ok"))
        for setting in settings(sweep, cell, searched):
            for index in range(seeds):
                outcome = "collapsed" if draw.random() < FAILING else "ok"
                record = end(setting.plan(sweep, cell, index), level, outcome)
                if outcome == "ok":
                    test(record, level)


def measure(storage: str, name: str, out: str) -> dict[str, float]:
    """Seconds of each part; the report is written into the folder ``out``."""
    from raygan.storage import Storage
    from raygan.sweep.study import stored_sweep
    from raygan.sweep.study.gather import make_report

    home = Storage(storage) / name
    sweep = stored_sweep.stored_spec(home)
    assert sweep is not None
    known = stored_sweep.stored_records(home, sweep)
    data = stored_sweep.stored_data(home, sweep)
    began = time.process_time()
    report = make_report(home, sweep, known, data)
    made = time.process_time()
    report.write(Storage(out))
    return {"make": made - began, "write": time.process_time() - made}


def differences(folder: Path, other: Path) -> tuple[float, int]:
    """The largest relative difference of a number in the tables, and how many other values
    differ."""
    import pyarrow.parquet as pq

    largest, others = 0.0, 0
    names = {file.relative_to(root) for root in (folder, other) for file in root.rglob("*.parquet")}
    for name in names:
        if not ((folder / name).exists() and (other / name).exists()):
            others += 1
            continue
        first, second = (pq.read_table(root / name).to_pydict() for root in (folder, other))
        columns = first.keys() | second.keys()
        for ours, theirs in ((first.get(key, []), second.get(key, [])) for key in columns):
            others += abs(len(ours) - len(theirs))
            for a, b in zip(ours, theirs, strict=False):
                if isinstance(a, float) and isinstance(b, float) and a != b:
                    largest = max(largest, abs(a - b) / max(abs(a), abs(b)))
                elif a != b:
                    others += 1
    return largest, others


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sweeps", nargs="*", default=list(SWEEPS), choices=SWEEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    sys.path.insert(0, str(ROOT))
    from tests.bench.turns import compare

    arms = {"now": ROOT}
    if arguments.against:
        arms["before"] = arguments.against.resolve()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; seconds of "
          f"processor time; median of {arguments.rounds} rounds [lowest, highest]", flush=True)  # fmt: skip
    print("sweep      arm     " + "".join(f"{part:<22}" for part in PARTS), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def given(name: str, arm: str) -> tuple[list[str], dict[str, str]]:
            words = [str(folder / "sweeps"), name, str(folder / arm / name)]
            return words, {**os.environ, "PYTHONPATH": str(arms[arm])}

        for name in arguments.sweeps:
            make(folder / "sweeps", name)
            compare(name, __file__, arms, arguments.rounds, PARTS, partial(given, name))
            if "before" in arms:
                largest, others = differences(*(folder / arm / name for arm in arms))
                print(f"{'':10}numbers differ by at most {largest:.1g}; {others} other values differ",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
