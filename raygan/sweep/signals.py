"""SIGINT and SIGTERM as a sweep takes them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

EXIT_SIGINT, EXIT_SIGTERM = 130, 143


class StopSignals:
    """SIGINT and SIGTERM end the sweep in order.

    Tune flushes its state and returns on SIGUSR1; outside of Tune, and on a second signal, the
    process ends at once.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        """The signal that came first."""
        self.at_once: Callable[[], object] | None = None
        """Called on a thread of its own when it comes: Tune takes seconds to end its trials, and
        `ray job stop` kills after 3."""
        self._thread: threading.Thread | None = None
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
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Stop as on SIGTERM; may be called on any thread."""
        os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self, number: int, _: FrameType | None) -> None:
        again, self.first = self.first is not None, self.first or number
        if again or signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None):
            raise SystemExit(self.exit_code)
        if self.at_once is not None:
            self._thread = threading.Thread(target=self.at_once, name="stop", daemon=True)
            self._thread.start()
        os.kill(os.getpid(), signal.SIGUSR1)

    def wait(self) -> None:
        """Until what was to be done at once is done."""
        if self._thread is not None:
            self._thread.join()

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return EXIT_SIGINT if self.first == signal.SIGINT else EXIT_SIGTERM
