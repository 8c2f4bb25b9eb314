"""Progress of a preparation, as lines of text: speed and time left."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from raygan.shown import duration

_WINDOW = 60.0
"""Seconds over which the rate is taken."""


class Pace:
    """Prints progress: at most one line in ``every`` seconds, and one at the end."""

    def __init__(
        self,
        say: Callable[[str], None],
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._every, self._clock = say, every, clock
        self._last = clock()
        self._points = deque([(self._last, 0)])

    def __call__(self, done: int, total: int, shape: tuple[int, int, int]) -> None:
        """``done`` of ``total`` images of ``shape`` are prepared."""
        now = self._clock()
        self._points.append((now, done))
        while len(self._points) > 2 and self._points[1][0] < now - _WINDOW:
            self._points.popleft()
        if done < total and now - self._last < self._every:
            return
        self._last = now
        start, before = self._points[0]
        rate = (done - before) / max(now - start, 1e-9)
        line = (
            f"{done:,} of {total:,} images · {rate:,.0f} images/s · "
            f"{rate * math.prod(shape) / 1e6:,.1f} MB/s"
        )
        if 0 < done < total and rate > 0:
            line += f" · {duration((total - done) / rate)} left"
        self._say(line)
