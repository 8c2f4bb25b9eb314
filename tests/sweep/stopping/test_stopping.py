import math
import random
import statistics
from itertools import accumulate
from types import SimpleNamespace

import pytest

from raygan import recipe
from raygan.errors import ConfigError
from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.spec import plan, space
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.stopping import rules
from raygan.sweep.stopping.asha import LEAST_GRACE, Asha
from raygan.sweep.stopping.median import LEAST, Median
from raygan.sweep.stopping.never import Never
from raygan.sweep.stopping.patience import Patience
from raygan.sweep.stopping.rule import Stopper
from raygan.sweep.stopping.rules import RULES, first_stop, make_stopper, rule_of
from raygan.sweep.study.study import Study

Stop = recipe_sections()["stop"]


def test_asha_keeps_the_best_of_each_rung():
    rule = Asha(reduction=2).start(10)
    assert not rule.stops("a", 5, 9.0)  # before the first rung
    assert not rule.stops("a", 10, 0.5)  # alone
    assert rule.stops("b", 10, 0.6)  # worse than the only other
    assert not rule.stops("c", 10, 0.4)  # better
    assert not rule.stops("a", 15, 5.0)  # a trial is judged once per rung
    assert not rule.stops("c", 20, 0.3)  # next rung
    assert rule.stops("a", 20, 0.4)


def test_asha_passes_one_in_so_many():
    rule = Asha(reduction=3).start(10)
    losses = [0.1, 0.2, 0.3, 0.4, 0.5, 0.15]
    stopped = [rule.stops(str(i), 10, loss) for i, loss in enumerate(losses)]
    assert stopped == [False, True, True, True, True, False]  # the sixth is second of six


def test_asha_judges_by_the_lowest_loss_so_far():
    rule = Asha(reduction=2).start(20)
    rule.stops("a", 20, 0.5)
    rule.stops("b", 10, 0.1)
    assert not rule.stops("b", 20, 0.9)


def test_asha_judges_at_the_highest_rung_reached():
    rule = Asha(reduction=2).start(10)
    rule.stops("a", 40, 0.1)
    assert not rule.stops("b", 10, 0.9)  # alone at rung 10
    assert rule.stops("b", 45, 0.9)


def test_patience_counts_iterations_since_the_last_new_low():
    rule = Patience(patience=30).start(0)
    assert [rule.stops("a", s, loss) for s, loss in [(10, 1.0), (20, 0.5), (30, 0.6), (40, 0.5), (50, 0.7)]] == [
        False, False, False, False, True
    ]  # fmt: skip


def test_patience_leaves_trials_alone_before_grace():
    rule = Patience(patience=10).start(100)
    rule.stops("a", 10, 1.0)
    assert not rule.stops("a", 90, 2.0)
    assert rule.stops("a", 100, 2.0)


@pytest.mark.parametrize(
    ("rule", "kind"), [("asha", Asha), ("median", Median), ("patience", Patience), ("none", Never)]
)
def test_rule_by_name(rule, kind):
    assert isinstance(rule_of(Stop(rule=rule)), kind)


@pytest.mark.parametrize(("iterations", "grace"), [(1000, 100), (1001, 101), (5, 1)])
def test_grace_is_a_tenth_of_the_iterations_unless_given(iterations, grace):
    assert rules.grace(Stop(rule="asha"), iterations) == grace
    assert rules.grace(Stop(rule="asha", grace=7), iterations) == 7
    rule = make_stopper(Stop(rule="asha"), iterations)
    assert (rule.rung(grace - 1), rule.rung(grace)) == (0, grace)


def read(text: str) -> spec.SweepSpec:
    return spec.validate(parse(f"name: a\n{text}", "sweep.yaml"))


