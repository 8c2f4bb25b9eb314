"""What follows a search: retries of early failures, replicates, and the budget's end."""

import math
from dataclasses import replace

import pytest

from raygan.errors import RayganError
from raygan.records import LOSS
from raygan.report.evidence import Evidence
from raygan.report.ladder import Agreement
from raygan.report.verdict import verdict
from raygan.storage import Storage
from raygan.sweep.session.conclude import _exit_code
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.study import gather as evidence
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.compared import cells
from raygan.sweep.study.prepared import Prepared
from raygan.sweep.study.study import Study
from tests.sweep.prepared import one_set

Stop = recipe_sections()["stop"]

SWEEP = """
name: a
grid: {norm: [bn, wn]}
search: {lr: [1e-3, 1e-4]}
stop: {rule: asha, grace: 10, reduction: 2}
train: {iterations: 40, evaluate_every: 10, seed: 7}
"""
REPLICATES = SWEEP + "replicate: {seeds: 2}\n"


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "a"))


def images(baseline: float) -> Prepared:
    return one_set(digest="d", baseline=baseline)


def open_study(storage: Storage, text: str = SWEEP, **options) -> Study:
    return Study(spec.validate(parse(text, "sweep.yaml")), storage, **options)


def report(step: int, loss: float, **more) -> dict:
    return {"step": step, LOSS: loss, "perf/images_per_second": 1.0, **more}


def play(study: Study, trial: str, loss: float) -> None:
    """Train ``trial`` to its end, unless it is stopped, its loss falling to ``loss``."""
    study.started(trial)
    for step in (10, 20, 30, 40):
        if study.heard(trial, report(step, loss * 40 / step)):
            break
    study.ended(trial)


def first_word(study: Study, trial: str) -> None:
    """The workers of ``trial`` are there."""
    study.started(trial)
    study.heard(trial, {"step": 0, "history": []})


def fail_early(study: Study, trial: str) -> None:
    study.started(trial)
    assert study.heard(trial, report(10, math.nan, outcome="early-failure", reason="nan at 10"))
    study.ended(trial)


def run_all(study: Study, loss_of) -> list[str]:
    order = []
    while (planned := study.next_trial()) is not None:
        order.append(planned.id)
        play(study, planned.id, loss_of(planned))
    return order


def by_rate(planned) -> float:
    return abs(math.log10(planned.config.lr / 1e-4)) + 0.1 + 0.001 * (planned.config.seed % 1000)


def test_best_setting_of_each_cell_is_replicated_with_the_same_fresh_seeds(storage):
    study = open_study(storage, REPLICATES)
    assert study.trial_count == 8
    order = run_all(study, by_rate)
    assert order[:4] == ["bn-000", "wn-000", "bn-001", "wn-001"]
    assert order[4:] == ["bn-001-seed8", "wn-001-seed8", "bn-001-seed9", "wn-001-seed9"]
    for trial in order[4:]:
        record = study.records[trial]
        assert (record.kind, record.outcome, record.params) == ("replicate", "ok", {"lr": 1e-4})
    assert [record.config["seed"] for record in study.cells["wn"].verdict_records()] == [8, 9]
    assert study.best("wn").id == "wn-001-seed8"  # only replicates carry the verdict
    assert study.complete
    assert not study.waiting


def test_replicates_wait_for_the_whole_search_of_their_cell_alone(storage):
    study = open_study(storage, REPLICATES)
    first, other, second, last = (study.next_trial().id for _ in range(4))
    assert study.next_trial() is None
    assert study.waiting
    play(study, first, 0.3)
    play(study, second, 0.1)
    assert study.next_trial().id == "bn-001-seed8"  # wn is still searched
    play(study, other, 0.3)
    play(study, last, 0.4)
    assert study.next_trial().id == "wn-000-seed8"


def test_replicates_are_never_stopped_early(storage):
    study = open_study(storage, REPLICATES)
    run_all(study, by_rate)
    worse = open_study(storage, REPLICATES.replace("seeds: 2", "seeds: 3"))
    planned = worse.next_trial()
    assert planned.id == "bn-001-seed10"
    play(worse, planned.id, 1e6)
    assert worse.records[planned.id].outcome == "ok"


