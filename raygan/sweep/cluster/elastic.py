"""How many workers an elastic trial has.

It starts with as many as are free, and takes more once they have been free for a while and nobody
waits for them. Where workers are lost, it starts again with those that are left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

LOOK_SECONDS = 2.0
"""Between two looks at what is free."""
SETTLE_SECONDS = 5.0
"""For how long fewer workers than the most must be all that is free: what a lost worker held may be
free again only after some seconds."""
GROW_SECONDS = 60.0
"""For how long more workers must be free, at least: to take them, a trial is started again from its
last checkpoint. Each trial waits for a time of its own, up to twice as long. Otherwise all of them
would stop at once for the same free workers, and some would find fewer than they had."""
START_SECONDS = 30.0
"""For how long the workers may not be there, because somebody else has taken what was free: then
it is counted again."""


def free_workers(nodes: Iterable[Mapping[str, float]], each: Mapping[str, float]) -> int:
    """How many workers that take ``each`` fit on what is free on ``nodes``; whole GPUs."""
    return sum(
        int(min(free.get(name, 0.0) / amount for name, amount in each.items()) + 1e-9)
        for free in nodes
    )


class Elastic:
    """Decides for one trial."""

    def __init__(
        self,
        widths: Sequence[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        grows_after: float | None = None,
    ) -> None:
        """``widths``: how many workers it may have, ascending. ``grows_after``: for how many
        seconds more workers must be free; by default a random number."""
        self._widths, self._clock = widths, clock
        self.grows_after = grows_after or GROW_SECONDS * random.uniform(1, 2)  # noqa: S311
        self._wanted, self._since = 0, 0.0

    def starts(self, free: int) -> int | None:
        """How many workers to start with if so many are free; None: wait and ask again."""
        width = self._widest(free)
        if width == self._widths[-1] or (width and self._for(width) >= SETTLE_SECONDS):
            self._wanted = 0
            return width
        self._for(width)
        return None

    def grows(self, count: int, free: int, *, others_wait: bool) -> int | None:
        """How many workers to go on with, now that there are ``count`` and so many more are free;
        None: with those. ``others_wait``: whether others wait for what is free."""
        width = self._widest(count + free)
        if others_wait or width <= count:
            self._wanted = 0
            return None
        return width if self._for(width) >= self.grows_after else None

    def _widest(self, most: int) -> int:
        return max((width for width in self._widths if width <= most), default=0)

    def _for(self, width: int) -> float:
        """For how many seconds ``width`` has been possible."""
        if width != self._wanted:
            self._wanted, self._since = width, self._clock()
        return self._clock() - self._since
