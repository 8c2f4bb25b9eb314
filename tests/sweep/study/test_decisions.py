"""Decisions are cheap: no step of a sweep walks all records, and none decides anything else."""

import heapq
import io
import random
import uuid
from dataclasses import replace

import pytest
from rich.console import Console

from raygan import records
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.sweep.session.progress import Progress
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import looks
from raygan.sweep.study import study as study_module
from raygan.sweep.study.cell import is_to_retry, replicate_ids, settings
from raygan.sweep.study.study import Study
from tests.bench import decisions, fleet

SWEEP = """
name: a
grid: {norm: [bn, wn]}
search: {method: random, trials: 6, lr: {min: 1e-5, max: 1e-3}}
stop: {rule: none}
train: {iterations: 40, evaluate_every: 10, seed: 7}
scale: {workers: 2, gpus_per_worker: 1}
"""


class Unsaved(Study):
    """Writes nothing, so that thousands of steps take no time."""

    def _save(self, record: TrialRecord, *, ended: bool = False) -> None:
        pass


def open_study(text: str = SWEEP, **options) -> Study:
    storage = Storage(f"mock:///{uuid.uuid4()}")
    return Unsaved(spec.validate(parse(text, "sweep.yaml")), storage, **options)


def play(study: Study, trial: str, loss: float = 0.1) -> None:
    study.started(trial)
    for step in (10, 20, 30, 40):
        if study.heard(trial, {"step": step, LOSS: loss * 40 / step}):
            break
    study.ended(trial)


def test_time_passes_by_the_clock_that_a_study_is_given():
    now = [0.0]
    study = open_study(SWEEP + "budget: {wall_clock: 2h, gpu_hours: 9}\n", now=lambda: now[0])
    trial, other = (study.next_trial().id for _ in range(2))
    for one in (trial, other):
        study.started(one)
    now[0] = 1800.0
    for one in (trial, other):
        study.heard(one, {"step": 10, LOSS: 0.1})
    now[0] += 3600.0
    study.heard(trial, {"step": 20, LOSS: 0.1})
    now[0] += 1800.0
    assert study.records[trial].seconds == 3600.0
    assert study.records[other].seconds == 0.0
    # of two trials with 2 GPUs each, 1.5 hours since their workers are there
    assert (study.spent.trial_hours, study.spent.gpu_hours) == (3.0, 6.0)
    assert study.spent.wall_clock == 7200.0
    assert study.exhausted == "7200s of 2h"
    study.ended(trial)
    study.close()
    assert study.spent.gpu_hours == sum(r.gpu_seconds for r in study.records.values()) / 3600 == 6.0
    assert not study.lingers(trial)


RANDOM = """
name: a
grid: {norm: [bn, wn, vanilla]}
search: {method: random, trials: 5, lr: [1e-3, 1e-4, 1e-5, 2e-4, 3e-4, 5e-4]}
stop: {rule: median, grace: 10}
warmup: {iterations: 5, factor: 0.1}
replicate: {seeds: 5, until: 8, top: 2}
train: {iterations: 40, evaluate_every: 10, seed: 7}
"""


def plain_due(study: Study, cell: plan.Cell) -> list[str]:
    """Ids of the trials that are due in ``cell`` because of its ended ones, by walking all its
    records."""
    spec, mine = study.spec, [r for r in study.records.values() if r.cell == cell.name]
    due = [
        f"{record.id}-warmup"
        for record in mine
        if is_to_retry(spec, record, {other.id: other for other in mine})
    ]
    searched = [record for record in mine if record.kind == "search"]
    asked = {record.index for record in searched}
    if len(asked) < spec.search.trials or any(record.outcome is None for record in searched):
        return due
    ids = replicate_ids(spec, cell, settings(spec, cell, mine), study.look[0])
    return due + [id for id in ids if id not in study.records]


