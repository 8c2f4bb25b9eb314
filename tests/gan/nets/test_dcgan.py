"""Sizes, shapes and parameter counts of the DCGAN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig, choices
from raygan.gan.nets.architectures import build
from raygan.gan.nets.layers import WeightNormLinear
from raygan.gan.nets.levels import plan_levels
from raygan.gan.nets.rectifiers import PReLU, TPReLU

NORMS = pytest.mark.parametrize("norm", choices()["norm"])


def generator_of(config: TrainConfig, shape: tuple[int, int, int]) -> torch.nn.Module:
    return build(config, shape)[0]


def discriminator_of(config: TrainConfig, shape: tuple[int, int, int]) -> torch.nn.Module:
    return build(config, shape)[1]


EVEN = st.integers(1, 40).map(lambda half: 2 * half)


@pytest.mark.parametrize(
    ("norm", "generator", "discriminator"),
    [
        ("vanilla", 17_726_339, 11_173_761),
        ("bn", 17_730_307, 11_177_601),
        ("wn", 17_701_766, 11_173_762),
    ],
)
def test_parameter_counts_at_160_pixels(norm, generator, discriminator):
    config = TrainConfig(norm=norm, code_size=256)
    with torch.device("meta"):
        built = generator_of(config, (3, 160, 160)), discriminator_of(config, (3, 160, 160))
    counts = [sum(p.numel() for p in network.parameters()) for network in built]
    assert counts == [generator, discriminator]
    assert len(plan_levels(160, 160, None)) == 5


@given(st.sampled_from(choices()["norm"]), EVEN, EVEN, st.sampled_from([1, 3]))
def test_any_even_width_and_height(norm, height, width, channels):
    config = TrainConfig(norm=norm, features=2, code_size=3)
    shape = (channels, height, width)
    images = generator_of(config, shape).eval()(torch.randn(2, 3))
    assert images.shape == (2, *shape)
    assert ((images >= 0) & (images <= 1)).all()
    logits = discriminator_of(config, shape).eval()(images)
    assert logits.shape == (2,)


def most_levels(side: int) -> int:
    """Halvings, each rounded up to an even side, until 2 is left; and one from 2 to 1."""
    return 1 if side == 2 else 1 + most_levels(side // 2 + side // 2 % 2)


@given(EVEN, EVEN, st.integers(1, 5))
@example(14, 14, 4)
def test_any_number_of_levels_that_fits(height, width, levels):
    config = TrainConfig(features=2, code_size=3, levels=levels)
    if levels > most_levels(max(height, width)):
        with pytest.raises(ConfigError, match="too many"):
            plan_levels(height, width, levels)
        return
    assert len(plan_levels(height, width, levels)) == levels
    images = generator_of(config, (1, height, width))(torch.randn(2, 3))
    assert images.shape == (2, 1, height, width)
    assert discriminator_of(config, (1, height, width))(images).shape == (2,)


def test_levels_bring_the_longer_side_below_eight():
    for side in range(8, 400, 2):
        assert 4 <= plan_levels(side, side, None)[-1].size[0] < 8, side
    assert plan_levels(6, 6, None)[-1].size == (3, 3)


@pytest.mark.parametrize(("height", "width"), [(31, 32), (32, 31), (1, 1), (0, 2)])
def test_odd_sizes_are_refused_with_the_remedy(height, width):
    with pytest.raises(ConfigError, match=rf"{height}×{width}.*even.*`dataset.size`"):
        plan_levels(height, width, None)


def test_too_many_levels_are_refused_with_the_most_that_fit():
    message = r"`levels` \(=9\) is too many for images of 32×32 pixels.*lower `levels` to at most 5"
    with pytest.raises(ConfigError, match=message):
        discriminator_of(TrainConfig(levels=9), (3, 32, 32))
    assert plan_levels(32, 32, 5)[-1].size == (1, 1)


@NORMS
def test_normalisation_stands_where_the_paper_puts_it(norm):
    config = TrainConfig(norm=norm, features=2)
    generator, discriminator = (
        [type(layer).__name__.removeprefix("Parametrized") for layer in network.layers]
        for network in (generator_of(config, (3, 32, 32)), discriminator_of(config, (3, 32, 32)))
    )
    wn = norm in ("wn", "wn-affine")
    conv, transposed = (
        ("WeightNormConv2d", "WeightNormConvTranspose2d") if wn else ("Conv2d", "ConvTranspose2d")
    )
    act = ["TPReLU" if norm == "wn" else "PReLU"]
    normalisation = {"bn": ["BatchNorm2d"], "ln": ["GroupNorm"], "gn": ["GroupNorm"]}
    normed = normalisation.get(norm, []) + act
    assert discriminator == [conv, *act, conv, *normed, conv, *normed]
    if norm == "sn":  # G's is batch norm
        normed = ["BatchNorm2d", *act]
    assert generator == [*normed, transposed, *normed, transposed, *normed, transposed]


@pytest.mark.parametrize(("norm", "affine"), [("wn", False), ("wn-affine", True)])
def test_only_the_last_weight_normalised_layers_are_affine_unless_asked(norm, affine):
    config = TrainConfig(norm=norm, features=2)
    for network in (generator_of(config, (3, 32, 32)), discriminator_of(config, (3, 32, 32))):
        *inner, last = [m for m in network.modules() if hasattr(m, "effective_weight")]
        assert last.scale is not None
        assert last.bias is not None
        assert len(inner) == 3
        assert all((m.scale is not None) is affine for m in inner)
        assert all((m.bias is not None) is affine for m in inner)


def test_rectifiers_start_at_a_quarter_and_unshifted():
    network = discriminator_of(TrainConfig(norm="wn", features=2), (3, 32, 32))
    rectifiers = [m for m in network.modules() if isinstance(m, PReLU)]
    assert all(isinstance(m, TPReLU) for m in rectifiers)
    assert all((m.slope == 0.25).all() and (m.shift == 0).all() for m in rectifiers)


def test_generator_of_the_wn_arm_starts_its_linear_layer_at_a_hundredth():
    generator = generator_of(TrainConfig(norm="wn", features=8, code_size=100), (3, 32, 32))
    assert isinstance(generator.linear, WeightNormLinear)
    largest = generator.linear.weight.abs().max().item()
    assert 0.0009 < largest <= 0.001  # 1/100 of 1/√100


@pytest.mark.parametrize("architecture", choices()["architecture"])
def test_the_discriminator_may_have_a_width_of_its_own(architecture):
    def sizes(**fields: int) -> list[int]:
        config = TrainConfig.of(architecture=architecture, code_size=3, **fields)
        return [sum(p.numel() for p in n.parameters()) for n in build(config, (1, 16, 16))]

    generator, discriminator = zip(sizes(features=2), sizes(features=5), strict=True)
    assert sizes(features=2, features_d=5) == [generator[0], discriminator[1]]
    assert sizes(features=2, features_d=2) == sizes(features=2)
