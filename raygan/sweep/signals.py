"""SIGINT and SIGTERM as a sweep takes them."""

from __future__ import annotations

import os
import signal
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
        os.kill(os.getpid(), signal.SIGUSR1)

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return EXIT_SIGINT if self.first == signal.SIGINT else EXIT_SIGTERM
