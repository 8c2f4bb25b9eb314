"""The images and random numbers of each iteration, as a function of (seed, step) alone."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from raygan.data.feed import Feed
from raygan.data.images import ImageSet
from raygan.gan import sampling
from raygan.gan.augmentations import AUGMENTATIONS
from raygan.gan.config import TrainConfig
from raygan.gan.losses import LOSSES
from raygan.gan.workers import Workers


class Draw(NamedTuple):
    """This worker's share of one iteration; each of D's updates has n images."""

    real: Tensor
    """uint8 [d_steps · n, C, H, W]."""
    noise_d: Tensor
    """Codes of D's updates, float32 [d_steps · n, code_size]."""
    noise_g: Tensor
    """Codes of G's update, float32 [n, code_size]."""
    mix: Tensor | None
    """Between real and fake image, where the gradient penalty is taken, float32 [d_steps · n] in
    [0, 1); None for a loss without the penalty."""
    chances: Tensor | None
    """What the augmentation takes, float32 [(2 · d_steps + 1) · n, k] in [0, 1): for the real
    images, the fake ones of D's updates, and those of G's update; None: there is none."""


class Draws:
    """Draws the images, codes, mixtures and augmentations of any iteration."""

    def __init__(
        self, config: TrainConfig, images: ImageSet, workers: Workers, device: torch.device
    ):
        """Raises :class:`~raygan.errors.ConfigError` if the batch cannot be shared."""
        part = workers.part(config.batch_size)
        stream = config.seed, config.batch_size, part
        order = sampling.Order(*stream, images.device, len(images.train))
        self._feed = Feed(images, lambda place: images.train.at(order(place)), device)
        self._flips = sampling.Flips(*stream, device) if config.flip else None
        self._noise = sampling.Noise(
            config.seed, config.batch_size, config.code_size, part, device, config.latent
        )
        self._mixes = LOSSES.make(config.loss, config.parameters).gradient_penalty > 0
        self._chances = AUGMENTATIONS[config.augment].chances
        self._d_steps = config.d_steps

    def __call__(self, step: int) -> Draw:
        """The draw of iteration ``step``; each of D's updates has its own place in a stream."""
        places = range(step * self._d_steps, (step + 1) * self._d_steps)
        noise = self._noise
        return Draw(
            _joined([self._real(place) for place in places]),
            _joined([noise(sampling.NOISE_D, place) for place in places]),
            noise(sampling.NOISE_G, step),
            _joined([noise.uniform(sampling.MIX, place) for place in places])
            if self._mixes
            else None,
            _joined(self._augmented(step, places)) if self._chances else None,
        )

    def _augmented(self, step: int, places: range) -> list[Tensor]:
        of_d = product((sampling.AUGMENT_REAL, sampling.AUGMENT_FAKE), places)
        drawn = (*of_d, (sampling.AUGMENT_G, step))
        return [self._noise.uniform(*each, self._chances) for each in drawn]

    def _real(self, place: int) -> Tensor:
        images = self._feed(place)
        return images if self._flips is None else sampling.flipped(images, self._flips(place))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
