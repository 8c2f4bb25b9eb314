"""How long a trial takes from a fault to its first new evaluation, and what takes the time.

    python tests/bench/recovery.py --times 5
    python tests/bench/recovery.py --kinds hang --stalled-after 60s

On the cluster of `rig.py` (a head and two nodes of one CPU each; object storage and MLflow on the
same machine), one trial trains, and is hurt as often as `--times` says, each time after some new
evaluations. The time ends when its worker reports an evaluation that it had not reported before the
fault. Prints, per kind, the median and the longest time, and the medians of its parts:

- noticed: until Ray Train says in its log that workers are lost;
- placed: from then to the start of a new worker's process;
- started: until this has loaded its libraries;
- restored: until it has its images and the checkpoint;
- repeated: until the first new evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.rig import Note, Rig, Shape, Sweep, until

KINDS = {
    "worker": "the only worker is killed",
    "one of two": "one of two workers is killed",
    "raylet": "the raylet of the worker is killed; the trial moves to the other node",
    "node": "the raylet and all its processes are killed; the trial moves to the other node",
    "hang": "the worker is stopped (SIGSTOP)",
}
PARTS = ("noticed", "placed", "started", "restored", "repeated")
PATIENCE = 240.0
NEW = 3
"""Evaluations between two faults, at least."""


@dataclass(frozen=True)
class Recovery:
    """One fault: the seconds of each part."""

    parts: dict[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def recovery(fault: float, noticed: float, notes: list[Note]) -> Recovery:
    """What the ``notes`` of one trial tell of a fault at a time; ``noticed``: when it was.

    ``notes`` end with the first evaluation that is new.
    """
    last = notes[-1]
    mine = [note for note in notes if note.pid == last.pid]
    loaded = next(note.time for note in mine if note.what == "loaded")
    restored = next(note.time for note in mine if note.what == "restored")
    times = [fault, noticed, last.born, loaded, restored, last.time]
    return Recovery(
        dict(zip(PARTS, (after - before for before, after in pairwise(times)), strict=True))
    )


def until_new(notes: list[Note], fault: float, lost: set[int]) -> list[Note]:
    """The ``notes`` until the first new evaluation after ``fault``; nothing if there is none yet.

    It is new if no process has reported as many iterations before. Those of the processes that are
    ``lost`` do not count: on a node whose raylet was killed, a worker may train on for a while.
    """
    reached = 0
    for index, note in enumerate(notes):
        if note.what != "evaluated":
            continue
        if note.time > fault and note.pid not in lost and note.step > reached:
            return notes[: index + 1]
        reached = max(reached, note.step)
    return []


class Bench:
    """Hurts the only trial of a sweep."""

    def __init__(self, rig: Rig, sweep: Sweep) -> None:
        self._rig, self._sweep = rig, sweep
        self._draw = random.Random(1)

    def measure(self, kind: str) -> Recovery:
        """Inject one fault, and wait until the trial has recovered."""
        before = self._newest()
        self._wait(lambda: self._newest() >= before + NEW * self.every)
        time.sleep(self._draw.uniform(0, 2))
        fault = time.time()
        lost = self._inject(kind)

        def new() -> list[Note]:
            return until_new(self._sweep.notes(), fault, lost)

        notes = self._wait(new)
        if kind in ("raylet", "node"):
            self._rig.restart_raylet(self._node)
        found = recovery(fault, self._noticed(fault), notes)
        print(f"    {kind}: {found.seconds:.1f}", flush=True)
        return found

    @property
    def every(self) -> int:
        return Shape().evaluate_every

    def _newest(self) -> int:
        return max((n.step for n in self._sweep.notes() if n.what == "evaluated"), default=0)

    def _inject(self, kind: str) -> set[int]:
        """Returns the processes that cannot report any more."""
        workers = sorted(self._rig.workers(), key=lambda process: process.pid)
        if kind in ("raylet", "node"):
            self._node = next(i for i in range(2) if self._rig.workers(i))
            processes = self._rig.on_node(self._node)
            for process in processes[:1] if kind == "raylet" else processes:
                process.kill()
        elif kind == "hang":
            workers[0].suspend()
        else:
            workers[-1].kill()
        return {process.pid for process in workers}

    def _noticed(self, fault: float) -> float:
        """When Ray Train has first said, after ``fault``, that workers are lost."""
        found = []
        for file in (self._rig.folder / "ray").glob("session_2*/logs/train/*controller*.log"):
            for line in file.read_text().splitlines():
                if "[FailurePolicy]" in line:
                    found.append(json.loads(line)["timestamp_ns"] / 1e9)
        return min(when for when in found if when > fault)

    def _wait(self, condition: Callable[[], object]):
        if not (found := until(condition, PATIENCE, 0.1)):
            sys.exit(f"not within {PATIENCE:.0f} s:\n{self._sweep.log.read_text()[-5000:]}")
        return found


def main() -> None:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; n = {options.times}; "
          f"scale.stalled_after {options.stalled_after}; seconds: median (longest)", flush=True)  # fmt: skip
    with Rig() as rig:
        for workers, kinds in ((1, ("worker", "raylet", "node", "hang")), (2, ("one of two",))):
            wanted = [kind for kind in kinds if kind in options.kinds]
            if not wanted:
                continue
            shape = Shape(norms="wn", replicates=0, iterations=10**6, workers=workers,
                          stalled_after=options.stalled_after)  # fmt: skip
            sweep = rig.sweep(f"workers-{workers}", shape)
            with sweep.running():
                bench = Bench(rig, sweep)
                for kind in wanted:
                    show(kind, [bench.measure(kind) for _ in range(options.times)])
    shutil.rmtree(rig.folder)


def show(kind: str, found: list[Recovery]) -> None:
    seconds = [each.seconds for each in found]
    parts = ", ".join(
        f"{part} {statistics.median(each.parts[part] for each in found):.1f}" for part in PARTS
    )
    print(
        f"{KINDS[kind]}: {statistics.median(seconds):.1f} ({max(seconds):.1f}): {parts}", flush=True
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="faults of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--stalled-after", default="20s", help="`scale.stalled_after` of the sweep")
    return parser


if __name__ == "__main__":
    main()
