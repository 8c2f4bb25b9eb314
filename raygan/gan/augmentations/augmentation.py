"""What an augmentation is: it changes, differentiably, every image that D is trained on."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from raygan.gan.part import Part


class Augmentation(Part):
    """Changes real and fake images alike, before D sees them in training; evaluations never do.

    Fake images pass on G's gradient through it.
    """

    chances: ClassVar[int] = 0
    """Random numbers that it takes for each image; 0: it is not applied."""

    def __call__(self, images: Tensor, chances: Tensor) -> Tensor:
        """Images float [N, C, H, W] in [0, 1] → same shape and dtype, each changed by itself.

        ``chances`` [N, :attr:`chances`], uniform in [0, 1), is its only source of randomness, so
        that workers agree and a resumed run equals an uninterrupted one. On a GPU it must not wait
        for the device.
        """
        raise NotImplementedError
