"""Noise, image order and flips as functions of (seed, step) alone.

Nothing here has state that a checkpoint would have to hold. Nothing depends on the number of
workers: each takes its slice of the global batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raygan.gan.config import Latent

# one stream of seeds per use; see `derive_seed` for what a CPU makes of them
INIT, ORDER, NOISE_D, NOISE_G, SAMPLES, FLIPS, MIX, RESTARTS, FID, METRICS = range(10)
AUGMENT_REAL, AUGMENT_FAKE, AUGMENT_G, QUALITY = range(10, 14)

Places = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_MASK = 2**64 - 1
_ROUNDS = 4
"""Rounds of the Feistel network; each changes both halves."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_AHEAD = 2**14
"""Number of images whose places in the order are computed at the same time."""


def derive_seed(seed: int, stream: int, index: int) -> int:
    """A 63-bit seed for item ``index`` of ``stream`` (SplitMix64, Steele et al. 2014).

    PyTorch's generator for a CPU takes the low 32 bits. Two of a run's draws may therefore be the
    same: with seed 31, G's noise in step 3,661 is D's noise in step 9,955. A run of 100,000
    iterations has about 2·10⁵ draws, of which a handful of pairs coincide.
    """
    state = seed & _MASK
    for word in (stream, index):
        state = (state + 0x9E3779B97F4A7C15 * (word + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def latent_codes(latent: Latent, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Numbers of ``shape``, each of the distribution ``latent``; of the generator's device."""
    if latent == "uniform":
        return torch.rand(shape, generator=rng, device=rng.device).mul_(2).sub_(1)
    return torch.randn(shape, generator=rng, device=rng.device)


def codes(
    seed: int, stream: int, index: int, count: int, code_size: int, latent: Latent = "normal"
) -> Tensor:
    """Codes of the distribution ``latent``, float32 [count, code_size], on the CPU.

    Each code depends only on (seed, stream, index) and its place, so that a larger ``count`` only
    appends codes.
    """
    rng = torch.Generator()
    base = derive_seed(seed, stream, index)
    seeds = (derive_seed(base, stream, place) for place in range(count))
    drawn = [latent_codes(latent, (code_size,), rng.manual_seed(each)) for each in seeds]
    return torch.stack(drawn) if drawn else torch.empty(0, code_size)


class Noise:
    """Random numbers for the global batch; returns the slice of one worker."""

    def __init__(
        self,
        seed: int,
        batch_size: int,
        code_size: int,
        part: slice,
        device: torch.device,
        latent: Latent = "normal",
    ):
        self._seed, self._shape, self._part = seed, (batch_size, code_size), part
        self._latent = latent
        self._generator = torch.Generator(device)

    def __call__(self, stream: int, step: int) -> Tensor:
        """Codes [batch_size / workers, code_size], float32, for ``step``."""
        return latent_codes(self._latent, self._shape, self._seeded(stream, step))[self._part]

    def uniform(self, stream: int, step: int, *each: int) -> Tensor:
        """Numbers [batch_size / workers, \\*each], float32, uniform in [0, 1), for ``step``."""
        rng = self._seeded(stream, step)
        shape = (self._shape[0], *each)
        return torch.rand(shape, generator=rng, device=rng.device)[self._part]

    def _seeded(self, stream: int, step: int) -> torch.Generator:
        return self._generator.manual_seed(derive_seed(self._seed, stream, step))


class _Stream:
    """A value for each real image, as a function of its place in the endless stream of images.

    The images of a step have the places ``step · batch_size``, ``step · batch_size`` + 1, …. Values
    are computed for many steps at a time and kept until another step is asked for. So most calls
    cost almost nothing, and the memory does not depend on the number of images.
    """

    def __init__(self, seed: int, batch_size: int, part: slice, device: torch.device):
        self._seed, self._batch_size, self._device = seed, batch_size, device
        self._part = np.arange(batch_size)[part]
        self._steps = max(1, _AHEAD // len(self._part))
        self._block = -1
        self._values = torch.empty(0)

    def __call__(self, step: int) -> Tensor:
        """The values [batch_size / workers] of this worker's images in ``step``."""
        block, within = divmod(step, self._steps)
        if block != self._block:
            steps = np.arange(block * self._steps, (block + 1) * self._steps)
            places = steps[:, None] * self._batch_size + self._part
            values = torch.from_numpy(self._at(places.ravel()).reshape(places.shape))
            if self._device.type == "cuda":
                values = values.pin_memory()  # so that nothing waits for the copy
            self._values, self._block = values.to(self._device, non_blocking=True), block
        return self._values[within]

    def _at(self, places: Places) -> npt.NDArray[Any]:
        """The values at ``places``, which are sorted."""
        raise NotImplementedError


class Order(_Stream):
    """The index of the image at each place, int64: a new permutation of 0…count−1 in each epoch.

    A permutation is computed place by place (:func:`permuted`), so that no worker needs a list of
    all indices, which may be millions.
    """

    def __init__(self, seed: int, batch_size: int, part: slice, device: torch.device, count: int):
        super().__init__(seed, batch_size, part, device)
        self._count = count

    def _at(self, places: Places) -> Places:
        epochs, places = np.divmod(places, self._count)
        first, last = int(epochs[0]), int(epochs[-1])
        keys = [derive_seed(self._seed, ORDER, epoch) for epoch in range(first, last + 1)]
        return permuted(places, self._count, np.array(keys, np.uint64)[epochs - first])


class Flips(_Stream):
    """Whether the image at each place is flipped, bool: with a probability of one half."""

    def _at(self, places: Places) -> npt.NDArray[np.bool_]:
        key = np.uint64(derive_seed(self._seed, FLIPS, 0))
        return (_mixed(places.astype(np.uint64) ^ key) >> np.uint64(63)).astype(bool)


def flipped(images: Tensor, which: Tensor) -> Tensor:
    """``images`` [N, C, H, W], mirrored left to right where ``which`` [N] is true."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(3), images)


def permuted(places: Places, count: int, keys: Words) -> Places:
    """The image of each of ``places`` under a permutation of 0…count−1 that its key selects.

    ``keys``: one for each place. A Feistel network (Luby and Rackoff 1988) permutes all numbers
    with as many bits as ``count − 1``. A result outside of 0…count−1 is permuted again until it is
    inside ("cycle walking", Black and Rogaway 2002), on average less than twice.
    """
    # with fewer than 6 bits, some permutations would be noticeably more frequent than others
    bits = max(6, (count - 1).bit_length())
    low, high = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    word, mask = np.uint64(64), np.uint64(2 ** (bits // 2) - 1)
    result = places.astype(np.uint64)
    outside = np.arange(len(result))
    while len(outside):
        left, right, key = result[outside] >> low, result[outside] & mask, keys[outside]
        for _ in range(_ROUNDS):
            left ^= _mixed(right ^ key) >> (word - high)
            right ^= _mixed(left ^ ~key) >> (word - low)
            key += _GOLDEN
        result[outside] = left << low | right
        outside = outside[result[outside] >= count]
    return result.astype(np.int64)


def _mixed(values: Words) -> Words:
    """A hash to 64 bits whose high bits look random (from the finaliser of MurmurHash3)."""
    mixed = values ^ (values >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    return mixed
