"""Row 1: the processes in which a trial trains are killed outright."""

from __future__ import annotations

from tests.clusters import LONGER, logged_steps, mlflow_runs, wait_until

TRIAL = "vanilla-000"


def test_trial_goes_on_from_its_last_checkpoint_with_the_same_curve(cluster, reference, sweep):
    made = sweep("worker-killed", grid={"norm": ["vanilla"]}, train=LONGER)
    with made.running() as process:
        wait_until(lambda: made.curve(TRIAL), "first evaluation", process)
        workers = cluster.train_workers()
        assert len(workers) == 1
        wait_until(lambda: len(made.curve(TRIAL)) >= 3, "third evaluation", process)
        workers[0].kill()
        workers[0].wait(30)
        killed_at = made.curve(TRIAL)[-1][0]
        assert killed_at < 60, "it had ended before it was killed"
        before = made.pictures(TRIAL)
        assert process.wait(360) == 0, made.log.read_text()

    # at most one checkpoint back: no evaluation before the last one was made again
    after = made.pictures(TRIAL)
    assert [step for step in before if step < killed_at and after[step] != before[step]] == []
    assert made.curve(TRIAL) == reference.curve(TRIAL)
    runs = mlflow_runs(made.tracking, made.name)
    assert set(runs) == {made.name, TRIAL}
    assert (runs[TRIAL].info.status, runs[TRIAL].data.tags["outcome"]) == ("FINISHED", "ok")
    assert logged_steps(made.tracking, runs[TRIAL]) == [10, 20, 30, 40, 50, 60]