def test_a_search_is_stopped_by_the_median_rule_unless_said_otherwise():
    searched = read("search: {lr: [1e-3, 1e-4]}")
    assert searched.stopping().rule == searched.resolved()["stop"]["rule"] == "median"
    assert read("search: {lr: [1e-3, 1e-4]}\nstop: {rule: none}").stopping().rule == "none"
    assert read("grid: {lr: [1e-3, 1e-4]}").stopping().rule == "none"


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("train: {iterations: 50}", [50]),
        ("grid: {iterations: [50, 70]}", [50, 70]),
        ("search: {iterations: [50, 70]}", [70]),
        ("search: {trials: 3, iterations: {min: 50, max: 90}}", [90]),
    ],
)
def test_grace_is_a_share_of_the_longest_trial_of_the_cell(text, longest):
    found = read(text)
    assert [space.longest(found, cell.values) for cell in plan.cells(found)] == longest


def test_every_fifth_trial_of_a_cell_runs_to_its_end():
    found = read("grid: {norm: [bn, wn]}\nsearch: {method: random, trials: 10, "
                 "lr: {min: 1e-5, max: 1e-3}}\nstop: {rule: asha, grace: 10}\n"
                 "train: {iterations: 40, evaluate_every: 10}")  # fmt: skip
    study = Study(found, Storage("mock:///exempt"))
    while (planned := study.next_trial()) is not None:
        study.started(planned.id)
        for step in (10, 20, 30, 40):  # each is worse than those before
            if study.heard(planned.id, {"step": step, LOSS: 1.0 + planned.index}):
                break
        study.ended(planned.id)
    for cell in study.cells.values():
        whole = [r.index for r in cell.records.values() if r.outcome == "ok"]
        assert whole == [0, 4, 9]  # the first had nothing to be compared with


def test_median_stops_what_is_worse_than_the_usual_trial():
    rule = Median().start(20)
    for number, level in enumerate((0.1, 0.2, 0.3)):
        for step in (10, 20, 30):
            assert not rule.stops(f"t{number}", step, level)
    assert not rule.stops("bad", 10, 0.9)  # below the grace
    assert rule.stops("bad", 20, 0.9)
    assert not rule.stops("fair", 20, 0.19)  # its lowest is below the median of means, 0.2
    assert not rule.stops("fair", 30, 5.0)


def test_median_needs_others_that_have_come_as_far():
    rule = Median().start(10)
    for number in range(LEAST):
        rule.stops(f"t{number}", 10, 0.1)
    assert not rule.stops("bad", 20, 0.9)
    for number in range(LEAST):
        rule.stops(f"t{number}", 20, 0.1)
    assert rule.stops("bad", 30, 0.9) is False  # nobody is at 30 yet
    assert rule.stops("worse", 20, 0.9)


@pytest.mark.parametrize(
    ("step", "rung"), [(0, 0), (9, 0), (10, 10), (29, 10), (30, 30), (100, 90), (10_000, 7290)]
)
def test_rungs_of_the_ladder(step, rung):
    assert Asha().start(10).rung(step) == rung
    assert Never().start(10).rung(step) == Patience().start(1).rung(step) == step


@pytest.mark.parametrize("every", [7, 10, 100])
@pytest.mark.parametrize("patience", [1, 10, 95])
@pytest.mark.parametrize("grace", [1, 10, 55, 100])
@pytest.mark.parametrize("kind", ["asha", "median", "patience"])
def test_no_rule_stops_a_trial_before_the_first_stop(kind, grace, patience, every):
    stop = Stop(rule=kind, grace=grace, patience=patience)
    rule = make_stopper(stop, 1000)
    steps = range(every, 250, every)
    for number in range(LEAST):
        for step in steps:
            rule.stops(f"good{number}", step, 0.1)
    first = next(step for step in steps if rule.stops("bad", step, 0.9))
    assert first == first_stop(stop, every, 1000)


