"""Row 13: the newest checkpoint of an interrupted trial is damaged, or deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.clusters import LONGER, Sweep, wait_until

TRIAL = "vanilla-000"


def interrupt(made: Sweep) -> list[Path]:
    """Run it to its third evaluation; returns its checkpoints, the newest first."""
    with made.running() as process:
        wait_until(lambda: len(made.curve(TRIAL)) >= 3, "third evaluation", process)
        process.terminate()
        assert process.wait(60) == 143, made.log.read_text()
    home = made.storage / made.name / "trials" / TRIAL
    return sorted(home.glob("checkpoint_*/step-*.pt"), key=lambda path: path.name, reverse=True)


def test_the_trial_resumes_from_the_one_before_with_the_same_curve(reference, sweep):
    made = sweep("checkpoint-damaged", grid={"norm": ["vanilla"]}, train=LONGER)
    newest, before = interrupt(made)
    step, step_before = (int(path.stem.partition("-")[2]) for path in (newest, before))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))

    output = " ".join(made.run().split())
    assert f"the checkpoint after iteration {step} is damaged" in output
    assert f"resumed after iteration {step_before}" in output
    record = made.record(TRIAL)
    assert record["outcome"] == "ok"
    assert len(record["notes"]) == 1
    assert made.curve(TRIAL) == reference.curve(TRIAL)


@pytest.mark.soak
def test_the_trial_resumes_although_the_newest_was_deleted(reference, sweep):
    made = sweep("checkpoint-deleted", grid={"norm": ["vanilla"]}, train=LONGER)
    shutil.rmtree(interrupt(made)[0].parent)
    output = made.run()
    assert made.record(TRIAL)["outcome"] == "ok", output
    assert made.curve(TRIAL) == reference.curve(TRIAL)
