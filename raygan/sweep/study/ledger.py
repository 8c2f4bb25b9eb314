"""What a sweep writes while it runs, on threads of its own: the loop that decides never waits for
the storage.

Each thing to write has a key, such as a trial's id, and only its latest state is written. A state
is written as soon as a thread is free. Of one key, one state is written at a time, so that no older
one takes the place of a newer one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from raygan.checkpoints import best_and_last
from raygan.records import TrialRecord
from raygan.storage import Storage

logger = logging.getLogger(__name__)

ALONE = 3
"""A thing that fails so often in a row, while the storage can be written, alone cannot be."""
GIVEN_UP = 60
"""A thing that fails so often is given up. There is a try each time that the storage was found to
be writable: every 5 seconds."""
IDLE_SECONDS = 5.0
"""A thread that has had nothing to do for so long ends; the next one starts when it is needed."""

Write = Callable[[], None]


@dataclass(frozen=True)
class _Failures:
    """Of one thing that cannot be written."""

    count: int = 0
    """The looks at the storage after which it failed."""
    look: int = -1
    """The last of them."""
    error: str = ""


class Ledger:
    """Writes states on threads of its own. No method but :meth:`flush` waits.

    If the storage cannot be written, everything waits until :attr:`error` is set to None again, and
    nothing is lost. What cannot be written although the rest can, such as a file that belongs to
    somebody else, keeps nothing else waiting; it is in :attr:`given_up` in the end. An error of
    another kind than OSError ends the writing, and every method raises it.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._work, self._done = threading.Condition(self._lock), threading.Condition(self._lock)
        self._urgent: dict[str, Write] = {}
        self._waiting: dict[str, Write] = {}
        self._written: set[str] = set()
        """Keys whose state is being written now."""
        self._looks = 0
        """How often the storage was found to be writable."""
        self._failures: dict[str, _Failures] = {}
        """Of the keys that could not be written last."""
        self._resting: set[str] = set()
        """Keys that alone cannot be written; they are tried at the next look."""
        self._threads = self._idle = 0
        self._error: str | None = None
        self._broken: Exception | None = None

    @property
    def error(self) -> str | None:
        """Why the storage cannot be written now, or None."""
        return self._error

    @error.setter
    def error(self, error: str | None) -> None:
        with self._lock:
            self._error = error
            self._looks += error is None
            self._resting.clear()
            self._call()

    @property
    def left(self) -> int:
        """How many things are not written yet."""
        with self._lock:
            self._check()
            return len(self._urgent) + len(self._waiting) + len(self._written)

    @property
    def given_up(self) -> dict[str, str]:
        """What could not be written in :data:`GIVEN_UP` tries although the rest could, and why. It
        is still tried."""
        with self._lock:
            failed = self._failures.items()
            return {key: one.error for key, one in failed if one.count >= GIVEN_UP}

    def save(self, record: TrialRecord, *, ended: bool = False) -> None:
        """Write ``record`` as it is now; a new one, and one that has ended, before the others.

        ``ended``: nothing changes it any more. Its checkpoints are looked up first.
        """
        if ended:
            self.write(record.id, partial(self._save_ended, record), urgent=True)
        else:
            write = partial(self._save_running, record, record.snapshot())
            self.write(record.id, write, urgent=not record.history)

    def look_up(self, record: TrialRecord) -> None:
        """Look up the checkpoints of a stored record that has ended, and write it if it has any."""
        self.write(record.id, partial(self._save_ended, record, changed=True))

    def write(self, key: str, write: Write, *, urgent: bool = False) -> None:
        """Call ``write`` on another thread, unless a newer one for ``key`` comes before."""
        with self._lock:
            self._check()
            if urgent or key in self._urgent:
                self._waiting.pop(key, None)
                self._urgent[key] = write
            else:
                self._waiting[key] = write
            self._call()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all is written, the storage fails, or ``timeout`` seconds are over.

        Tries again even if the storage could not be written before. Returns whether all is written.
        """
        with self._lock:
            self._error = None
            self._resting.clear()
            self._call()
            self._done.wait_for(self._rests, timeout)
            self._check()
            return not (self._urgent or self._waiting or self._written)

    def _rests(self) -> bool:
        return not self._written and self._next() is None

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _call(self) -> None:
        """Let a thread look for work, if there is any."""
        if self._next() is None:
            return
        if self._idle:
            self._work.notify()
        elif self._threads < self._storage.threads:
            self._threads += 1
            threading.Thread(target=self._run, name="ledger", daemon=True).start()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            key, write, urgent = taken
            problem: Exception | None = None
            try:
                write()
            except Exception as error:
                problem = error
            with self._lock:
                self._written.discard(key)
                if problem is None:
                    self._failures.pop(key, None)
                else:
                    self._put_back(key, write, urgent, problem)
                self._done.notify_all()

    def _take(self) -> tuple[str, Write, bool] | None:
        """What is to be written next; None if nothing was for :data:`IDLE_SECONDS`."""
        with self._lock:
            while (found := self._next()) is None:
                self._idle += 1
                called = self._work.wait(IDLE_SECONDS)
                self._idle -= 1
                if not called and self._next() is None:
                    self._threads -= 1
                    return None
            key, urgent = found
            write = (self._urgent if urgent else self._waiting).pop(key)
            self._written.add(key)
            self._call()  # one thread may have been called for several things
            return key, write, urgent

    def _next(self) -> tuple[str, bool] | None:
        if self._error is not None or self._broken is not None:
            return None
        for group in (self._urgent, self._waiting):
            for key in group:
                if key not in self._written and key not in self._resting:
                    return key, group is self._urgent
        return None

    def _put_back(self, key: str, write: Write, urgent: bool, problem: Exception) -> None:
        group = self._urgent if urgent else self._waiting
        if key not in self._urgent and key not in self._waiting:
            group[key] = write
        if not isinstance(problem, OSError):
            self._broken = problem
            return
        failed = self._failures.get(key, _Failures())
        if failed.look != self._looks:  # one for each look: the storage may fail between two
            failed = _Failures(failed.count + 1, self._looks, str(problem))
            self._failures[key] = failed
            if failed.count <= ALONE:
                logger.warning("%s cannot be written, will be tried again: %s", key, problem)
        if failed.count < ALONE:
            self._error = self._error or str(problem)
        else:
            self._resting.add(key)

    def _save_running(self, record: TrialRecord, snapshot: TrialRecord) -> None:
        record.in_chunks = max(record.in_chunks, snapshot.save_running(self._storage))

    def _save_ended(self, record: TrialRecord, *, changed: bool = False) -> None:
        before = record.checkpoints
        record.checkpoints = best_and_last(self._storage, record)
        if not changed or record.checkpoints != before:
            record.save(self._storage)
