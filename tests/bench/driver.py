"""How many evaluations per second a sweep's driver takes, with object storage far away.

    python tests/bench/driver.py
    python tests/bench/driver.py --against ../before --rounds 5

The real study, without Ray: many trials run, each with a history, and one after another says a new
evaluation, as workers do. The object store is `tests/object_store.py`, and `tests/delay.py` makes
each request to it take longer; both run in processes of their own, on loopback. For each delay, in
turns:

`loop`: the evaluations come as fast as they are taken. `evaluations/s` is their number by the
seconds until the last record is stored. `ms in the loop` is the median time for which one keeps
Tune's loop from the others, `worst` the 99th percentile. `to the end` is what of the seconds was
spent waiting, after the last evaluation, until all is stored: how far the storage was behind.

`paced`: they come at `--rate`. `behind` is the most things that were not stored at a time.

`--against FOLDER` runs the same script with another checkout, in turns with this one, so that
what else runs on the machine hits both alike. That checkout is not paced: it may not keep up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
name: driver
grid: {{norm: [bn, wn]}}
search: {{method: random, trials: {per_cell}, lr: {{min: 1.0e-5, max: 1.0e-2, scale: log}}}}
stop: {{rule: none}}
train: {{iterations: 100000000, evaluate_every: 100}}
"""
METRICS = [
    *(f"train/{name}" for name in ("loss_d", "loss_g", "accuracy_real", "accuracy_fake")),
    *(f"train/gradient_norm_{of}" for of in "dg"),
    *(f"val/{name}" for name in ("reconstruction_loss", "variety", "pixel_mean", "pixel_std")),
    *(f"perf/{name}" for name in ("images_per_second", "images_seen", "evaluation_seconds")),
]
SHOWN = ("evaluations/s", "ms in the loop", "worst", "to the end", "behind", "CPU ms")


def point(step: int) -> dict[str, float]:
    """The metrics of an evaluation, as long as real ones."""
    return {"step": float(step), **{name: 1 / (step + i) for i, name in enumerate(METRICS)}}


def serve() -> None:
    """An object store, as long as somebody holds its standard input."""
    from tests.object_store import object_store

    with object_store() as store:
        print(store.server_port, flush=True)
        sys.stdin.read()


@contextmanager
def served() -> Iterator[subprocess.Popen[str]]:
    """:func:`serve` in a process of its own."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(ROOT)
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def environment(checkout: Path, port: int = 0) -> dict[str, str]:
    """What a process needs to run `checkout` with the object store at ``port``."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(checkout), str(ROOT)]),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def measure(trials: int, history: int, most: int, seconds: float, rate: float) -> dict[str, float]:
    """One run in this process: ``most`` evaluations, or as many as come in ``seconds``."""
    from raygan.storage import Storage
    from raygan.sweep.spec import sweep_spec as spec
    from raygan.sweep.spec.yaml_loader import parse
    from raygan.sweep.study.study import Study

    os.fsync = lambda _: None  # type: ignore[assignment]  # of what is planned on the disk
    with tempfile.TemporaryDirectory() as folder:
        sweep = spec.validate(parse(SWEEP.format(per_cell=trials // 2), "driver"))
        study = Study(sweep, Storage(folder) / sweep.name)
        planned = [study.next_trial() for _ in range(trials)]
        study.close()
        # planned on the disk: the version before would take minutes for it at an address
        vars(study.storage).update(vars(Storage("s3://bucket") / f"driver-{os.getpid()}"))
    names = [each.id for each in planned if each is not None]
    for record in study.records.values():
        record.merge([point(100 * number) for number in range(1, history + 1)])
        # as if they had been written; the version before has no such thing
        record.in_chunks = history
    for name in names:
        study.started(name)
    waits, behind = [], 0
    began, cpu = time.perf_counter(), time.process_time()
    for number, name in zip(range(most), itertools.cycle(names), strict=False):
        step = 100 * (history + 1 + number // trials)
        report = {key: value for key, value in point(step).items() if key != "step"}
        asked = time.perf_counter()
        study.heard(name, {"step": step, **report})
        study.tick()
        now = time.perf_counter()
        waits.append(now - asked)
        if rate:
            behind = max(behind, study.ledger.left)
            time.sleep(max(0.0, began + (number + 1) / rate - now))
        if now - began > seconds:
            break
    told = time.perf_counter()
    if hasattr(study, "ledger"):  # the version before has written everything
        assert study.flush(600)
    ended = time.perf_counter()
    return {
        "evaluations": len(waits),
        "evaluations/s": len(waits) / (ended - began),
        "ms in the loop": 1e3 * statistics.median(waits),
        "worst": 1e3 * statistics.quantiles(waits, n=100)[-1],
        "to the end": ended - told,
        "behind": behind,
        "CPU ms": 1e3 * (time.process_time() - cpu) / len(waits),
    }


def one(arguments: argparse.Namespace, checkout: Path, port: int, rate: float) -> dict[str, float]:
    """:func:`measure` in a process of its own, with ``checkout``."""
    given = {"trials": arguments.trials, "history": arguments.history, "rate": rate,
             "most": arguments.evaluations, "seconds": arguments.seconds}  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(given)],
        env=environment(checkout, port),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(values: list[float]) -> str:
    """Median, lowest and highest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000, help="that run at once")
    parser.add_argument("--history", type=int, default=100, help="evaluations before")
    parser.add_argument("--evaluations", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=10.0, help="after which a run is cut off")
    parser.add_argument("--rate", type=float, default=100.0, help="evaluations per second")
    parser.add_argument("--latency", type=float, nargs="+", default=[0, 10, 40, 100], help="in ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    if arguments.one:
        print(json.dumps(measure(**arguments.one)))
        return
    sys.path.insert(0, str(ROOT))
    from tests.delay import delayed

    arms = [("loop", ROOT, 0.0), ("paced", ROOT, arguments.rate)]
    if arguments.against:
        arms.insert(0, ("before", arguments.against.resolve(), 0.0))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; "
        f"{arguments.trials} trials with {arguments.history} evaluations each; median of "
        f"{arguments.rounds} rounds [lowest, highest]",
        flush=True,
    )
    print("delay  arm     " + "".join(f"{name:<22}" for name in SHOWN), flush=True)
    with served() as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for latency in arguments.latency:
            found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in arms}
            with ExitStack() as stack:
                far = stack.enter_context(delayed(port, latency / 1e3)) if latency else port
                for _ in range(arguments.rounds):
                    for name, checkout, rate in arms:
                        found[name].append(one(arguments, checkout, far, rate))
            for name, runs in found.items():
                cells = [shown([run[key] for run in runs]) for key in SHOWN]
                line = "".join(f"{cell:<22}" for cell in cells)
                print(f"{latency:3.0f} ms {name:<8}{line}", flush=True)
            if arguments.against:
                ratios = [a["evaluations/s"] / b["evaluations/s"]
                          for a, b in zip(found["loop"], found["before"], strict=True)]  # fmt: skip
                print(f"{latency:3.0f} ms ratio   {shown(ratios)}", flush=True)


if __name__ == "__main__":
    main()
