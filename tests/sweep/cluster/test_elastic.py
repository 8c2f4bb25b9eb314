"""How many workers an elastic trial has."""

import pytest

from raygan.sweep.cluster.elastic import GROW_SECONDS, SETTLE_SECONDS, Elastic, free_workers


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def elastic(clock) -> Elastic:
    return Elastic([2, 4, 8], clock, grows_after=GROW_SECONDS)


def test_a_trial_starts_at_once_with_the_most_workers(elastic):
    assert elastic.starts(9) == 8


def test_it_starts_with_fewer_if_no_more_come_for_a_while(elastic, clock):
    assert elastic.starts(5) is None
    clock.now += SETTLE_SECONDS / 2
    assert elastic.starts(1) is None
    assert elastic.starts(5) is None
    clock.now += SETTLE_SECONDS
    assert elastic.starts(7) == 4  # 5 to 7 do not share the batch


def test_it_waits_for_the_fewest(elastic, clock):
    for _ in range(10):
        assert elastic.starts(1) is None
        clock.now += 1000


def test_it_grows_into_what_has_been_free_for_a_while(elastic, clock):
    assert elastic.grows(2, 2, others_wait=False) is None
    clock.now += GROW_SECONDS - 1
    assert elastic.grows(2, 2, others_wait=False) is None
    clock.now += 1
    assert elastic.grows(2, 3, others_wait=False) == 4


@pytest.mark.parametrize(("free", "others_wait"), [(2, True), (1, False), (0, False)])
def test_it_does_not_grow_into_what_is_needed_or_too_little(elastic, clock, free, others_wait):
    elastic.grows(2, 2, others_wait=False)
    clock.now += GROW_SECONDS - 1
    assert elastic.grows(2, free, others_wait=others_wait) is None
    clock.now += 1
    assert elastic.grows(2, 2, others_wait=False) is None  # from here on, again
    clock.now += GROW_SECONDS
    assert elastic.grows(2, 2, others_wait=False) == 4


def test_trials_do_not_stop_at_once_for_the_same_free_workers(clock):
    times = [Elastic([2, 4], clock).grows_after for _ in range(20)]
    assert len(set(times)) == 20
    assert GROW_SECONDS <= min(times) <= max(times) <= 2 * GROW_SECONDS
    trials = [Elastic([2, 4], clock, grows_after=after) for after in (70, 90)]
    assert [trial.grows(2, 2, others_wait=False) for trial in trials] == [None, None]
    clock.now += 70
    assert [trial.grows(2, 2, others_wait=False) for trial in trials] == [4, None]
    clock.now += 20
    assert trials[1].grows(2, 0, others_wait=False) is None  # the first one has taken them


def test_more_than_is_shared_evenly_is_left_to_others(elastic, clock):
    for _ in range(3):
        assert elastic.grows(4, 3, others_wait=False) is None
        clock.now += GROW_SECONDS


def test_a_worker_fits_on_one_node():
    nodes = [{"CPU": 3.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 4.0}, {}]
    assert free_workers(nodes, {"CPU": 2.0}) == 1 + 4 + 2
    assert free_workers(nodes, {"CPU": 2.0, "GPU": 1.0}) == 1 + 1
    assert free_workers([], {"CPU": 2.0}) == 0
