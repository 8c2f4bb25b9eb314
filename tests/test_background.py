"""Work that a thread does for its owner."""

from __future__ import annotations

import threading

import pytest

from raygan.background import Background, Looking


def test_work_is_done_in_order_and_waited_for() -> None:
    done: list[int] = []
    background = Background(most=10)
    for number in range(10):
        background.put(lambda n=number: done.append(n))  # type: ignore[misc]
    background.wait()
    assert done == list(range(10))


@pytest.mark.parametrize(("most", "left"), [(1, [0, 4]), (2, [0, 3, 4]), (None, [0, 1, 2, 3, 4])])
def test_the_newest_wait_and_the_owner_does_not(most: int | None, left: list[int]) -> None:
    started, free, done = threading.Event(), threading.Event(), []
    background = Background(most)

    def slow() -> None:
        started.set()
        assert free.wait(60)
        done.append(0)

    background.put(slow)
    assert started.wait(60)
    for number in range(1, 5):
        background.put(lambda n=number: done.append(n))  # type: ignore[misc]
    free.set()
    background.wait()
    assert done == left


def test_an_error_is_the_owners() -> None:
    def fail() -> None:
        raise OSError("no room")

    background = Background()
    background.put(fail)
    with pytest.raises(OSError, match="no room"):
        background.wait()
    background.wait()  # once
    done: list[int] = []
    background.put(lambda: done.append(1))
    background.wait()
    assert done == [1]


def test_nothing_to_wait_for() -> None:
    Background().wait()


def test_looks_follow_each_other_with_rests_and_end_with_the_block() -> None:
    looked = threading.Event()
    rests: list[float] = []

    def rest(took: float) -> float:
        rests.append(took)
        return 0.0

    with Looking(looked.set, rest, "looks") as looking:
        assert looked.wait(30)
    assert not looking._thread.is_alive()
    assert rests[0] == 0.0  # before the first
    assert all(took >= 0 for took in rests)
