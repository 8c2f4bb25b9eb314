"""When checkpoints are kept, and that training resumed from any of them gives the same numbers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from raygan.errors import ConfigError
from raygan.gan import checkpoint, keeping
from raygan.gan.interval import interval
from raygan.gan.keeping import Keeper, snapshot
from raygan.gan.train import Stack, train
from tests.gan.test_state import assert_equal
from tests.gan.test_train import curve

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("every", "seconds", "iterations"),
    [("90s", 90, None), ("5m", 300, None), ("1.5h", 5400, None), ("1d", 86400, None),
     (1, None, 1), ("2000", None, 2000)],
)  # fmt: skip
def test_an_interval_is_a_time_or_a_number_of_iterations(every, seconds, iterations):
    assert interval(every) == (seconds, iterations)


@pytest.mark.parametrize(
    "every", [0, -1, 1.5, "", "m", "5 m", "0.5s", "31d", "5x", "1e3", True, 2**41]
)
def test_anything_else_is_refused_with_examples(every):
    with pytest.raises(ConfigError, match=r"`checkpoint_every` \(=.*90s, 5m or 1h"):
        interval(every)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept() -> list[int]:
    """Iterations of the checkpoints that were written."""
    return []


def make(every, kept, **options) -> Keeper:
    return Keeper(every, lambda saved: kept.append(saved["step"]), **options)


def play(keeper: Keeper, state: Any, clock: Clock, steps: int, seconds: float) -> None:
    """Iterations of so many seconds."""
    for _ in range(steps):
        state.step += 1
        clock.now += seconds
        if keeper.due(state.step, CPU):
            keeper.keep(state)
            keeper.finish()


def test_a_checkpoint_is_due_when_its_time_has_come(fresh, clock, kept):
    keeper, state = make("5m", kept, clock=clock), fresh()
    keeper.begin(state)
    play(keeper, state, clock, 4000, 0.5)
    gaps = [(b - a) * 0.5 for a, b in zip([0, *kept], kept, strict=False)]
    assert len(kept) == 6
    assert all(300 <= gap <= 300 + keeping.MEETING_SECONDS for gap in gaps)


def test_a_slow_start_does_not_put_the_first_one_off(fresh, clock, kept):
    keeper, state = make("5m", kept, clock=clock), fresh()
    keeper.begin(state)
    play(keeper, state, clock, 1, 100.0)  # it is compiled
    play(keeper, state, clock, 3000, 0.1)
    assert 1 <= len(kept) <= 2
    assert 200 <= kept[0] * 0.1 <= 200 + 2 * keeping.MEETING_SECONDS


@pytest.mark.parametrize(("start", "expected"), [(0, [7, 14]), (5, [7, 14, 21])])
def test_iterations_between_checkpoints_are_counted(fresh, clock, kept, start, expected):
    keeper, state = make(7, kept, clock=clock), fresh()
    state.step = start
    keeper.begin(state)
    play(keeper, state, clock, 20 if start == 0 else 16, 100.0)
    assert kept == expected


def test_before_a_machine_is_lost_a_checkpoint_is_kept_every_few_seconds(fresh, clock, kept):
    noticed: list[bool] = []
    keeper, state = make("1h", kept, clock=clock, at_once=lambda: bool(noticed)), fresh()
    keeper.begin(state)
    play(keeper, state, clock, 200, 0.5)
    assert kept == []
    noticed.append(True)
    play(keeper, state, clock, 60, 0.5)  # 30 s are left
    assert 3 <= len(kept) <= 7
    assert (260 - kept[-1]) * 0.5 <= 2 * keeping.ASKING_SECONDS


def test_the_last_is_kept_once_whatever_the_interval(fresh, kept):
    keeper, state = make("1h", kept), fresh()
    keeper.begin(state)
    keeper.finish(state)
    assert kept == []  # nothing was trained
    state.step = 3
    keeper.finish(state)
    keeper.finish(state)
    assert kept == [3]


def test_training_goes_on_while_the_storage_is_away_and_the_newest_waits(fresh):
    started, back, kept = threading.Event(), threading.Event(), []

    def write(saved: dict[str, Any]) -> None:
        started.set()
        assert back.wait(60)
        kept.append(saved["step"])

    keeper, state = Keeper(1, write), fresh()
    keeper.begin(state)
    for step in range(1, 6):
        state.step = step
        keeper.keep(state)
        assert started.wait(60)
    back.set()
    keeper.finish(state)
    assert kept == [1, 5]


def test_an_error_of_the_thread_ends_the_training(fresh, images):
    def write(saved: dict[str, Any]) -> None:
        raise RuntimeError("a broken state")

    state = fresh(iterations=200, evaluate_every=200)
    keeper = Keeper(1, write)
    evaluations = train(state.config, images, state, keeper=keeper)
    with pytest.raises(RuntimeError, match="a broken state"):
        (list(evaluations), keeper.finish(state))


def test_a_snapshot_does_not_change_with_the_state():
    layout = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    given = {"a": {"b": [layout, 1.5, "c"]}, "n": None}
    taken = snapshot(given)
    assert_equal(taken, given)
    layout.zero_()
    given["a"]["b"].append(2)
    assert taken["a"]["b"][0].abs().sum() > 0
    assert len(taken["a"]["b"]) == 3


@pytest.mark.parametrize("told", [1, 4, 6, 8, 9])
def test_training_that_is_stopped_ends_with_a_checkpoint_of_that_iteration(
    fresh, images, tmp_path, told
):
    fields = {"iterations": 9, "evaluate_every": 4, "norm": "bn", "lr": 0.01}
    whole = fresh(**fields)
    expected = curve(list(train(whole.config, images, whole)))

    state, saved = fresh(**fields), []
    keeper = Keeper("1h", saved.append, stops=lambda: state.step >= told)
    seen = list(train(state.config, images, state, keeper=keeper))
    keeper.finish(state)
    assert (keeper.stopped, state.step) == (True, told)
    assert [kept["step"] for kept in saved] == [told]
    assert curve(seen) == expected[: len(seen)]
    resumed = fresh(**fields)
    resumed.load_state_dict(checkpoint.load(checkpoint.save(saved[0], tmp_path, told)))
    rest = list(train(resumed.config, images, resumed))
    assert curve(seen) + curve(rest) == expected


def test_of_several_at_once_the_others_train_on(fresh, images):
    states = [fresh(iterations=4, evaluate_every=2, seed=seed) for seed in (1, 2)]
    keepers = [
        Keeper("1h", lambda _: None, stops=lambda: states[0].step >= 1),
        Keeper("1h", lambda _: None),
    ]
    members = [(state.config, state) for state in states]
    told = [(index, e.step) for index, e in Stack(members, images, keepers=keepers)]
    assert told == [(1, 2), (1, 4)]
    assert [state.step for state in states] == [1, 4]


class Each(Keeper):
    """Leaves out no checkpoint that is due."""

    def keep(self, state):
        super().keep(state)
        self.finish()


RECIPES = pytest.mark.parametrize(
    "fields",
    [
        {"norm": "bn", "ema": 0.6},
        {"norm": "sn", "loss": "hinge", "d_steps": 2, "warmup": 4},
        {"norm": "wn", "update": "simultaneous", "lr_decay": "linear"},
    ],
    ids=lambda fields: fields["norm"],
)


@RECIPES
def test_training_resumed_from_between_two_evaluations_has_the_same_numbers(
    fresh, images, tmp_path, fields
):
    fields = {**fields, "iterations": 9, "evaluate_every": 4, "lr": 0.01}
    whole = fresh(**fields)
    expected = curve(list(train(whole.config, images, whole)))

    saved: dict[int, Any] = {}
    first = fresh(**fields)
    each = Each(1, lambda state: saved.update({state["step"]: state}))
    seen = list(train(first.config, images, first, keeper=each))
    assert curve(seen) == expected  # keeping changes nothing
    assert list(saved) == list(range(1, 10))
    for step in (1, 4, 6, 7):
        path = checkpoint.save(saved[step], tmp_path, step)
        resumed = fresh(**fields)
        resumed.load_state_dict(checkpoint.load(path))
        assert resumed.step == step
        rest = curve(list(train(resumed.config, images, resumed)))
        assert rest == expected[step // 4 :]
        for state in (whole, resumed):  # but for the speed, which is measured
            for point in state.history:
                point.pop("perf/images_per_second", None)
        assert_equal(resumed.state_dict(), whole.state_dict())


def test_a_run_that_was_made_longer_resumes_between_its_evaluations(fresh, images):
    """Its stretch begins where the shorter run ended, which is no multiple of the interval."""
    short = fresh(iterations=5, evaluate_every=4)
    for _ in train(short.config, images, short):
        pass
    longer = fresh(iterations=11, evaluate_every=4)
    longer.load_state_dict(short.state_dict())
    saved: list[Any] = []
    keeper = Keeper(7, saved.append)
    expected = curve(list(train(longer.config, images, longer, keeper=keeper)))
    keeper.finish()
    assert saved[0]["stretch"]["first"] == 5
    resumed = fresh(iterations=11, evaluate_every=4)
    resumed.load_state_dict(saved[0])
    assert curve(list(train(resumed.config, images, resumed))) == expected


def test_the_best_generator_is_the_one_that_was_judged(fresh, images, monkeypatch):
    state = fresh(evaluate_every=1, iterations=6, lr=0.05, ema=0.5)
    judged = {}
    for evaluation in train(state.config, images, state):
        judged[evaluation.step] = snapshot(dict(state.judged.state_dict()))
    assert state.best is not None
    assert (state.best.step, state.best.loss) == (state.best_step, state.best_loss)
    assert_equal(snapshot(state.best.generator), judged[state.best_step])
