"""Records work that is repeated on tensors of the same shapes as one CUDA graph.

One iteration of a small GAN is a few hundred kernels of some microseconds each. If Python starts
them one by one, the GPU is idle most of the time. A CUDA graph starts all of them at once. The
kernels are the same, and so are the numbers.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from raygan import liveness

WARM_UP = 3
"""Calls before the recording, in which libraries load kernels and optimizers allocate memory."""
PACE = 16
"""A GPU is at most twice so many calls behind. Calls count as progress, and a GPU that hangs must
not take in an hour of them."""


class Recorded:
    """Calls ``work(*given)``, a function that writes its results to tensors of its own.

    On a CPU, ``work`` is called each time. On a GPU, it is called :data:`WARM_UP` times. The next
    call records the kernels that it starts; that call and all later ones replay the kernels.

    A replay does the same as a call only if ``work``

    - starts all kernels on the current stream of the current device;
    - never waits for the device;
    - reads whatever changes between calls from ``given`` or from tensors that it changes in place.
    """

    # `work` must not refer to this object, so that the graph is freed with its last reference

    def __init__(self, work: Callable[..., None], *, on_gpu: bool, shares: bool = False) -> None:
        """``on_gpu``: whether the work is recorded. ``shares``: whether all objects with ``shares``
        use the same memory. Then only one of them may exist at a time, and the memory of the
        largest is kept until the process ends."""
        self._work = work
        self._on_gpu = on_gpu
        self._shares = shares
        self._given: list[Tensor | None] = []
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._started = 0
        self._behind: torch.cuda.Event | None = None

    def __call__(self, *given: Tensor | None) -> None:
        """Do the work on ``given``, which have the same shapes, dtypes and layouts at each call."""
        self._call(given)
        self._started += 1
        if self._started % PACE == 0 and torch.cuda.is_initialized():
            event = torch.cuda.Event()
            event.record()
            if self._behind is not None:
                self._behind.synchronize()
            self._behind = event
        liveness.progress()

    def _call(self, given: tuple[Tensor | None, ...]) -> None:
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
        """Record the work again, after a number that it reads (a learning rate) has changed."""
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
        # CUDA records nothing on the default stream; the side stream has library workspaces that
        # no other stream uses
        pool = _keeper(current.device_index).pool() if self._shares else None
        stream = _side_stream() if current == torch.cuda.default_stream() else current
        with on_stream(stream), _no_garbage_collection():
            # "thread_local": other threads may copy images meanwhile
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                self._work(*self._given)
            except BaseException:
                with suppress(RuntimeError):  # the error of `work` says more
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Turn off garbage collection in the block: freeing a graph while another is recorded fails."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Start the kernels of the block on ``stream``, after those of the current stream.

    None: on the current stream, or on a CPU.
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


@functools.cache
def _keeper(_device: int) -> torch.cuda.CUDAGraph:
    """A graph that keeps the shared memory alive."""
    graph = torch.cuda.CUDAGraph()
    with on_stream(_side_stream()), _no_garbage_collection():
        graph.capture_begin(capture_error_mode="thread_local")
        torch.zeros((), device="cuda")
        graph.capture_end()
    return graph


@functools.cache
def _side_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
