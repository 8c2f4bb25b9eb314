"""Sweeps that are hurt every few seconds, and what is left of them.

    python tests/bench/soak.py --minutes 30 --every 20 --seed 1
    python tests/bench/soak.py --minutes 5 --kinds worker mlflow --reference FOLDER

On a cluster of three raylets with object storage and MLflow behind proxies (`rig.py`), a sweep is
run once undisturbed, with one and with two workers per trial. Then it is run again and again, in
turns, and a fault is injected every `--every` seconds, until there have been faults for
`--minutes`. The kinds, their order, targets and lengths follow from `--seed`, which is printed with
the plan. Each of these sweeps must end with exit code 0, and then:

- every trial has the outcome, every evaluation, and the final test of the undisturbed sweep;
- MLflow has one run per trial, and each step once, with the value of the record;
- nothing is left: no placement group, no process, no file that the undisturbed sweep has not.

As a user would, the soak runs the same command again when the sweep says that this sends, writes or
makes something. The faults of a sweep that fails a check count as not survived. Ends with 1 then,
and keeps the folder of all logs.

`--reference FOLDER`: keeps the undisturbed sweeps there, and uses them again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.aftermath import (
    Copied,
    Results,
    differences,
    mlflow_differences,
    results_of,
)
from tests.bench.rig import Note, Rig, Shape, Sweep, title, until

KINDS = {
    "worker": "a worker is killed",
    "hang": "a worker is stopped (SIGSTOP) and never answers again",
    "driver": "the driver of a trial is killed",
    "raylet": "a raylet is killed; a new node comes 5 to 15 s later",
    "node": "a raylet and all its processes are killed; a new node comes 5 to 15 s later",
    "sweep": "the sweep's own process is killed, and the same command run again",
    "mlflow": "the MLflow server is killed, and started again 5 to 15 s later",
    "mlflow-link": "all connections to MLflow are cut, and refused for 5 to 15 s",
    "storage-link": "all connections to the storage are cut, and refused for 5 to 15 s",
    "storage-silent": "the storage lets nothing through for 5 to 15 s, without a word",
    "disk": "the disk of the storage is full for 5 to 15 s: it answers 507 to all that is written",
}
SHORTEST, LONGEST = 5.0, 15.0
"""Seconds that an outage lasts."""
IN_A_ROW = 2
"""So many faults hit a trial without an evaluation of it in between: raygan gives a trial up at the
third loss of its driver, and at the fourth of its workers."""
ROUND_SECONDS = 20 * 60.0
"""After which a sweep has hung."""
TARGET_SECONDS = 60.0
"""For so long a fault waits for a target, such as a worker; then it is left out."""
AWAY_SECONDS = 60.0
"""For so long after an outage, a sweep's command may say that it cannot start: it has tried."""
SETTLE_SECONDS = 40.0
"""How long it may take, after a sweep, until its processes have ended."""
AGAIN = re.compile(r"the same command (writes|makes|tries)|MLflow lacks the latest results")
"""What the sweep says if it needs its command once more."""
STAYS = (
    "ray::IDLE",
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "ray::_AutoscalingCoordinatorActor",
)
"""Processes of a cluster on which nothing runs; the last one is Ray Data's own, one per cluster."""
UP = re.compile(r" started|Final tests of")
"""What it says only when storage and MLflow have answered at its start."""


@dataclass(frozen=True)
class Planned:
    """A fault that is to be injected."""

    kind: str
    pick: float
    """From 0 to 1: which of the possible targets."""
    seconds: float
    """How long an outage lasts."""


@dataclass
class Injected:
    """A fault that was injected."""

    kind: str
    round: str
    survived: bool = False


def plan(options: argparse.Namespace) -> list[Planned]:
    """The faults of a soak: all kinds equally often, in a random order."""
    draw = random.Random(options.seed)
    found: list[Planned] = []
    while len(found) < 60 * options.minutes / options.every:
        for kind in draw.sample(options.kinds, len(options.kinds)):
            found.append(Planned(kind, draw.random(), draw.uniform(SHORTEST, LONGEST)))
    return found


