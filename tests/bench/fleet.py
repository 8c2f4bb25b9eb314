"""A sweep on a fleet of spot GPUs, in virtual time: the real study, without Ray.

    python tests/bench/fleet.py
    python tests/bench/fleet.py --gpus 64 --against ../before

Two sweeps over the grid of sweeps/full.yaml: as it is on 64 GPUs (16 trials per cell, 5 seeds), and
with more trials on 1,000 GPUs. The loss curves are those of tests/sweep/simulated.py. A trial takes
2 GPUs of a node with 8. A resnet takes three times as long as a dcgan, other norms up to 5% more or
less than bn. Nodes are lost at random, each on average every 4 hours, and replaced after 5 minutes.
Their trials resume from their last checkpoint as soon as there is room; they wait before any new
trial, as in Ray. Each start takes 30 to 60 seconds.

    ideal      GPU time of the training that counts, over the GPUs: no start-up, loss or idle GPU
    verdict    hours until the study is complete
    chain      the longest search trial and the longest replicate of the slowest cell, one after
               the other: no number of GPUs makes the sweep shorter
    starved    GPUs that are there, while the study has no trial to give. While a search runs,
               replicates of the settings that lead could use them; after all searches, nothing.
    unused     replicates that the verdict does not rest on in the end

`--against FOLDER`: the same with the raygan of another checkout.
"""

from __future__ import annotations

import argparse
import heapq
import inspect
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))
from raygan.records import LOSS, STEP, TrialRecord
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.plan import TrialPlan
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study
from tests.sweep import simulated

ITERATIONS, EVERY = 200_000, 1000
GPUS_PER_NODE, GPUS_PER_TRIAL = 8, 2
SLOTS = GPUS_PER_NODE // GPUS_PER_TRIAL
DCGAN_SECONDS = 0.01
"""Of one iteration; bn."""
SLOWER = {"dcgan": 1.0, "resnet": 3.0}
HOUR = 3600.0
STARVED = ("starved while a search runs", "starved after all searches")
SWEEP = """
name: fleet
grid: {{norm: [{norms}], architecture: [{architectures}]}}
search: {{method: random, trials: {trials}, lr: {{min: 1.0e-5, max: 1.0e-3, scale: log}},
  try_first: [{{lr: 1.0e-4}}, {{lr: 2.0e-5}}]}}
stop: {{rule: median}}
warmup: {{iterations: 100, factor: 0.1}}
replicate: {{seeds: 5}}
train: {{iterations: 200000, evaluate_every: {every}}}
scale: {{workers: 2, gpus_per_worker: 1}}
budget: {{gpu_hours: 1000000}}
"""


@dataclass(frozen=True)
class Load:
    """One sweep on one fleet."""

    gpus: int
    trials: int
    """Of each cell's search."""
    every: int
    """Iterations between evaluations."""
    architectures: tuple[str, ...] = ("dcgan", "resnet")
    life: float = 4 * HOUR
    """Mean time until a node is lost."""
    replaced: float = 300.0
    checkpoint_every: float = 300.0
    start: tuple[float, float] = (30.0, 60.0)
    seed: int = 0


@dataclass
class Attempt:
    """A trial, where it is and how far it has come."""

    plan: TrialPlan
    evaluation: float
    """Seconds of training from one evaluation to the next."""
    saved: float = 0.0
    """Seconds of training in its last checkpoint."""
    node: int = -1
    began: float = math.inf
    """When its training began or was resumed."""
    number: int = 0
    """Grows with each start: events of an earlier start mean nothing."""
    told: int = 0


