import itertools
import math

import optuna
import pytest

from raygan import records
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.search import CellSearch

RANGE = "{min: 1e-5, max: 1e-3, scale: log}"


def read(text: str) -> spec.SweepSpec:
    return spec.validate(parse(f"name: a\n{text}", "sweep.yaml"))


def everything(search: CellSearch) -> list[tuple[int, dict]]:
    return list(iter(search.ask, None))


def test_grid_tries_the_product_in_order():
    found = everything(CellSearch(read("search: {lr: [1e-3, 1e-4], features: [4, 8, 16]}")))
    product = itertools.product([4, 8, 16], [1e-3, 1e-4])
    assert found == [(i, {"features": a, "lr": b}) for i, (a, b) in enumerate(product)]


def test_no_search_is_one_trial():
    assert everything(CellSearch(read("train: {lr: 1e-3}"))) == [(0, {})]


def test_first_points_come_first_and_once():
    found = everything(
        CellSearch(read("search: {lr: [1e-3, 1e-4, 1e-5], try_first: [{lr: 1e-4}]}"))
    )
    assert [params["lr"] for _, params in found] == [1e-4, 1e-3, 1e-5]


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_drawn_points_are_in_range_and_fixed_by_the_seed(method):
    text = f"search: {{method: {method}, trials: 6, lr: {RANGE}, features: {{min: 4, max: 8}}}}"
    first, second = (everything(CellSearch(read(text))) for _ in range(2))
    assert first == second
    assert len({params["lr"] for _, params in first}) == 6
    for _, params in first:
        assert 1e-5 <= params["lr"] <= 1e-3
        assert params["features"] in range(4, 9)
    other = everything(CellSearch(read(text.replace("trials: 6", "trials: 6, seed: 1"))))
    assert other != first


@pytest.mark.parametrize("method", ["random", "grid"])
def test_resumed_search_goes_on_as_it_would_have(method):
    space = "[1e-5, 1e-4, 1e-3, 1e-2]" if method == "grid" else RANGE
    sweep = read(f"search: {{method: {method}, trials: 4, lr: {space}}}")
    whole = everything(CellSearch(sweep))
    resumed = CellSearch(sweep)
    for index, params in whole[:2]:
        resumed.restore(index, params, [], outcome=None)
    assert everything(resumed) == whole[2:]


def test_tpe_goes_where_the_loss_is_low():
    sweep = read(f"search: {{method: tpe, trials: 40, lr: {RANGE}}}")
    search = CellSearch(sweep)
    tried = []
    while (asked := search.ask()) is not None:
        index, params = asked
        tried.append(params["lr"])
        loss = abs(params["lr"] - 1e-4) / 1e-4
        search.tell(index, [(10, loss + 1), (20, loss)], outcome="ok")
    late = tried[20:]
    assert sum(5e-5 < lr < 2e-4 for lr in late) > len(late) / 2


def test_outcomes_are_told_to_optuna_for_what_they_are():
    search = CellSearch(read("search: {lr: [1e-5, 1e-4, 1e-3]}"))
    everything(search)
    search.tell(0, [(10, 0.5), (20, 0.4)], outcome="ok")
    search.tell(1, [(10, 0.9)], outcome="stopped")
    search.tell(2, [(10, 0.1)], outcome="failed")
    states = [t.state for t in search._study.trials]
    State = optuna.trial.TrialState
    assert states == [State.COMPLETE, State.PRUNED, State.FAIL]
    assert search._study.best_value == 0.4  # never the failed one


LEFT_OUT = ("diverged", "collapsed", "early-failure", "untrained")


@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("outcome", LEFT_OUT)
def test_failures_are_told_as_ten_times_the_mean_image(outcome, restored):
    search = CellSearch(read("search: {lr: [1e-5, 1e-4]}"))
    if restored:
        search.restore(0, {"lr": 1e-5}, [(10, 0.1)], outcome=outcome, baseline=0.06)
    else:
        search.ask()
        search.tell(0, [(10, 0.1)], outcome=outcome, baseline=0.06)
    (told,) = search._study.trials
    assert told.state == optuna.trial.TrialState.PRUNED  # Optuna ignores FAIL
    assert told.intermediate_values == {0: pytest.approx(0.6)}


def test_tpe_takes_a_failure_for_worse_than_any_trial_that_was_stopped():
    from optuna.samplers._tpe.sampler import _split_trials

    search = CellSearch(read("search: {lr: [1e-5, 1e-4, 1e-3]}"))
    for index, outcome in enumerate(("diverged", "stopped", "ok")):
        search.ask()
        search.tell(index, [(10, 0.5)], outcome=outcome)
    study = search._study
    below, above = _split_trials(study, study.trials, 2)
    assert [trial.number for trial in below] == [1, 2]
    assert [trial.number for trial in above] == [0]


