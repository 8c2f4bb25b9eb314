"""Known disturbances of images, each in growing strength: what measures of quality must order."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
CIFAR10 = Path(os.environ.get("RAYGAN_CIFAR10") or ROOT.parent / "shared" / "data" / "cifar10")

Labelled = tuple[Tensor, Tensor]
"""uint8 images [N, C, H, W] and their classes [N]."""


def digits() -> Labelled:
    """scikit-learn's digits, 8×8 pixels, in random order: neighbours are of the same writer."""
    from sklearn.datasets import load_digits

    given = load_digits()
    images = torch.from_numpy((given.images / 16 * 255).round().astype("uint8"))[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    return images[order], torch.from_numpy(given.target)[order]


def cifar10(count: int) -> Labelled:
    """The first test images of CIFAR-10."""
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(CIFAR10 / "test.parquet").slice(0, count).to_pylist()
    images = [np.array(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB")) for row in rows]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return pixels.contiguous(), torch.tensor([row["label"] for row in rows])


def blurred(images: Tensor, width: float) -> Tensor:
    """By a Gaussian of ``width`` pixels."""
    line = torch.exp(-(torch.arange(-6, 7) ** 2) / (2 * width**2))
    kernel = (line[:, None] * line) / line.sum() ** 2
    kernel = kernel.expand(images.shape[1], 1, 13, 13)
    return F.conv2d(F.pad(images, (6,) * 4, mode="replicate"), kernel, groups=images.shape[1])


def noisy(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    return (images + deviation * noise).clamp(0, 1)


def faded(images: Tensor, contrast: float) -> Tensor:
    return (images - 0.5) * contrast + 0.5


def repeated(images: Tensor, different: int) -> Tensor:
    return images[torch.arange(len(images)) % different]


def shuffled(images: Tensor, side: int) -> Tensor:
    """Square patches of ``side`` pixels, exchanged at random within each image."""
    rng = torch.Generator().manual_seed(3)
    taken = F.unfold(images, side, stride=side)
    order = torch.stack([torch.randperm(taken.shape[2], generator=rng) for _ in images])
    taken = taken.gather(2, order[:, None].expand_as(taken))
    return F.fold(taken, images.shape[2:], side, stride=side)


def sets(labelled: Labelled, n: int) -> tuple[Tensor, dict[str, list[tuple[str, Tensor]]]]:
    """n real images, uint8, and per kind of disturbance other images, from weak to strong.

    Needs 2n images, and n more of the first two classes after them.
    """
    pixels, classes = labelled
    real, clean = pixels[:n], pixels[n : 2 * n].float() / 255
    rest, kinds = pixels[n:].float() / 255, classes[n:]

    def only(count: int) -> Tensor:
        return rest[kinds < count][:n]

    side = clean.shape[2]
    return real, {
        "none": [("other real images", clean)],
        "blur": [(f"{width} px", blurred(clean, width)) for width in (1, 2)],
        "noise": [(f"sd {sd}", noisy(clean, sd)) for sd in (0.05, 0.1, 0.2)],
        "contrast": [(f"× {c}", faded(clean, c)) for c in (0.75, 0.5, 0.25)],
        "repeated images": [(f"{k} different", repeated(clean, k)) for k in (n // 8, n // 32)],
        "dropped classes": [(f"{10 - k} of 10", only(k)) for k in (5, 2)],
        "shuffled patches": [
            (f"{patch} px", shuffled(clean, patch))
            for patch in sorted({side // 2, side // 4, 2}, reverse=True)
        ],
    }
