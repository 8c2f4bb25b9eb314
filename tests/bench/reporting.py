"""How long workers wait in `ray.train.report`, in a real sweep with storage and MLflow far away.

    python tests/bench/reporting.py --latency 40

A cluster of three raylets on this machine (`ray.cluster_utils.Cluster`): a head without CPUs for
workers, and two nodes. A sweep with `storage: s3://…` and an MLflow server, both behind a proxy
that delays each request, trains small GANs on the embedded digits. A file of recipes, which every
worker loads, measures each call of `ray.train.report`, from the second one of a worker on: the
first one is its first word, before the training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.driver import served
from tests.clusters import ROOT, free_port, serve, stop
from tests.delay import delayed

WATCH = '''
import os
import time

import ray.train

from raygan.recipes import Metric

WRITTEN = {folder!r} + f"/{{os.getpid()}}.txt"
BEFORE = getattr(ray.train.report, "before", ray.train.report)


def report(*arguments, **options):
    started = time.monotonic()
    BEFORE(*arguments, **options)
    with open(WRITTEN, "a") as file:
        print(started, time.monotonic(), file=file)


report.before = BEFORE
ray.train.report = report


class Watched(Metric):
    """Always 0; this file measures how long reports take."""

    name = "watched"

    def measure(self, samples, images):
        return 0.0
'''
SWEEP = """
name: reporting
dataset: {{name: digits}}
grid: {{norm: [vanilla, bn, wn]}}
replicate: {{seeds: 2}}
recipes: [watch.py]
train: {{iterations: {iterations}, evaluate_every: {every}, features: 8, code_size: 32, batch_size: 16}}
final: {{steps: 5}}
storage: s3://bucket
tracking: {{uri: "http://127.0.0.1:{mlflow}"}}
"""


def main() -> None:
    options = _parser().parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {key: os.environ[key] for key in os.environ if key != "RAY_ADDRESS"}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        database = free_port()
        server = serve(folder, database, environment)
        stack.callback(stop, server)
        store = stack.enter_context(served())
        assert store.stdout is not None
        seconds = options.latency / 1e3
        bucket = stack.enter_context(delayed(int(store.stdout.readline()), seconds))
        mlflow = stack.enter_context(delayed(database, seconds))
        environment |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket}",
            "AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true", "RAYGAN_CACHE": str(folder / "cache"),
        }  # fmt: skip
        os.environ.update(environment)  # of the raylets, too
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        stack.callback(cluster.shutdown)
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        times = folder / "times"
        times.mkdir()
        (folder / "watch.py").write_text(WATCH.format(folder=str(times)))
        (folder / "sweep.yaml").write_text(
            SWEEP.format(iterations=options.iterations, every=options.every, mlflow=mlflow)
        )
        command = [sys.executable, "-m", "raygan.sweep", str(folder / "sweep.yaml")]
        environment["RAY_ADDRESS"] = cluster.address
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        shares, waits = [], []
        for file in sorted(times.iterdir()):
            calls = [tuple(map(float, line.split())) for line in file.read_text().splitlines()][1:]
            if len(calls) < 3:
                continue  # a process that only loaded the file
            waited = [end - start for start, end in calls[:-1]]  # the last one ends the worker
            shares.append(sum(waited) / (calls[-1][0] - calls[0][0]))
            waits += waited
    waits.sort()
    print(
        f"{options.latency:g} ms; {len(shares)} workers, {len(waits)} reports: share of the time in "
        f"report {statistics.median(shares):.2%} [{min(shares):.2%}, {max(shares):.2%}]; per report "
        f"{statistics.median(waits) * 1e3:.1f} ms, 99% below {waits[int(0.99 * len(waits))] * 1e3:.1f} ms"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latency", type=float, default=40.0, help="of storage and MLflow, in ms")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100, help="iterations between evaluations")
    return parser


if __name__ == "__main__":
    main()