def test_several_settings_are_replicated_in_turn(storage):
    study = open_study(storage, SWEEP + "replicate: {seeds: 2, top: 2}\n")
    order = [trial for trial in run_all(study, by_rate) if trial.startswith("bn")]
    assert order[2:] == ["bn-001-seed8", "bn-000-seed8", "bn-001-seed9", "bn-000-seed9"]


def test_without_a_search_the_seeds_are_all_there_is(storage):
    text = "name: a\ngrid: {norm: [bn, wn]}\ntrain: {iterations: 40}\nreplicate: {seeds: 2}"
    study = open_study(storage, text)
    assert run_all(study, by_rate) == ["bn-seed1", "wn-seed1", "bn-seed2", "wn-seed2"]
    assert study.complete


def test_cell_without_a_result_has_nothing_to_replicate(storage):
    study = open_study(storage, REPLICATES)
    for planned in iter(study.next_trial, None):
        if planned.cell == "wn":
            study.ended(planned.id, error="out of memory")
        else:
            play(study, planned.id, 0.1)
    assert [trial for trial in study.records if "seed" in trial and trial.startswith("wn")] == []
    assert study.complete


def test_study_goes_on_in_the_middle_of_its_replicates(storage):
    first = open_study(storage, REPLICATES)
    for _ in range(5):
        planned = first.next_trial()
        play(first, planned.id, by_rate(planned))
    cut_off = first.next_trial()
    assert cut_off.id == "wn-001-seed8"
    first.heard(cut_off.id, report(10, 0.5))

    again = open_study(storage, REPLICATES)
    assert [p.id for p in iter(again.next_trial, None)] == [
        "wn-001-seed8",
        "bn-001-seed9",
        "wn-001-seed9",
    ]
    assert again.records["wn-001-seed8"].curve == [(10, 0.5)]
    assert again.records["wn-001-seed8"].config["seed"] == 8


def test_more_trials_extend_a_search_and_replicate_what_is_best_then(storage):
    few = SWEEP.replace("{lr: [1e-3, 1e-4]}", "{lr: [1e-3, 1e-4], trials: 1}")
    few += "replicate: {seeds: 1}\n"
    run_all(open_study(storage, few), by_rate)
    more = open_study(storage, few.replace("trials: 1", "trials: 2"))
    assert run_all(more, by_rate) == ["bn-001", "wn-001", "bn-001-seed8", "wn-001-seed8"]
    assert [record.id for record in more.cells["bn"].verdict_records()] == ["bn-001-seed8"]
    assert "bn-000-seed8" in more.records  # of the setting that was best before


def test_setting_that_is_no_longer_the_best_carries_no_verdict(storage):
    few = SWEEP.replace("{lr: [1e-3, 1e-4]}", "{lr: [1e-3, 1e-4], trials: 1}")
    few += "replicate: {seeds: 1}\n"
    run_all(open_study(storage, few), lambda planned: 0.1 if "seed" in planned.id else 0.3)
    more = open_study(storage, few.replace("trials: 1", "trials: 2"))
    run_all(more, by_rate)
    # the first setting's replicate has the lowest loss of all, by luck
    assert more.best("bn").id == "bn-001-seed8"


REPEATED = REPLICATES.replace("{lr: [1e-3, 1e-4]}", "{lr: [1e-3, 1e-4], repeats: 3}")


def test_each_repeat_of_a_search_is_followed_by_its_own_replicates(storage):
    text = REPEATED.replace("seeds: 2", "seeds: 1")
    study = open_study(storage, text)
    assert study.trial_count == 2 * 3 * (2 + 1)
    order = run_all(study, by_rate)
    assert len(order) == study.trial_count == len(study.records)
    replicates = {r.id: r.config["seed"] for r in study.records.values() if r.kind == "replicate"}
    assert replicates == {
        f"{norm}_repeat={n + 1}-001-seed{seed}": seed
        for norm in ("bn", "wn")
        for n, seed in enumerate((8, 1008, 2008))
    }
    again = open_study(storage, text)
    assert again.complete
    assert state.stored_records(storage, again.spec).keys() == study.records.keys()