def test_each_rule_knows_its_parameters():
    assert {"asha", "median", "patience", "none"} <= set(RULES.names)
    assert (RULES.heed("reduction"), RULES.heed("patience")) == (("asha",), ("patience",))
    assert rule_of(Stop(rule="patience", patience=7, reduction=2)) == Patience(patience=7)
    assert rule_of(SimpleNamespace(rule="asha", grace=None, reduction=None)) == Asha(reduction=3)
    assert [rule.name for rule in RULES if rule.never] == ["none"]
    for wrong, text in [
        (lambda: Asha(reduction=1), "at least 2"),
        (lambda: Patience(patience=0), "at least 1"),
    ]:
        with pytest.raises(ConfigError, match=text):
            wrong()


def test_asha_refuses_a_grace_that_is_unfair_to_slow_learners():
    Asha().check_grace(int(LEAST_GRACE * 1000), 1000)
    Median().check_grace(1, 1000)
    with pytest.raises(ConfigError, match=r"`stop.grace` \(=49\) is below 5%.*raise it to 100"):
        Asha().check_grace(49, 1000)


def test_patience_says_when_it_is_what_holds_back_the_rule():
    assert Patience(patience=50).limit(10) == "patience"
    assert Patience(patience=5).limit(10) is Median().limit(10) is None


CEILING = '''
from raygan.sweep.stopping.rule import Stopper, StopRule

class Ceiling(StopRule):
    """Stops a trial whose loss is above a ceiling."""
    name = "ceiling"
    most: float = 0.5
    """The highest loss that is accepted."""

    def start(self, grace):
        return Above(grace, self.most)

class Above(Stopper):
    def __init__(self, grace, most):
        self.grace, self.most = grace, most

    def stops(self, trial, step, loss):
        return step >= self.grace and loss > 1 * self.most
'''


@pytest.fixture
def own(request):
    recipe.use([recipe.RecipeFile("ceiling.py", CEILING.replace("1 *", request.param))])
    yield
    recipe.use([])


def study() -> Study:
    read_ = read("search: {method: random, trials: 3, lr: {min: 1e-5, max: 1e-3}}\n"
                 "train: {iterations: 40, evaluate_every: 10}")  # fmt: skip
    stop = SimpleNamespace(rule="ceiling", grace=20, most=0.2)
    found = Study(read_, Storage("mock:///own-rule"))
    (cell,) = found.cells.values()
    cell._stopper = make_stopper(stop, 40)
    return found


@pytest.mark.parametrize("own", ["1 *"], indirect=True)
def test_a_users_own_rule_stops_trials(own):
    found = study()
    trial = found.next_trial().id
    found.started(trial)
    assert not found.heard(trial, {"step": 10, LOSS: 0.3})
    assert not found.heard(trial, {"step": 20, LOSS: 0.1})
    assert found.heard(trial, {"step": 30, LOSS: 0.3})


@pytest.mark.parametrize("own", ["nothing *"], indirect=True)
def test_an_error_in_a_users_own_rule_names_file_and_line(own):
    found = study()
    trial = found.next_trial().id
    found.started(trial)
    with pytest.raises(ConfigError, match=r"ceiling.py:18: NameError: name 'nothing'"):
        found.heard(trial, {"step": 20, LOSS: 0.1})


def test_a_parameter_with_the_name_of_a_key_is_refused():
    with pytest.raises(ConfigError, match=r"`grace` has the name of another key"):
        recipe.use([recipe.RecipeFile("ceiling.py", CEILING.replace("    most: ", "    grace: "))])


def told_at_random(seed: int):
    """Trial, iteration and loss of each evaluation of a cell, in the order in which they arrive:
    trials differ in their iterations, some start late and some end early."""
    draw = random.Random(seed)
    every = [draw.choice([(5,), (5, 10), (3, 4, 7)])] * 12
    ends = [draw.choice([60, 60, 37, 80]) for _ in every]
    at = [0] * len(every)
    running: list[int] = []
    for started in range(len(every)):
        running.append(started)
        for _ in range(draw.randint(0, 40)):
            if running:
                trial = draw.choice(running)
                at[trial] = min(ends[trial], at[trial] + draw.choice(every[trial]))
                # few values, so that losses tie
                yield f"trial-{trial}", at[trial], draw.choice([0.1, 0.2, 0.2, 0.3, 0.5])
                if at[trial] == ends[trial] or draw.random() < 0.02:
                    running.remove(trial)


