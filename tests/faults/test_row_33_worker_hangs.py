"""Row 33: a worker hangs; it is noticed, and its trial goes on from the last checkpoint."""

from __future__ import annotations

import pytest

from tests.clusters import LONGER, LOSS, wait_until

TRIAL = "vanilla-000"
HANGS = '''
import time
from pathlib import Path

import ray

from raygan.recipes import Metric


class Hangs(Metric):
    """Hangs once, in a worker."""

    name = "hangs"

    def measure(self, samples, images):
        once = Path({folder!r}) / "once"
        if ray.is_initialized() and not once.exists():
            once.touch()
            time.sleep(3600)
        return 0.0
'''


def losses(made) -> dict[int, float]:
    return {int(point["step"]): point[LOSS] for point in made.record(TRIAL)["history"]}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_process_that_is_stopped_is_replaced(cluster, reference, sweep, workers):
    made = sweep(
        f"stopped-{workers}",
        grid={"norm": ["vanilla"]},
        train=LONGER,
        scale={"workers": workers, "stalled_after": "20s"},
    )
    with made.running() as process:
        wait_until(lambda: made.curve(TRIAL), "an evaluation", process)
        stopped = cluster.train_workers()[-1]
        stopped.suspend()
        assert process.wait(240) == 0, made.log.read_text()
    assert not stopped.is_running()  # its resources are free
    record = made.record(TRIAL)
    assert record["outcome"] == "ok", made.log.read_text()
    (note,) = record["notes"]
    assert note.endswith("; the trial was started again")
    assert "the process of a worker did not answer for 20 s" in note or (
        workers == 2 and "a worker made no progress for 20 s" in note
    )
    assert note in made.log.read_text()
    assert losses(made) == pytest.approx(losses(reference), rel=1e-5)


@pytest.mark.soak
def test_a_worker_that_hangs_is_ended(cluster, sweep):
    made = sweep(
        "hangs",
        recipes=["hangs.py"],
        grid={"norm": ["vanilla"]},
        scale={"stalled_after": "20s"},
    )
    folder = made.file.parent
    (folder / "hangs.py").write_text(HANGS.format(folder=str(folder)))
    said = made.run()
    record = made.record(TRIAL)
    assert record["outcome"] == "ok", said
    note = "a worker made no progress for 20 s, after iteration 0; the trial was started again"
    assert record["notes"] == [note]
    assert [step for step, _ in made.curve(TRIAL)] == [10, 20, 30, 40]
