"""One training iteration, in its two forms (arXiv 1704.03971, section 5.1).

Passes through a network per image (a forward is one, a backward one per kind of gradient, to
the weights or to the input), with one update of D and without a penalty on its slope:
``alternating`` takes 12, ``simultaneous`` 9; the textbook loop that back-propagates D's fake loss
into G takes 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from raygan.gan.augmentations.augmentation import Augmentation
from raygan.gan.augmentations.none import NoAugmentation
from raygan.gan.losses.loss import Loss
from raygan.gan.nets.layers import constant, held_weights
from raygan.gan.nets.rectifiers import clamp_slopes, clamped_slopes
from raygan.gan.penalties import gradient_penalty, r1_penalty
from raygan.gan.workers import Workers

_MOST_PROGRAMS = 256
"""Compiled programs of one function, after which PyTorch would run it uncompiled."""

LEAST_WEIGHT = 1e-26
"""Least weight of a fake image in D's log loss when one backward serves both networks.

A weight of σ(D(G(z))) below this (D(G(z)) < −60) is raised to it, which changes no float32
gradient that an optimizer could tell from 0, so that G's gradient, which is that of D times
−σ(−D)/σ(D), is still found exactly when D is certain.
"""

STATISTICS = ("train/loss_d", "train/loss_g", "train/accuracy_real", "train/accuracy_fake")
"""What an iteration returns, in this order, each the mean over the global batch and D's updates.

D's loss includes the penalties on its slope. An accuracy is the share of images on the right side
of the loss's boundary; where it has none (``wgan-gp``), both are the share of pairs, a real and a
fake image each, in which D ranks the real one higher.
"""


Update = Callable[[], None]
"""Finishes an update that has begun."""


@dataclass
class Player:
    """A network with what updates it."""

    network: nn.Module
    optimizer: Optimizer
    bf16: bool = False
    """Whether it is played in bfloat16 (autocast); its weights are not."""
    compiled: bool = False
    """Whether it is played by what ``torch.compile`` makes of it."""
    mixes_images: bool = False
    """Whether layers other than PyTorch's batch norm may mix the images of a batch."""

    def __post_init__(self) -> None:
        self.parameters: list[nn.Parameter] = list(self.network.parameters())
        self._forward: Callable[[Tensor], Tensor] = self.network
        self._step: Callable[[], object] = self.optimizer.step
        if self.compiled:
            # a program for each batch size: D sees real and fake images together or apart
            self._forward = torch.compile(self.network, dynamic=False)
            if self.parameters[0].is_cuda:
                # each GAN of a stack has two optimizers and so two programs
                limits = torch._dynamo.config
                limits.recompile_limit = max(limits.recompile_limit, _MOST_PROGRAMS)
                self._step = torch.compile(self.optimizer.step, dynamic=False)
        # A compiled network normalises its weights itself. Under spectral norm it may not: each
        # time would be one more power iteration.
        spectral = any(parametrize.is_parametrized(m) for m in self.network.modules())
        self._holds = spectral or not self.compiled
        self.slopes = clamped_slopes(self.network)
        self.batch_statistics = self.mixes_images or any(
            isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.network.modules()
        )

    def __call__(self, given: Tensor) -> Tensor:
        """The network's output for ``given``, of the dtype of its weights."""
        if not self.bf16:
            output: Tensor = self._forward(given)
            return output
        # one context per call: it keeps rounded weights, without a gradient if they were rounded
        # where none was wanted
        with torch.autocast(given.device.type, torch.bfloat16):
            rounded: Tensor = self._forward(given)
        return rounded.float()

    def held(self) -> AbstractContextManager[None]:
        """Within it the weights are normalised once, not at every call."""
        return held_weights(self.network) if self._holds else nullcontext()

    def update(self, gradients: Sequence[Tensor]) -> None:
        """One optimizer step along gradients that are summed over the workers."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self._step()
        clamp_slopes(self.slopes)

    def begin_update(self, gradients: Sequence[Tensor], workers: Workers) -> Update:
        """Begin an update along the sum of all workers' ``gradients``; what is returned makes it.

        Until that is called, the network is as it was.
        """
        sums = workers.summing(gradients, self.parameters)
        return lambda: self.update(sums())

    def gradient_norm(self) -> Tensor:
        """L2 norm of the last update's gradient; a scalar on the device."""
        return nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)


