"""Copies changes in the background with a few threads: in order, and with one common back-off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

RETRY_SECONDS, RETRY_SECONDS_MOST = 1.0, 15.0


class Joinable(Protocol):
    """A change that can wait."""

    def joined(self: C, later: C) -> C:
        """This change and a ``later`` one of the same key, as one change."""
        ...


C = TypeVar("C", bound=Joinable)


class Copying(Generic[C]):
    """Changes that wait for being copied, by key, and the threads that copy them.

    Changes of one key are copied in order, by one thread at a time; those that wait together are
    joined. Keys take turns. After an error, all threads wait, and then one attempt is made at a
    time, until one succeeds: a server that is down or overloaded is not asked by all of them.
    """

    def __init__(
        self,
        copy: Callable[[str, C], None],
        told: Callable[[Exception | None], None],
        threads: int,
    ) -> None:
        """``copy``: copies the change of a key; if it raises, the change is copied again later.
        ``told``: called with each error, and with None once all that had failed is copied."""
        self._copy, self._told = copy, told
        lock = threading.RLock()
        self._changed, self._advanced = threading.Condition(lock), threading.Condition(lock)
        self._waiting: dict[str, C] = {}
        self._busy: dict[str, C] = {}
        self._failed: set[str] = set()
        self._failures, self._until = 0, 0.0
        self._done, self._closing, self._given_up = 0, False, False
        self._threads, self._alive = threads, 0

    def start(self) -> None:
        """Start the threads."""
        with self._changed:
            self._alive += self._threads
        for number in range(self._threads):
            threading.Thread(target=self._work, name=f"mlflow-{number}", daemon=True).start()

    def put(self, key: str, change: C) -> None:
        """Copy ``change`` soon; returns at once."""
        with self._changed:
            before = self._waiting.get(key)
            self._waiting[key] = change if before is None else before.joined(change)
            self._changed.notify()

    def pending(self) -> list[C]:
        """The changes that are not copied yet."""
        with self._changed:
            return [*self._busy.values(), *self._waiting.values()]

    def close(self, seconds: float, *, extended: bool) -> bool:
        """Wait ``seconds`` until all is copied; returns whether it is.

        ``extended``: the time starts again with each change that is copied. The threads end: once
        all is copied, or else with the request that they are in. If all was copied, a later call
        copies what was put since; if not, it returns False at once.
        """
        with self._changed:
            if self._given_up:
                return False
            self._closing, self._until = True, 0.0
            if self._waiting and not self._alive:  # put since the threads have ended
                self.start()
            self._changed.notify_all()  # no pause is waited for any more
            deadline = time.monotonic() + seconds
            while self._waiting or self._busy:
                done = self._done
                left = deadline - time.monotonic()
                if not self._advanced.wait_for(lambda done=done: self._done > done, timeout=left):  # type: ignore[misc]
                    self._given_up = True
                    self._changed.notify_all()
                    return False
                if extended:
                    deadline = time.monotonic() + seconds
            self._changed.notify_all()
            return True

    def give_up(self, seconds: float) -> None:
        """Copy nothing more, and wait at most ``seconds`` for what is being copied."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
            self._advanced.wait_for(lambda: not self._alive, timeout=seconds)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            key, change, failures = taken
            problem = None
            try:
                self._copy(key, change)
            except Exception as error:  # no error of a server may stop the training
                problem = error
            with self._changed:
                del self._busy[key]
                # attempts that began before the last failure say nothing of the time since
                current = failures == self._failures
                if problem is None:
                    self._succeeded(key, current)
                else:
                    self._put_back(key, change)
                    self._back_off(problem, current)
                self._changed.notify()  # a later change of this key can be copied

    def _succeeded(self, key: str, current: bool) -> None:
        self._done += 1
        self._advanced.notify_all()
        if current and self._failures:
            self._failures = 0
            self._changed.notify_all()
        if key in self._failed:
            self._failed.discard(key)
            if not self._failed:
                self._told(None)

    def _back_off(self, problem: Exception, current: bool) -> None:
        self._told(problem)
        if current:
            pause = min(RETRY_SECONDS * 2**self._failures, RETRY_SECONDS_MOST)
            self._until = time.monotonic() + pause
            self._failures += 1

    def _take(self) -> tuple[str, C, int] | None:
        """The next change, and the failures since the last success; None once there is none."""
        with self._changed:
            while not self._given_up and (self._waiting or self._busy or not self._closing):
                key = next((key for key in self._waiting if key not in self._busy), None)
                pause = self._until - time.monotonic() if self._failures else 0.0
                if key is not None and (not self._failures or (not self._busy and pause <= 0)):
                    change = self._busy[key] = self._waiting.pop(key)
                    return key, change, self._failures
                self._changed.wait(pause if pause > 0 else None)
            self._alive -= 1
            self._advanced.notify_all()
            return None

    def _put_back(self, key: str, change: C) -> None:
        self._failed.add(key)
        newer = self._waiting.pop(key, None)
        self._waiting[key] = change if newer is None else change.joined(newer)
