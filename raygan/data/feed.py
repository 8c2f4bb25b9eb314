"""The batches of a training run, step by step, on the device that trains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from raygan.data.images import ImageSet

AHEAD = 2
"""Batches that are copied to a GPU while it trains on another."""

T = TypeVar("T")


class Feed:
    """The images at ``indices(step)`` for each step: uint8 [n, C, H, W] on ``device``.

    If the images are on ``device`` already, they are gathered when they are asked for. On a CPU
    this takes almost no time, and a thread would take cores from the training. If they are not, a
    thread gathers them and copies them to the GPU, :data:`AHEAD` steps ahead. Then neither the GPU
    nor the training loop waits, as long as the steps come in order.
    """

    def __init__(
        self, images: ImageSet, indices: Callable[[int], Tensor], device: torch.device
    ) -> None:
        self._images, self._indices, self._device = images, indices, device
        self._ahead: Ahead[tuple[Tensor, torch.cuda.Event]] | None = None
        if device.type != images.device.type:
            sender = _Sender(images, device)
            self._ahead = Ahead(lambda step: sender.send(indices(step)), AHEAD)

    def __call__(self, step: int) -> Tensor:
        """The images of ``step``."""
        if self._ahead is None:
            return self._images.take(self._indices(step))
        batch, arrived = self._ahead(step)
        training = torch.cuda.current_stream(self._device)
        training.wait_event(arrived)
        # the other stream owns this memory and must not reuse it before the training has read it
        batch.record_stream(training)
        return batch.permute(0, 3, 1, 2)


class Ahead(Generic[T]):
    """``make(step)`` for one step after another, ``count`` steps ahead in a thread."""

    def __init__(self, make: Callable[[int], T], count: int) -> None:
        self._make, self._count = make, count
        # one thread, so that steps are made in order; it ends with this object
        self._pool = ThreadPoolExecutor(1, "raygan-feed")
        self._made: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """The result of ``make(step)``; raises what it raised."""
        wanted = range(step, step + 1 + self._count)
        for other in [other for other in self._made if other not in wanted]:
            self._made.pop(other).cancel()
        for other in wanted:
            if other not in self._made:
                self._made[other] = self._pool.submit(self._make, other)
        return self._made.pop(step).result()


class _Sender:
    """Gathers batches and copies them to a GPU, on a stream of its own."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self._images, self._device = images, device
        self._stream = torch.cuda.Stream(device)
        self._buffers = deque(_Buffer() for _ in range(AHEAD + 1))

    def send(self, indices: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Images, uint8 [n, H, W, C] on the GPU; they are complete once the event has passed."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            buffer = self._buffers[0]
            self._buffers.rotate(-1)
            pinned = buffer.ready(len(indices), self._images.shape)
            self._images.take(indices, out=pinned)
            batch = torch.empty_like(pinned, device=self._device)
            batch.copy_(pinned, non_blocking=True)
            buffer.arrived = torch.cuda.Event()
            buffer.arrived.record()
        return batch, buffer.arrived


@dataclass
class _Buffer:
    """Pinned memory, from which the GPU copies asynchronously."""

    pinned: Tensor | None = None
    arrived: torch.cuda.Event | None = None
    """Has passed when the last batch of this buffer is on the GPU."""

    def ready(self, count: int, shape: tuple[int, int, int]) -> Tensor:
        """The buffer, uint8 [count, H, W, C]; waits until it may be overwritten."""
        if self.arrived is not None:
            self.arrived.synchronize()
        if self.pinned is None:
            channels, height, width = shape
            size = count, height, width, channels
            self.pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return self.pinned
