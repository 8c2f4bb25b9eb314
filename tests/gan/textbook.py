"""The same game as in a textbook, slow and plain: what ours is compared with.

Networks with our parameters whose layers are composed of PyTorch's operations, and the loop of
the authors' code: the weights are normalised again at every forward pass, D judges real and fake
images in two calls, and D's loss is back-propagated through the fake images into G, whose
gradients are then thrown away.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygan.gan.nets import layers, rectifiers


class WeightNorm(nn.Module):
    """y = γ wᵀx / ‖w‖ + β, by scaling the weight or, as the authors do, the output."""

    def __init__(self, ours: layers._WeightNormalized, scaling: str):
        super().__init__()
        self.weight, self.scale, self.bias = ours.weight, ours.scale, ours.bias
        self.kind, self.scaling, self.share = type(ours), scaling, ours.share
        self.filter_dim, self.epsilon = ours.filter_dim, ours.epsilon
        self.stride = getattr(ours, "stride", 1)
        self.padding = getattr(ours, "padding", 0)

    def inverse_norm(self) -> Tensor:
        dims = [d for d in range(self.weight.dim()) if d != self.filter_dim]
        inverse = (self.weight.pow(2).sum(dims) / self.share + self.epsilon).rsqrt()
        return inverse if self.scale is None else inverse * self.scale

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.kind is layers.WeightNormLinear:
            return F.linear(x, weight)
        if self.kind is layers.WeightNormConv2d:
            return F.conv2d(x, weight, None, self.stride, self.padding)
        return F.conv_transpose2d(x, weight, None, self.stride, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        inverse = self.inverse_norm()
        if self.scaling == "weight":
            shape = [1] * self.weight.dim()
            shape[self.filter_dim] = -1
            y = self.apply_weight(x, self.weight * inverse.view(shape))
        else:
            y = self.apply_weight(x, self.weight)
            y = y * inverse.view(1, -1, *[1] * (y.dim() - 2))
        return y if self.bias is None else y + self.bias.view(1, -1, *[1] * (y.dim() - 2))


class Rectify(nn.Module):
    """PReLU_λ(x − α) + α in three passes."""

    def __init__(self, ours: rectifiers.PReLU):
        super().__init__()
        self.slope, self.shift = ours.slope, getattr(ours, "shift", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.shift is None:
            return F.prelu(x, self.slope)
        shift = self.shift.view(1, -1, 1, 1)
        return F.prelu(x - shift, self.slope) + shift


class Discriminator(nn.Module):
    def __init__(self, ours: nn.Module, scaling: str):
        super().__init__()
        self.layers = nn.Sequential(*(_plain(layer, scaling) for layer in ours.layers))
        self.linear = _plain(ours.linear, scaling)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.layers(images).permute(0, 2, 3, 1).flatten(1)).flatten()


class Generator(nn.Module):
    def __init__(self, ours: nn.Module, scaling: str):
        super().__init__()
        self.map_shape = ours.map_shape
        self.linear = _plain(ours.linear, scaling)
        self.layers = nn.Sequential(*(_plain(layer, scaling) for layer in ours.layers))

    def forward(self, codes: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(self.linear(codes).view(-1, *self.map_shape)))


def _plain(layer: nn.Module, scaling: str) -> nn.Module:
    if isinstance(layer, layers._WeightNormalized):
        return WeightNorm(layer, scaling)
    if isinstance(layer, (layers.Conv2d, layers.ConvTranspose2d)):
        layer.__class__ = type(layer).__base__  # PyTorch's own
    return Rectify(layer) if isinstance(layer, rectifiers.PReLU) else layer


class Game:
    """The textbook loop, on copies of our networks; parameters keep names, order and layout."""

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, loss: str, optimizer: str,
        lr: float, scaling: str = "weight", r1: float = 0.0,
    ):  # fmt: skip
        self.generator = Generator(copy.deepcopy(generator), scaling)
        self.discriminator = Discriminator(copy.deepcopy(discriminator), scaling)
        self.loss, self.r1 = loss, r1
        self.optimizer_g = self._optimizer(optimizer, self.generator, lr)
        self.optimizer_d = self._optimizer(optimizer, self.discriminator, lr)

    @staticmethod
    def _optimizer(name: str, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        if name == "adam":
            return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))
        return torch.optim.RMSprop(network.parameters(), lr=lr, alpha=0.9, eps=1e-6)

    def compare(self, logits: Tensor, truth: float, *, of_g: bool = False) -> Tensor:
        """Mean loss of ``logits`` that should say ``truth``: 1 for real, 0 for fake."""
        wanted, sign = torch.full_like(logits, truth), 2 * truth - 1
        if self.loss == "log":
            return F.binary_cross_entropy_with_logits(logits, wanted)
        if self.loss == "least-squares":
            return F.mse_loss(logits, wanted) / 2
        if self.loss == "wgan-gp" or of_g:
            return -sign * logits.mean()
        return F.hinge_embedding_loss(sign * logits, torch.full_like(logits, -1), margin=1)

    def penalty(self, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        """Mean over images, one by one, of 10 (‖∇D(x̂)‖ − 1)²."""
        total = torch.zeros(())
        for one, other, share in zip(real, fake, mix, strict=True):
            between = (share * one + (1 - share) * other).detach()[None].requires_grad_()
            (slope,) = torch.autograd.grad(self.discriminator(between), between, create_graph=True)
            total = total + 10 * (slope.flatten().dot(slope.flatten()).sqrt() - 1) ** 2
        return total / len(real)

    def r1_penalty(self, real: Tensor) -> Tensor:
        """Mean over real images, one by one, of γ/2 ‖∇D(x)‖²."""
        total = torch.zeros(())
        for one in real:
            image = one.detach()[None].requires_grad_()
            (slope,) = torch.autograd.grad(self.discriminator(image), image, create_graph=True)
            total = total + self.r1 / 2 * slope.flatten().dot(slope.flatten())
        return total / len(real)

    @staticmethod
    def clamp(network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, Rectify) and layer.shift is not None:
                layer.slope.data.clamp_(0, 1)

    def accuracies(self, real: Tensor, fake: Tensor) -> tuple[float, float]:
        if self.loss == "wgan-gp":
            ranked = (real > fake).double().mean().item()
            return ranked, ranked
        middle = 0.5 if self.loss == "least-squares" else 0.0
        return (real > middle).double().mean().item(), (fake < middle).double().mean().item()

    def step(
        self, real: Tensor, noise_d: Tensor, noise_g: Tensor, mix: Tensor | None = None
    ) -> tuple[float, ...]:
        """One iteration of D, then G; returns D's loss, G's loss and D's two accuracies."""
        self.optimizer_d.zero_grad()
        fake = self.generator(noise_d)
        logits_real, logits_fake = self.discriminator(real), self.discriminator(fake)
        loss_d = self.compare(logits_real, 1.0) + self.compare(logits_fake, 0.0)
        if mix is not None:
            loss_d = loss_d + self.penalty(real, fake, mix)
        if self.r1:
            loss_d = loss_d + self.r1_penalty(real)
        loss_d.backward()
        self.optimizer_d.step()
        self.clamp(self.discriminator)

        self.optimizer_g.zero_grad()
        logits = self.discriminator(self.generator(noise_g))
        loss_g = self.compare(logits, 1.0, of_g=True)
        loss_g.backward()
        self.optimizer_g.step()
        self.clamp(self.generator)
        return loss_d.item(), loss_g.item(), *self.accuracies(logits_real, logits_fake)
