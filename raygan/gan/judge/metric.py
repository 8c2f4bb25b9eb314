"""What a metric is: one number that says how good the generator's images are."""

from __future__ import annotations

from torch import Tensor

from raygan.data.images import ImageSet
from raygan.errors import ConfigError
from raygan.gan.part import Part
from raygan.recipe import Recipe

_TAKEN = ("reconstruction_loss", "diversity", "duplicates")
"""Names under ``val/`` that are no metrics of their own, today or in earlier versions."""


class Metric(Recipe):
    """A number that is measured at each evaluation; it is stored as ``val/NAME``."""

    reserved = Part.reserved

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name in _TAKEN:
            raise ConfigError(f"the metric `{cls.name}`: the name is taken; choose another")

    def measure(self, samples: Tensor, images: ImageSet) -> float | None:
        """The metric of G's ``samples`` (from fixed codes; float32 [n, C, H, W] in [0, 1], on the
        device that trains), given the data set ``images``; None if it does not apply.

        No gradients are kept. Random numbers from PyTorch's global generators are the same at the
        same iteration of the same configuration.
        """
        raise NotImplementedError
