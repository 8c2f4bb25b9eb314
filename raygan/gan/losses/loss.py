"""What an adversarial loss is: three losses on logits, per sample."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from raygan.gan.part import Part


class Loss(Part):
    """The losses of D on real and fake images, and of G, each per sample."""

    boundary: ClassVar[float | None] = 0.0
    """The logit between "real" and "fake"; None: logits have a meaning only by comparison."""
    logistic: ClassVar[bool] = False
    """Whether the losses are softplus(∓logit), so that one backward pass through D gives the
    gradients of both networks (:meth:`raygan.gan.steps.Game.simultaneous_gradients`)."""

    @property
    def shares_backward(self) -> bool:
        """:attr:`logistic`, if the class says so itself: one that inherits it may change a loss."""
        return bool(vars(type(self)).get("logistic", False))

    @property
    def gradient_penalty(self) -> float:
        """Factor of :func:`raygan.gan.penalties.gradient_penalty` in D's loss; 0: there is none.

        Above 0, :func:`raygan.gan.penalties.check_penalty` holds for the configuration.
        """
        return 0.0

    def real(self, logits: Tensor) -> Tensor:
        """D's loss on real images: logits [N] → losses [N]."""
        raise NotImplementedError

    def fake(self, logits: Tensor) -> Tensor:
        """D's loss on fake images: logits [N] → losses [N]."""
        raise NotImplementedError

    def generator(self, logits: Tensor) -> Tensor:
        """G's loss on its images: D's logits [N] → losses [N]."""
        raise NotImplementedError

    def saturated(self, distance: float) -> float | None:
        """G's loss where D's logit of its images lies ``distance`` below zero; None if logits have
        no scale."""
        if self.boundary is None:
            return None
        return float(self.generator(torch.tensor([-distance])))
