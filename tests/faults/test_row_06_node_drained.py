"""Row 6: a spot node is drained: told 15 s before that it will be gone, and then it is.

Ray's node is told as Kubernetes tells it: by SIGTERM, upon which it drains itself.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raygan import records
from raygan.checkpoints import find_checkpoints
from raygan.data import load
from raygan.folder import trial_folder
from raygan.gan.config import TrainConfig
from raygan.gan.state import TrainState
from raygan.gan.train import train
from raygan.records import TrialRecord
from raygan.storage import Storage
from raygan.sweep.study import stored_sweep
from tests.clusters import BIN, LONGER, PATIENCE, free_port, serve, start, stop, wait_until

TRIAL = "vanilla-000"
NOTICE = 15
"""Seconds: what Kubernetes leaves to a pod on a spot node of Google Cloud."""
CPUS = 3
"""More than the cluster's head has: a trial's worker takes a node of its own."""


@pytest.fixture
def spot(cluster) -> Iterator:
    """Starts a node that a spot node stands for, and returns its process."""
    nodes: list[subprocess.Popen] = []
    env = {**cluster.env, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(NOTICE)}

    def begin() -> subprocess.Popen:
        log = cluster.logs / f"spot-{len(nodes)}.log"
        log.unlink(missing_ok=True)
        nodes.append(
            start(
                [str(BIN / "ray"), "start", "--block", "--disable-usage-stats",
                 f"--address={cluster.address}", f"--num-cpus={CPUS}",
                 "--object-store-memory=100000000",
                 f"--dashboard-agent-listen-port={free_port()}"],
                log,
                env,
            )
        )  # fmt: skip
        wait_until(lambda: "Ray runtime started" in log.read_text(), "a spot node", nodes[-1])
        return nodes[-1]

    yield begin
    for node in nodes:
        stop(node)


@pytest.fixture
def server(cluster, tmp_path) -> Iterator[str]:
    port = free_port()
    process = serve(tmp_path, port, cluster.env)
    yield f"http://127.0.0.1:{port}"
    stop(process)


def undisturbed(home: Storage, record: TrialRecord) -> float:
    """The loss of a trial where it is now, if it is trained in this process from its start."""
    data = stored_sweep.stored_data(home, stored_sweep.stored_spec(home)).of("")
    images, config = load(Path(data.folder)), TrainConfig.of(**record.config)
    config = replace(config, evaluate_every=record.step)  # the evaluations take most of the time
    state = TrainState.create(config, images.shape, torch.device("cpu"))
    return next(train(config, images, state)).loss


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_trial_keeps_its_state_at_the_notice_and_moves_on(sweep, spot, server, workers):
    made = sweep(
        f"drained-{workers}",
        grid={"norm": ["vanilla"]},
        train={**LONGER, "iterations": 100_000, "checkpoint_every": "1h"},
        scale={"workers": workers, "cpus_per_worker": CPUS},
        tracking={"uri": server},
    )
    home = Storage(str(made.storage / made.name))

    def record() -> TrialRecord:
        return records.load_all(home)[TRIAL]

    first, *_ = [spot() for _ in range(workers)]
    with made.running() as process:
        wait_until(lambda: len(made.curve(TRIAL)) >= 2, "two evaluations", process)
        assert find_checkpoints(home / trial_folder(TRIAL)) == []
        spot()  # where the trial can move to
        noticed = record().step
        first.send_signal(signal.SIGTERM)
        wait_until(lambda: first.poll() is not None, "the node is gone")
        gone, before = record().step, made.pictures(TRIAL)
        wait_until(lambda: record().step > gone + 10, "the trial has moved on", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130

    assert gone > noticed, "it did not use the time that it had"
    after = made.pictures(TRIAL)
    again = [step for step in before if after[step] != before[step]]
    assert not again or min(again) > noticed, "it was not kept at the notice"
    said = made.log.read_text()  # its time counts anew from where it has moved to
    assert len(re.findall(r"waiting for resources \(trial ", said)) == 2
    assert len(re.findall(r"started[^(]*\(trial ", said)) == 2
    assert record().notes == []
    step, loss = record().curve[-1]
    assert step == record().step
    assert loss == pytest.approx(undisturbed(home, record()), rel=0 if workers == 1 else 1e-4)


@pytest.mark.soak
def test_an_elastic_trial_goes_on_with_the_workers_that_are_left(sweep, spot, server):
    """Its workers that are left must not hold what the trial is to go on with."""
    made = sweep(
        "drained-elastic",
        grid={"norm": ["vanilla"]},
        train={**LONGER, "iterations": 100_000, "checkpoint_every": "1h"},
        scale={"workers": {"min": 1, "max": 2}, "cpus_per_worker": CPUS},
        tracking={"uri": server},
    )
    home = Storage(str(made.storage / made.name))

    def record() -> TrialRecord:
        return records.load_all(home)[TRIAL]

    first, _ = spot(), spot()
    with made.running() as process:
        wait_until(lambda: len(made.curve(TRIAL)) >= 2, "two evaluations", process)
        first.send_signal(signal.SIGTERM)
        wait_until(lambda: first.poll() is not None, "the node is gone")
        wait_until(lambda: len(record().notes) == 2, "the trial goes on", process)
        gone = record().step
        wait_until(lambda: record().step > gone + 10, "an evaluation", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    first_note, second = record().notes
    assert first_note == "trained by 2 of at most 2 workers from iteration 0 on"
    assert second.startswith("trained by 1 of at most 2 workers from iteration ")