def test_tpe_draws_fewer_settings_that_fail():
    def failures(told: str) -> int:
        count = 0
        for seed in range(3):
            text = f"search: {{method: tpe, trials: 30, seed: {seed}, lr: {RANGE}}}"
            search = CellSearch(read(text))
            while (asked := search.ask()) is not None:
                index, params = asked
                fails = params["lr"] > 2e-4  # the best is at the cliff
                count += fails
                outcome = told if fails else "ok"
                search.tell(index, [(10, 2e-4 / params["lr"])], outcome=outcome, baseline=1.0)
        return count

    assert failures("diverged") < 0.8 * failures("failed")  # of which Optuna hears nothing


def test_each_search_trial_has_a_seed_of_its_own_the_same_in_every_cell():
    sweep = read("grid: {norm: [bn, wn]}\nsearch: {lr: [1e-5, 1e-4]}\ntrain: {seed: 7}\n"
                 "replicate: {seeds: 1000}")  # fmt: skip
    bn, wn = plan.cells(sweep)
    seeds = [plan.trial(sweep, bn, index, {"lr": 1e-4}).config.seed for index in range(100)]
    assert seeds == [plan.trial(sweep, wn, i, {"lr": 1e-5}).config.seed for i in range(100)]
    assert len(set(seeds)) == 100
    replicated = {plan.replicate(sweep, bn, i, {}, "x").config.seed for i in range(1000)}
    assert not set(seeds) & ({7} | replicated)


def test_seed_that_the_grid_or_a_lone_trial_has_stays():
    grid = read("grid: {seed: [3, 4]}\nsearch: {lr: [1e-5, 1e-4]}")
    assert [plan.trial(grid, c, 1, {"lr": 1e-4}).config.seed for c in plan.cells(grid)] == [3, 4]
    alone = read("grid: {norm: [bn, wn]}\ntrain: {seed: 7}")
    assert [plan.trial(alone, cell, 0, {}).config.seed for cell in plan.cells(alone)] == [7, 7]


def test_the_greatest_seed_leaves_search_trials_allowed_ones():
    sweep = read(f"search: {{lr: [1e-5, 1e-4]}}\ntrain: {{seed: {2**63 - 1}}}")
    (cell,) = plan.cells(sweep)
    assert 0 <= plan.trial(sweep, cell, 1, {"lr": 1e-4}).config.seed < 2**62


REPEATED = (
    f"grid: {{norm: [bn, wn]}}\nsearch: {{method: random, trials: 4, repeats: 3, lr: {RANGE}}}\n"
    "replicate: {seeds: 2}"
)


def test_repeats_of_a_search_are_cells_with_other_points_and_other_seeds():
    sweep = read(REPEATED)
    cells = plan.cells(sweep)
    assert [cell.name for cell in cells] == [
        f"{norm}_repeat={repeat}" for norm in ("bn", "wn") for repeat in (1, 2, 3)
    ]
    assert [cell.values for cell in cells[:3]] == [{"norm": "bn"}] * 3
    points = [everything(CellSearch(sweep, repeat=cell.repeat)) for cell in cells]
    assert points[:3] == points[3:]  # each norm is offered the same
    assert len({point["lr"] for found in points[:3] for _, point in found}) == 12
    planned = [[plan.trial(sweep, c, i, {"lr": 1e-4}) for i in range(4)] for c in cells]
    planned += [[plan.replicate(sweep, c, i, {"lr": 1e-4}, "x") for i in range(2)] for c in cells]
    seeds = [[trial.config.seed for trial in found] for found in planned]
    assert seeds[:3] == seeds[3:6]
    assert len({seed for found in seeds[:3] + seeds[6:9] for seed in found}) == 3 * (4 + 2)


def test_cells_are_the_product_of_the_axes_and_every_cell_is_offered_the_same():
    sweep = read(
        f"grid: {{norm: [bn, wn], features: [4, 8]}}\nsearch: {{method: random, trials: 2, lr: {RANGE}}}"
    )
    cells = plan.cells(sweep)
    assert [cell.name for cell in cells] == [
        "bn_features=4",
        "bn_features=8",
        "wn_features=4",
        "wn_features=8",
    ]
    points = [everything(CellSearch(sweep)) for _ in cells]
    assert all(p == points[0] for p in points)
    trial = plan.trial(sweep, cells[2], 1, {"lr": 2e-5})
    assert (trial.id, trial.title) == ("wn_features=4-001", "wn_features=4 lr=2e-5")
    assert (trial.config.norm, trial.config.features, trial.config.lr) == ("wn", 4, 2e-5)


