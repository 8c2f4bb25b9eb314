"""In which precision a device computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raygan.gan.config import Precision


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Within it, a GPU's matrix products and convolutions of float32 use TF32 if ``precision`` is
    ``tf32``, else float32, and its convolutions are deterministic. On a CPU it changes nothing.

    cuDNN's fastest convolutions in float32 and TF32 add up in an order that changes from call to
    call: with them, a resumed run would not equal the uninterrupted one.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.deterministic
    products.allow_tf32 = convolutions.allow_tf32 = precision == "tf32"
    convolutions.deterministic = True
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32, convolutions.deterministic = before
