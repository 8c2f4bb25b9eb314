"""The threads that copy changes: order, turns, back-off and the end. No MLflow, no waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from raygan.tracking import copying
from raygan.tracking.copying import Copying

PATIENCE = 60.0
"""Seconds after which a test fails that waits for what never comes."""


@dataclass(frozen=True)
class Numbers:
    """A change: some numbers in order."""

    of: tuple[int, ...]

    def joined(self, later: Numbers) -> Numbers:
        return Numbers(self.of + later.of)


class Server:
    """Takes changes; each waits for :meth:`let` if the server is ``held``."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = {}
        self.at_once: list[set[str]] = []
        self.problems: list[str | None] = []
        self.down = False
        self.held: threading.Event | None = None
        self._inside: set[str] = set()
        self._lock = threading.Lock()

    def copy(self, key: str, change: Numbers) -> None:
        with self._lock:
            assert key not in self._inside, "two threads copy one key"
            self._inside.add(key)
            self.at_once.append(set(self._inside))
        try:
            if self.held is not None:
                assert self.held.wait(PATIENCE)
            if self.down:
                raise ConnectionError("down")
            with self._lock:
                self.taken.setdefault(key, []).extend(change.of)
        finally:
            with self._lock:
                self._inside.discard(key)

    def told(self, problem: Exception | None) -> None:
        self.problems.append(problem and str(problem))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def started(server) -> Iterator[Callable[[int], Copying[Numbers]]]:
    made: list[Copying[Numbers]] = []

    def start(threads: int = 4) -> Copying[Numbers]:
        made.append(Copying(server.copy, server.told, threads))
        made[-1].start()
        return made[-1]

    yield start
    server.down = False
    for queue in made:
        queue.close(PATIENCE, extended=False)


def until(condition: Callable[[], object]) -> None:
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    pytest.fail("it never comes")


def test_changes_of_a_key_are_copied_in_order_by_one_thread_at_a_time(server, started):
    queue = started(4)
    for number in range(200):
        for key in ("a", "b", "c", "d", "e"):
            queue.put(key, Numbers((number,)))
    assert queue.close(PATIENCE, extended=False)
    assert server.taken == {key: list(range(200)) for key in "abcde"}
    assert not server.problems


def test_other_keys_are_copied_while_one_takes_long(server, started):
    server.held = threading.Event()
    queue = started(2)
    queue.put("a", Numbers((1,)))
    queue.put("b", Numbers((1,)))
    until(lambda: {"a", "b"} in server.at_once)
    queue.put("a", Numbers((2,)))
    queue.put("a", Numbers((3,)))
    assert [change.of for change in queue.pending()][2:] == [(2, 3)]  # joined while it waits
    server.held.set()
    assert queue.close(PATIENCE, extended=False)
    assert server.taken == {"a": [1, 2, 3], "b": [1]}


def test_an_outage_is_told_once_it_begins_and_once_it_is_over_and_loses_nothing(
    server, started, monkeypatch
):
    monkeypatch.setattr(copying, "RETRY_SECONDS", 0.001)
    queue = started(4)
    server.down = True
    for number in range(3):
        for key in "abcdef":
            queue.put(key, Numbers((number,)))
    until(lambda: len(server.problems) > 4)
    server.down = False
    assert queue.close(PATIENCE, extended=False)
    assert server.taken == {key: [0, 1, 2] for key in "abcdef"}
    assert server.problems[-1] is None
    assert server.problems.count(None) == 1


def test_one_attempt_at_a_time_is_made_after_a_failure(server, started, monkeypatch):
    monkeypatch.setattr(copying, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(copying, "RETRY_SECONDS_MOST", 0.001)
    server.held, server.down = threading.Event(), True
    queue = started(4)
    for key in "abcdef":
        queue.put(key, Numbers((1,)))
    until(lambda: len(server.at_once) == 4)  # all threads: nobody knows yet that it is down
    server.held, first = threading.Event(), server.held
    first.set()
    until(lambda: len(server.at_once) > 4)
    threading.Event().wait(0.05)  # for others that should not try
    assert len(server.at_once) == 5
    server.down = False
    server.held.set()
    assert queue.close(PATIENCE, extended=False)


def test_failures_at_the_same_time_lengthen_the_pause_once(server, started, monkeypatch):
    monkeypatch.setattr(copying, "RETRY_SECONDS", 1000.0)
    monkeypatch.setattr(copying, "RETRY_SECONDS_MOST", 9000.0)
    server.held, server.down = threading.Event(), True
    queue = started(4)
    for key in "abcd":
        queue.put(key, Numbers((1,)))
    until(lambda: len(server.at_once) == 4)
    server.held.set()
    until(lambda: len(server.problems) == 4)
    assert queue._failures == 1
    server.down = False
    assert queue.close(PATIENCE, extended=False)  # an end does not wait for the pause


def test_an_end_without_success_is_bounded_and_says_so(server, started, monkeypatch):
    monkeypatch.setattr(copying, "RETRY_SECONDS", 0.001)
    queue = started(2)
    server.down = True
    queue.put("a", Numbers((1,)))
    assert not queue.close(0.01, extended=True)


@pytest.mark.parametrize("down", [False, True])
def test_threads_end_with_the_end_whether_all_is_copied_or_not(server, started, monkeypatch, down):
    monkeypatch.setattr(copying, "RETRY_SECONDS", 0.001)
    before = set(threading.enumerate())
    queue = started(3)
    server.down = down
    queue.put("a", Numbers((1,)))
    assert queue.close(0.01 if down else PATIENCE, extended=False) != down
    until(lambda: set(threading.enumerate()) <= before)


def test_what_is_put_after_the_end_is_copied_by_a_second_one(server, started):
    before = set(threading.enumerate())
    queue = started(2)
    queue.put("a", Numbers((1,)))
    assert queue.close(PATIENCE, extended=False)
    until(lambda: set(threading.enumerate()) <= before)
    queue.put("a", Numbers((2,)))
    queue.put("b", Numbers((3,)))
    assert queue.close(PATIENCE, extended=False)
    assert server.taken == {"a": [1, 2], "b": [3]}
    until(lambda: set(threading.enumerate()) <= before)
