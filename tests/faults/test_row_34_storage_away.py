"""Row 34: the sweep's storage is away for a while in the midst of a sweep."""

from __future__ import annotations

import json
import time

import pytest

from tests.clusters import LONGER, TRIALS, wait_until

OUTAGE = 30
"""Seconds: time for workers that fail at once to use up their restarts."""


@pytest.mark.soak
def test_all_trials_wait_and_end_well_with_the_same_curves(reference, sweep):
    made = sweep("storage-away", grid={"norm": ["vanilla", "bn", "wn"]}, train=LONGER)
    folder = made.storage / made.name
    aside = folder.with_name("aside")

    def output() -> str:
        return " ".join(made.log.read_text().split())

    with made.running() as process:
        wait_until(lambda: len(made.curve(TRIALS[0])) >= 2, "second evaluation", process)
        folder.rename(aside)
        folder.write_text("")  # nothing can be written below a file
        wait_until(lambda: "cannot be written" in output(), "the outage is told", process)
        started = output().count("started (trial")
        time.sleep(OUTAGE)  # the outage itself
        assert output().count("started (trial") == started
        assert process.poll() is None, output()
        folder.unlink()
        aside.rename(folder)
        wait_until(lambda: "can be written again" in output(), "its end is told", process)
        assert process.wait(360) == 0, output()
    for trial in TRIALS:
        assert made.record(trial)["outcome"] == "ok", output()
        assert made.curve(trial) == reference.curve(trial)


@pytest.mark.soak
def test_object_storage_that_answers_503_is_waited_for(reference, sweep, store, tmp_path):
    made = sweep(
        "store-away",
        grid={"norm": ["vanilla"]},
        train=LONGER,
        storage="s3://bucket",
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        env={**store.env, "RAYGAN_CACHE": str(tmp_path / "cache"), "RAY_ADDRESS": None},
    )

    def record() -> dict:
        return json.loads(
            store.objects.get(f"bucket/{made.name}/trials/{TRIALS[0]}/record.json", b"{}")
        )

    with made.running() as process:
        wait_until(lambda: len(record().get("history", [])) >= 2, "second evaluation", process)
        store.failures = 10**9
        wait_until(lambda: "cannot be written" in made.log.read_text(), "it is told", process)
        time.sleep(OUTAGE)
        assert process.poll() is None, made.log.read_text()
        store.failures = 0
        wait_until(lambda: "can be written again" in made.log.read_text(), "its end", process)
        assert process.wait(360) == 0, made.log.read_text()
    assert record()["outcome"] == "ok", made.log.read_text()
    curve = [(int(p["step"]), p["val/reconstruction_loss"]) for p in record()["history"]]
    assert curve == reference.curve(TRIALS[0])