def check_against_records(study: Study) -> None:
    """All that the study has kept is what its records say."""
    spec, known = study.spec, study.records
    running = [record for record in known.values() if record.outcome is None]
    due = {cell.name: plain_due(study, cell) for cell in plan.cells(spec)}
    for name, cell in study.cells.items():
        found = cell._due()
        assert (found.id if found else None) == (due[name][0] if due[name] else None)
        assert set(cell.open) == {record.id for record in running if record.cell == name}
    asked = {(record.cell, record.index) for record in known.values() if record.kind == "search"}
    left = len(asked) < spec.search.trials * len(due)
    assert study.complete == (not running and not left and not any(due.values()))
    assert study.waiting == (not study.complete)


@pytest.mark.parametrize("worst", [0.0, 0.1, 0.3])
def test_what_a_study_keeps_is_what_its_records_say(worst, monkeypatch):
    """``worst``: share of the evaluations that end in a failure."""
    draw = random.Random(worst)
    stored: dict[str, TrialRecord] = {}
    monkeypatch.setattr("raygan.records.load_all", lambda *_, **__: dict(stored))
    study, running = open_study(RANDOM), []
    while not study.complete:
        while len(running) < 4 and (planned := study.next_trial()) is not None:
            running.append(planned.id)
            study.started(planned.id)
        trial = running.pop(draw.randrange(len(running)))
        record = study.records[trial]
        if draw.random() < worst:
            outcome = draw.choice(["early-failure", "diverged"])
            study.heard(trial, {"step": record.step + 10, "outcome": outcome})
            check_against_records(study)
            study.ended(trial)
        elif (
            study.heard(trial, {"step": record.step + 10, LOSS: draw.choice([0.1, 0.2, 0.3])})
            or record.step == 40
            or draw.random() < 0.02
        ):
            study.ended(trial)
        else:
            running.append(trial)
        if record.outcome is not None or draw.random() < 0.1:
            check_against_records(study)
        ended = not running or record.outcome is not None
        if ended:
            assert study.look == looks.reached(study.spec, study.records)
            seeds, _ = study.look
            assert study.trial_count == looks.expected(study.spec, study.records.values(), seeds)
        if draw.random() < 0.02:  # killed, and resumed from its records
            stored, running = {id: replace(r) for id, r in study.records.items()}, []
            study = open_study(RANDOM)
            check_against_records(study)
    assert study.next_trial() is None


class Unwalked(dict):
    """Records that nobody may walk."""

    def __iter__(self):
        raise AssertionError("all records were walked")

    items = values = __iter__


@pytest.mark.parametrize("rule", ["none", "median", "asha"])
def test_no_decision_walks_all_records(rule, monkeypatch):
    study = open_study(
        SWEEP.replace("rule: none", f"rule: {rule}")
        + "budget: {gpu_hours: 9}\nreplicate: {seeds: 2}\nwarmup: {}\n"
    )
    monkeypatch.setattr(study, "records", Unwalked())
    for cell in study.cells.values():
        monkeypatch.setattr(cell, "records", Unwalked())
    running = [study.next_trial().id for _ in range(4)]
    for _ in range(6):
        play(study, running.pop(0))
        running.append(study.next_trial().id)
        assert study.waiting
        assert not study.complete
        assert not study.exhausted
        assert study.runnable


def test_a_curve_is_fitted_once_however_often_trials_are_ranked(monkeypatch):
    fitted = []
    real = records.end_loss
    monkeypatch.setattr(records, "end_loss", lambda curve: fitted.append(curve) or real(curve))
    study = open_study(SWEEP + "replicate: {seeds: 3}\n")
    while (planned := study.next_trial()) is not None:
        play(study, planned.id)
    for _ in range(3):
        assert study.best("bn") is not None
    assert 0 < len(fitted) <= len(study.records)
    before = study.best("bn").end_loss
    study.best("bn").history.append({"step": 50, LOSS: 9.0})
    assert study.best("bn").end_loss != before


