"""When a training state is kept as a checkpoint, and how without holding the training up.

A checkpoint is a copy of the state in the memory of the host; a thread writes it while the
training goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from raygan.background import Background
from raygan.gan.interval import interval
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers

MEETING_SECONDS = 1.0
"""About so often the workers agree on whether a checkpoint is due."""
ASKING_SECONDS = 5.0
"""About so often they ask whether a machine is about to be lost, which takes longer."""

Saved = dict[str, Any]
"""What :meth:`TrainState.state_dict` returns."""


class Keeper:
    """Keeps checkpoints of one training run: every so often, when it is stopped, and the last.

    All workers have one and call it at the same iterations; the first worker alone writes. Their
    clocks differ, so that they agree on when: the first one decides, about every
    :data:`MEETING_SECONDS`, in one small sum over the workers, for which they wait for their
    devices. A single worker waits for nothing, and stops after the iteration in which it is told.
    """

    def __init__(
        self,
        every: str | int,
        write: Callable[[Saved], None],
        *,
        at_once: Callable[[], bool] = lambda: False,
        stops: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``every``: see :func:`interval`. ``write``: writes a checkpoint, in a thread. If writing
        takes longer than ``every``, the newest checkpoint waits, and replaces one that waits.
        ``at_once``: whether this machine is about to be lost; then a checkpoint is due each time
        that it is asked, which all workers do together, about every :data:`ASKING_SECONDS`.
        ``stops``: whether the training shall stop now, with a last checkpoint; the first worker
        alone is asked, often."""
        self._seconds, self._iterations = interval(every)
        self._write, self._at_once, self._clock = write, at_once, clock
        self._stops = stops
        self.stopped = False
        """Whether the training has been stopped: the checkpoint that was kept last is its state."""
        self._workers = Workers()
        self._background = Background(most=1)
        self._kept: int | None = None
        """Iterations of the last checkpoint, also of one that is being written."""
        self._kept_at = self._met_at = self._asked_at = clock()
        self._met = self._meeting = 0
        self._length = 0
        """Iterations from the last meeting to the next."""

    def begin(self, state: TrainState) -> None:
        """Training begins, or resumes, at ``state``."""
        self._kept = self._met = state.step
        self._kept_at = self._met_at = self._asked_at = self._clock()
        self._length = 1
        self._meeting = state.step + 1

    def due(self, step: int, device: torch.device) -> bool:
        """Whether a checkpoint is due after ``step`` iterations; asked after each of them."""
        counted = self._iterations is not None and step % self._iterations == 0
        alone = self._workers.count == 1
        if step < self._meeting and not (alone and self._stops()):
            return counted
        now = self._clock()
        # twice as many at the most: the first iterations take longer than the others
        speed = (step - self._met) / max(now - self._met_at, 1e-9)
        length = max(1, min(int(MEETING_SECONDS * speed), 2 * self._length))
        due = self._seconds is not None and now - self._kept_at >= self._seconds
        asks = now - self._asked_at >= ASKING_SECONDS
        due, self.stopped, asks, self._length = self._agree(
            due, self._stops(), asks, length, device
        )
        self._met, self._met_at, self._meeting = step, now, step + self._length
        if asks:
            self._asked_at = now
            due = self._at_once() or due
        return due or self.stopped or counted

    def _agree(
        self, due: bool, stops: bool, asks: bool, length: int, device: torch.device
    ) -> tuple[bool, bool, bool, int]:
        """What the first worker says."""
        if self._workers.count == 1:
            return due, stops, asks, length
        said = torch.tensor([int(due), int(stops), int(asks), length], device=device)
        if self._workers.rank != 0:
            said.zero_()
        self._workers.sum_(said)
        due_, stops_, asks_, length_ = said.tolist()
        return bool(due_), bool(stops_), bool(asks_), length_

    def keep(self, state: TrainState) -> None:
        """Copy ``state`` and have the copy written; waits for the device, not for the storage.

        Raises what an earlier ``write`` raised.
        """
        self._kept, self._kept_at = state.step, self._clock()
        if self._workers.rank == 0:
            saved = snapshot(state.state_dict())
            self._background.put(lambda: self._write(saved))

    def finish(self, state: TrainState | None = None) -> None:
        """Wait until all is written; before that, keep ``state`` if it was not kept yet.

        Raises what ``write`` raised.
        """
        if state is not None and state.step != self._kept:
            self.keep(state)
        self._background.wait()


def snapshot(value: Any) -> Any:
    """A copy on the host of tensors, dicts, lists and plain values, which later steps do not
    change. Memory layouts stay."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [snapshot(inner) for inner in value]
    return value
