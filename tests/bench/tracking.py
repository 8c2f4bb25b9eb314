"""How fast evaluations reach an MLflow server that is far away, before and after a change.

A real ``mlflow server`` runs in a process of its own, behind a proxy that makes it far away. A
driver, in another process, tells the tracker of evaluations with their stored pictures, which are
noise: the worst case for compression. Two loads:

- ``all``: each trial is told once with all its evaluations, as after an outage. Evaluations per
  second until all are there with their pictures, or until the time is over.
- ``live``: evaluations are told at a fixed rate, in turns between the trials, as while a sweep
  runs. Evaluations that are there when the time is over, per second; at best it is the rate.

What is there is counted in the server's own database. ``--against`` names another checkout of
raygan, which runs in turns with this one, so that load on the machine hits both alike::

    python tests/bench/tracking.py --against ../before
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EVALUATIONS, EVERY = 200, 1000
"""Of a whole trial, as in sweeps/full.yaml."""
METRICS = ("train/loss_d", "train/loss_g", "val/variety", "perf/images_per_second", "perf/seconds",
           "perf/evaluation_seconds", "train/d_real", "train/d_fake")  # fmt: skip
TILES = {"samples": 64, "reconstructions": 32}


def drive(arguments: argparse.Namespace) -> None:
    """The driver: prints what it has measured as JSON. Runs with any version of raygan."""
    import requests
    import torch

    from raygan.folder import picture_file, trial_folder
    from raygan.gan import picture_grid
    from raygan.gan.config import TrainConfig
    from raygan.records import LOSS, STEP, TrialRecord
    from raygan.storage import Storage
    from raygan.tracking.mlflow_tracker import Tracker

    sent = 0
    send = requests.Session.send

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(*given, **more)

    requests.Session.send = counted  # type: ignore[method-assign]

    def count() -> int:
        with closing(sqlite3.connect(f"file:{arguments.database}?mode=ro", uri=True)) as base:
            query = "SELECT COUNT(*) FROM metrics WHERE key = ?"
            return int(base.execute(query, (LOSS,)).fetchone()[0])

    names = [f"wn-{number:03d}" for number in range(arguments.trials)]
    config = TrainConfig(iterations=EVALUATIONS * EVERY, evaluate_every=EVERY).to_dict()
    records = [TrialRecord(name, "wn", 0, name, {}, config) for name in names]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        sweep = Storage(folder) / "sweep"
        size = arguments.pixels
        encode = getattr(picture_grid, "grid_webp", picture_grid.grid_png)  # PNG in the one before
        for kind, tiles in TILES.items():
            noise = torch.randint(0, 256, (tiles, 3, size, size), dtype=torch.uint8)
            source = Path(folder) / kind
            source.write_bytes(encode(noise, columns=8))
            for name in names:
                for number in range(1, EVALUATIONS + 1):
                    step = number * EVERY
                    link = sweep.local / trial_folder(name) / picture_file(kind, step)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.link(source, link)
        tracker = Tracker(arguments.uri, "experiment", "sweep", sweep)
        tracker.connect()
        tracker.open(uuid.uuid4().hex, "name: sweep\n", {})

        def evaluate(record: TrialRecord) -> None:
            step = record.step + EVERY
            point = {STEP: float(step), LOSS: 1 / step, "perf/images_seen": 32.0 * step}
            record.history.append(point | dict.fromkeys(METRICS, 1.5))

        def whole() -> bool:
            behind = getattr(tracker, "behind", None)  # the version before sends pictures first
            return (behind is None or not behind.seconds) and count() - before == told

        def shown() -> int:
            return sum(1 for path in Path(arguments.folder, "artifacts").rglob("images/*"))

        before, shown_before, sent = count(), shown(), 0
        began, cpu = time.perf_counter(), time.process_time()
        told, telling = 0, 0.0
        if arguments.rate is None:
            for record in records:
                for _ in range(EVALUATIONS):
                    evaluate(record)
                tracker.update(record)
            told = EVALUATIONS * len(records)
            while time.perf_counter() - began < arguments.seconds and not whole():
                time.sleep(0.2)
        while arguments.rate and (now := time.perf_counter() - began) < arguments.seconds:
            if told < now * arguments.rate and told < EVALUATIONS * len(records):
                record = records[told % len(records)]
                evaluate(record)
                start = time.perf_counter()
                tracker.update(record)
                telling += time.perf_counter() - start
                told += 1
            else:
                time.sleep(0.002)
        seconds, copied = time.perf_counter() - began, count() - before
        found = {
            "told": told,
            "copied": copied,
            "picture files": shown() - shown_before,
            "behind": f"{tracker.behind}" if hasattr(tracker, "behind") else None,
            "per second": copied / seconds,
            "requests per evaluation": sent / max(1, copied),
            "driver CPU ms per evaluation": 1e3 * (time.process_time() - cpu) / max(1, copied),
            "update µs": 1e6 * telling / told if arguments.rate else None,
            "error": tracker.last_error,
        }
        print(json.dumps(found), flush=True)
    os._exit(0)  # the tracker's threads may still be busy


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, Path]]:
    """A real MLflow server: its port and its database."""
    sys.path.insert(0, str(ROOT))
    from tests.clusters import free_port, serve, stop

    port = free_port()
    process = serve(folder, port, dict(os.environ))
    try:
        yield port, folder / "server.db"
    finally:
        stop(process)


def measure(checkout: Path, given: dict[str, object]) -> dict[str, Any]:
    """What the driver of a checkout measures."""
    command = [sys.executable, str(Path(__file__).resolve()), "--drive"]
    for key, value in given.items():
        if value is not None:
            command += [f"--{key}", str(value)]
    env = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.1f} [{min(values):.1f}, {max(values):.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of raygan")
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 10, 40, 100])
    parser.add_argument("--trials", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--pixels", type=int, nargs="+", default=[32, 160])
    parser.add_argument("--rates", type=float, nargs="+", default=[25], help="of the load `live`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of a measurement, at most")
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    for name in ("--uri", "--database", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        arguments.trials, arguments.pixels = arguments.trials[0], arguments.pixels[0]
        drive(arguments)
    versions = {"this": ROOT}
    if arguments.against:
        versions = {"against": arguments.against.resolve(), **versions}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (port, database):
        compare(arguments, versions, Path(folder), port, database)


def compare(
    arguments: argparse.Namespace,
    versions: dict[str, Path],
    folder: Path,
    port: int,
    database: Path,
) -> None:
    """Measure all versions in turns and print medians, with the least and the most."""
    from tests.delay import delayed

    print(f"{arguments.rounds} rounds; median [least, most]; evaluations/s, requests, driver CPU")
    for latency in arguments.latencies:
        with delayed(port, latency / 1000) as far:
            for trials in arguments.trials:
                for pixels in arguments.pixels:
                    for rate in (None, *arguments.rates):
                        given = {
                            "uri": f"http://127.0.0.1:{far}", "database": database,
                            "folder": folder, "trials": trials, "pixels": pixels, "rate": rate,
                            "seconds": arguments.seconds,
                        }  # fmt: skip
                        found: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
                        for _ in range(arguments.rounds):
                            for name, checkout in versions.items():
                                found[name].append(measure(checkout, given))
                        load = "all" if rate is None else f"live {rate:g}/s"
                        print(f"\n{latency:g} ms, {trials} trials, {pixels} px, {load}")
                        show(found)


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    for name, all_of in found.items():
        rates = [one["per second"] for one in all_of]
        line = f"  {name:8} {spread(rates)} evaluations/s"
        for key, unit in (
            ("requests per evaluation", "requests each"),
            ("driver CPU ms per evaluation", "ms CPU each"),
            ("update µs", "µs per update"),
        ):
            values = [one[key] for one in all_of if one[key] is not None]
            if values:
                line += f"; {statistics.median(values):.2f} {unit}"
        errors = {one["error"] for one in all_of} - {None}
        copied = sum(one["copied"] for one in all_of)
        told = sum(one["told"] for one in all_of)
        line += f"; {copied} of {told} copied"
        line += f", {sum(one['picture files'] for one in all_of)} picture files"
        behind = [one["behind"] for one in all_of if one["behind"]]
        line += f"; behind at the end: {', '.join(behind)}" if behind else ""
        print(f"{line}{f'; {errors}' if errors else ''}", flush=True)
    if len(found) == 2:
        before, after = (
            statistics.median([one["per second"] for one in all_of]) for all_of in found.values()
        )
        print(f"  ratio {after / max(before, 1e-9):.1f}")


if __name__ == "__main__":
    main()