def test_what_is_on_or_off_can_tell_cells_apart_and_be_searched():
    found = plan.cells(read("grid: {flip: [true, false]}"))
    assert [cell.name for cell in found] == ["flip=true", "flip=false"]
    assert [cell.values for cell in found] == [{"flip": True}, {"flip": False}]
    assert read("search: {flip: [true, false]}").space() == {"flip": [True, False]}


def test_values_that_look_alike_are_different_cells():
    sweep = read("grid: {lr: [1.001e-4, 1.002e-4, 1e-4]}")
    assert [cell.name for cell in plan.cells(sweep)] == ["lr=0.0001001", "lr=0.0001002", "lr=1e-4"]


def test_searched_norm_is_no_cell():
    assert [cell.name for cell in plan.cells(read("search: {norm: [bn, wn]}"))] == ["all"]


def test_resumed_tpe_goes_on_as_it_would_have():
    sweep = read(f"search: {{method: tpe, trials: 16, lr: {RANGE}}}")

    def play(search: CellSearch, told: list[tuple[int, dict]], stop: int) -> list[tuple[int, dict]]:
        while len(told) < stop and (asked := search.ask()) is not None:
            told.append(asked)
            search.tell(asked[0], [(10, asked[1]["lr"])], outcome="ok")
        return told

    whole = play(CellSearch(sweep), [], 16)
    before = play(CellSearch(sweep), [], 12)
    resumed = CellSearch(sweep)
    for index, params in before:
        resumed.restore(index, params, [(10, params["lr"])], outcome="ok")
    assert play(resumed, before, 16) == whole


ROUGH = [(step, loss) for step, loss in enumerate([0.01, 0.5, 0.4, 0.3, 0.2, 0.6], start=1)]
"""Its lowest loss says nothing of how it ends."""


@pytest.mark.parametrize("restored", [False, True])
def test_optuna_is_told_what_trials_are_ranked_by(restored):
    sweep = read("search: {lr: [1e-5, 1e-4]}")
    search = CellSearch(sweep)
    for index, outcome in enumerate(("ok", "stopped")):
        if restored:
            search.restore(index, {"lr": [1e-5, 1e-4][index]}, ROUGH, outcome=outcome)
            continue
        search.ask()
        search.tell(index, ROUGH, outcome=outcome)
    whole, stopped = search._study.trials
    plan_of = plan.trial(sweep, plan.cells(sweep)[0], 0, {"lr": 1e-5})
    record = records.TrialRecord("a", "wn", 0, "", {}, plan_of.config.to_dict())
    record.merge([{records.STEP: step, records.LOSS: loss} for step, loss in ROUGH])
    assert whole.value == record.end_loss == records.end_loss(ROUGH)
    # by its newest value, tpe compares a trial that was stopped early; the others are for pictures
    assert stopped.intermediate_values == {**dict(ROUGH), 6: records.end_loss(ROUGH)}


def test_optuna_is_told_no_more_of_a_long_trial_than_of_a_short_one(monkeypatch):
    fitted = []
    real = records.end_loss
    monkeypatch.setattr(
        "raygan.sweep.study.search.end_loss", lambda curve: fitted.append(curve) or real(curve)
    )
    search = CellSearch(read("search: {lr: [1e-5, 1e-4]}"))
    long = [(step, 1 / step) for step in range(1, 1002)]
    search.ask()
    search.tell(0, long, outcome="stopped")
    search.restore(1, {"lr": 1e-4}, long, outcome="stopped")
    for trial in search._study.trials:
        told = trial.intermediate_values
        assert 5 < len(told) <= 11
        assert max(told) == 1001
        assert told[1001] == real(long)
    assert fitted == [long, long], "a line is fitted once per trial, not once per evaluation"


BEFORE = [
    (9.434582e-05, 33),
    (0.0005911363, 57),
    (0.000442175, 13),
    (8.652596e-05, 46),
    (8.26905e-05, 64),
    (0.0001872873, 61),
    (1.22092e-05, 9),
    (8.001886e-05, 28),
    (1.529205e-05, 36),
    (0.0009945691, 32),
    (4.681407e-05, 10),
    (4.404426e-05, 42),
    (0.0001544305, 39),
    (0.0002058771, 33),
    (0.0001410276, 22),
    (1.579903e-05, 56),
    (0.0003854032, 43),
    (3.489416e-05, 24),
]
"""Learning rate and features of each trial, as earlier versions drew them."""


