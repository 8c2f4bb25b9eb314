"""Pixels as networks take them, and as they are stored and shown."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float(images: Tensor) -> Tensor:
    """uint8 0…255 → float32 in [0, 1], channels last; float32 images pass through."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def as_bytes(images: Tensor) -> Tensor:
    """Floats in [0, 1] → uint8 0…255 on the CPU; what is no number becomes 0."""
    return images.mul(255).round_().clamp_(0, 255).nan_to_num_(0.0).byte().cpu()
