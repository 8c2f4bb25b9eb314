"""A sweep that is being stopped asks the workers of its trials for a last checkpoint.

A small actor beside the driver carries the question and the answers. The first worker of each trial
has one call there that stays open until the sweep is stopped: nothing is asked repeatedly, and it
hears of the stop within milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)

MOST_CALLS = 1_000_000
"""Calls to the actor that may be open: one for each trial that runs."""
LOOK_SECONDS = 0.1
"""Between two looks for answers."""
ANSWER_SECONDS = 10.0


class _Board:
    """The actor."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self._kept: set[str] = set()

    async def stop(self) -> None:
        self._stopped.set()

    async def stopped(self) -> None:
        """Returns once the sweep is stopped."""
        await self._stopped.wait()

    async def has_kept(self, trial: str) -> None:
        self._kept.add(trial)

    async def kept(self) -> set[str]:
        return self._kept


def _name() -> str:
    return f"raygan-stop-{ray.get_runtime_context().get_job_id()}"


class LastCheckpoints:
    """The driver's side."""

    def __init__(self) -> None:
        self._board: Any = None
        self.asked = False
        """Whether the workers have been asked: no trial shall start any more."""

    def open(self) -> None:
        """Start the actor, on the driver's own node; returns at once."""
        node = ray.get_runtime_context().get_node_id()
        self._board = (
            ray.remote(_Board)
            .options(
                name=_name(),
                num_cpus=0,
                max_concurrency=MOST_CALLS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
            )
            .remote()
        )

    def ask(
        self, running: Callable[[], Collection[str]], seconds: float, hurry: threading.Event
    ) -> set[str]:
        """Ask all workers for a last checkpoint, after which they train no more; returns the trials
        that have not written one within ``seconds``, or until ``hurry`` is set.

        ``running``: the trials that run now. May be called on any thread.
        """
        self.asked = True
        deadline = time.monotonic() + seconds
        kept: set[str] = set()
        left = set(running())
        try:
            self._board.stop.remote()
            while left and time.monotonic() < deadline and not hurry.is_set():
                answer, _ = ray.wait([self._board.kept.remote()], timeout=LOOK_SECONDS)
                if answer:
                    kept = ray.get(answer[0])
                    hurry.wait(LOOK_SECONDS)
                left = set(running()) - kept
        except Exception as error:  # Ray has many names for a cluster that is not there any more
            logger.info("workers cannot be asked for a last checkpoint: %s", error)
        return left


class Listener:
    """The side of a trial's first worker. Without a driver that asks, it is never stopped."""

    def __init__(self, trial: str) -> None:
        self._trial = trial
        self._board: Any = None
        self._answer: Future[Any] | None = None
        if not ray.is_initialized():
            return
        try:
            self._board = ray.get_actor(_name())
            self._answer = self._board.stopped.remote().future()
        except Exception as error:  # it trains without
            logger.info("%s will not hear that the sweep is stopped: %s", trial, error)

    def is_stopped(self) -> bool:
        """Whether the sweep is being stopped; takes less than a microsecond."""
        answer = self._answer
        return answer is not None and answer.done() and answer.exception() is None

    def has_kept(self) -> None:
        """Tell the driver that the last checkpoint is written."""
        if self._board is not None:
            ray.wait([self._board.has_kept.remote(self._trial)], timeout=ANSWER_SECONDS)