def test_the_same_results_lead_to_the_points_of_before():
    sweep = read(f"search: {{method: tpe, trials: 18, lr: {RANGE}, features: {{min: 4, max: 64}}}}")
    search, found = CellSearch(sweep), []
    while (asked := search.ask()) is not None:
        index, params = asked
        found.append((params["lr"], params["features"]))
        off = abs(math.log10(params["lr"] / 1e-4)) + abs(params["features"] - 32) / 64
        curve = [(step, (1 + off) / step + 0.01 * math.sin(step * index)) for step in range(1, 60)]
        if index % 3 == 1:
            search.tell(index, curve[: 20 + index], outcome="stopped")
        else:
            search.tell(index, curve, outcome="diverged" if index == 5 else "ok")
    assert found == [(pytest.approx(rate, rel=1e-6), features) for rate, features in BEFORE]


FINITE = "lr: [1e-3, 1e-4, 1e-5], features: {min: 4, max: 7}, flip: [true]"


def play(search: CellSearch) -> list[tuple[int, dict]]:
    """All trials one after another; the higher the learning rate, the better."""
    done = []
    while (asked := search.ask()) is not None:
        done.append(asked)
        search.tell(asked[0], [(10, 1 - asked[1]["lr"])], outcome="ok")
    return done


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_no_setting_of_a_finite_space_is_tried_twice(method):
    first = "try_first: [{features: 5, flip: true, lr: 1e-4}]"
    sweep = read(f"search: {{method: {method}, trials: 99, {FINITE}, {first}}}")
    found = play(CellSearch(sweep))
    assert [index for index, _ in found] == list(range(12))
    assert found[0][1] == {"features": 5, "flip": True, "lr": 1e-4}
    assert len({tuple(params.items()) for _, params in found}) == 12
    assert plan.trials_per_cell(sweep) == 12
    assert plan.all_settings(sweep) == (
        "`search.trials` (=99) is more than there are settings: each cell tries all 12"
    )


def test_trials_within_a_finite_space_are_as_many_as_asked_for():
    sweep = read(f"search: {{method: random, trials: 12, {FINITE}}}")
    assert (plan.trials_per_cell(sweep), plan.all_settings(sweep)) == (12, None)
    endless = read(f"search: {{method: random, trials: 99, lr: {RANGE}}}")
    assert (plan.trials_per_cell(endless), plan.all_settings(endless)) == (99, None)


def test_random_settings_depend_on_nothing_but_seed_and_index():
    sweep = read(f"search: {{method: random, trials: 9, {FINITE}}}")
    whole = everything(CellSearch(sweep))
    assert play(CellSearch(sweep)) == whole
    assert (
        everything(CellSearch(read(f"search: {{method: random, trials: 6, {FINITE}}}")))
        == whole[:6]
    )
    for missing in range(9):  # a trial's folder was deleted
        resumed = CellSearch(sweep)
        for index, params in whole:
            if index != missing:
                resumed.restore(index, params, [(10, 0.5)], outcome="ok")
        assert everything(resumed) == [whole[missing]]


def test_resumed_search_of_a_finite_space_draws_the_rest_of_it():
    sweep = read(f"search: {{method: tpe, trials: 12, {FINITE}}}")
    whole = play(CellSearch(sweep))
    resumed = CellSearch(sweep)
    for index, params in whole[:8]:
        resumed.restore(index, params, [(10, 1 - params["lr"])], outcome="ok")
    assert play(resumed) == whole[8:]


def test_random_settings_are_those_of_before_up_to_the_first_that_was_drawn_twice():
    sweep = read(
        "search: {method: random, trials: 9, lr: [1e-3, 1e-4, 1e-5], features: [4, 8, 16]}"
    )
    before = [(16, 1e-4), (8, 1e-4), (8, 1e-5), (4, 1e-4), (4, 1e-3)]  # then (4, 1e-3) again
    found = [tuple(params.values()) for _, params in everything(CellSearch(sweep))]
    assert found[:5] == before
    # begun by a version that drew settings twice, it still tries all of them
    resumed = CellSearch(sweep)
    for index, (features, lr) in enumerate([*before, before[-1]]):
        resumed.restore(index, {"features": features, "lr": lr}, [(10, 0.5)], outcome="ok")
    assert len({*before, *(tuple(p.values()) for _, p in everything(resumed))}) == 8


def test_space_too_large_to_be_listed_is_searched():
    huge = "iterations: {min: 1, max: 1_000_000_000_000}, features: {min: 1, max: 1_000_000}"
    assert len(everything(CellSearch(read(f"search: {{method: random, trials: 3, {huge}}}")))) == 3
