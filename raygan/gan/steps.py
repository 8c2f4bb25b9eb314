"""One training iteration, in its two forms (arXiv 1704.03971, section 5.1).

Passes through a network per image (a forward is one, a backward one per kind of gradient, to
the weights or to the input): ``alternating`` takes 12, ``simultaneous`` 9; the textbook loop
that back-propagates D's fake loss into G takes 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raygan.gan.layers import constant, held_weights
from raygan.gan.losses import LOSSES
from raygan.gan.rectifiers import clamp_slopes, clamped_slopes
from raygan.gan.workers import Workers

CERTAIN = 1e-26
"""Least weight of a fake image in D's log loss when one backward serves both networks.

A weight of σ(D(G(z))) below this (D(G(z)) < −60) is raised to it, which changes no float32
gradient that an optimizer could tell from 0, so that G's gradient, which is that of D times
−σ(−D)/σ(D), is still found exactly when D is certain.
"""

STATISTICS = ("train/loss_d", "train/loss_g", "train/accuracy_real", "train/accuracy_fake")
"""What an iteration returns, in this order, each the mean over the global batch."""


@dataclass
class Player:
    """A network with what updates it."""

    network: nn.Module
    optimizer: Optimizer

    def __post_init__(self) -> None:
        self.parameters: list[nn.Parameter] = list(self.network.parameters())
        self.slopes = clamped_slopes(self.network)
        self.batch_statistics = any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules()
        )

    def update(self, gradients: Sequence[Tensor]) -> None:
        """One optimizer step along gradients that are summed over the workers."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        clamp_slopes(self.slopes)

    def gradient_norm(self) -> Tensor:
        """L2 norm of the last update's gradient; a scalar on the device."""
        return nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)


@dataclass
class Game:
    """Generator against discriminator, as one worker plays it."""

    generator: Player
    discriminator: Player
    loss: str
    workers: Workers

    def alternating(self, real: Tensor, noise_d: Tensor, noise_g: Tensor) -> Tensor:
        """D's update on ``real`` and G(``noise_d``), then G's update on G(``noise_g``).

        ``real``: float32 [n, C, H, W] in [0, 1]; noises: float32 [n, code_size]; n is this
        worker's share of the global batch. Returns the sums :data:`STATISTICS`, on the device.
        """
        loss = LOSSES[self.loss]
        batch = len(real) * self.workers.count
        g, d = self.generator, self.discriminator
        with held_weights(g.network):
            with torch.no_grad():
                fake = g.network(noise_d)
            logits_real, logits_fake = self._judge(real, fake, together=not d.batch_statistics)
            loss_d = (loss.real(logits_real).sum() + loss.fake(logits_fake).sum()) / batch
            gradients = torch.autograd.grad(loss_d, d.parameters)
            self.workers.sum_(*gradients)
            d.update(gradients)

            with constant(d.network):
                logits = d.network(g.network(noise_g))
            loss_g = loss.generator(logits).sum() / batch
            gradients = torch.autograd.grad(loss_g, g.parameters)
        self.workers.sum_(*gradients)
        g.update(gradients)
        return self._statistics(loss_d, loss_g, logits_real, logits_fake, batch)

    def simultaneous(self, real: Tensor, noise_d: Tensor, _: Tensor) -> Tensor:
        """Both updates from the same networks and the same fake images G(``noise_d``).

        Arguments and result as for :meth:`alternating`.
        """
        gradients_d, gradients_g, statistics = self.simultaneous_gradients(real, noise_d)
        self.workers.sum_(*gradients_d, *gradients_g)
        self.discriminator.update(gradients_d)
        self.generator.update(gradients_g)
        return statistics

    def simultaneous_gradients(
        self, real: Tensor, noise: Tensor
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor]:
        """This worker's part of the gradients of D's and of G's loss, and the statistics.

        Where images do not meet in D (no batch statistics), the gradient of the two log losses
        with respect to a fake image differ only by the factor −σ(−D)/σ(D), so that one backward
        pass through D serves both. That factor is unbounded for least squares, where D(G(z))
        may be 0 at any time: two passes there, as for batch norm.
        """
        loss = LOSSES[self.loss]
        batch = len(real) * self.workers.count
        g, d = self.generator, self.discriminator
        fake = g.network(noise)
        judged = fake.detach().requires_grad_()
        shared = self.loss == "log" and not d.batch_statistics
        logits_real, logits_fake = self._judge(real, judged, together=shared)
        loss_g = loss.generator(logits_fake).sum() / batch
        if shared:
            with torch.no_grad():
                weight_real = logits_real.neg().sigmoid_().div_(-batch)
                weight_fake = logits_fake.sigmoid().clamp_min_(CERTAIN)
                factor = logits_fake.neg().sigmoid_().neg_().div_(weight_fake)
                weight_fake.div_(batch)
                loss_d = (loss.real(logits_real).sum() + loss.fake(logits_fake).sum()) / batch
            *gradients_d, to_fake = torch.autograd.grad(
                (logits_real, logits_fake), [*d.parameters, judged], (weight_real, weight_fake)
            )
            to_fake = to_fake * factor.view(-1, 1, 1, 1)
        else:
            loss_d = (loss.real(logits_real).sum() + loss.fake(logits_fake).sum()) / batch
            (to_fake,) = torch.autograd.grad(loss_g, judged, retain_graph=True)
            gradients_d = list(torch.autograd.grad(loss_d, d.parameters))
        gradients_g = torch.autograd.grad(fake, g.parameters, to_fake)
        statistics = self._statistics(loss_d, loss_g, logits_real, logits_fake, batch)
        return gradients_d, gradients_g, statistics

    def _judge(self, real: Tensor, fake: Tensor, *, together: bool) -> tuple[Tensor, Tensor]:
        """D's logits on both; in one call only where batch statistics cannot mix them."""
        network = self.discriminator.network
        if not together:
            return network(real), network(fake)
        logits = network(torch.cat((real, fake)))
        return logits[: len(real)], logits[len(real) :]

    @staticmethod
    def _statistics(
        loss_d: Tensor, loss_g: Tensor, real: Tensor, fake: Tensor, batch: int
    ) -> Tensor:
        accuracies = ((real > 0).sum() / batch, (fake < 0).sum() / batch)
        return torch.stack((loss_d.detach(), loss_g.detach(), *accuracies))


Step = Callable[[Tensor, Tensor, Tensor], Tensor]
