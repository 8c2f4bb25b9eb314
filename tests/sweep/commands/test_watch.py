"""The live table of a sweep: in its own terminal, and by ``raygan watch`` elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from raygan.cli import main
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.sweep.commands import watch
from raygan.sweep.session import live
from raygan.sweep.session.final_tests import FinalStatus
from raygan.sweep.session.live import Ends, Picture
from raygan.sweep.session.lock import Lock
from raygan.sweep.session.progress import Progress
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import looks
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.estimate import STARTUP_SECONDS
from raygan.sweep.study.study import Study
from tests.sweep.prepared import one_set

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
    state.store(made.storage, read, one_set(id="1", digest="d", baseline=0.1))
    return made


def _train(study: Study, losses: list[float]) -> str:
    planned = study.next_trial()
    assert planned is not None
    for number, loss in enumerate(losses, 1):
        study.heard(planned.id, {"step": 10 * number, "val/reconstruction_loss": loss})
    return planned.id


def _printed(picture: Picture, *, width: int = 160, height: int | None = None) -> list[str]:
    """The lines of a table, in a terminal if there is a ``height``."""
    options = {"force_terminal": True, "height": height} if height else {}
    console = Console(file=io.StringIO(), width=width, color_system=None, **options)
    console.print(picture)
    return console.file.getvalue().splitlines()


def test_the_table_shows_running_and_ended_trials(study: Study, tmp_path: Path) -> None:
    study.ended(_train(study, [0.4, 0.3, 0.2, 0.1]))
    _train(study, [0.4, 0.2])
    done = CliRunner().invoke(main, ["watch", "a", "--storage", str(tmp_path)])
    assert done.exit_code == 0, done.output
    head, who, _, running, ended = done.output.splitlines()
    assert head == "a: 1 of 4 trials done, 1 interrupted, 2 not started"
    assert who == "Not running; the same command resumes the sweep"
    assert running.split() == ["wn", "s1", "20/40", "0.20000", "0.20000", "█▁", "?", "interrupted"]
    assert ended.split() == ["bn", "s1", "40/40", "0.10000", "0.10000", "█▇▄▁", "?", "ok"]


def test_the_sweeps_own_terminal_shows_the_same_table(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raygan.sweep.session.lock.SETTLE_SECONDS", 0.0)
    study.ended(_train(study, [0.4, 0.3, 0.2, 0.1]))
    first = _train(study, [])
    second = _train(study, [0.4, 0.2])
    study.records[second].seconds = 10.0
    study.records[second].save(study.storage)
    study.counted_until |= {first: None, second: 0.0}
    now = study.now()
    study.now = lambda: now + 100.0
    with Lock(study.storage, stop=lambda: None, lost=lambda _: None) as held:
        held.signs = study.signs
        held.beat()
        elsewhere = watch.picture(study.storage, study.spec, looks.Reached(study.spec), Ends())
    here = Progress(study, Console(file=io.StringIO()))._render()
    there = _printed(elsewhere)
    assert there[0].startswith("a: 1 of 4 trials done, 1 running, 1 pending, 1 not started; about ")
    assert there[1].startswith("Run by process ")
    assert _printed(here)[0] == there[0]
    assert sorted(_printed(here)[2:]) == sorted(there[2:])
    assert sum("2m ago" in line for line in there) == 1
    assert "ago" not in "".join(_printed(elsewhere, width=80))


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    read = spec.validate(parse(SWEEP % "x", "x"))
    records = [
        TrialRecord(
            f"t{number}", "bn", number, "vanilla lr=5e-4 s12 warmup", {}, {"iterations": 200_000},
            outcome=None if number < 5 else "early-failure", seconds=90_000.0,
            history=[{"step": 100.0 * i, LOSS: 0.1 / i} for i in range(1, 50)],
        )
        for number in range(40)
    ]  # fmt: skip
    tests = [
        FinalStatus("vanilla lr=5e-4 s12", ["best", "last"], "running", 0.5, 100.0),
        *[FinalStatus("vanilla lr=5e-4 s13", ["best"], "waiting")] * 3,
    ]
    states = {record.id: "running" for record in records if record.outcome is None}
    for more in ([], tests):
        lines = _printed(Picture(read, records, states, more, left=9e4), width=width, height=24)
        assert len(lines) <= 24
        assert all(len(line) <= width for line in lines)
        assert lines[-1].startswith("… and ")
        row = next(line for line in lines if "running" in line.split())
        assert row.startswith("vanilla lr=5e-4 s12")


@pytest.mark.parametrize(
    ("losses", "line"),
    [([], ""), ([1.0], "▁"), ([0.5, 0.5], "▁▁"), ([1.0, 0.1, 0.01], "█▅▁"), ([0.0, 1.0], "▁█")],
)
def test_a_sparkline_follows_the_logarithm_of_the_loss(losses: list[float], line: str) -> None:
    assert live.sparkline(losses) == line


def test_a_sparkline_shows_the_latest_evaluations() -> None:
    assert live.sparkline([9.0] * 50 + [1.0] * 16) == "▁" * 16


def test_the_time_left_counts_all_trials_that_are_to_come(study: Study) -> None:
    first = _train(study, [0.4, 0.3])
    record = study.records[first]
    assert live.trials_left(study.spec, list(study.records.values()), study.look[0]) is None
    record.seconds = 10.0  # 2 iterations a second
    left = live.trials_left(study.spec, [record], study.look[0])
    # 20 iterations of this trial and 40 of each of three others, one at a time
    assert left == pytest.approx(140 / 2 + 3 * STARTUP_SECONDS)
    record.outcome = "ok"
    assert live.trials_left(study.spec, [record], study.look[0]) is None


def test_the_time_left_is_that_of_the_longest_trial_at_least(study: Study) -> None:
    begun, almost_done = _train(study, [0.4]), _train(study, [0.4, 0.3, 0.2])
    while (planned := study.next_trial()) is not None:
        study.ended(planned.id)
    for trial in (begun, almost_done):
        study.records[trial].seconds = 10.0
    assert live.trials_left(
        study.spec, list(study.records.values()), study.look[0]
    ) == pytest.approx(30.0)


def test_the_time_left_takes_later_trials_to_be_stopped_like_those_before(tmp_path: Path) -> None:
    text = "{name: a, search: {lr: [0.1, 0.2, 0.3]}, train: {iterations: 40}, stop: {rule: none}}"
    study = Study(spec.validate(parse(text, "x")), Storage(str(tmp_path)) / "a")
    for losses in ([0.4, 0.3], [0.4, 0.3]):
        study.records[_train(study, losses)].seconds = 20.0
    first, _ = study.records.values()
    first.outcome = "stopped"  # after half of its iterations
    left = live.trials_left(study.spec, list(study.records.values()), study.look[0])
    assert left == pytest.approx(20 + 20 + STARTUP_SECONDS)


def test_the_time_left_takes_each_data_sets_own_iterations(tmp_path: Path) -> None:
    sets = "[{label: a}, {label: b, train: {iterations: 100}}]"
    text = f"{{name: a, dataset: {sets}, train: {{iterations: 40, evaluate_every: 10}}}}"
    study = Study(spec.validate(parse(text, "x")), Storage(str(tmp_path)) / "a")
    record = study.records[_train(study, [0.4, 0.3])]
    record.seconds = 10.0  # 2 iterations a second
    left = live.trials_left(study.spec, [record], study.look[0])
    # 20 iterations of this trial, and the mean of both data sets for the other one
    assert left == pytest.approx((20 + 70) / 2 + STARTUP_SECONDS)


def test_the_trial_that_ended_last_is_shown_first(study: Study) -> None:
    trials = [_train(study, [0.4]) for _ in range(4)]
    look, ends = looks.Reached(study.spec), Ends()
    progress = Progress(study, Console(file=io.StringIO()))

    def first(picture: Picture) -> str:
        ended = [record for record in picture._trials() if record.outcome is not None]
        return ended[0].id if ended else ""

    for trial in (trials[2], trials[3], trials[0], trials[1]):
        study.ended(trial)
        study.flush()
        assert first(progress._render()) == trial
        assert first(watch.picture(study.storage, study.spec, look, ends)) == trial
    for outcome in (None, "failed"):  # trained once more
        study.records[trials[2]].outcome = outcome
        shown = progress._render()
    assert first(shown) == trials[2]


def test_each_note_of_a_trial_is_told_once(study: Study) -> None:
    trial, other = _train(study, []), _train(study, [])
    study.heard(trial, {"step": 0, "notes": ["of an earlier run"]})
    told = io.StringIO()
    with Progress(study, Console(file=told, width=200)):
        study.heard(trial, {"step": 0, "notes": ["one", "two"]})
        study.heard(other, {"step": 0, "notes": ["another"]})
        study.heard(trial, {"step": 10, "notes": ["two", "three"]})
    said = [line.split(maxsplit=3)[3] for line in told.getvalue().splitlines()]
    assert said == ["one; two", "another", "three"]


UNTIL = """
name: a
grid: {norm: [bn, wn]}
replicate: {seeds: 3, until: 5}
train: {iterations: 40, evaluate_every: 10}
storage: %s
"""


def test_the_comparisons_of_a_look_are_made_again_only_once_a_trial_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = spec.validate(parse(UNTIL % tmp_path, "x"))
    study = Study(read, Storage(str(tmp_path)) / "a")
    state.store(study.storage, read, one_set(id="1", digest="d", baseline=0.1))
    for loss in (0.1, 0.1, 0.2, 0.2, 0.3, 0.3):  # the first look settles nothing
        study.ended(_train(study, [loss] * 4))
    running = [_train(study, [0.3]) for _ in range(2)]
    assert study.look[0] == 4
    for trial in running:
        study.counted_until[trial] = 0.0
        study.records[trial].seconds = 10.0
        study.records[trial].save(study.storage)
    judged: list[int] = []
    real = looks.is_settled
    monkeypatch.setattr(looks, "is_settled", lambda *given: judged.append(given[2]) or real(*given))
    progress = Progress(study, Console(file=io.StringIO()))
    for _ in range(3):
        progress.__dict__["_left"] = None  # as after some seconds
        assert progress._trials_left() is not None
        head = progress._render().head
        assert head.startswith("a: 6 of 8 trials done, 2 running; about ")
    assert judged == []  # the study knows
    look, ends = looks.Reached(read), Ends()
    for _ in range(3):
        head = watch.picture(study.storage, read, look, ends).head
        assert head.startswith("a: 6 of 8 trials done, 2 interrupted")
    assert judged == [3]
    study.heard(running[0], {"step": 20, LOSS: 0.3})
    study.flush()
    watch.picture(study.storage, read, look, ends)
    assert judged == [3]
    study.heard(running[0], {"step": 40, LOSS: 0.3})
    study.ended(running[0])
    study.flush()
    judged.clear()
    watch.picture(study.storage, read, look, ends)
    assert judged == [3]


def test_the_time_left_of_final_tests_counts_those_that_wait() -> None:
    running = FinalStatus("a", ["best"], "running", 0.25, 10.0)
    waiting = FinalStatus("a", ["last"], "waiting")
    assert live.tests_left([waiting]) is None
    assert live.tests_left([running]) == pytest.approx(30)
    assert live.tests_left([running, waiting]) == pytest.approx(30 + 40)
    assert live.tests_left([running, running, waiting]) == pytest.approx(50)
    assert live.tests_left([FinalStatus("a", ["best"], "done", 1.0, 40.0, 0.1)]) is None