@dataclass
class Game:
    """Generator against discriminator, as one worker plays it."""

    generator: Player
    discriminator: Player
    loss: Loss
    workers: Workers
    d_steps: int = 1
    r1: float = 0.0
    """Factor of :func:`~raygan.gan.penalties.r1_penalty` in D's loss; only if alternating."""
    augmentation: Augmentation = field(default_factory=NoAugmentation)
    """Of every image that D is given. Penalties are on the slope at what D is given."""

    def alternating(
        self,
        real: Tensor,
        noise_d: Tensor,
        noise_g: Tensor,
        mix: Tensor | None = None,
        chances: Tensor | None = None,
    ) -> Tensor:
        """D's updates on ``real`` and G(``noise_d``), then G's update on G(``noise_g``).

        ``real``: float32 [d_steps · n, C, H, W] in [0, 1]; ``noise_d``: float32 [d_steps · n,
        code_size]; ``noise_g``: float32 [n, code_size]; ``mix``: float32 [d_steps · n] in [0, 1],
        where the gradient penalty is taken, if the loss has one; ``chances``: float32
        [(2 · d_steps + 1) · n, k] in [0, 1), of the augmentation, if there is one. n is this
        worker's share of the global batch. Returns the sums :data:`STATISTICS`, on the device.
        """
        loss = self.loss
        batch = len(noise_g) * self.workers.count
        g, d = self.generator, self.discriminator
        steps = self.d_steps
        mixes = [None] * steps if mix is None else mix.chunk(steps)
        *of_updates, of_g = self._chances(chances)
        of_real, of_fake = of_updates[:steps], of_updates[steps:]
        of_d: list[Tensor] = []
        finish_update: Update = _no_update
        with g.held():
            for part in zip(
                real.chunk(steps), noise_d.chunk(steps), mixes, of_real, of_fake, strict=True
            ):
                finish_update, figures = self._update_d(finish_update, loss, batch, *part)
                of_d.append(figures)
            fake = self._augmented(g(noise_g), of_g)
            finish_update()
            with constant(d.network), d.held():
                logits = d(fake)
            loss_g = loss.generator(logits).sum() / batch
            gradients = torch.autograd.grad(loss_g, g.parameters)
        g.begin_update(gradients, self.workers)()
        loss_d, *accuracies = torch.stack(of_d).mean(0).unbind()
        return torch.stack((loss_d, loss_g.detach(), *accuracies))

    def _update_d(
        self,
        finish_update: Update,
        loss: Loss,
        batch: int,
        real: Tensor,
        noise: Tensor,
        mix: Tensor | None,
        of_real: Tensor | None,
        of_fake: Tensor | None,
    ) -> tuple[Update, Tensor]:
        """One update of D, after ``finish_update`` of the one before.

        Returns what finishes this one, and D's loss and its two accuracies. What follows and does
        not use D hides the time in which the workers exchange its gradients.
        """
        g, d = self.generator, self.discriminator
        with torch.no_grad():
            real = self._augmented(real, of_real)
            fake = self._augmented(g(noise), of_fake)
        finish_update()
        if self.r1 > 0:
            real = real.detach().requires_grad_()
        with d.held():
            together = not d.batch_statistics and self.r1 == 0
            logits_real, logits_fake = self._judge(real, fake, together=together)
            total = loss.real(logits_real).sum() + loss.fake(logits_fake).sum()
            if self.r1 > 0:
                total = total + self.r1 * r1_penalty(logits_real, real).sum()
            if mix is not None:
                total = total + loss.gradient_penalty * gradient_penalty(d, real, fake, mix).sum()
            loss_d = total / batch
            gradients = torch.autograd.grad(loss_d, d.parameters)
        accuracies = _accuracies(loss, logits_real, logits_fake, batch)
        figures = torch.stack((loss_d.detach(), *accuracies))
        return d.begin_update(gradients, self.workers), figures

    def simultaneous(
        self,
        real: Tensor,
        noise_d: Tensor,
        _noise_g: Tensor,
        _mix: Tensor | None = None,
        chances: Tensor | None = None,
    ) -> Tensor:
        """Both updates from the same networks and the same fake images G(``noise_d``).

        Arguments and result as for :meth:`alternating`; ``d_steps`` is 1, and there is no penalty.
        """
        gradients_d, gradients_g, statistics = self.simultaneous_gradients(real, noise_d, chances)
        finish_d = self.discriminator.begin_update(gradients_d, self.workers)
        finish_g = self.generator.begin_update(gradients_g, self.workers)
        finish_d()
        finish_g()
        return statistics

    def simultaneous_gradients(
        self, real: Tensor, noise: Tensor, chances: Tensor | None = None
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor]:
        """This worker's part of the gradients of D's and of G's loss, and the statistics.

        Where images do not meet in D (no batch statistics), the gradient of the two log losses
        with respect to a fake image differ only by the factor −σ(−D)/σ(D), so that one backward
        pass through D serves both. That factor is unbounded for least squares, where D(G(z))
        may be 0 at any time: two passes there, as for batch norm.
        """
        loss = self.loss
        batch = len(real) * self.workers.count
        g, d = self.generator, self.discriminator
        of_real, of_fake, _ = self._chances(chances)
        real = self._augmented(real, of_real)
        fake = self._augmented(g(noise), of_fake)
        judged = fake.detach().requires_grad_()
        shared = loss.shares_backward and not d.batch_statistics
        with d.held():
            logits_real, logits_fake = self._judge(real, judged, together=shared)
            loss_g = loss.generator(logits_fake).sum() / batch
            if shared:
                with torch.no_grad():
                    weight_real = logits_real.neg().sigmoid_().div_(-batch)
                    weight_fake = logits_fake.sigmoid().clamp_min_(LEAST_WEIGHT)
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
        accuracies = _accuracies(loss, logits_real, logits_fake, batch)
        statistics = torch.stack((loss_d.detach(), loss_g.detach(), *accuracies))
        return gradients_d, gradients_g, statistics

    def _chances(self, chances: Tensor | None) -> Sequence[Tensor | None]:
        """Those of the real images of each update of D, of the fake ones, and of G's update."""
        parts = 2 * self.d_steps + 1
        return [None] * parts if chances is None else chances.chunk(parts)

    def _augmented(self, images: Tensor, chances: Tensor | None) -> Tensor:
        return images if chances is None else self.augmentation(images, chances)

    def _judge(self, real: Tensor, fake: Tensor, *, together: bool) -> tuple[Tensor, Tensor]:
        """D's logits on both; in one call only where batch statistics cannot mix them."""
        judge = self.discriminator
        if not together:
            return judge(real), judge(fake)
        logits = judge(torch.cat((real, fake)))
        return logits[: len(real)], logits[len(real) :]


def _no_update() -> None:
    pass


def _accuracies(loss: Loss, real: Tensor, fake: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """This worker's part of D's accuracy on real and on fake images, from their logits."""
    if loss.boundary is None:
        ranked = (real > fake).sum() / batch
        return ranked, ranked
    return (real > loss.boundary).sum() / batch, (fake < loss.boundary).sum() / batch