@dataclass
class Fleet:
    """The nodes, and what happens on them in virtual time."""

    load: Load
    now: float = 0.0
    events: list[tuple[float, int, str, Any]] = field(default_factory=list)
    spent: Counter[str] = field(default_factory=Counter)
    """GPU-seconds by what they were used for."""
    evaluations: Counter[int] = field(default_factory=Counter)
    """By minute."""
    busy: list[tuple[float, float, str]] = field(default_factory=list)
    """From, to, and what a trial's GPUs did."""

    def __post_init__(self) -> None:
        self.draw = random.Random(self.load.seed)
        norms = [*simulated.NORMS, "wn-affine"]
        text = SWEEP.format(
            norms=", ".join(norms),
            architectures=", ".join(self.load.architectures),
            trials=self.load.trials,
            every=self.load.every,
        )
        options: dict[str, Any] = {}
        if "now" in inspect.signature(Study).parameters:
            options["now"] = lambda: self.now
        sweep = spec.validate(parse(text, "fleet.yaml"))
        self.study = Unsaved(sweep, Storage("mock:///fleet"), prepared=simulated.IMAGES, **options)
        self.free = dict.fromkeys(range(self.load.gpus // GPUS_PER_NODE), SLOTS)
        self.most = len(self.free) * SLOTS
        self.running: dict[str, Attempt] = {}
        self.waiting: deque[Attempt] = deque()
        self.first_starved: float | None = None
        self.searched: dict[str, float] = {}
        self.ended: Counter[str] = Counter()
        for node in self.free:
            self._at(self.draw.expovariate(1 / self.load.life), "lost", node)

    def run(self) -> None:
        """Until the study is complete."""
        self._fill()
        while not self.study.complete:
            at, _, what, given = heapq.heappop(self.events)
            idle = sum(self.free.values()) * GPUS_PER_TRIAL
            searches = sum(self.ended.values()) < self.load.trials * len(self.study.cells)
            self.spent["idle early" if searches else "idle late"] += idle * (at - self.now)
            down = self.load.gpus - GPUS_PER_NODE * len(self.free)
            self.spent["down"] += down * (at - self.now)
            self.now = at
            getattr(self, f"_{what}")(given)

    def _at(self, time: float, what: str, given: Any) -> None:
        heapq.heappush(
            self.events, (time, len(self.events) + self.draw.getrandbits(40), what, given)
        )

    def _fill(self) -> None:
        """Start what waits for room, then what the study gives."""
        while self.free and self.free[node := max(self.free, key=self.free.__getitem__)]:
            if not self.waiting:
                if len(self.running) >= self.most:
                    return
                if (planned := self.study.next_trial()) is None:
                    self.first_starved = self.first_starved or self.now
                    return
                self.running[planned.id] = Attempt(planned, self._seconds(planned))
                self.waiting.append(self.running[planned.id])
            self._start(self.waiting.popleft(), node)

    def _seconds(self, planned: TrialPlan) -> float:
        norm = simulated.NORMS.get(planned.config.norm, simulated.NORMS["wn"])
        each = DCGAN_SECONDS * SLOWER[planned.config.architecture] * norm.time
        return each * self.load.every

    def _start(self, attempt: Attempt, node: int) -> None:
        self.free[node] -= 1
        attempt.node = node
        attempt.number += 1
        self.study.started(attempt.plan.id)
        begins = self.now + self.draw.uniform(*self.load.start)
        self._at(begins, "train", (attempt, attempt.number, self.now))

    def _train(self, given: tuple[Attempt, int, float]) -> None:
        attempt, number, asked = given
        if attempt.number == number:
            self._use(asked, self.now, "start-up")
            attempt.began = self.now
            self.study.heard(attempt.plan.id, {STEP: 0})
            self._next(attempt)

    def _next(self, attempt: Attempt) -> None:
        done = attempt.saved + self.now - attempt.began
        number = int(done / attempt.evaluation + 1e-9) + 1
        at = attempt.began + number * attempt.evaluation - attempt.saved
        self._at(at, "evaluate", (attempt, attempt.number, number))

    def _evaluate(self, given: tuple[Attempt, int, int]) -> None:
        attempt, start, number = given
        if attempt.number != start:
            return
        trial = attempt.plan.id
        self.evaluations[int(self.now / 60)] += 1
        step = number * self.load.every
        stops = False
        if number > attempt.told:  # a resumed trial tells some of its evaluations again
            attempt.told = number
            stops = self.study.heard(trial, {STEP: step, LOSS: _loss(attempt.plan, step)})
        if not (stops or step >= ITERATIONS):
            self._next(attempt)
            return
        self._use(attempt.began, self.now, attempt.plan.kind)
        self.free[attempt.node] += 1
        attempt.number += 1
        del self.running[trial]
        self.study.ended(trial)
        self.ended[attempt.plan.cell] += attempt.plan.kind == "search"
        if self.ended[attempt.plan.cell] == self.load.trials:
            self.searched.setdefault(attempt.plan.cell, self.now)
        self._fill()

    def _lost(self, node: int) -> None:
        del self.free[node]
        self._at(self.now + self.load.replaced, "replaced", node)
        for attempt in [a for a in self.running.values() if a.node == node]:
            trained = max(0.0, self.now - attempt.began)
            kept = int(trained / self.load.checkpoint_every) * self.load.checkpoint_every
            if trained:
                self._use(attempt.began, attempt.began + kept, attempt.plan.kind)
                self._use(attempt.began + kept, self.now, "repeated")
            attempt.saved += kept
            attempt.began, attempt.node = math.inf, -1
            attempt.number += 1
            self.waiting.append(attempt)
        self._fill()

    def _replaced(self, node: int) -> None:
        self.free[node] = SLOTS
        self._at(self.now + self.draw.expovariate(1 / self.load.life), "lost", node)
        self._fill()

    def _use(self, since: float, until: float, what: str) -> None:
        self.spent[what] += (until - since) * GPUS_PER_TRIAL
        self.busy.append((since, until, what))


class Unsaved(Study):
    """Writes nothing."""

    def _save(self, record: TrialRecord, **_: bool) -> None:
        pass

    def _save_clock(self, **_: bool) -> None:
        pass

    def _note_checkpoints(self, record: TrialRecord) -> None:
        pass


def _loss(planned: TrialPlan, step: int) -> float:
    config = planned.config
    norm = config.norm if config.norm in simulated.NORMS else "wn"
    draw = random.Random(f"{planned.id} {step}")
    own = random.Random(planned.id).gauss(0, simulated.NORMS[norm].spread)
    loss = simulated.expected(norm, config.lr, step * simulated.ITERATIONS // ITERATIONS, "late")
    return loss * math.exp(own + simulated.NOISE * draw.gauss(0, 1))


def measure(load: Load) -> dict[str, Any]:
    """What one sweep takes."""
    fleet = Fleet(load)
    fleet.run()
    study, spent = fleet.study, fleet.spent
    counted = {r.id for cell in study.cells.values() for r in cell.verdict_records()}
    unused = [r for r in study.records.values() if r.kind == "replicate" and r.id not in counted]
    wasted = sum(r.gpu_seconds for r in unused)
    useful = spent["search"] + spent["replicate"] - wasted
    slowest = max(map(fleet._seconds, (a.plan for a in _plans(fleet))))
    bins = [Counter[str]() for _ in range(20)]
    width = fleet.now / len(bins)
    for since, until, what in fleet.busy:
        for place in range(int(since / width), min(len(bins) - 1, int(until / width)) + 1):
            both = min(until, (place + 1) * width) - max(since, place * width)
            bins[place][what] += both * GPUS_PER_TRIAL / (load.gpus * width)
    return {
        "trials": len(study.records),
        "verdict": fleet.now / HOUR,
        "ideal": useful / load.gpus / HOUR,
        "chain": 2 * slowest * ITERATIONS / load.every / HOUR,
        "used": useful / (load.gpus * fleet.now),
        "start-up": spent["start-up"] / HOUR,
        "repeated": spent["repeated"] / HOUR,
        "unused": wasted / HOUR,
        "starved while a search runs": spent["idle early"] / HOUR,
        "starved after all searches": spent["idle late"] / HOUR,
        "down": spent["down"] / HOUR,
        "first starved": (fleet.first_starved or fleet.now) / HOUR,
        "peak": max(fleet.evaluations.values()) / 60,
        "search ends": {name: at / HOUR for name, at in fleet.searched.items()},
        "best": {name: best.id for name in study.cells if (best := study.best(name))},
        "verdict rests on": sorted(counted),
        "phases": [
            [part[w] for w in ("search", "replicate", "start-up", "repeated")] for part in bins
        ],
    }


def _plans(fleet: Fleet) -> list[Attempt]:
    from raygan.sweep.spec import plan

    return [Attempt(plan.of_record(r), 0.0) for r in fleet.study.records.values() if r.index == 0]


def main() -> None:
    """Print what each sweep takes, and what limits it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--trials", type=int, default=1000, help="per cell, on more than 64 GPUs")
    parser.add_argument("--every", type=int, default=5000, help="iterations between evaluations")
    parser.add_argument("--same", action="store_true", help="all cells are equally fast")
    parser.add_argument("--seeds", type=int, default=1, help="so many runs of each, in turn")
    parser.add_argument("--against", metavar="FOLDER", help="another checkout of raygan")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(Load(**json.loads(asked.one)))))
        return
    arms = {"now": str(Path.cwd()), **({"before": asked.against} if asked.against else {})}
    for gpus in asked.gpus:
        load = {"gpus": gpus, "trials": 16 if gpus <= 64 else asked.trials, "every": asked.every}
        if asked.same:
            load["architectures"] = ["dcgan"]
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
        for seed in range(asked.seeds):
            for arm, folder in arms.items():
                found[arm].append(_in(folder, {**load, "seed": seed}))
        print(f"\n{gpus} GPUs, {load['trials']} trials per cell, {asked.seeds} runs")
        for arm, runs in found.items():
            _show(arm, runs)
        if asked.against:
            same = [a["best"] == b["best"] for a, b in zip(*found.values(), strict=True)]
            print(f"  the cells' best trials are the same in {sum(same)} of {len(same)} runs")


def _in(folder: str, load: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(load)]
    environment = {**os.environ, "PYTHONPATH": str(Path(folder).resolve()), "PYTHONSAFEPATH": "1"}
    answer = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout)


def _show(arm: str, runs: list[dict[str, Any]]) -> None:
    def mid(name: str) -> float:
        return statistics.median(run[name] for run in runs)

    verdicts = sorted(run["verdict"] for run in runs)
    print(
        f"  {arm}: verdict after {mid('verdict'):.2f} h [{verdicts[0]:.2f}, {verdicts[-1]:.2f}], "
        f"ideal {mid('ideal'):.2f} h, chain {mid('chain'):.2f} h, used {mid('used'):.0%}, "
        f"{mid('peak'):.1f} evaluations/s at the peak, {mid('trials'):.0f} trials"
    )
    waste = ("start-up", "repeated", "unused", "down", *STARVED)
    print("    GPU-hours: " + ", ".join(f"{name} {mid(name):.0f}" for name in waste))
    print(f"    the first GPU is starved after {mid('first starved'):.2f} h", end="; ")
    ends = runs[0]["search ends"]
    print("searches end after " + ", ".join(f"{name} {at:.1f}" for name, at in ends.items()))
    for name, place in (("search", 0), ("replicates", 1)):
        cells = " ".join(f"{part[place]:4.0%}" for part in runs[0]["phases"])
        print(f"    {name:<11}{cells}", flush=True)


if __name__ == "__main__":
    main()
