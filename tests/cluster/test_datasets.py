"""A whole sweep over two data sets of different shape on a real cluster."""

from __future__ import annotations

import json
import signal

import pyarrow.parquet as pq
import pytest

from tests.clusters import PATIENCE, mlflow_runs, wait_until
from tests.data.conftest import encoded

GREY = {"name": "digits", "size": 16, "running": 24, "label": "grey"}
TRIALS = ("grey_bn-000", "grey_wn-000", "colour_bn-000", "colour_wn-000")
BUDGET = {"steps": 3, "images": 8, "restarts": 0}


@pytest.mark.soak
def test_a_sweep_over_two_data_sets_is_resumed_and_has_the_curves_of_one_alone(sweep, tmp_path):
    for index in range(32):
        (tmp_path / f"{index:02}.png").write_bytes(encoded(8 * index))
    colour = {
        "name": "folder", "path": str(tmp_path), "size": 8, "running": 4, "final": 4,
        "label": "colour", "train": {"code_size": 6, "levels": 1, "iterations": 30},
    }  # fmt: skip
    norms = {"norm": ["bn", "wn"]}
    made = sweep("two-sets", dataset=[GREY, colour], grid=norms, final=BUDGET)
    with made.running() as process:
        wait_until(lambda: made.record(TRIALS[0])["outcome"], "one trial has ended", process)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    output = made.run()
    assert "grey: " in output
    assert "training images 1×16×16" in output
    assert "colour: 24 training images 3×8×8; up to" in output
    _check_results(made)
    images = {key: colour[key] for key in colour if key not in ("label", "train")}
    own = {"grid": {"norm": ["wn"]}, "train": colour["train"]}
    alone = sweep("alone", dataset=images, **own)
    alone.run("--offline")
    assert made.curve("colour_wn-000") == alone.curve("wn-000")
    assert alone.record("wn-000")["dataset"] == "folder"


def _check_results(made) -> None:
    folder = made.storage / made.name
    data = json.loads((folder / "data.json").read_text())["sets"]
    assert list(data) == ["grey", "colour"]
    rows = {row["trial"]: row for row in pq.read_table(folder / "results.parquet").to_pylist()}
    assert set(rows) == set(TRIALS)
    runs = mlflow_runs(made.tracking, made.name)
    for trial in TRIALS:
        label, last = trial.partition("_")[0], 30 if trial[:6] == "colour" else 40
        assert (rows[trial]["dataset"], rows[trial]["step"]) == (label, last)
        assert rows[trial]["outcome"] == "ok"
        tags = runs[trial].data.tags
        assert (tags["dataset"], tags["data_digest"]) == (label, data[label]["digest"])
    assert (folder / "report.html").exists()
    assert (folder / "overview.png").exists()
