"""Work that a thread does in the background, such as writing what was computed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Background:
    """A thread that does pieces of work one after the other, and a queue before it.

    At most ``most`` pieces wait; if one more comes, the oldest of those that wait is dropped. With
    None, any number waits. An exception of a piece is raised by the next call of :meth:`put` or
    :meth:`wait`. The thread does not keep the process alive.
    """

    def __init__(self, most: int | None = 1) -> None:
        self._waiting: deque[Work] = deque(maxlen=most)
        self._changed = threading.Condition()
        self._busy = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, work: Work) -> None:
        """Have ``work`` done after what waits already."""
        with self._changed:
            self._raise()
            self._waiting.append(work)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Return when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._busy))
            self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                work: Work | None = self._waiting.popleft()
                self._busy = True
            try:
                assert work is not None
                work()
            except BaseException as error:  # for the owner, whatever it is
                self._error = error
            work = None  # what it refers to may be large
            with self._changed:
                self._busy = False
                self._changed.notify_all()


class Looking:
    """A thread that calls ``look`` again and again, from its beginning as a context manager to its
    end, which waits for the look that runs."""

    def __init__(self, look: Callable[[], None], rest: Callable[[float], float], name: str) -> None:
        """``rest``: seconds before the next look, from how many the last one took; 0 before the
        first. ``name``: the thread's."""
        self._look, self._rest = look, rest
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Looking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        took = 0.0
        while not self._over.wait(self._rest(took)):
            begun = time.monotonic()
            self._look()
            took = time.monotonic() - begun
