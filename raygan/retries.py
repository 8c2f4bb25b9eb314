"""Asking storage again: for seconds if an answer is lost, for a day if it is full or away."""

from __future__ import annotations

import contextlib
import errno
import random
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from raygan.addresses import is_address
from raygan.errors import DataError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT = 0.5
"""Seconds before the second attempt to reach object storage; doubled each time."""
SHORTEST_PATIENCE, LONGEST_PATIENCE = 1.0, 30.0
"""Seconds between two attempts to reach storage that is full or away."""
GIVEN_UP = 24 * 3600.0
"""Seconds after which such storage is given up."""
_attempts: ContextVar[int | None] = ContextVar("attempts", default=None)
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EISDIR, errno.ENOTDIR}


def retrying(action: Callable[[], T], path: str = "") -> T:
    """``action()``; if object storage at the address ``path`` does not answer, some more times.

    What asking again would not change is raised at once: a missing file, a full disk, any error
    of a local path.
    """
    attempts = _attempts.get() or ATTEMPTS
    for attempt in range(attempts):
        try:
            return action()
        except (OSError, DataError) as error:
            cause = error.__cause__ if isinstance(error, DataError) else error
            again = isinstance(cause, OSError) and not isinstance(
                cause, FileNotFoundError | PermissionError | IsADirectoryError
            )
            if not again or not is_address(path) or attempt == attempts - 1:
                raise
            if isinstance(cause, OSError) and cause.errno in _FINAL:
                raise
        time.sleep(FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


@contextlib.contextmanager
def once() -> Iterator[None]:
    """In this block, and in this thread, :func:`retrying` makes a single attempt: for what is
    left out if the storage does not answer."""
    token = _attempts.set(1)
    try:
        yield
    finally:
        _attempts.reset(token)


def patiently(
    action: Callable[[], T], what: str, *, sleep: Callable[[float], None] = time.sleep
) -> T:
    """``action()``, which uses the sweep's storage; again and again while that is full or away.

    Raises the OSError of the last attempt after :data:`GIVEN_UP` seconds.
    """
    waited, wait = 0.0, SHORTEST_PATIENCE
    while True:
        try:
            return action()
        except OSError as error:
            if waited >= GIVEN_UP:
                raise
            with contextlib.suppress(OSError):  # the log may lie on the same disk
                print(f"{what}: {error}; retry in {wait:g} s", flush=True)
            sleep(wait)
            waited, wait = waited + wait, min(2 * wait, LONGEST_PATIENCE)
