"""A head node that is lost ends the process with a code of its own; one that is only slow does not."""

from __future__ import annotations

import threading
import time

import pytest

from raygan.sweep.cluster import head, ray_quirks, tune
from raygan.sweep.cluster.head import EXIT_LOST, LOST_SECONDS, HeadWatch

PATIENCE = 30.0


class Head:
    """Answers as it is told."""

    answers = True

    def __call__(self) -> bool:
        return self.answers


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Head:
    made = Head()
    monkeypatch.setattr(ray_quirks, "head_answers", made)
    monkeypatch.setattr(head, "LOOK_SECONDS", 0.001)
    return made


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the process would have ended; silence is not waited for."""
    monkeypatch.setattr(head, "LOST_SECONDS", 1e-9)
    codes: list[int] = []
    monkeypatch.setattr(head.os, "_exit", codes.append)
    return codes


def test_it_is_lost_when_it_has_not_answered_for_long() -> None:
    watch = HeadWatch(print)
    looks = 0
    while not watch.is_lost(5.0, answers=False):
        looks += 1
    assert 5.0 * looks < LOST_SECONDS <= 5.0 * (looks + 1)


def test_a_hiccup_ends_nothing_and_the_time_begins_anew() -> None:
    watch = HeadWatch(print)
    for _ in range(10):
        assert not watch.is_lost(LOST_SECONDS / 10, answers=False)
        assert not watch.is_lost(2.0, answers=True)


def test_the_time_in_which_this_process_was_stopped_does_not_count() -> None:
    watch = HeadWatch(print)
    assert not watch.is_lost(3600.0, answers=False)
    assert not watch.is_lost(3600.0, answers=True)
    assert not watch.is_lost(3600.0, answers=False)


@pytest.mark.parametrize("problem", [None, OSError("the storage is away, too")])
def test_what_there_is_is_saved_and_the_code_tells_it(
    node: Head,
    ended: list[int],
    problem: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved: list[str] = []

    def save() -> None:
        saved.append(capfd.readouterr().err)
        if problem is not None:
            raise problem

    watch = HeadWatch(save)
    watch.start()
    node.answers = False
    watch._thread.join(PATIENCE)
    assert ended == [EXIT_LOST]
    (said,) = saved  # told before: to save may take time
    assert "error: the head node of the Ray cluster has not answered" in said
    assert "run the same command again: a sweep resumes" in said
    assert ("could be saved: the storage is away, too" in caplog.text) == (problem is not None)


def test_an_error_that_comes_from_a_silent_head_waits_for_the_watch(node: Head) -> None:
    watch = HeadWatch(print)
    watch.start()
    node.answers = False
    waits = threading.Thread(target=watch.wait)
    waits.start()
    time.sleep(0.01)
    assert waits.is_alive()
    node.answers = True
    waits.join(PATIENCE)
    assert not waits.is_alive()
    watch.stop()
    watch.wait()


def test_a_cluster_that_cannot_be_asked_is_not_watched(
    node: Head, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers = False
    watch = HeadWatch(print)
    watch.start()
    watch.wait()
    watch.stop()
    assert ended == []


def test_a_head_that_is_slow_at_first_is_watched_all_the_same(
    node: Head, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    node.answers = False
    watch = HeadWatch(print)
    watch.start()
    node.answers = True
    while not watch._known:
        time.sleep(0.001)
    node.answers = False
    watch._thread.join(PATIENCE)
    assert ended == [EXIT_LOST]


def test_an_output_that_cannot_be_written_keeps_nothing_from_being_saved(
    node: Head, ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("builtins.print", full)
    saved: list[str] = []
    watch = HeadWatch(lambda: saved.append("all"))
    watch.start()
    node.answers = False
    watch._thread.join(PATIENCE)
    assert (saved, ended) == (["all"], [EXIT_LOST])


def test_without_a_cluster_nothing_is_waited_for() -> None:
    tune.wait_for_head()
