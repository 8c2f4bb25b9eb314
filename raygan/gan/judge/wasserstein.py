"""Sliced Wasserstein distance between small patches (Karras et al. 2018, section 5).

Both sets of images become Laplacian pyramids, halved while both sides stay at least 16 pixels. On
each level, :data:`PATCHES` patches of 7×7 pixels are taken from each image at random places, and
projected on :data:`DIRECTIONS` random directions. The distance is the mean, over levels and
directions, of the Wasserstein-1 distance between the two sets of projections. Places and directions
come from a fixed seed.

Two things differ from the paper. Patches of both sets are normalised by the mean and the standard
deviation, per channel, of the *real* patches: normalised by their own, samples of too little
contrast would seem right. Levels are made by bilinear resizing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from raygan.gan.arithmetic import arithmetic
from raygan.gan.workers import Workers

PATCH, PATCHES, DIRECTIONS = 7, 32, 128
SMALLEST = 16
"""Sides are not halved below it."""
SEED = 0


@arithmetic("fp32")
@torch.no_grad()
def sliced_wasserstein(samples: Tensor, real: Tensor, workers: Workers | None = None) -> float:
    """The distance between as many of the first images of both, [n, C, H, W] in [0, 1], at least 7
    pixels wide and high; each worker projects on its share of the directions."""
    workers = workers or Workers()
    count = min(len(samples), len(real))
    rng = torch.Generator().manual_seed(SEED)
    share = workers.share(DIRECTIONS)
    total = torch.zeros(1, dtype=torch.float64, device=samples.device)
    levels = list(zip(pyramid(samples[:count]), pyramid(real[:count]), strict=True))
    for made, true in levels:
        places = patch_places(made, rng)
        made, true = (patches(images, places) for images in (made, true))
        mean, deviation = true.mean((0, 2), keepdim=True), true.std((0, 2), keepdim=True)
        directions = torch.randn(math.prod(made.shape[1:]), DIRECTIONS, generator=rng)
        directions = (directions / directions.norm(dim=0)).to(samples.device)[:, share]
        a, b = (
            ((each - mean) / deviation.clamp(min=1e-8)).flatten(1).matmul(directions).sort(0).values
            for each in (made, true)
        )
        total += (a - b).abs().mean(0).double().sum()
    workers.sum_(total)
    return float(total) / (len(levels) * DIRECTIONS)


def pyramid(images: Tensor) -> list[Tensor]:
    """The levels of the Laplacian pyramid, from the finest to the coarsest."""
    levels: list[Tensor] = []
    while min(images.shape[2:]) >= 2 * SMALLEST:
        half = F.interpolate(
            images, scale_factor=0.5, mode="bilinear", antialias=True, recompute_scale_factor=True
        )
        levels.append(images - F.interpolate(half, images.shape[2:], mode="bilinear"))
        images = half
    return [*levels, images]


def patch_places(images: Tensor, rng: torch.Generator) -> Tensor:
    """Random places of patches in each image: indices of their pixels, [n, 1, PATCHES · 49]."""
    height, width = images.shape[2:]
    top, left = (
        torch.randint(0, side - PATCH + 1, (len(images), PATCHES, 1, 1), generator=rng)
        for side in (height, width)
    )
    rows, columns = top + torch.arange(PATCH)[:, None], left + torch.arange(PATCH)
    return (rows * width + columns).view(len(images), 1, -1).to(images.device)


def patches(images: Tensor, places: Tensor) -> Tensor:
    """The patches at ``places``, [n · PATCHES, C, 49]."""
    n, channels = images.shape[:2]
    taken = images.flatten(2).gather(2, places.expand(n, channels, -1))
    return taken.view(n, channels, PATCHES, -1).transpose(1, 2).reshape(n * PATCHES, channels, -1)