def test_a_look_is_judged_once_while_the_seeds_of_the_next_are_trained(monkeypatch):
    judged = []
    real = looks.is_settled
    monkeypatch.setattr(looks, "is_settled", lambda *given: judged.append(given[2]) or real(*given))
    study = open_study(SWEEP + "replicate: {seeds: 5, until: 9}\n")
    while (planned := study.next_trial()) is not None:
        play(study, planned.id, 0.1 + 0.001 * (planned.index % 3))
    assert study.complete
    assert judged == [5, 7]


SPEEDS = """
name: a
grid: {architecture: [dcgan, resnet]}
search: {method: random, trials: 12, lr: {min: 1e-5, max: 1e-3}}
stop: {rule: none}
replicate: {seeds: 3}
train: {iterations: 40, evaluate_every: 10, seed: 7}
"""


def run_at(speeds: dict[str, float], at_once: int, study: Study, now: list[float]) -> list[str]:
    """Run all trials in virtual time, a cell's trial taking ``speeds`` seconds per 10 iterations.
    Returns their cells, in the order of their starts."""
    order: list[str] = []
    running: list[tuple[float, int, str]] = []
    while True:
        while len(running) < at_once and (planned := study.next_trial()) is not None:
            order.append(planned.cell)
            study.started(planned.id)
            study.heard(planned.id, {"step": 0})
            heapq.heappush(running, (now[0] + speeds[planned.cell], len(order), planned.id))
        if not running:
            assert study.complete or study.exhausted
            return order
        now[0], number, trial = heapq.heappop(running)
        record = study.records[trial]
        study.heard(trial, {"step": record.step + 10, LOSS: 0.1 + 0.01 * record.index})
        if record.step == 40:
            study.ended(trial)
        else:
            heapq.heappush(running, (now[0] + speeds[record.cell], number, trial))


def test_cells_that_take_longer_start_more_trials_so_that_all_end_together():
    now = [0.0]
    order = run_at(
        {"dcgan": 100.0, "resnet": 300.0}, 4, open_study(SPEEDS, now=lambda: now[0]), now
    )
    assert order[:4] == ["dcgan", "resnet"] * 2  # no speed is known yet
    assert order[4:12].count("resnet") >= 6
    # 30 trials of 400 and 1,200 seconds, four at a time
    assert now[0] <= 1.1 * 15 * (400 + 1200) / 4


def test_cells_of_the_same_speed_take_turns():
    now = [0.0]
    order = run_at(
        {"dcgan": 100.0, "resnet": 100.0}, 4, open_study(SPEEDS, now=lambda: now[0]), now
    )
    for count in range(2, 24, 2):
        assert abs(order[:count].count("dcgan") - count / 2) <= 1


@pytest.mark.parametrize(("most", "slow"), [(16, 8), (30, 15)])
def test_a_cap_on_the_trials_is_shared_by_the_cells_alike_whatever_their_speed(most, slow):
    now = [0.0]
    study = open_study(f"{SPEEDS}budget: {{trials: {most}}}\n", now=lambda: now[0])
    order = run_at({"dcgan": 100.0, "resnet": 300.0}, 4, study, now)
    assert (len(order), order.count("resnet")) == (most, slow)


GPUS = f"{SPEEDS}scale: {{gpus_per_worker: 1}}\n"


@pytest.mark.parametrize("cap", ["gpu_hours: 3", "usd: 3, usd_per_gpu_hour: 1", "wall_clock: 0.8h"])
def test_a_cap_that_ends_the_sweep_early_leaves_the_cells_with_as_many_trials(cap):
    # 30 trials of 400 and 1,200 seconds are 6.7 GPU-hours; four at a time, they take 1.7 hours
    now = [0.0]
    study = open_study(f"{GPUS}budget: {{{cap}}}\n", now=lambda: now[0])
    order = run_at({"dcgan": 100.0, "resnet": 300.0}, 4, study, now)
    assert 8 < len(order) < 30
    assert abs(order.count("resnet") - order.count("dcgan")) <= 1


