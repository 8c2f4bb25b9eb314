"""How long a large sweep takes to be read and resumed, and what it costs in memory.

    python tests/bench/resume.py
    python tests/bench/resume.py --trials 10000 --latency 0 40 --against ../before

Makes a sweep whose trials have ended: one of ten after 200 evaluations, the others were stopped
after 10. Then, in a process of its own each time, as often as `--rounds` says: the records are read
(`records`), the sweep is resumed, which also rebuilds the searches (`resume`), and `raygan status`
is run, its start included (`status`). `KiB per trial`: by how much the records make the process
grow.

The sweep lies on a disk, and, with `--latency`, in the object store of `tests/object_store.py`,
which answers so many ms later (`tests/delay.py`). `--against FOLDER` runs another checkout, too, in
turns with this one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
name: large
grid: {{norm: [bn, wn, vanilla, gn]}}
search: {{method: random, trials: {per_cell}, lr: {{min: 1.0e-5, max: 1.0e-2, scale: log}}}}
stop: {{rule: asha, grace: 1000, reduction: 3}}
replicate: {{seeds: {seeds}}}
train: {{iterations: 20000, evaluate_every: 100}}
storage: {storage}
"""
CELLS, SEEDS = 4, 3
SHORT, LONG, EVERY = 10, 200, 10
PARTS = ("records", "resume", "status", "KiB per trial")


def make(folder: Path, trials: int) -> None:
    """Store the sweep, with its records as they are after its search."""
    from raygan.records import TrialRecord
    from raygan.storage import Storage
    from raygan.sweep.spec import plan
    from raygan.sweep.spec import sweep_spec as spec
    from raygan.sweep.spec.yaml_loader import parse
    from raygan.sweep.study import stored_sweep
    from tests.bench.driver import point
    from tests.sweep.prepared import one_set

    os.fsync = lambda _: None  # type: ignore[assignment]
    per_cell = trials // CELLS - SEEDS  # the replicates are still to come
    text = SWEEP.format(per_cell=per_cell, seeds=SEEDS, storage=folder)
    sweep = spec.validate(parse(text, "x"))
    home = Storage(str(folder)) / sweep.name
    data = one_set(id="1", digest="d", baseline=2.0, folder="/x", shape="3×32×32", train=9)
    stored_sweep.store(home, sweep, data)
    for cell in plan.cells(sweep):
        for index in range(per_cell):
            rate = 10 ** -(2 + 3 * index / per_cell)
            planned = plan.trial(sweep, cell, index, {"lr": rate})
            record = TrialRecord(planned.id, planned.cell, index, planned.title, planned.params,
                                 planned.config.to_dict(), "stopped")  # fmt: skip
            evaluations = LONG if index % EVERY == 0 else SHORT
            record.merge([point(100 * number) for number in range(1, evaluations + 1)])
            for later in record.history:
                later["val/reconstruction_loss"] *= 1 + index / trials
            record.outcome = "ok" if evaluations == LONG else "stopped"
            record.checkpoints = {"last": "checkpoint_1"}
            record.seconds = 9.0
            record.save(home)


def measure(storage: str) -> dict[str, float]:
    """The parts, in this process and in another."""
    import psutil

    from raygan import records
    from raygan.storage import Storage
    from raygan.sweep.study import stored_sweep
    from raygan.sweep.study.study import Study

    home = Storage(storage) / "large"
    sweep = stored_sweep.stored_spec(home)
    assert sweep is not None
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    known = records.load_all(home)
    read = time.perf_counter() - began
    grown = psutil.Process().memory_info().rss - before
    trials = len(known)
    del known
    began = time.perf_counter()
    Study(sweep, home)
    resumed = time.perf_counter() - began
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "raygan", "status", "large", "--storage", storage],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return {
        "records": read,
        "resume": resumed,
        "status": time.perf_counter() - began,
        "KiB per trial": grown / 2**10 / trials,
    }


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """The port of an object store, in a process of its own, that holds ``folder``."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(ROOT, 0)
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def serve(folder: Path) -> None:
    from tests.object_store import object_store, upload

    with object_store() as store:
        upload(store, folder, "bucket")
        print(store.server_port, flush=True)
        sys.stdin.read()


def environment(checkout: Path, port: int) -> dict[str, str]:
    from tests.bench import driver

    return driver.environment(checkout, port)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--latency", type=float, nargs="*", default=[40], help="in ms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    sys.path.insert(0, str(ROOT))
    if arguments.serve:
        serve(arguments.serve)
        return
    from tests.bench.turns import compare
    from tests.delay import delayed

    arms = {"now": ROOT}
    if arguments.against:
        arms["before"] = arguments.against.resolve()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; "
          f"{arguments.trials} trials; seconds; median of {arguments.rounds} rounds "
          "[lowest, highest]", flush=True)  # fmt: skip
    print("storage    arm     " + "".join(f"{name:<22}" for name in PARTS), flush=True)

    def measured(name: str, storage: str, port: int) -> None:
        compare(
            name,
            __file__,
            arms,
            arguments.rounds,
            PARTS,
            lambda arm: ([storage], environment(arms[arm], port)),
        )

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, arguments.trials)
        measured("disk", temporary, 0)
        if arguments.latency:
            with served(folder) as port:
                for latency in arguments.latency:
                    with delayed(port, latency / 1e3) as far:
                        measured(f"{latency:g} ms", "s3://bucket", far)


if __name__ == "__main__":
    main()
