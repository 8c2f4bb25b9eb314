"""With a preset, raygan computes what the authors' published code computes.

What is written out here are the formulas of their files, applied to the parameters of our networks:
``modules/WeightNormalizedConv.py``, ``WeightNormalizedLinear.py``, ``WeightNormalizedAddition.py``,
``TPReLU.py``, ``Affine.py``, and the loops of ``main.py`` (docs/method/authors.md names the
commits).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygan.gan.config import TrainConfig
from raygan.gan.nets import layers, rectifiers, resnet
from raygan.gan.nets.blocks import ChannelAffine, NormalizedAddition
from raygan.gan.state import TrainState
from raygan.gan.steps import Game
from raygan.gan.workers import Workers
from raygan.sweep.spec.presets import PRESETS

SMALL = {"features": 4, "code_size": 6}
SHAPE, BATCH = (3, 16, 12), 8


def config(preset: str, **changes: object) -> TrainConfig:
    values = {**PRESETS[preset], **SMALL, **changes}
    if not str(values.get("norm", "wn")).startswith("wn"):
        values.pop("norm_epsilon", None)
    return TrainConfig.of(**values)


Root = Callable[[Tensor], Tensor]
"""The norm of weights, from its square: where ε stands."""
ROOTS: dict[str, Root] = {
    "authors-dcgan": lambda squared: (squared + 1e-6).sqrt(),
    "authors-resnet": lambda squared: squared.sqrt() + 1e-8,
}


def ours(squared: Tensor) -> Tensor:
    return (squared + 1e-12).sqrt()


def apply(module: nn.Module, x: Tensor, root: Root) -> Tensor:
    """``module`` as their files have it."""
    if isinstance(module, nn.Sequential):
        for each in module:
            x = apply(each, x, root)
        return x
    if isinstance(module, layers._WeightNormalized):
        return weight_normalized(module, x, root)
    if isinstance(module, rectifiers.PReLU):
        slope = module.slope.clamp(0, 1)
        if (shift := getattr(module, "shift", None)) is None:
            return F.prelu(x, slope)
        shift = shift.view(1, -1, 1, 1)
        return F.prelu(x - shift, slope) + shift
    if isinstance(module, resnet.Block):
        residue, shortcut = apply(module.residue, x, root), apply(module.shortcut, x, root)
        return apply(module.after, added(module.addition, residue, shortcut, root), root)
    if isinstance(module, ChannelAffine):
        return x * module.scale.view(1, -1, 1, 1) + module.bias.view(1, -1, 1, 1)
    return module(x)


def weight_normalized(layer: layers._WeightNormalized, x: Tensor, root: Root) -> Tensor:
    squared = layer.weight.pow(2)
    if isinstance(layer, layers.WeightNormLinear):
        y, squared = F.linear(x, layer.weight), squared.sum(1)
    elif isinstance(layer, layers.WeightNormConv2d):
        y = F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
        squared = squared.sum((1, 2, 3))
    else:
        y = F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding)
        squared = squared.sum((0, 2, 3)) / layer.stride / layer.stride
    shape = (1, -1) + (1,) * (y.dim() - 2)
    y = y / root(squared).view(shape)
    if layer.scale is not None:
        y = y * layer.scale.view(shape) + layer.bias.view(shape)
    return y


def added(addition: nn.Module | None, residue: Tensor, shortcut: Tensor, root: Root) -> Tensor:
    assert isinstance(addition, NormalizedAddition)
    norm = root(addition.weight.pow(2).sum(0))
    first, second = (addition.weight / norm).view(2, 1, -1, 1, 1)
    return residue * first + shortcut * second


class Theirs:
    """Copies of our networks, and their loops."""

    def __init__(self, game: Game, lr: float, epsilon: float, root: Root) -> None:
        self.root = root
        self.gen = copy.deepcopy(game.generator.network)
        self.dis = copy.deepcopy(game.discriminator.network)
        self.gen_opt, self.dis_opt = (
            torch.optim.RMSprop(network.parameters(), lr=lr, eps=epsilon, alpha=0.9)
            for network in (self.gen, self.dis)
        )

    def generate(self, codes: Tensor) -> Tensor:
        maps = apply(self.gen.linear, codes, self.root).view(-1, *self.gen.map_shape)
        return torch.sigmoid(apply(self.gen.layers, maps, self.root))

    def logits(self, images: Tensor) -> Tensor:
        maps = apply(self.dis.layers, images, self.root)
        return apply(self.dis.linear, maps.permute(0, 2, 3, 1).flatten(1), self.root).flatten()

    def dcgan_iteration(self, real: Tensor, noise_d: Tensor, noise_g: Tensor) -> None:
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
        self.dis_opt.zero_grad()
        F.binary_cross_entropy(self.logits(real).sigmoid(), ones).backward()
        F.binary_cross_entropy(self.logits(self.generate(noise_d)).sigmoid(), zeros).backward()
        self.dis_opt.step()
        self.gen_opt.zero_grad()
        F.binary_cross_entropy(self.logits(self.generate(noise_g)).sigmoid(), ones).backward()
        self.gen_opt.step()

    def resnet_iteration(self, real: Tensor, noise: Tensor, _: Tensor) -> None:
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
        self.gen_opt.zero_grad()
        fake = self.generate(noise)
        detached = fake.detach().requires_grad_()
        judged = self.logits(detached * 2 - 1)
        loss = F.binary_cross_entropy_with_logits(judged, ones)
        fake.backward(torch.autograd.grad([loss], [detached], retain_graph=True)[0])
        # their optimizer of G makes its step here, which D's gradients do not see
        self.dis_opt.zero_grad()
        F.binary_cross_entropy_with_logits(judged, zeros).backward()
        F.binary_cross_entropy_with_logits(self.logits(real * 2 - 1), ones).backward()
        self.gen_opt.step()
        self.dis_opt.step()


def batch(step: int, code_size: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    real = torch.rand(BATCH, *SHAPE, generator=rng)
    return real, *torch.randn(2, BATCH, code_size, generator=rng).unbind()


def played(preset: str, root: Root | None = None, **changes: object) -> float:
    """The largest difference, relative to the largest parameter, after three iterations."""
    asked = config(preset, **changes)
    state = TrainState.create(asked, SHAPE)
    state.generator.double()
    state.discriminator.double()
    game = state.game(Workers())
    wanted = PRESETS[preset]
    lr, epsilon = float(wanted["lr"]), float(wanted["epsilon"])
    theirs = Theirs(game, lr, epsilon, root or ROOTS[preset])
    for step in range(3):
        values = batch(step, asked.code_size)
        if preset == "authors-dcgan":
            game.alternating(*values)
            theirs.dcgan_iteration(*values)
        else:
            game.simultaneous(*values)
            theirs.resnet_iteration(*values)
    worst = 0.0
    for ours, other in ((game.generator, theirs.gen), (game.discriminator, theirs.dis)):
        for a, b in zip(
            ours.network.state_dict().values(), other.state_dict().values(), strict=True
        ):
            scale = max(1e-3, float(b.abs().max()))
            worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("norm", ["vanilla", "bn", "wn", "wn-affine"])
def test_an_iteration_of_the_dcgan_is_that_of_their_code(norm):
    assert played("authors-dcgan", norm=norm) < (1e-10 if norm == "bn" else 1e-12)


@pytest.mark.usefixtures("float64")
def test_an_iteration_of_the_resnet_is_that_of_their_code_but_for_epsilon():
    assert played("authors-resnet", ours) < 1e-9
    assert played("authors-resnet") < 1e-5


@pytest.mark.usefixtures("float64")
def test_without_their_epsilon_the_dcgan_is_not():
    assert played("authors-dcgan", norm="wn", norm_epsilon=1e-12) > 1e-6


@pytest.mark.parametrize(
    "change", [{"lr": 3e-5}, {"epsilon": 1e-4}, {"smoothing": 0.99}], ids=lambda c: next(iter(c))
)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("preset", PRESETS)
def test_with_another_optimizer_it_is_not(preset, change):
    assert played(preset, norm="wn", **change) > 1e-5


def networks(**changes: object) -> list[nn.Module]:
    state = TrainState.create(TrainConfig.of(features=16, code_size=16, **changes), (3, 32, 32))
    return [state.generator, state.discriminator]


@pytest.mark.parametrize("norm", ["vanilla", "bn", "wn", "wn-affine"])
def test_weights_begin_as_in_2017(norm):
    for network in networks(norm=norm, initialisation="pytorch-2017"):
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                scale = module.weight
                assert 0 <= scale.min() < 0.2 < 0.8 < scale.max() <= 1
                continue
            if not hasattr(module, "weight") or module.weight.dim() < 2:
                continue
            inputs = module.weight.shape[0 if _is_transposed(module) else 1]
            bound = 1 / math.sqrt(inputs * math.prod(module.weight.shape[2:]))
            if isinstance(module, layers.WeightNormLinear) and len(module.weight) > 1:
                bound *= 0.01  # the first layer of G
            assert 0.95 * bound < module.weight.abs().max() <= bound
            if module.bias is not None and len(module.weight) > 1 and _has_drawn_bias(module):
                assert 0.5 * bound < module.bias.abs().max() <= bound


def _has_drawn_bias(module: nn.Module) -> bool:
    """The convolutions and transposed convolutions of affine weight norm begin with 0."""
    drawn = not isinstance(module, layers._WeightNormalized)
    return drawn or isinstance(module, layers.WeightNormLinear)


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d | layers.WeightNormConvTranspose2d)


def test_by_default_weights_begin_as_in_pytorch_today():
    generator, _ = networks(norm="bn")
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
        elif isinstance(module, nn.ConvTranspose2d):
            outputs = module.weight.shape[1]
            assert module.weight.abs().max() > 0.95 / math.sqrt(outputs * 16)