def test_repeats_of_a_search_are_one_cell_of_the_report(storage):
    study = open_study(storage, REPEATED)
    run_all(study, by_rate)
    cells = evidence.cells(study.spec, study.records)
    assert [(cell.name, cell.values) for cell in cells] == [
        ("bn", {"norm": "bn"}), ("wn", {"norm": "wn"})
    ]  # fmt: skip
    for cell in cells:
        assert len(cell.records) == 3 * (2 + 2)
        assert sorted(r.config["seed"] for r in cell.replicates) == [
            8, 9, 1008, 1009, 2008, 2009
        ]  # fmt: skip
        assert sorted(cell.repeats.values()) == [1, 1, 2, 2, 3, 3]
        assert len(cell.runs) == 6
        assert list(Evidence("a", cells).units(cell)) == [1, 2, 3]


def test_how_the_first_rung_told_is_asked_of_exempt_trials(storage):
    text = SWEEP.replace("{lr: [1e-3, 1e-4]}", "{lr: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}")
    study = open_study(storage, text)
    run_all(study, lambda planned: planned.config.lr)
    assert evidence.check_of_rule(study.spec, study.records) == Agreement(pytest.approx(1), 4)
    never = open_study(storage, text).spec.model_copy(update={"stop": Stop(rule="none")})
    assert evidence.check_of_rule(never, study.records) is None


def test_failures_are_told_with_the_loss_of_the_mean_image(storage):
    study = open_study(storage, SWEEP, prepared=images(0.06))
    fail_early(study, study.next_trial().id)
    (told,) = study.cells["bn"]._search._study.trials
    assert told.intermediate_values == {0: pytest.approx(0.6)}
    again = open_study(storage, SWEEP, prepared=images(0.06))
    (told,) = again.cells["bn"]._search._study.trials
    assert told.intermediate_values == {0: pytest.approx(0.6)}


def test_setting_that_was_drawn_twice_is_one(storage):
    text = SWEEP.replace("{lr: [1e-3, 1e-4]}", "{method: random, trials: 6, lr: [1e-3, 1e-4]}")
    study = open_study(storage, text + "replicate: {seeds: 1, top: 2}\n")
    run_all(study, by_rate)
    for cell in study.cells.values():
        assert sorted(record.params["lr"] for record in cell.verdict_records()) == [1e-4, 1e-3]


def test_interrupted_sweep_stays_balanced(storage):
    order = []
    for cap in range(1, 5):
        study = open_study(storage, with_budget(f"trials: {cap}"))
        order += run_all(study, by_rate)
    assert order == ["bn-000", "wn-000", "bn-001", "wn-001"]


WARMUP = SWEEP + "warmup: {iterations: 5, factor: 0.2}\n"


def test_early_failure_is_tried_once_more_with_a_warmup(storage):
    study = open_study(storage, WARMUP)
    trial = study.next_trial().id
    fail_early(study, trial)
    record = study.records[trial]
    assert (record.outcome, record.reason, record.curve) == ("early-failure", "nan at 10", [])
    ids = [planned.id for planned in iter(study.next_trial, None)]
    assert ids == ["wn-000", "bn-000-warmup", "wn-001", "bn-001"]
    again = study.records["bn-000-warmup"]
    assert (again.config["warmup"], again.config["warmup_factor"]) == (5, 0.2)
    assert again.params == record.params
    fail_early(study, again.id)
    for trial in ("wn-000", "wn-001", "bn-001"):
        play(study, trial, 0.1)
    assert study.next_trial() is None  # once
    assert study.complete
    assert study.trial_count == 5


