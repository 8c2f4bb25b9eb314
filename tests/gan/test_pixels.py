"""Pixels as networks take them, and as they are stored and shown."""

import torch

from raygan.gan.pixels import as_bytes, as_float


def test_all_bytes_are_the_same_after_the_way_through_floats():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    there = as_float(pixels)
    assert (there.min(), there.max(), there.dtype) == (0, 1, torch.float32)
    assert torch.equal(as_bytes(there), pixels)


def test_what_no_picture_can_show_is_black_or_cut():
    wild = torch.tensor([float("nan"), -1.0, 2.0, 0.5])
    assert as_bytes(wild).tolist() == [0, 0, 255, 128]
