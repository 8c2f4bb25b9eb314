"""How the driver asks the workers for a last checkpoint, without a cluster."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from raygan.sweep.cluster import last_checkpoints, tune
from raygan.sweep.cluster.last_checkpoints import LastCheckpoints, Listener


def test_the_board_answers_when_the_sweep_is_stopped_also_those_who_ask_later():
    async def play() -> list[str]:
        board, heard = last_checkpoints._Board(), []

        async def listen(name: str) -> None:
            await board.stopped()
            heard.append(name)

        early = asyncio.create_task(listen("early"))
        await asyncio.sleep(0)
        assert heard == []
        await board.stop()
        await early
        await listen("late")
        await board.has_kept("bn-000")
        assert await board.kept() == {"bn-000"}
        return heard

    assert asyncio.run(play()) == ["early", "late"]


class Board:
    """As the handle of the actor; ``answers`` are what it has of ``kept``, one look after the
    other."""

    def __init__(self, *answers: set[str] | Exception) -> None:
        self.answers, self.stops = list(answers), 0
        self.stop = SimpleNamespace(remote=self._stop)
        self.kept = SimpleNamespace(remote=self._kept)

    def _stop(self) -> None:
        self.stops += 1

    def _kept(self) -> set[str]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def asked(monkeypatch):
    monkeypatch.setattr(last_checkpoints, "LOOK_SECONDS", 0.0)
    fake = SimpleNamespace(wait=lambda refs, timeout: (refs, []), get=lambda ref: ref)
    monkeypatch.setattr(last_checkpoints, "ray", fake)

    def asked(board: Board, running: Any, seconds: float = 60.0, *, hurry: bool = False):
        last, again = LastCheckpoints(), threading.Event()
        last._board = board
        if hurry:
            again.set()
        left = last.ask(running, seconds, again)
        assert last.asked
        assert board.stops == 1
        return left

    return asked


def test_the_driver_waits_until_all_have_written(asked):
    assert asked(Board(set(), {"a"}, {"a", "b"}), lambda: ["a", "b"]) == set()


def test_trials_that_end_meanwhile_are_not_waited_for(asked):
    running = iter([["a", "b"], ["a", "b"], ["b"]])
    assert asked(Board({"b"}), lambda: next(running)) == set()


def test_it_waits_no_longer_than_it_may_and_names_those_that_have_not(asked):
    assert asked(Board({"a"}), lambda: ["a", "b"], seconds=0.01) == {"b"}
    assert asked(Board(set()), lambda: ["a", "b"], hurry=True) == {"a", "b"}


def test_a_cluster_that_is_gone_holds_nothing_up(asked):
    assert asked(Board(RuntimeError("the GCS is gone")), lambda: ["a"]) == {"a"}


def test_no_trial_starts_once_they_have_been_asked():
    study = SimpleNamespace(next_trial=lambda: SimpleNamespace())
    last = LastCheckpoints()
    search = tune._Search(study, lambda _: SimpleNamespace(to_plain=lambda: {"trial": "a"}), last)
    assert search.suggest("1") == {"trial": "a"}
    last.asked = True
    assert search.suggest("2") is None


def test_a_worker_hears_of_the_stop_but_not_of_a_lost_driver():
    listener = Listener("a")  # Ray does not run
    assert not listener.is_stopped()
    listener.has_kept()
    for answer, stopped in ((None, True), (RuntimeError("the actor is gone"), False)):
        future: Future[None] = Future()
        listener._answer = future
        assert not listener.is_stopped()
        if answer is None:
            future.set_result(None)
        else:
            future.set_exception(answer)
        assert listener.is_stopped() == stopped