class Soak:
    """The sweeps of one soak, and the faults that they meet."""

    def __init__(self, rig: Rig, options: argparse.Namespace) -> None:
        self.rig, self._every, self._seconds = rig, options.every, 60 * options.minutes
        self._shapes = [
            Shape(workers=workers, iterations=options.iterations) for workers in options.workers
        ]
        self._faults = plan(options)
        self.injected: list[Injected] = []
        self.problems: list[str] = []
        self._soaked = 0.0
        """Seconds for which sweeps have run under faults."""
        self._due = self._every
        self._restores: dict[str, tuple[float, Callable[[], bool]]] = {}
        """What is away now: when it comes back, and how."""
        self._hits: dict[str, list[float]] = {}
        """By trial, when it was hit."""
        self._stopped: list[Any] = []
        self._sweep: Sweep
        self._process: subprocess.Popen[bytes]
        self._killed = False
        self._back = -math.inf
        """When something came back last."""
        self._seen = 0
        """Bytes of the sweep's log before its last start."""

    # --- sweeps

    def references(self, kept: Path | None) -> list[Results]:
        """The results of undisturbed sweeps, one of each shape."""
        return [self._reference(shape, kept) for shape in self._shapes]

    def _reference(self, shape: Shape, kept: Path | None) -> Results:
        name = hashlib.sha256(
            repr((shape, platform.processor(), os.cpu_count())).encode()
        ).hexdigest()
        file = kept / f"{name[:16]}.json" if kept else None
        if file is not None and file.exists():
            return Results(**json.loads(file.read_text()))
        began = time.monotonic()
        sweep = self.rig.sweep(f"undisturbed-{shape.workers}", shape)
        with sweep.running() as process:
            code = process.wait(ROUND_SECONDS)
        if code:
            sys.exit(f"the undisturbed sweep has ended with {code}:\n{sweep.log.read_text()}")
        results = results_of(sweep.stored())
        say(
            f"undisturbed, {shape.workers} workers: {time.monotonic() - began:.0f} s, {len(results.trials)} trials"
        )
        copied, problems = self._copied(sweep)
        if problems := problems + mlflow_differences(results, copied):
            sys.exit("\n".join(problems))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(vars(results)))
        return Results(**json.loads(json.dumps(vars(results))))

    def run(self, references: Sequence[Results]) -> None:
        """Run sweeps until the time for faults is over, and check each of them."""
        number = 0
        while self._soaked < self._seconds:
            number += 1
            at = (number - 1) % len(self._shapes)
            problems = self._round(f"round-{number}", self._shapes[at], references[at])
            mine = [fault for fault in self.injected if fault.round == f"round-{number}"]
            for fault in mine:
                fault.survived = not problems
            say(
                f"round-{number}: {len(mine)} faults, {'survived' if not problems else 'NOT survived'}"
            )
            for problem in problems:
                say(f"    {problem}")
            self.problems += problems

    def _round(self, name: str, shape: Shape, expected: Results) -> list[str]:
        from tests.clusters import stop

        self._sweep, self._hits, self._stopped, self._killed = (
            self.rig.sweep(name, shape),
            {},
            [],
            False,
        )
        self._start()
        try:
            if (problem := self._disturb()) is not None:
                return [problem]
            for _ in range(3):
                self._restore_all()
                if not AGAIN.search(self._said()):
                    break
                say("the same command is run again, as it says")
                self._start()
                if code := self._process.wait(ROUND_SECONDS):
                    return [f"the same command ended with {code}"]
            return self._check(expected)
        except subprocess.TimeoutExpired:
            return ["the same command, run again, has hung"]
        finally:
            if self._process.poll() is None:
                stop(self._process)
            self._restore_all()

    def _start(self) -> None:
        self._seen = self._sweep.log.stat().st_size if self._sweep.log.exists() else 0
        self._process = self._sweep.start()

    def _said(self) -> str:
        """What its command has said since it was started last, in one line."""
        with self._sweep.log.open("rb") as file:
            file.seek(self._seen)
            return " ".join(file.read().decode(errors="replace").split())

    def _disturb(self) -> str | None:
        """Inject faults until the sweep has ended; returns what is wrong."""
        began = last = time.monotonic()
        refused = 0
        while True:
            now = time.monotonic()
            self._soaked, last = self._soaked + now - last, now
            self._restore_due()
            code = self._process.poll()
            if code == 0:
                return None
            if code is not None:
                away = bool(self._restores) or now - self._back < AWAY_SECONDS
                self._restore_all()
                if self._killed:
                    self._killed = False
                elif code == 2 and away and refused < 3:
                    refused += 1
                    say(f"refused at its start, since a server was away: {self._said()[-300:]}")
                else:
                    return f"it ended with {code}: {self._said()[-2000:]}"
                last = time.monotonic()
                self._start()
            elif now - began > ROUND_SECONDS:
                return f"it has hung for {ROUND_SECONDS:.0f} s: {self._said()[-2000:]}"
            elif self._due <= self._soaked < self._seconds:
                self._inject()
            time.sleep(0.2)

    # --- faults

    def _inject(self) -> None:
        fault = self._faults[0]
        done: str | None = getattr(self, "_hit_" + fault.kind.replace("-", "_"))(fault)
        if done is None:
            if self._soaked < self._due + TARGET_SECONDS:
                return
            done = "left out: there was no target"
        else:
            self.injected.append(Injected(fault.kind, self._sweep.name))
        self._faults.pop(0)
        self._due = max(self._due + self._every, self._soaked + self._every / 2)
        say(f"{clock(self._soaked)} {self._sweep.name} {fault.kind}: {done}")

    def _hit_worker(self, fault: Planned) -> str | None:
        if (found := self._a_worker(fault.pick)) is None:
            return None
        process, trial = found
        process.kill()
        self._was_hit([trial])
        return f"process {process.pid} of trial {trial}"

    def _hit_hang(self, fault: Planned) -> str | None:
        if (found := self._a_worker(fault.pick)) is None:
            return None
        process, trial = found
        process.suspend()
        self._stopped.append(process)
        self._was_hit([trial])
        return f"process {process.pid} of trial {trial}"

    def _hit_driver(self, fault: Planned) -> str | None:
        trials = set(self._trials().values())
        drivers = sorted(self.rig.drivers(), key=lambda process: process.pid)
        if not drivers or not trials or not all(map(self._may_be_hit, trials)):
            return None
        driver = drivers[int(fault.pick * len(drivers))]
        driver.kill()
        self._was_hit(trials)  # it is not known whose driver it is
        return f"process {driver.pid}"

    def _hit_raylet(self, fault: Planned) -> str | None:
        return self._lose_node(fault, whole=False)

    def _hit_node(self, fault: Planned) -> str | None:
        return self._lose_node(fault, whole=True)

    def _lose_node(self, fault: Planned, *, whole: bool) -> str | None:
        index = int(fault.pick * len(self.rig.raylets))
        target = f"node {index}"
        processes = self.rig.on_node(index)
        if target in self._restores or not processes:
            return None
        trials = self._trials()
        hit = {trials.get(p.pid, f"of {p.pid}") for p in processes if "RayTrainWorker" in title(p)}
        if not all(map(self._may_be_hit, hit)):
            return None
        for process in processes if whole else processes[:1]:
            process.kill()
        self._was_hit(hit)
        self._restores[target] = self._soon(fault), lambda: self._restore_node(index)
        return f"{target}, with {', '.join(sorted(hit)) or 'no worker'}, for {fault.seconds:.0f} s"

    def _hit_sweep(self, fault: Planned) -> str | None:
        trials = set(self._trials().values())
        if not all(map(self._may_be_hit, trials)):
            return None
        self._killed = True
        self._process.kill()
        self._process.wait(30)
        self._was_hit(trials)
        return f"process {self._process.pid}"

    def _hit_mlflow(self, fault: Planned) -> str | None:
        if not self._is_up() or self._restores.keys() & {"MLflow", "link of MLflow"}:
            return None
        self.rig.stop_mlflow()
        self._restores["MLflow"] = self._soon(fault), self._restore_mlflow
        return f"for {fault.seconds:.0f} s and its start"

    def _hit_mlflow_link(self, fault: Planned) -> str | None:
        if not self._is_up() or self._restores.keys() & {"MLflow", "link of MLflow"}:
            return None
        self.rig.mlflow_link.cut()
        self._restores["link of MLflow"] = self._soon(fault), done(self.rig.mlflow_link.open)
        return f"for {fault.seconds:.0f} s"

    def _hit_storage_link(self, fault: Planned) -> str | None:
        if not self._is_up() or "storage" in self._restores:
            return None
        self.rig.storage_link.cut()
        self._restores["storage"] = self._soon(fault), done(self.rig.storage_link.open)
        return f"for {fault.seconds:.0f} s"

    def _hit_storage_silent(self, fault: Planned) -> str | None:
        if not self._is_up() or "storage" in self._restores:
            return None
        self.rig.storage_link.silence()
        self._restores["storage"] = self._soon(fault), done(self.rig.storage_link.resume)
        return f"for {fault.seconds:.0f} s"

    def _hit_disk(self, fault: Planned) -> str | None:
        if not self._is_up() or "storage" in self._restores:
            return None
        self.rig.store.full = True
        self._restores["storage"] = self._soon(fault), done(self._empty_disk)
        return f"for {fault.seconds:.0f} s"

    def _a_worker(self, pick: float) -> tuple[Any, str] | None:
        """A worker that may be hit, and its trial."""
        trials = self._trials()
        found = [
            (process, trials[process.pid])
            for process in sorted(self.rig.workers(), key=lambda process: process.pid)
            if process.pid in trials and process not in self._stopped
            and self._may_be_hit(trials[process.pid])
        ]  # fmt: skip
        return found[int(pick * len(found))] if found else None

    def _trials(self) -> dict[int, str]:
        """The trial of each worker that lives, as far as it has said which."""
        alive = {process.pid for process in self.rig.workers()}
        return {note.pid: note.trial for note in self._sweep.notes() if note.pid in alive}

    def _may_be_hit(self, trial: str) -> bool:
        """Whether it has made progress, or was hit less often than a trial must bear."""
        last = max((n.time for n in self._sweep.notes() if counts(n, trial)), default=0.0)
        hits = [hit for hit in self._hits.get(trial, []) if hit > last]
        return len(hits) < IN_A_ROW

    def _was_hit(self, trials: Iterable[str]) -> None:
        for trial in trials:
            self._hits.setdefault(trial, []).append(time.time())

    def _is_up(self) -> bool:
        """Whether the sweep has found its servers: before, it refuses to start without them."""
        return UP.search(self._said()) is not None

    # --- coming back

    def _soon(self, fault: Planned) -> float:
        return time.monotonic() + fault.seconds

    def _restore_due(self) -> None:
        for target, (due, restore) in list(self._restores.items()):
            if time.monotonic() >= due and restore():
                del self._restores[target]
                self._back = time.monotonic()

    def _restore_all(self) -> None:
        """Bring everything back now."""
        self._restores = {target: (0.0, how) for target, (_, how) in self._restores.items()}

        def whole() -> bool:
            self._restore_due()
            return not self._restores

        if not until(whole, 120):
            raise RuntimeError(f"not restored: {list(self._restores)}")

    def _restore_node(self, index: int) -> bool:
        if not self.rig.on_node(index):
            self.rig.restart_raylet(index)
        return self.rig.is_alive(index)

    def _restore_mlflow(self) -> bool:
        if self.rig.server is None:
            self.rig.start_mlflow()
        return self.rig.mlflow_answers()

    def _empty_disk(self) -> None:
        self.rig.store.full = False

    # --- checks

    def _check(self, expected: Results) -> list[str]:
        found = results_of(self._sweep.stored())
        copied, problems = self._copied(self._sweep)
        problems += differences(found, expected)
        problems += mlflow_differences(found, copied)
        return problems + self._left()

    def _copied(self, sweep: Sweep) -> tuple[Copied, list[str]]:
        """What MLflow has, and the runs that are not as they should be."""
        from mlflow import MlflowClient

        client = MlflowClient(f"http://127.0.0.1:{self.rig.mlflow_port}")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        copied: Copied = {}
        problems = []
        for run in client.search_runs(experiments, f"tags.sweep = '{sweep.name}'"):
            trial = run.data.tags.get("trial", "")
            if run.info.status != "FINISHED":
                problems.append(f"MLflow: a run of {trial or 'the sweep'} is {run.info.status}")
            if trial in copied:
                problems.append(f"MLflow: {trial or 'the sweep'} has two runs")
            copied[trial] = {
                key: sorted(
                    (m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)
                )
                for key in run.data.metrics
            }
        if copied.pop("", None) is None:
            problems.append("MLflow: the sweep has no run")
        return copied, problems

    def _left(self) -> list[str]:
        problems = []

        def busy() -> list[str]:
            titles = {process.pid: title(process) for process in self.rig.processes()}
            return [
                f"{pid} {words}"
                for pid, words in titles.items()
                if words.startswith("ray::") and not words.startswith(STAYS)
            ]

        until(lambda: not busy(), SETTLE_SECONDS)
        problems += [f"left behind: process {name}" for name in busy()]
        problems += [
            f"left behind: stopped process {p.pid}" for p in self._stopped if p.is_running()
        ]
        table = self.rig.cluster.global_state.placement_group_table()
        groups = [group for group in table.values() if group["state"] != "REMOVED"]
        problems += [
            f"left behind: placement group {group['placement_group_id']} ({group['state']})"
            for group in groups
        ]
        problems += [f"left behind: {file}" for file in (self.rig.folder / "cache").rglob("*.tmp")]
        return problems


