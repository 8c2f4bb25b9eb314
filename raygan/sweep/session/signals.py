"""SIGINT and SIGTERM as a sweep takes them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

EXIT_SIGINT, EXIT_SIGTERM = 130, 143
PATIENCE = 30.0
"""Seconds that Ray has to come to an end. It may never: what signals a whole process group or
service (``timeout``, systemd, Slurm) has ended Ray's own processes at the same moment."""
KEEP_SECONDS, KEEP_SECONDS_SHORT = 30.0, 2.0
"""Seconds that workers have for a last checkpoint: on SIGINT or :meth:`StopSignals.stop`, and on
SIGTERM, which `ray job stop` lets SIGKILL follow after 3 s."""


class StopSignals:
    """SIGINT and SIGTERM end the sweep in order.

    First, the workers write a last checkpoint. Then Tune, on SIGUSR1, flushes its state and
    returns. Outside of Tune, after :meth:`conclude`, on a second signal, and if Ray does not
    answer for :data:`PATIENCE`, the process ends at once. What a sweep knows is written as soon
    as it knows it, and :attr:`at_once` waits for what is not written yet.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The signal that came first."""
        self.again = threading.Event()
        """Set by a second signal."""
        self.last_checkpoints: Callable[[float], object] | None = None
        """Asks the workers for a last checkpoint and waits for it, at most for so many seconds."""
        self.at_once: Callable[..., object] | None = None
        """Called on a thread of its own: after the last checkpoints, or where time is short, at the
        same time. Tune takes seconds to end its trials."""
        self._asked, self._concluding = False, False
        self._thread: threading.Thread | None = None
        self._told, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._before = {number: signal.getsignal(number) for number in self._NUMBERS}

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __enter__(self) -> StopSignals:
        self.install()
        return self

    def install(self) -> None:
        """To be called again after ``ray.init``, which installs handlers of its own."""
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Stop as on SIGTERM, but with time for last checkpoints; may be called on any thread."""
        self._asked = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self, number: int, _: FrameType | None) -> None:
        again, self.first = self.first is not None, self.first or number
        if again:
            self.again.set()
        if again or self._concluding or not self._is_in_tune():
            raise SystemExit(self.exit_code)
        self._thread = threading.Thread(target=self._in_order, name="stop", daemon=True)
        self._thread.start()

    def _is_in_tune(self) -> bool:
        return signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None)

    def _in_order(self) -> None:
        has_time = self._asked or self.first == signal.SIGINT
        seconds = KEEP_SECONDS if has_time else KEEP_SECONDS_SHORT
        keeping = threading.Thread(
            target=self._keep, args=[seconds], name="last checkpoints", daemon=True
        )
        keeping.start()
        if has_time:
            keeping.join()
        try:
            if self.at_once is not None:
                self.at_once()
        finally:
            self._told.set()
        keeping.join()
        if not self._ended.wait(PATIENCE):
            said = f"stopped: Ray did not stop within {PATIENCE:g} s"
            said += "; the same command resumes the sweep"
            with contextlib.suppress(OSError):  # a log on a full disk
                print(said, file=sys.stderr, flush=True)
            os._exit(self.exit_code)

    def _keep(self, seconds: float) -> None:
        try:
            if self.last_checkpoints is not None:
                self.last_checkpoints(seconds)
        finally:
            with self._lock:  # after the end, the signal would kill
                if not self._ended.is_set() and self._is_in_tune():
                    os.kill(os.getpid(), signal.SIGUSR1)

    def conclude(self) -> None:
        """Let a signal end the process at once from now on, and :meth:`wait`: nothing trains any
        more, and Tune's handler of SIGUSR1 stays."""
        self._concluding = True
        self.wait()

    def wait(self) -> None:
        """Until what was to be done at once is done."""
        if self._thread is not None:
            self._told.wait()

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return EXIT_SIGINT if self.first == signal.SIGINT else EXIT_SIGTERM
