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

MEETING_SECONDS = 5.0
"""About so often the workers agree on whether a checkpoint is due."""

Saved = dict[str, Any]
"""What :meth:`TrainState.state_dict` returns."""


class Keeper:
    """Keeps checkpoints of one training run: every so often, and the last.

    All workers have one and call it at the same iterations; the first worker alone writes. Their
    clocks differ, so that they agree on when: the first one decides, about every
    :data:`MEETING_SECONDS`, in one small sum over the workers, for which they wait for their
    devices. A single worker waits for nothing.
    """

    def __init__(
        self,
        every: str | int,
        write: Callable[[Saved], None],
        *,
        at_once: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``every``: see :func:`interval`. ``write``: writes a checkpoint, in a thread. If writing
        takes longer than ``every``, the newest checkpoint waits, and replaces one that waits.
        ``at_once``: whether this machine is about to be lost; then a checkpoint is due at each
        meeting. All workers call it at each."""
        self._seconds, self._iterations = interval(every)
        self._write, self._at_once, self._clock = write, at_once, clock
        self._workers = Workers()
        self._background = Background(most=1)
        self._kept: int | None = None
        """Iterations of the last checkpoint, also of one that is being written."""
        self._kept_at = self._met_at = clock()
        self._met = self._meeting = 0
        self._length = 0
        """Iterations from the last meeting to the next."""

    def begin(self, state: TrainState) -> None:
        """Training begins, or resumes, at ``state``."""
        self._kept = self._met = state.step
        self._kept_at = self._met_at = self._clock()
        self._length = 1
        self._meeting = state.step + 1

    def due(self, step: int, device: torch.device) -> bool:
        """Whether a checkpoint is due after ``step`` iterations; asked after each of them."""
        if step < self._meeting:
            return self._iterations is not None and step % self._iterations == 0
        now = self._clock()
        # twice as many at the most: the first iterations take longer than the others
        speed = (step - self._met) / max(now - self._met_at, 1e-9)
        length = max(1, min(int(MEETING_SECONDS * speed), 2 * self._length))
        late = self._seconds is not None and now - self._kept_at >= self._seconds
        at_once = self._at_once()  # by all workers, whatever their clocks say
        due, self._length = self._agree(late or at_once, length, device)
        self._met, self._met_at, self._meeting = step, now, step + self._length
        return due or (self._iterations is not None and step % self._iterations == 0)

    def _agree(self, due: bool, length: int, device: torch.device) -> tuple[bool, int]:
        """What the first worker says."""
        if self._workers.count == 1:
            return due, length
        said = torch.tensor([int(due), length], device=device)
        if self._workers.rank != 0:
            said.zero_()
        self._workers.sum_(said)
        due_, length = said.tolist()
        return bool(due_), length

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
