"""Cells of different weight on one cluster, and trials whose width changes."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from tests.clusters import LONGER, free_port, serve, stop, wait_until


@pytest.mark.soak
def test_cells_of_different_weight_share_a_cluster(sweep):
    made = sweep(
        "weights",
        grid={"norm": ["bn", "wn"]},
        search={"method": "grid", "lr": [1e-4, 2e-4]},
        stop={"rule": "none"},
        scale={"by": {"norm": {"wn": {"workers": 2}}}},
    )
    said = made.run()
    for index in range(2):
        assert f" started (trial bn-00{index};" in said
        assert f" started with 2 workers (trial wn-00{index};" in said
        for trial in (f"bn-00{index}", f"wn-00{index}"):
            assert made.record(trial)["outcome"] == "ok", said
            assert [step for step, _ in made.curve(trial)] == [10, 20, 30, 40]
    # they wait for each other, as they should
    assert "wait for resources" not in said


@pytest.mark.soak
def test_the_curve_of_an_elastic_trial_does_not_depend_on_its_workers(
    cluster, reference, sweep, tmp_path
):
    port = free_port()
    made = sweep(
        "elastic",
        grid={"norm": ["bn"]},
        train=LONGER,
        scale={"workers": {"min": 1, "max": 2}, "cpus_per_worker": 2},
        tracking={"uri": f"http://127.0.0.1:{port}"},
    )
    server = serve(tmp_path, port, cluster.env)
    node = cluster.node("extra", f"--address={cluster.address}", "--num-cpus=2")
    log = cluster.logs / "extra.log"
    try:
        wait_until(lambda: "Ray runtime started" in log.read_text(), "another node", node)
        with made.running() as process:
            wait_until(lambda: made.curve("bn-000"), "an evaluation", process)
            for lost in psutil.Process(node.pid).children(recursive=True):
                lost.kill()
            assert process.wait(300) == 0, made.log.read_text()
    finally:
        stop(node)
        stop(server)
    record = made.record("bn-000")
    assert record["outcome"] == "ok", made.log.read_text()
    first, second = record["notes"]
    assert first == "trained by 2 of at most 2 workers from iteration 0 on"
    assert re.fullmatch(r"trained by 1 of at most 2 workers from iteration [1-5]0 on", second)
    losses, expected = dict(made.curve("bn-000")), dict(reference.curve("bn-000"))
    assert losses == pytest.approx(expected, rel=1e-4)


SLOW = '''
import time

from raygan.recipes import Metric


class Slow(Metric):
    """Always 0, after three seconds: the trial lasts until free workers have been free for long."""

    name = "slow"

    def measure(self, samples, images):
        time.sleep(3)
        return 0.0
'''


@pytest.mark.soak
def test_an_elastic_trial_takes_workers_that_become_free(cluster, reference, sweep, tmp_path: Path):
    recipes = tmp_path / "slow.py"
    recipes.write_text(SLOW)
    made = sweep(
        "growing",
        recipes=[str(recipes)],
        grid={"norm": ["bn"]},
        train=LONGER | {"evaluate_every": 1},
        scale={"workers": {"min": 1, "max": 2}, "cpus_per_worker": 2},
    )
    with made.running() as process:
        wait_until(lambda: made.curve("bn-000"), "an evaluation", process)
        node = cluster.node("grown", f"--address={cluster.address}", "--num-cpus=2")
        try:
            assert process.wait(600) == 0, made.log.read_text()
        finally:
            stop(node)
    record = made.record("bn-000")
    assert record["outcome"] == "ok", made.log.read_text()
    first, second = record["notes"]
    assert first == "trained by 1 of at most 2 workers from iteration 0 on"
    assert re.fullmatch(r"trained by 2 of at most 2 workers from iteration \d+ on", second)
    losses, expected = dict(made.curve("bn-000")), dict(reference.curve("bn-000"))
    assert {step: losses[step] for step in expected} == pytest.approx(expected, rel=1e-4)
