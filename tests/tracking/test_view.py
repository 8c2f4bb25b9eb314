"""The view of a sweep in MLflow's UI, and the command that opens it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import psutil
import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.study import Study
from raygan.tracking import view
from raygan.tracking.context import EXPERIMENT_NOTE, default_uri
from raygan.tracking.mlflow_tracker import Tracker
from raygan.tracking.runs import NOTE
from tests.clusters import ROOT, stop, wait_until
from tests.report.chromium import PROGRAM, Chromium
from tests.sweep.prepared import one_set

SWEEP = """
name: shown
grid: {norm: [bn, wn]}
train: {iterations: 30, evaluate_every: 10}
replicate: {seeds: 2}
storage: %s
"""


class Client:
    """An experiment, as MLflow's client shows it."""

    def __init__(self, note: str | None) -> None:
        self.tags = {} if note is None else {NOTE: note}

    def get_experiment(self, _: str) -> Client:
        return self

    def set_experiment_tag(self, _: str, key: str, value: str) -> None:
        self.tags[key] = value


def test_the_link_opens_the_stored_view() -> None:
    client = Client(None)
    link = view.link(client, "7", "parent", "shown")  # type: ignore[arg-type]
    path, _, query = link.removeprefix("/#").partition("?")
    assert path == "/experiments/7/runs"
    (key,) = parse_qs(query)["viewStateShareKey"]
    stored = json.loads(client.tags[f"mlflow.sharedViewState.{key}"])
    assert stored["searchFilter"] == "tags.`mlflow.parentRunId` = 'parent'"
    assert stored["compareRunCharts"][0]["metricKey"] == LOSS
    assert client.tags[NOTE].startswith("**shown**: [verdict](#/experiments/7/runs/parent)")
    again = view.link(client, "7", "parent", "shown")  # type: ignore[arg-type]
    assert again == link
    assert client.tags[NOTE].count("verdict](") == 1


def test_a_description_of_the_users_own_is_kept() -> None:
    client = Client("Ours.")
    view.link(client, "7", "parent", "shown")  # type: ignore[arg-type]
    assert client.tags[NOTE] == "Ours."


def test_another_version_of_mlflow_gets_no_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "__version__", "9.0.0")
    client = Client(EXPERIMENT_NOTE)
    link = view.link(client, "7", "parent", "shown")  # type: ignore[arg-type]
    assert set(client.tags) == {NOTE}
    query = parse_qs(urlsplit(link.replace("#", "")).query)
    assert query["searchFilter"] == ["tags.`mlflow.parentRunId` = 'parent'"]


def test_a_sweep_that_has_not_begun_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["ui", "shown", "--storage", str(tmp_path)])
    assert done.exit_code == 2
    assert "there is no sweep 'shown'" in done.output


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    """The storage of a sweep with four trials in MLflow."""
    storage = Storage(str(tmp_path))
    read = spec.validate(parse(SWEEP % tmp_path, "x"))
    study = Study(read, storage / "shown")
    state.store(study.storage, read, one_set(id="1", digest="d", baseline=0.1))
    tracker = Tracker(default_uri(storage), "raygan", "shown", study.storage)
    tracker.connect()
    tracker.open("1", "name: shown", {})
    while (planned := study.next_trial()) is not None:
        for step in (10, 20, 30):
            study.heard(planned.id, {"step": step, LOSS: 1 / step})
        study.ended(planned.id)
        tracker.update(study.records[planned.id], ended=True)
    assert tracker.close("FINISHED")
    return tmp_path


@pytest.fixture
def served(tracked: Path) -> Iterator[str]:
    """The link that ``raygan ui`` prints."""
    log, cwd = tracked / "ui.log", tracked / "cwd"
    cwd.mkdir()
    command = [sys.executable, "-m", "raygan.cli", "ui", "shown", "--storage", str(tracked)]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--no-browser"], stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
    try:
        found = wait_until(lambda: re.search(r"http://\S+", log.read_text()), "the link", process)
        children = psutil.Process(process.pid).children(recursive=True)
        yield found[0]
    finally:
        stop(process)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "MLflow's server has outlived the command"
    assert not list(cwd.iterdir())


@pytest.mark.cluster
@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
def test_the_page_shows_the_trials_grouped_by_cell(served: str, tmp_path: Path) -> None:
    with Chromium(tmp_path / "profile") as page:
        size = {"width": 1600, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        page.call("Emulation.setDeviceMetricsOverride", **size)
        page.call("Page.navigate", url=served)
        deadline = time.monotonic() + 50
        text = ""
        while not ("Group: wn" in text and LOSS in text) and time.monotonic() < deadline:
            text = page.evaluate("document.body ? document.body.innerText : ''")
            time.sleep(0.5)
    assert "Group: bn" in text
    assert "Group: wn" in text
    assert "wn s1" in text
    assert "By cell" in text
    assert LOSS in text
    assert "verdict" in text
