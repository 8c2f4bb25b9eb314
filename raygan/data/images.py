"""A prepared set of images in memory or memory-mapped, with its splits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

RESIDENT_SHARE = 0.5
"""Share of the free GPU memory that the training images may take to be kept there."""


@dataclass(frozen=True)
class ImageSet:
    """uint8 images [N, H, W, C] with disjoint ``train``, ``running`` and ``final`` indices."""

    pixels: Tensor
    train: Tensor
    """Indices, int64, of the images that are trained on; likewise the other two."""
    running: Tensor
    final: Tensor
    digest: str
    """SHA-256 over the pixels and their shape."""
    baseline: float
    """Reconstruction loss of answering every running-test image with the mean training image;
    a generator that scores above it has learned nothing."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of each image."""
        _, height, width, channels = self.pixels.shape
        return channels, height, width

    def take(self, indices: Tensor) -> Tensor:
        """The images at ``indices``: uint8 [n, C, H, W], channels last in memory."""
        return self.pixels.index_select(0, indices).permute(0, 3, 1, 2)

    def resident(self, device: torch.device) -> ImageSet:
        """This set on ``device`` if it fits well, else itself."""
        if device.type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if self.pixels.nbytes > free * RESIDENT_SHARE:
            return self
        return replace(
            self,
            pixels=self.pixels.to(device),
            train=self.train.to(device),
            running=self.running.to(device),
            final=self.final.to(device),
        )


def mean_image_loss(pixels: Tensor, train: Tensor, held_out: Tensor, chunk: int = 4096) -> float:
    """Mean squared error per pixel in [0, 1] of the mean ``train`` image as an answer to each
    ``held_out`` image; both are indices into ``pixels``, uint8 [N, H, W, C]."""
    total = torch.zeros(pixels.shape[1:], dtype=torch.float64)
    for indices in train.split(chunk):
        total += pixels.index_select(0, indices).sum(0, dtype=torch.float64)
    mean = total / len(train)
    error = pixels.index_select(0, held_out).double().sub_(mean).div_(255)
    return float(error.square_().mean())
