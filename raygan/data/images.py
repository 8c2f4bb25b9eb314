"""A prepared set of images, in memory or memory-mapped, and its splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raygan.data.distances import distances, effective_number, mean_distance

REFERENCE = 256
"""Most training images whose distances are computed, as a sample of all."""
_RESPLIT = 1
"""Part of the seed of :meth:`ImageSet.resplit`; the prepared split does not have it."""
WIDTH = 0.3
"""Distance from which two images count as different, as a share of the mean distance."""
RESIDENT_SHARE = 0.5
"""Images are kept on the GPU if they take at most this share of the memory that the trial has."""


@dataclass(frozen=True)
class Rest:
    """The indices 0…``count``−1 without the held-out ones, in order; they are not stored.

    With held-out indices h₀ < h₁ < …, hⱼ − j indices are left before hⱼ. So the index of rank r is
    r plus the number of j with hⱼ − j ≤ r.
    """

    count: int
    before: Tensor
    """hⱼ − j, int64, sorted."""

    @classmethod
    def of(cls, count: int, *held_out: Tensor) -> Rest:
        """The indices 0…``count``−1 without ``held_out``, which must be distinct."""
        held = torch.cat(held_out).sort().values
        return cls(count, held - torch.arange(len(held), device=held.device))

    def __len__(self) -> int:
        return self.count - len(self.before)

    def at(self, ranks: Tensor) -> Tensor:
        """The indices of ``ranks`` (each 0…len − 1), int64."""
        return ranks + torch.searchsorted(self.before, ranks, right=True)


@dataclass(frozen=True)
class Variety:
    """How varied the training images are."""

    count: int
    """Images that were compared."""
    width: float
    """Euclidean distance, pixels in [0, 1], from which two images count as different; 0 if all
    images are the same."""
    effective: float
    """Effective number of different images among them."""


@dataclass(frozen=True)
class ImageSet:
    """uint8 images in shards [n, H, W, C], with disjoint ``train``, ``running`` and ``final``."""

    shards: Sequence[Tensor]
    """The images in order, shard after shard; memory-mapped, or one tensor on the GPU."""
    train: Rest
    """Indices of the images that are trained on."""
    running: Tensor
    """Indices, int64, of the images of the running reconstruction test; likewise ``final``."""
    final: Tensor
    digest: str
    """SHA-256 over the pixels and their shape."""
    baseline: float
    """Reconstruction loss if the mean training image is the answer to every running-test image. A
    generator with a higher loss has learned nothing."""

    @classmethod
    def of(
        cls,
        shards: Sequence[Tensor],
        running: Tensor,
        final: Tensor,
        digest: str,
        baseline: float,
    ) -> ImageSet:
        """A set that trains on the images that neither ``running`` nor ``final`` holds out."""
        train = Rest.of(sum(map(len, shards)), running, final)
        return cls(shards, train, running, final, digest, baseline)

    def resplit(self, seed: int) -> ImageSet:
        """The same images with other held-out images, as many as before, drawn by ``seed`` (≥ 0).

        :attr:`baseline` does not change: it is that of the prepared split.
        """
        drawn = np.random.default_rng([seed, _RESPLIT]).permutation(len(self))
        order = torch.from_numpy(drawn).to(self.running.device)
        running, final = len(self.running), len(self.final)
        held_out = order[:running].clone(), order[running : running + final].clone()
        return self.of(self.shards, *held_out, self.digest, self.baseline)

    def __len__(self) -> int:
        return self.train.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        height, width, channels = self.shards[0].shape[1:]
        return channels, height, width

    @property
    def nbytes(self) -> int:
        """Size of all pixels."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def device(self) -> torch.device:
        """The device of the pixels; indices must be on it, too."""
        return self.shards[0].device

    @cached_property
    def _arrays(self) -> list[npt.NDArray[np.uint8]]:
        return [shard.numpy() for shard in self.shards]

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum([len(shard) for shard in self.shards], dtype=np.int64)

    @cached_property
    def reference(self) -> Variety:
        """How varied the training images are: of at most :data:`REFERENCE`, evenly spaced."""
        count = min(REFERENCE, len(self.train))
        if count < 2:
            return Variety(count, 0.0, float(count))
        ranks = torch.arange(count, device=self.device) * len(self.train) // count
        between = distances(self.take(self.train.at(ranks)).float() / 255)
        width = WIDTH * mean_distance(between)
        return Variety(count, width, effective_number(between, width) if width > 0 else 1.0)

    def take(self, indices: Tensor, out: Tensor | None = None) -> Tensor:
        """The images at ``indices``: uint8 [n, C, H, W], channels last in memory.

        ``out``: tensor that they are written to, uint8 [n, H, W, C] on the CPU; by default a new
        one.
        """
        if self.device.type != "cpu":
            return self.shards[0].index_select(0, indices).permute(0, 3, 1, 2)
        if out is None:
            out = torch.empty(len(indices), *self.shards[0].shape[1:], dtype=torch.uint8)
        self._gather(indices.numpy(), out.numpy())
        return out.permute(0, 3, 1, 2)

    def _gather(self, indices: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        """Copy the images at ``indices`` to ``out``, with one read of each shard.

        This is done by numpy in this thread. PyTorch would use several threads, which may have to
        wait for a core: for a batch of 100 kB, up to a thousand times as long as the copy takes.
        """
        if not len(indices):
            return
        if not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices {indices.min()} to {indices.max()} of {len(self)} images")
        if len(self._arrays) == 1:
            # the indices are in range, so "clip" changes none; "raise" would copy twice
            self._arrays[0].take(indices, axis=0, out=out, mode="clip")
            return
        which = self._ends.searchsorted(indices, side="right")
        order = which.argsort(kind="stable")
        cuts = np.flatnonzero(np.diff(which[order])) + 1
        for part in np.split(order, cuts):
            shard = which[part[0]]
            start = self._ends[shard] - len(self._arrays[shard])
            out[part] = self._arrays[shard].take(indices[part] - start, axis=0)

    def resident(self, device: torch.device, share: float = 1.0) -> ImageSet:
        """This set in the memory of the GPU ``device`` if it fits (:data:`RESIDENT_SHARE`), else
        itself.

        ``share``: the part of the GPU that the trial has, since each trial keeps images of its own
        there. On a CPU, all trials share the pages of the memory-mapped files.
        """
        if device.type != "cuda" or self.device.type == "cuda":
            return self
        free, total = torch.cuda.mem_get_info(device)
        if self.nbytes > RESIDENT_SHARE * min(free, total * min(share, 1.0)):
            return self
        pixels = torch.empty(len(self), *self.shards[0].shape[1:], dtype=torch.uint8, device=device)
        for part, shard in zip(
            pixels.split([len(s) for s in self.shards]), self.shards, strict=True
        ):
            part.copy_(shard)
        return replace(
            self,
            shards=[pixels],
            train=replace(self.train, before=self.train.before.to(device)),
            running=self.running.to(device),
            final=self.final.to(device),
        )
