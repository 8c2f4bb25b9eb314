"""``raygan watch``: what is stored of a running sweep, as a table."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.storage import Storage
from raygan.sweep import spec, state, watch
from raygan.sweep.estimate import STARTUP_SECONDS
from raygan.sweep.study import Study
from raygan.sweep.yaml_loader import parse

SWEEP = """
name: a
grid: {norm: [bn, wn]}
train: {iterations: 40, evaluate_every: 10}
replicate: {seeds: 2}
storage: %s
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    read = spec.validate(parse(SWEEP % tmp_path, "x"))
    made = Study(read, Storage(str(tmp_path)) / "a")
    state.store(made.storage, read, {"id": "1", "digest": "d", "baseline": 0.1})
    return made


def _train(study: Study, losses: list[float]) -> str:
    planned = study.next_trial()
    assert planned is not None
    for number, loss in enumerate(losses, 1):
        study.heard(planned.id, {"step": 10 * number, "val/reconstruction_loss": loss})
    return planned.id


def test_the_table_shows_running_and_ended_trials(study: Study, tmp_path: Path) -> None:
    study.ended(_train(study, [0.4, 0.3, 0.2, 0.1]))
    _train(study, [0.4, 0.2])
    done = CliRunner().invoke(main, ["watch", "a", "--storage", str(tmp_path)])
    assert done.exit_code == 0, done.output
    head, _, running, ended = done.output.splitlines()
    assert head.startswith("a: 1/4 trials done, 1 not finished; not running")
    assert running.split() == ["wn", "s1", "20/40", "0.20000", "0.20000", "█▁", "running"]
    assert ended.split() == ["bn", "s1", "40/40", "0.10000", "0.10000", "█▇▄▁", "ok"]


@pytest.mark.parametrize(
    ("losses", "line"),
    [([], ""), ([1.0], "▁"), ([0.5, 0.5], "▁▁"), ([1.0, 0.1, 0.01], "█▅▁"), ([0.0, 1.0], "▁█")],
)
def test_a_sparkline_follows_the_logarithm_of_the_loss(losses: list[float], line: str) -> None:
    assert watch.sparkline(losses) == line


def test_a_sparkline_shows_the_latest_evaluations() -> None:
    assert watch.sparkline([9.0] * 50 + [1.0] * 16) == "▁" * 16


def test_the_time_left_counts_all_trials_that_are_to_come(study: Study) -> None:
    first = _train(study, [0.4, 0.3])
    record = study.records[first]
    assert watch.time_left(study.spec, list(study.records.values())) is None
    record.seconds = 10.0  # 2 iterations a second
    left = watch.time_left(study.spec, [record])
    # 20 iterations of this trial and 40 of each of three others, one at a time
    assert left == pytest.approx(140 / 2 + 3 * STARTUP_SECONDS)
    record.outcome = "ok"
    assert watch.time_left(study.spec, [record]) is None