def counts(note: Note, trial: str) -> bool:
    """Whether it says that ``trial`` has made progress."""
    return note.trial == trial and note.what == "evaluated"


def done(action: Callable[[], object]) -> Callable[[], bool]:
    """``action``, which is done once it returns."""

    def act() -> bool:
        action()
        return True

    return act


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    options = _parser().parse_args()
    say(f"seed {options.seed}: " + ", ".join(fault.kind for fault in plan(options)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Rig() as rig:
        say(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {rig.folder}")
        soak = Soak(rig, options)
        began = time.monotonic()
        soak.run(soak.references(options.reference))
        say(f"{clock(time.monotonic() - began)} in all, the undisturbed sweeps included")
    left = until(lambda: not rig.processes(), SETTLE_SECONDS) or rig.processes()
    if left is not True:
        soak.problems += [f"left at the end: process {p.pid} {title(p)}" for p in left]
    temporary = sorted(path.name for path in (rig.folder / "tmp").iterdir())
    # others are those of libraries in servers that were killed, and PyTorch's cache
    ours = [name for name in temporary if name.startswith(("tmp", "raygan"))]
    soak.problems += [f"left at the end: temporary file {name}" for name in ours]
    injected = Counter(fault.kind for fault in soak.injected)
    survived = Counter(fault.kind for fault in soak.injected if fault.survived)
    say("\n| kind | survived | of |\n|---|---|---|")
    for kind in options.kinds:
        say(f"| {KINDS[kind]} | {survived[kind]} | {injected[kind]} |")
    say(f"| all | {survived.total()} | {injected.total()} |")
    if soak.problems:
        sys.exit("\n".join(["", *soak.problems, f"logs: {rig.folder}"]))
    shutil.rmtree(rig.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="with faults")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1, help="of the plan of faults")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="per trial, in turns"
    )
    parser.add_argument("--iterations", type=int, default=2400, help="of a trial")
    parser.add_argument("--reference", type=Path, help="folder that keeps undisturbed sweeps")
    return parser


if __name__ == "__main__":
    main()
