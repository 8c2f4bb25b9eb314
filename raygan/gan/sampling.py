"""Noise and image order as functions of (seed, step) alone.

Nothing here has state that a checkpoint would have to carry, and nothing depends on the number
of workers: each takes its slice of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

# one stream per use, so that no two uses ever share random numbers
INIT, ORDER, NOISE_D, NOISE_G, SAMPLES = range(5)

_MASK = 2**64 - 1


def derive_seed(seed: int, stream: int, index: int) -> int:
    """A 63-bit seed for item ``index`` of ``stream`` (SplitMix64, Steele et al. 2014)."""
    state = seed & _MASK
    for word in (stream, index):
        state = (state + 0x9E3779B97F4A7C15 * (word + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Noise:
    """Standard normal codes of the global batch, one worker's slice of them."""

    def __init__(
        self, seed: int, batch_size: int, code_size: int, part: slice, device: torch.device
    ):
        self._seed, self._shape, self._part = seed, (batch_size, code_size), part
        self._generator = torch.Generator(device)

    def __call__(self, stream: int, step: int) -> Tensor:
        """Codes [batch_size / workers, code_size], float32, for ``step``."""
        self._generator.manual_seed(derive_seed(self._seed, stream, step))
        device = self._generator.device
        return torch.randn(self._shape, generator=self._generator, device=device)[self._part]


class Order:
    """An endless stream of image indices: one fresh permutation of 0…count−1 after another."""

    def __init__(self, seed: int, count: int, batch_size: int, part: slice, device: torch.device):
        self._seed, self._count, self._batch_size, self._part = seed, count, batch_size, part
        self._device = device
        self._epochs: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """Indices [batch_size / workers], int64, of the real images of ``step``."""
        start = step * self._batch_size
        first, offset = divmod(start, self._count)
        last = (start + self._batch_size - 1) // self._count
        for epoch in [epoch for epoch in self._epochs if epoch < first]:
            del self._epochs[epoch]
        epochs = [self._epoch(epoch) for epoch in range(first, last + 1)]
        order = epochs[0] if len(epochs) == 1 else torch.cat(epochs)
        return order[offset : offset + self._batch_size][self._part]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            # drawn on the CPU: the same order on every device
            generator = torch.Generator().manual_seed(derive_seed(self._seed, ORDER, epoch))
            order = torch.randperm(self._count, generator=generator)
            self._epochs[epoch] = order.to(self._device)
        return self._epochs[epoch]