@pytest.mark.parametrize(
    "cap", ["gpu_hours: 9", "usd: 9, usd_per_gpu_hour: 1", "wall_clock: 4h", "trials: 30"]
)
def test_a_cap_that_leaves_time_for_all_trials_does_not_change_their_order(cap):
    speeds = {"dcgan": 100.0, "resnet": 300.0}
    orders = []
    for text in (GPUS, f"{GPUS}budget: {{{cap}}}\n"):
        now = [0.0]
        orders.append(run_at(speeds, 4, open_study(text, now=lambda now=now: now[0]), now))
    assert orders[0] == orders[1]


def test_how_many_trials_have_ended_is_counted(monkeypatch):
    study = open_study()
    trials = [study.next_trial().id for _ in range(3)]
    for done, trial in enumerate(trials[:2]):
        assert study.done == done
        play(study, trial)
    study.started(trials[2])
    assert study.done == 2
    monkeypatch.setattr("raygan.records.load_all", lambda *_, **__: dict(study.records))
    assert open_study().done == 2


def test_a_line_on_a_trial_that_starts_walks_no_records(monkeypatch):
    now, walked = [0.0], []
    study = open_study(now=lambda: now[0])
    monkeypatch.setattr(
        "raygan.sweep.session.progress.trials_left",
        lambda _, known, seeds: walked.append(len(known)),
    )
    with Progress(study, Console(file=io.StringIO())):
        for _ in range(10):
            planned = study.next_trial()
            study.started(planned.id)
            study.heard(planned.id, {"step": 0})
    assert walked == [1]


def test_a_resumed_study_knows_the_speeds_from_its_records(monkeypatch):
    now, kept = [0.0], {}
    study = open_study(SPEEDS, now=lambda: now[0])
    for cell, seconds in (("dcgan", 100.0), ("resnet", 300.0)):
        trial = study.next_trial().id
        assert study.records[trial].cell == cell
        study.started(trial)
        study.heard(trial, {"step": 0})
        now[0] += seconds
        study.heard(trial, {"step": 40, LOSS: 0.1})
        study.ended(trial)
    kept = dict(study.records)
    monkeypatch.setattr("raygan.records.load_all", lambda *_, **__: kept)
    again = open_study(SPEEDS, now=lambda: now[0])
    assert [again.next_trial().cell for _ in range(4)] == ["resnet"] * 4


def test_speeds_that_were_not_measured_for_long_change_nothing():
    now = [0.0]
    study = open_study(SPEEDS, now=lambda: now[0])
    assert run_at({"dcgan": 0.1, "resnet": 0.3}, 4, study, now)[:12] == ["dcgan", "resnet"] * 6


def test_of_a_resumed_trial_only_new_evaluations_are_looked_at(monkeypatch):
    looked = []
    real = study_module._finite
    monkeypatch.setattr(
        study_module, "_finite", lambda point: looked.append(point["step"]) or real(point)
    )
    study = open_study()
    trial = study.next_trial().id
    for step in (10, 20, 30):
        study.heard(trial, {"step": step, LOSS: 0.1})
    looked.clear()
    history = [{"step": float(step), LOSS: 0.1} for step in (10, 20, 30)]
    study.started(trial)
    study.heard(trial, {"step": 30, "history": history})
    study.heard(trial, {"step": 40, LOSS: 0.1, "history": history})
    assert looked == [40]
    assert study.records[trial].step == 40


def test_the_benchmark_of_decisions_times_each_call(monkeypatch):
    monkeypatch.setattr(records, "load_all", records.load_all)  # which the benchmark replaces
    found = decisions.measure("random", trials=112, evaluations=2, at_once=8, timed=4)
    assert all(found[call] for call in decisions.CALLS)


def test_the_benchmark_of_a_fleet_says_what_limits_it():
    load = fleet.Load(gpus=16, trials=1, every=100_000, architectures=("dcgan",))
    found = fleet.measure(load)
    assert found["verdict"] >= found["ideal"] > 0
    assert found["trials"] == 4 * (1 + 5)