def test_early_failure_without_warmup_is_an_outcome_like_others(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    fail_early(study, trial)
    ids = [planned.id for planned in iter(study.next_trial, None)]
    assert ids == ["wn-000", "bn-001", "wn-001"]
    assert study.best("bn") is None


def test_retry_counts_for_the_search_and_its_setting_is_replicated(storage):
    study = open_study(storage, WARMUP + "replicate: {seeds: 1}\n")
    while (planned := study.next_trial()) is not None:
        if planned.id == "bn-001":
            fail_early(study, planned.id)
        else:
            play(study, planned.id, by_rate(planned))
    assert study.records["bn-001-warmup"].outcome == "ok"
    assert "bn-001-seed8" not in study.records
    replicate = study.records["bn-001-seed8-warmup"]
    assert replicate.config["warmup"] == 5  # the setting's, which includes it
    assert study.complete
    assert study.trial_count == len(study.records) == 7
    states = [trial.state.name for trial in study.cells["bn"]._search._study.trials]
    assert states == ["COMPLETE", "COMPLETE"]


def run_with_failures(study: Study, failing: set[str]) -> list[str]:
    order = []
    while (planned := study.next_trial()) is not None:
        order.append(planned.id)
        if planned.id in failing:
            fail_early(study, planned.id)
        else:
            play(study, planned.id, by_rate(planned))
    return order


RECIPES = WARMUP + "replicate: {seeds: 5}\n"


def test_all_seeds_have_a_warmup_if_one_fails_early_without(storage):
    study = open_study(storage, RECIPES)
    order = run_with_failures(study, {"wn-001-seed9"})
    wn = [trial for trial in order if trial.startswith("wn") and "seed" in trial]
    warm = [f"wn-001-seed{seed}-warmup" for seed in range(8, 13)]
    # those to come are trained with it alone
    assert wn == ["wn-001-seed8", "wn-001-seed9", *warm]
    assert [record.id for record in study.cells["wn"].verdict_records()] == warm
    assert not any(trial.endswith("warmup") for trial in order if trial.startswith("bn"))
    assert study.complete
    assert not study.waiting
    assert study.trial_count == len(study.records) == 16
    again = open_study(storage, RECIPES, retry_failed=True)
    assert again.complete
    assert again.trial_count == 16


def test_resumed_sweep_gives_all_seeds_the_warmup_that_one_needed(storage):
    first = open_study(storage, RECIPES)
    while (planned := first.next_trial()).id != "wn-001-seed8":
        play(first, planned.id, by_rate(planned))
    fail_early(first, "wn-001-seed8")
    again = open_study(storage, RECIPES)
    assert again.trial_count == 15
    order = [trial for trial in run_all(again, by_rate) if trial.startswith("wn")]
    assert order == [f"wn-001-seed{seed}-warmup" for seed in range(8, 13)]
    assert "wn-001-seed9" not in again.records


def test_retried_early_failures_are_told(storage):
    """All of wn's seeds fail in their first iterations, and none does with a warm-up."""
    study = open_study(storage, RECIPES)
    plain = {f"wn-001-seed{seed}" for seed in range(8, 13)}
    given: list[str] = []
    while len(given) < 14 and (planned := study.next_trial()) is not None:
        given.append(planned.id)  # all seeds of a cell at once
        if "seed" not in planned.id:
            play(study, planned.id, by_rate(planned))
    for trial in given:
        if "seed" in trial:
            fail_early(study, trial) if trial in plain else play(study, trial, 0.1)
    run_all(study, by_rate)
    wn = next(cell for cell in cells(study.spec, study.records) if cell.name == "wn")
    assert [record.id for record in wn.runs.values()] == [f"{trial}-warmup" for trial in sorted(
        plain, key=lambda trial: int(trial.rpartition("seed")[2]))]  # fmt: skip
    assert {record.id for record in wn.lost_before} == plain
    assert wn.setting == "lr=0.0001 warmup=5"
    said = verdict(Evidence("a", cells(study.spec, study.records), finished=True))
    assert (
        "5 of 5 seeds of wn failed without a warm-up; all of its runs shown have one of 5 "
        "iterations."
    ) in said


def test_in_a_sweep_where_only_failed_seeds_were_retried_they_count_as_failures(storage):
    study = open_study(storage, RECIPES)
    run_with_failures(study, {"wn-001-seed9"})
    for seed in (8, 10, 11, 12):  # as an earlier version left it
        warm = study.records.pop(f"wn-001-seed{seed}-warmup")
        plain = replace(warm, id=f"wn-001-seed{seed}", config={**warm.config, "warmup": 0})
        study.records[plain.id] = plain
    wn = next(cell for cell in cells(study.spec, study.records) if cell.name == "wn")
    assert len(wn.runs) == 5
    assert [record.id for record in wn.failed] == ["wn-001-seed9"]
    assert wn.lost_before == []
    assert wn.setting == "lr=0.0001"


def test_retry_that_was_cut_off_goes_on_and_is_not_given_out_twice(storage):
    first = open_study(storage, WARMUP)
    fail_early(first, first.next_trial().id)
    other, retry = first.next_trial().id, first.next_trial().id
    assert retry == "bn-000-warmup"
    again = open_study(storage, WARMUP)
    assert [p.id for p in iter(again.next_trial, None)] == [retry, other, "wn-001", "bn-001"]


def test_retry_that_was_due_when_the_sweep_was_cut_off_comes_later(storage):
    first = open_study(storage, WARMUP)
    fail_early(first, first.next_trial().id)
    again = open_study(storage, WARMUP)
    assert "bn-000-warmup" in [planned.id for planned in iter(again.next_trial, None)]


def test_failed_trials_are_run_again_on_request_only(storage):
    study = open_study(storage)
    for planned in iter(study.next_trial, None):
        if planned.id == "wn-001":
            study.started(planned.id)
            study.heard(planned.id, report(10, 0.05))
            study.ended(planned.id, error="the node was lost")
        else:
            play(study, planned.id, 0.1)
    assert open_study(storage).complete
    again = open_study(storage, retry_failed=True)
    assert [planned.id for planned in iter(again.next_trial, None)] == ["wn-001"]
    assert again.records["wn-001"].curve == [(10, 0.05)]  # from its last checkpoint


def with_budget(text: str) -> str:
    return f"{SWEEP}scale: {{gpus_per_worker: 1}}\nbudget: {{{text}}}\n"


def test_trials_are_counted_and_the_running_ones_end_in_peace(storage):
    study = open_study(storage, with_budget("trials: 2"))
    assert run_all(study, by_rate) == ["bn-000", "wn-000"]
    assert [r.outcome for r in study.records.values()] == ["ok", "ok"]
    assert study.exhausted == "2 of 2 trials"
    assert not study.complete
    assert not study.waiting
    raised = open_study(storage, with_budget("trials: 3"))
    assert run_all(raised, by_rate) == ["bn-001"]


def test_trials_that_wait_for_resources_count_too(storage):
    study = open_study(storage, with_budget("trials: 3"))
    assert [p.id for p in iter(study.next_trial, None)] == ["bn-000", "wn-000", "bn-001"]


def test_trials_that_had_begun_go_on_though_no_other_may_start(storage):
    first = open_study(storage, with_budget("trials: 2"))
    trial, other = (first.next_trial().id for _ in range(2))
    play(first, trial, 0.1)
    again = open_study(storage, with_budget("trials: 2"))
    assert again.runnable
    assert [p.id for p in iter(again.next_trial, None)] == [other]
    play(again, other, 0.1)
    assert not again.runnable


@pytest.fixture
def clock(monkeypatch):
    """Monotonic time that a test moves."""
    now = [1000.0]
    monkeypatch.setattr("raygan.sweep.study.study.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.mark.parametrize(
    ("cap", "reached"),
    [
        ("gpu_hours: 1.5", "1.50 of 1.5 GPU-hours"),
        ("usd: 3, usd_per_gpu_hour: 2", "$3.00 of $3"),
        ("wall_clock: 90m", "5400s of 90m"),
    ],
)
def test_trials_that_run_when_the_budget_ends_go_on_to_their_next_rung(
    storage, clock, cap, reached
):
    study = open_study(storage, with_budget(cap))
    trial = study.next_trial().id
    first_word(study, trial)
    clock(3600)
    assert not study.heard(trial, report(20, 0.5))
    clock(1800)
    assert study.exhausted == reached
    assert not study.heard(trial, report(30, 0.4))  # the next rung is at 40, its end
    events = []
    study.listeners.append(lambda event, record: events.append(event))
    assert study.next_trial() is None
    assert not study.heard(trial, report(40, 0.3))
    study.ended(trial)
    assert study.records[trial].outcome == "ok"
    assert study.records[trial].gpu_seconds == 5400


def test_paused_trial_goes_on_when_the_budget_is_raised(storage, clock):
    text = with_budget("gpu_hours: 1").replace("grace: 10", "grace: 30")
    study = open_study(storage, text)
    trial = study.next_trial().id
    first_word(study, trial)
    clock(3600)
    assert not study.heard(trial, report(20, 0.5))
    assert study.heard(trial, report(30, 0.4))
    events = []
    study.listeners.append(lambda event, record: events.append(event))
    study.ended(trial)
    assert events == ["paused"]
    assert study.records[trial].outcome is None

    spent = open_study(storage, text)
    assert not spent.runnable
    assert spent.next_trial() is None  # not even the one that has begun
    raised = open_study(storage, text.replace("gpu_hours: 1", "gpu_hours: 2"))
    assert raised.next_trial().id == trial
    assert raised.spent.gpu_hours == 1.0


def test_wall_clock_counts_over_all_runs(storage, clock):
    text = with_budget("wall_clock: 1h")
    first = open_study(storage, text)
    trial = first.next_trial().id
    first.started(trial)
    clock(1800)
    first.heard(trial, report(20, 0.5))
    first.close()
    clock(10_000)  # nobody ran it
    again = open_study(storage, text)
    assert again.exhausted is None
    assert again.next_trial().id == trial
    clock(1800)
    assert again.exhausted == "3600s of 1h"


def test_time_is_saved_with_each_evaluation(storage, clock):
    study = open_study(storage, with_budget("gpu_hours: 9"))
    trial = study.next_trial().id
    first_word(study, trial)
    clock(60)
    study.heard(trial, report(10, 0.5))
    clock(30)  # killed here
    assert open_study(storage, with_budget("gpu_hours: 9")).spent.gpu_hours == 1 / 60


def test_time_is_saved_between_evaluations(storage, clock):
    study = open_study(storage, with_budget("gpu_hours: 9"))
    first_word(study, study.next_trial().id)
    for _ in range(4):
        clock(45)
        study.tick()
    again = open_study(storage, with_budget("gpu_hours: 9")).spent
    assert (again.gpu_hours, again.wall_clock) == (0.05, 180)


def test_waiting_for_gpus_costs_none(storage, clock):
    study = open_study(storage, with_budget("gpu_hours: 1"))
    trial = study.next_trial().id
    study.started(trial)
    clock(7200)
    assert study.spent.gpu_hours == 0
    first_word(study, trial)
    clock(1800)
    assert study.spent.gpu_hours == 0.5


def test_settings_of_another_search_are_named(storage):
    study = open_study(storage)
    study.next_trial()
    record = study.records["bn-000"]
    record.outcome, record.params, record.config["lr"] = "ok", {"lr": 5.0}, 5.0
    record.save(storage)
    with pytest.raises(
        RayganError, match=r"trial bn-000: its settings .* do not belong to this search space"
    ):
        open_study(storage)


COLLAPSED = {"val/variety": 0.02}


def play_collapsing(study: Study, planned, loss: float) -> None:
    """Train a trial of norm bn to a G that makes two images; others to a healthy one."""
    more = COLLAPSED if planned.cell == "bn" else {"val/variety": 1.0}
    study.started(planned.id)
    for step in (500, 1000, 1500, 2000):
        assert not study.heard(planned.id, report(step, loss, **more))
    study.ended(planned.id)


LONG = SWEEP.replace("iterations: 40, evaluate_every: 10", "iterations: 2000, evaluate_every: 500")
LONG = LONG.replace("stop: {rule: asha, grace: 10, reduction: 2}\n", "")


def test_collapsed_is_an_outcome_with_a_reason_and_never_best(storage):
    study = open_study(storage, LONG)
    for planned in iter(study.next_trial, None):
        play_collapsing(study, planned, 0.1)
    record = study.records["bn-000"]
    assert record.outcome == "collapsed"
    assert record.reason.startswith(
        "few different images: the effective number of different samples is 2.0%"
    )
    assert record.end_loss == 0.1
    assert study.best("bn") is None
    assert study.best("wn").id == "wn-000"
    assert _exit_code(study) == 0  # that a norm collapses is a result
    assert open_study(storage, LONG).records["bn-000"].outcome == "collapsed"


@pytest.mark.parametrize(
    ("baseline", "outcome"), [(0.104, "untrained"), (0.106, "ok"), (None, "ok")]
)
def test_a_trial_that_never_beats_the_mean_image_is_untrained(storage, baseline, outcome):
    study = open_study(
        storage, LONG + "replicate: {seeds: 1}\n", prepared=baseline and images(baseline)
    )
    for planned in iter(study.next_trial, None):
        study.started(planned.id)
        study.heard(planned.id, report(500, 0.1 if planned.cell == "bn" else 0.05))
        study.heard(planned.id, report(2000, 0.3))
        study.ended(planned.id)
    record = study.records["bn-000"]
    assert record.outcome == outcome
    assert (record.reason or "").startswith("nothing was learned") == (outcome == "untrained")
    assert (study.best("bn") is None) == (outcome == "untrained")
    assert study.best("wn").outcome == "ok"
    assert study.complete  # replicated, to see how often
    assert _exit_code(study) == 0


def test_a_trial_that_never_learned_has_not_collapsed(storage):
    study = open_study(storage, LONG, prepared=images(0.1))
    for planned in iter(study.next_trial, None):
        play_collapsing(study, planned, 0.0999 if planned.id == "bn-000" else 0.05)
    record = study.records["bn-000"]
    assert record.outcome == "untrained"
    assert "; few different images" in record.reason
    assert study.records["bn-001"].outcome == "collapsed"


def test_untrained_is_never_chosen_over_a_trial_that_ended_ok(storage):
    study = open_study(storage, LONG + "replicate: {seeds: 1}\n", prepared=images(0.1))
    for planned in iter(study.next_trial, None):
        study.started(planned.id)
        # the untrained one ends lower: it is not near the mean image's loss by chance
        losses = (0.099, 0.0955) if planned.id == "bn-000" else (0.09, 0.3)
        for step, loss in zip((500, 2000), losses, strict=True):
            study.heard(planned.id, report(step, loss))
        study.ended(planned.id)
    assert study.records["bn-000"].outcome == "untrained"
    assert "bn-001-seed8" in study.records
    assert study.best("bn").outcome == "ok"


def test_collapsed_setting_is_replicated_only_if_there_is_no_other(storage):
    study = open_study(storage, LONG + "replicate: {seeds: 1}\n")
    healthy = study.next_trial()
    assert healthy.cell == "bn"
    play(study, healthy.id, 0.9)  # no step of it is judged: it ends at 40
    study.records[healthy.id].outcome = "ok"
    for planned in iter(study.next_trial, None):
        play_collapsing(study, planned, 0.1)
    assert study.records["bn-001"].outcome == "collapsed"
    assert "bn-000-seed8" in study.records  # of the setting that did not collapse
    assert study.records["bn-000-seed8"].outcome == "collapsed"
    assert study.complete


def test_cell_whose_trials_all_collapse_is_replicated_to_see_how_often(storage):
    study = open_study(storage, LONG + "replicate: {seeds: 2}\n")
    for planned in iter(study.next_trial, None):
        play_collapsing(study, planned, 0.1)
    verdict = study.cells["bn"].verdict_records()
    assert [record.outcome for record in verdict] == ["collapsed"] * 2
    assert study.best("bn") is None
    assert _exit_code(study) == 0


def test_trial_that_is_stopped_early_is_not_judged(storage):
    study = open_study(storage, LONG + "stop: {rule: patience, patience: 500, grace: 500}\n")
    trial = study.next_trial().id
    for step, loss in ((500, 0.1), (1000, 0.2), (1500, 0.3)):
        if study.heard(trial, report(step, loss, **COLLAPSED)):
            break
    study.ended(trial)
    assert study.records[trial].outcome == "stopped"
