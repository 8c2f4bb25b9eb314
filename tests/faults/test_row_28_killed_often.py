"""Row 28: workers are killed more often than is allowed in a row, with progress in between."""

from __future__ import annotations

import pytest

from raygan.sweep.cluster.trial import WORKER_FAILURES
from tests.clusters import LONGER, wait_until

TRIAL = "vanilla-000"


@pytest.mark.soak
def test_a_trial_that_makes_progress_is_not_given_up(cluster, reference, sweep):
    made = sweep("killed-often", grid={"norm": ["vanilla"]}, train=LONGER)
    with made.running() as process:
        for kills in range(1, WORKER_FAILURES + 2):
            wait_until(lambda n=kills: len(made.curve(TRIAL)) >= n, f"evaluation {kills}", process)
            (worker,) = wait_until(cluster.train_workers, "a worker", process)
            worker.kill()
            worker.wait(30)
        assert process.wait(360) == 0, made.log.read_text()
    assert made.record(TRIAL)["outcome"] == "ok", made.log.read_text()
    assert made.curve(TRIAL) == reference.curve(TRIAL)
