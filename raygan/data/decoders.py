"""Ways to make the shards of a set: one after the other, or several processes at once.

:func:`raygan.sweep.cluster.preparing.on_ray` makes them by tasks over a cluster.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from raygan.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


def in_turn(function: Callable[[T], R], items: list[T]) -> Generator[R, None, None]:
    """The ``map`` of one process."""
    yield from map(function, items)


def processes(count: int) -> Callable[[Callable[[T], R], list[T]], Generator[R, None, None]]:
    """A ``map`` of so many processes on this machine; results come as they are ready."""
    return functools.partial(_in_processes, count)


def _in_processes(
    count: int, function: Callable[[T], R], items: list[T]
) -> Generator[R, None, None]:
    if min(count, len(items)) < 2:
        yield from map(function, items)
        return
    # spawned: a fork of a process with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(count, len(items)), mp_context=context) as pool:
        waiting: set[Future[R]] = set()
        rest = iter(items)
        try:
            while True:
                for item in rest:
                    waiting.add(pool.submit(function, item))
                    if len(waiting) >= 2 * count:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a process that prepared images was killed, perhaps for lack of memory; "
                "the same command resumes the preparation"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
