"""The head node of the cluster: whether it answers, and the end of this process if it is lost.

Nothing can be done without it, and Ray 2.60 would end the process after a minute without a word.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from raygan.sweep.cluster import ray_quirks

logger = logging.getLogger(__name__)

EXIT_LOST = 5
LOOK_SECONDS = 2.0
LOST_SECONDS = 45.0
"""A head that has not answered for so long is lost: one that is busy or started again answers
sooner."""


class HeadWatch:
    """Ends this process with code :data:`EXIT_LOST`, on a thread of its own, if the head is lost.

    ``last`` is called before, to save what there is. Time in which this process itself was stopped
    does not count.
    """

    def __init__(self, last: Callable[[], object]) -> None:
        self._last = last
        self._silent, self._known = 0.0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="head", daemon=True)

    def start(self) -> None:
        """Begin to look; a head that has never answered cannot be asked, and is not watched."""
        self._known = ray_quirks.head_answers()
        self._thread.start()

    def stop(self) -> None:
        """It may be lost from now on."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self) -> None:
        """Return once the head answers; if it is lost, this process ends instead.

        For an error of Ray's that may come from that.
        """
        while self._known and self._thread.is_alive() and not ray_quirks.head_answers():
            time.sleep(LOOK_SECONDS)

    def is_lost(self, passed: float, *, answers: bool) -> bool:
        """What a look says, ``passed`` seconds after the last one."""
        most = LOOK_SECONDS + 2 * ray_quirks.ANSWER_SECONDS  # more: this process was stopped
        self._silent = 0.0 if answers else self._silent + min(passed, most)
        return self._silent >= LOST_SECONDS

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            answers = ray_quirks.head_answers()
            before, looked = looked, time.monotonic()
            self._known = self._known or answers
            if not self._known:
                continue
            if self.is_lost(looked - before, answers=answers) and not self._over.is_set():
                self._end()
                return

    def _end(self) -> None:
        said = (
            f"error: the head node of the Ray cluster has not answered for {LOST_SECONDS:.0f} s: "
            "it is lost, or it cannot be reached from here. Once a cluster answers, old or new, "
            "run the same command again: a sweep resumes if its storage is the same."
        )
        with contextlib.suppress(OSError):  # a log on a full disk
            print(said, file=sys.stderr, flush=True)
        try:
            self._last()
        except Exception as error:
            logger.warning("not everything could be saved: %s", error)
        finally:  # every call of Ray would wait for the head
            os._exit(EXIT_LOST)
