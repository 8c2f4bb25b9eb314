"""Ways to make the shards of a set at the same time: processes, or Ray Data over a cluster."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

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


def on_ray(function: Callable[[T], R], items: list[T]) -> Generator[R, None, None]:
    """A ``map`` of Ray Data tasks over the cluster.

    Ray must have been initialised, and all nodes must see the same files.
    """
    if len(items) < 2:
        yield from map(function, items)
        return
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"item": pickle.dumps(item)} for item in items]
    # a block, and so a task, per item
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    results = data.map(functools.partial(_row, function), num_cpus=1)
    for row in results.iter_rows():
        made, error = pickle.loads(row["made"])  # noqa: S301 - of this program's own tasks
        if error is not None:
            raise error
        yield made


def _row(function: Callable[[Any], Any], row: dict[str, Any]) -> dict[str, bytes]:
    """Errors are results: Ray Data would wrap them, and print their traces."""
    try:
        result: tuple[Any, DataError | None] = function(pickle.loads(row["item"])), None  # noqa: S301
    except DataError as error:
        result = None, DataError(str(error))
    return {"made": pickle.dumps(result)}
