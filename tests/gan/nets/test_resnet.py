"""Sizes, parameter counts and topology of the ResNet."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raygan.gan.config import TrainConfig, choices
from raygan.gan.nets import blocks
from raygan.gan.nets.architectures import build
from raygan.gan.nets.norms.group_norm import groups
from raygan.gan.nets.rectifiers import PReLU, TPReLU
from raygan.gan.nets.resnet import Block, widths

NORMS = pytest.mark.parametrize("norm", choices()["norm"])


def config(**fields) -> TrainConfig:
    return TrainConfig.of(architecture="resnet", **{"features": 2, "code_size": 3, **fields})


@pytest.mark.parametrize(
    ("norm", "count", "generator", "discriminator"),
    [
        ("wn", 1, 13_482_572, 10_194_498),
        ("wn", 2, 22_411_724, 19_123_650),
        ("vanilla", 1, 13_468_934, 10_193_153),
        ("bn", 1, 13_475_846, 10_200_961),
    ],
)
def test_parameter_counts_at_160_pixels(norm, count, generator, discriminator):
    with torch.device("meta"):
        built = build(config(norm=norm, features=64, code_size=256, blocks=count), (3, 160, 160))
    assert [sum(p.numel() for p in n.parameters()) for n in built] == [generator, discriminator]


def test_it_has_the_layers_and_widths_of_the_paper_at_160_pixels():
    with torch.device("meta"):
        _, network = build(config(features=64), (3, 160, 160))
    residues = [block.residue for block in network.layers]
    layers = [m for r in residues for m in r if hasattr(m, "effective_weight")]
    assert len(layers) + 1 == 21
    assert widths(64, 5) == [64, 128, 256, 384, 512]
    assert [layer.weight.shape[0] for layer in layers[::4]] == [64, 128, 256, 384, 512]


@settings(max_examples=20)
@given(
    st.sampled_from(choices()["norm"]),
    st.integers(1, 24).map(lambda half: 2 * half),
    st.integers(1, 24).map(lambda half: 2 * half),
    st.sampled_from([1, 3]),
    st.integers(1, 2),
)
def test_any_even_width_and_height(norm, height, width, channels, count):
    shape = (channels, height, width)
    generator, discriminator = build(config(norm=norm, blocks=count), shape)
    images = generator.eval()(torch.randn(2, 3))
    assert images.shape == (2, *shape)
    assert ((images >= 0) & (images <= 1)).all()
    assert discriminator.eval()(images).shape == (2,)


def names(modules: nn.Sequential) -> list[str]:
    return [type(module).__name__ for module in modules]


def test_blocks_of_the_weight_normalised_networks():
    generator, discriminator = build(config(norm="wn", blocks=1), (3, 16, 16))
    down, up, last = discriminator.layers[1], generator.layers[1], generator.layers[-1]
    conv, transposed = "WeightNormConv2d", "WeightNormConvTranspose2d"
    assert names(down.residue) == [conv, "TPReLU", conv]
    assert names(down.shortcut) == ["AvgPool2d", conv]
    assert names(up.residue) == [conv, "TPReLU", transposed]
    assert names(up.shortcut) == [conv, "Upsample"]
    assert names(down.after) == names(up.after) == ["TPReLU"]
    assert names(last.after) == ["ChannelAffine"]
    assert type(generator.layers[0]) is PReLU
    strict = [
        m for n in (generator, discriminator) for m in n.layers.modules() if hasattr(m, "_held")
    ]
    assert len(strict) == 2 * 2 * 3
    assert all(m.scale is None and m.bias is None for m in strict)
    assert all(n.linear.scale is not None for n in (generator, discriminator))
    assert generator.linear.weight.abs().max() <= 0.01 / 3**0.5


@pytest.mark.parametrize(("norm", "kind"), [("bn", "BatchNorm2d"), ("ln", "GroupNorm")])
def test_normalisation_stands_after_convolutions_but_not_next_to_images(norm, kind):
    generator, discriminator = build(config(norm=norm, blocks=1), (3, 16, 16))
    first, down = discriminator.layers
    *_, up, last = generator.layers
    assert names(down.residue) == ["Conv2d", kind, "PReLU", "Conv2d", kind]
    assert names(down.shortcut) == ["AvgPool2d", "Conv2d", kind]
    assert names(first.residue) == ["Conv2d", "PReLU", "Conv2d", kind]
    assert names(first.shortcut) == ["AvgPool2d", "Conv2d"]
    assert names(up.residue) == ["Conv2d", kind, "PReLU", "ConvTranspose2d", kind]
    assert names(up.shortcut) == ["Conv2d", kind, "Upsample"]
    assert not any(type(m).__name__ == kind for m in last.modules())
    assert (names(last.after), first.addition) == ([], None)


def test_a_weight_normalised_block_starts_as_its_shortcut():
    network = build(config(norm="wn", blocks=1), (3, 8, 8))[1]
    (block,) = network.layers
    assert isinstance(block, Block)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(block(x), block.after(block.shortcut(x)))


def test_the_addition_is_that_of_its_formula():
    addition = blocks.NormalizedAddition(3)
    assert addition.weight.tolist() == [[0.0] * 3, [1.0] * 3]
    addition.weight.data.copy_(torch.tensor([[3.0, -1.0, 0.5], [4.0, 1.0, 2.0]]))
    residue, shortcut = torch.randn(2, 2, 3, 4, 5)
    w, length = addition.weight, addition.weight.square().sum(0).sqrt()
    expected = torch.stack(
        [(w[0, c] * residue[:, c] + w[1, c] * shortcut[:, c]) / length[c] for c in range(3)], dim=1
    )
    torch.testing.assert_close(addition(residue, shortcut), expected)


@NORMS
def test_d_sees_images_from_minus_one_to_one(norm):
    _, network = build(config(norm=norm), (1, 8, 8))
    seen = []
    network.layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    network(images)
    assert torch.equal(seen[0], images * 2 - 1)


def test_rectifiers_after_an_addition_translate_by_themselves():
    network = build(config(norm="wn"), (1, 16, 16))[0]
    blocks_ = [layer for layer in network.layers if isinstance(layer, Block)]
    inner = [m for block in blocks_ for m in block.residue if isinstance(m, TPReLU)]
    outer = [m for block in blocks_ for m in block.after if isinstance(m, TPReLU)]
    assert all(m.translated for m in inner)
    assert not any(m.translated for m in outer)
    assert (len(inner), len(outer)) == (4, 3)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (4, 1),
        (16, 1),
        (31, 1),
        (32, 2),
        (48, 3),
        (64, 4),
        (512, 32),
        (4096, 32),
        (544, 32),
        (37, 1),
    ],
)
def test_groups_are_32_of_at_least_16_channels(channels, expected):
    assert groups(channels) == expected


@pytest.mark.parametrize("architecture", choices()["architecture"])
def test_spectral_norm_is_of_every_layer_of_d_and_of_none_of_g(architecture):
    fields = {"architecture": architecture, "norm": "sn", "features": 2, "blocks": 1}
    generator, discriminator = build(TrainConfig.of(**fields), (3, 16, 16))
    wanted = {
        name for name, m in discriminator.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    }
    constrained = {
        name.removesuffix(".parametrizations.weight.0._u")
        for name in discriminator.state_dict()
        if name.endswith("_u")
    }
    assert constrained == wanted
    assert len(wanted) == {"dcgan": 3, "resnet": 7}[architecture]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in discriminator.modules())
    assert not any(name.endswith("_u") for name in generator.state_dict())
    assert any(isinstance(m, nn.BatchNorm2d) for m in generator.modules())


def test_spectral_norm_leaves_a_largest_singular_value_of_one():
    torch.manual_seed(0)
    _, discriminator = build(TrainConfig(norm="sn", features=2), (3, 16, 16))
    for _ in range(100):
        weights = [
            m.weight for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)
        ]
    for weight in weights:
        largest = torch.linalg.matrix_norm(weight.flatten(1), ord=2)
        torch.testing.assert_close(largest, torch.tensor(1.0), atol=1e-3, rtol=0)
