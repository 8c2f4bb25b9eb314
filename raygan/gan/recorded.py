"""Work that is done many times on tensors of the same shapes: on a GPU, one CUDA graph.

One iteration of a small GAN is a few hundred kernels of some microseconds each. Started one by one
from Python, they leave a GPU idle most of the time; a CUDA graph starts all of them at once. The
kernels are the same, and so are the numbers.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

WARM_UP = 3
"""Calls before the work is recorded: libraries load their kernels, optimizers take their memory."""


class Recorded:
    """``work(*given)``, a function whose results are what it writes into tensors of its own.

    On a CPU it is simply called. On a GPU, the first :data:`WARM_UP` calls are the same. The next
    call records the kernels that ``work`` starts, and all calls from then on replay them.

    What ``work`` must do, so that a replay is the same as a call: start all of its kernels on the
    current stream of the current device; never wait for the device; read whatever changes between
    calls from ``given``, or from tensors that it changes in place.
    """

    # `work` must not refer to this object: its graph is then freed as soon as nobody needs it

    def __init__(self, work: Callable[..., None], *, on_gpu: bool, shares: bool = False) -> None:
        """``on_gpu``: whether it is recorded. ``shares``: whether its memory is used again by the
        next object with ``shares``; only one of them may exist at a time. The memory of the
        largest is kept until the process ends."""
        self._work = work
        self._on_gpu = on_gpu
        self._shares = shares
        self._given: list[Tensor | None] = []
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *given: Tensor | None) -> None:
        """Do the work on ``given``: of the same shapes, dtypes and layouts at every call."""
        if not self._on_gpu:
            self._work(*given)
            return
        self._copy(given)
        if self._graph is None and self._calls < WARM_UP:
            self._calls += 1
            self._work(*self._given)
            return
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()

    def forget(self) -> None:
        """Record the work again: it read a number, such as a learning rate, that has changed."""
        self._graph, self._calls = None, 0

    def _copy(self, given: tuple[Tensor | None, ...]) -> None:
        """Copy ``given`` to where the graph reads it."""
        if not self._given:
            self._given = [None if one is None else one.clone() for one in given]
            return
        for own, one in zip(self._given, given, strict=True):
            if own is not None and one is not None:
                own.copy_(one)

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream()
        # nothing can be recorded on the default stream; on any other, it is the one whose library
        # workspaces nobody else uses
        pool = _keeper(current.device_index).pool() if self._shares else None
        stream = _side_stream() if current == torch.cuda.default_stream() else current
        with on_stream(stream), _no_garbage_collection():
            # by other threads, images may be copied meanwhile
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._work(*self._given)
            except BaseException:
                with suppress(RuntimeError):  # the error of the work tells more
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Within it no other graph is collected: to free one while another is recorded fails."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Within it kernels are started on ``stream``, and run after those started before on the
    current one. None: on the current stream, or on a CPU."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


@functools.cache
def _keeper(_device: int) -> torch.cuda.CUDAGraph:
    """A graph that keeps alive the memory that others share."""
    graph = torch.cuda.CUDAGraph()
    with on_stream(_side_stream()), _no_garbage_collection():
        graph.capture_begin(capture_error_mode="thread_local")
        torch.zeros((), device="cuda")
        graph.capture_end()
    return graph


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
