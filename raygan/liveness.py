"""Signs that a process makes progress, and a watch that notices when they stop.

Whatever repeats something for long calls :func:`progress` each time. Time in :func:`waiting` does
not count: for storage that is away, or for another process that does not take a result yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

FIRST_SECONDS = 600.0
"""How long the first sign may take at least: libraries are loaded, and kernels are compiled."""
LOOKS = 20
"""Looks of a :class:`Watch` in its time, at most two in a second."""


class _Signs:
    count = 0
    waiting = 0
    waited = 0
    """How often it has waited. That is no progress: the first sign may still take long."""


def progress() -> None:
    """Say that something has been done. Costs less than a microsecond."""
    _Signs.count += 1


@contextmanager
def waiting() -> Iterator[None]:
    """The block waits for something else, for as long as it takes; used by one thread."""
    _Signs.waiting += 1
    try:
        yield
    finally:
        _Signs.waiting -= 1
        _Signs.waited += 1


def uncounted(items: Iterable[T]) -> Iterator[T]:
    """``items``; the time that is spent on each of them does not count, as in :func:`waiting`."""
    for item in items:
        with waiting():
            yield item


class Watch:
    """Calls ``stalled`` once, on a thread of its own, when no sign has come for ``seconds``; a
    context manager.

    Before the first sign, ``first`` seconds are allowed if they are more, after any waiting. The
    time for which the whole process was stopped does not count.
    """

    def __init__(
        self, seconds: float, stalled: Callable[[], None], *, first: float = FIRST_SECONDS
    ) -> None:
        self._seconds, self._stalled = seconds, stalled
        self._first = max(first, seconds)
        self._look = max(0.5, seconds / LOOKS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def __enter__(self) -> Watch:
        self._begun = _Signs.count
        self._seen = _Signs.count, _Signs.waited
        self._still = 0.0
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._look):
            if self.looks(self._look):
                self._stalled()
                return

    def looks(self, passed: float) -> bool:
        """Whether it has stalled, ``passed`` seconds after the last look."""
        now = _Signs.count, _Signs.waited
        if _Signs.waiting or now != self._seen:
            self._seen, self._still = now, 0.0
            return False
        self._still += passed
        return self._still >= (self._first if now[0] == self._begun else self._seconds)