class PlainMedians(Stopper):
    """The median rule in so many words, which walks all trials at each evaluation."""

    def __init__(self, grace: int) -> None:
        self.grace, self.curves = grace, {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        self.curves.setdefault(trial, []).append((step, loss))
        means = []
        for other, curve in self.curves.items():
            losses = [loss for at, loss in curve if at <= step]
            if other != trial and losses and curve[-1][0] >= step:
                means.append(list(accumulate(losses))[-1] / len(losses))
        lowest = min(loss for _, loss in self.curves[trial])
        return step >= self.grace and len(means) >= 3 and lowest > statistics.median(means)


class PlainRungs(Stopper):
    """ASHA in so many words."""

    def __init__(self, grace: int) -> None:
        self.grace, self.lowest, self.rungs = grace, {}, {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        lowest = self.lowest[trial] = min(loss, self.lowest.get(trial, math.inf))
        reached = [rung for rung in (self.grace * 2**k for k in range(10)) if rung <= step]
        if not reached or trial in self.rungs.setdefault(reached[-1], {}):
            return False
        rung = self.rungs[reached[-1]]
        rung[trial] = lowest
        return sum(other < lowest for other in rung.values()) >= max(1, len(rung) // 2)


@pytest.mark.parametrize("grace", [1, 20])
@pytest.mark.parametrize(
    ("rule", "plain"), [(Median(), PlainMedians), (Asha(reduction=2), PlainRungs)]
)
def test_rules_decide_as_their_definition_says(rule, plain, grace):
    answers = set()
    for seed in range(60):
        quick, slow = rule.start(grace), plain(grace)
        for told in told_at_random(seed):
            answer = quick.stops(*told)
            assert answer == slow.stops(*told), (seed, told)
            answers.add(answer)
    assert answers == {False, True}


def test_median_keeps_means_only_where_several_trials_are_judged():
    rule = Median().start(1)
    for trial in range(30):
        for step in (100, 200 + trial, 300):
            rule.stops(f"trial-{trial}", step, 0.1)
    assert sorted(rule._means) == [100, 300]


class Counted(dict):
    """How often all of it was walked."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def items(self):
        self.walks += 1
        return super().items()

    def values(self):
        self.walks += 1
        return super().values()


def test_median_walks_all_trials_at_most_twice_for_each_iteration():
    rule = Median().start(1)
    rule._steps = Counted()
    for step in (10, 20, 30):
        for trial in range(40):
            rule.stops(f"trial-{trial}", step, 0.1)
    assert rule._steps.walks == 2 * 3


@pytest.mark.parametrize("rule", [Median(), Asha(reduction=2), Patience(patience=20)])
def test_a_rule_that_is_resumed_decides_like_one_that_is_told_again_in_order(rule):
    for seed in range(30):
        told = list(told_at_random(seed))
        half = len(told) // 2
        curves: dict[str, list] = {}
        for trial, step, loss in told[:half]:
            if not curves.get(trial) or step > curves[trial][-1][0]:
                curves.setdefault(trial, []).append((step, loss))
        resumed, again = rule.start(10), rule.start(10)
        resumed.resume(curves)
        Stopper.resume(again, curves)
        for trial, step, loss in told[half:]:
            if step > dict(curves).get(trial, [(0, 0)])[-1][0]:
                curves.setdefault(trial, []).append((step, loss))
                assert resumed.stops(trial, step, loss) == again.stops(trial, step, loss)
