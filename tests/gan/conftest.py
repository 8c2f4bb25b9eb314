"""Small networks and images on which the training core is tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from raygan import recipe
from raygan.data.images import ImageSet
from raygan.gan.config import TrainConfig
from raygan.gan.state import TrainState
from raygan.recipe import RecipeFile

SHAPE = (1, 16, 12)  # two levels, so that batch norm is in D too


def parametrized_norm(how: str) -> RecipeFile:
    """The norm ``both``: a parametrization of PyTorch by its name, of every layer of G and D."""
    text = (
        f"from torch.nn.utils.parametrizations import {how}\n"
        "from raygan.recipes import Norm\n"
        'class Both(Norm):\n    """Both."""\n    name = "both"\n'
    )
    for layer in ("convolution", "transposed_convolution", "linear"):
        text += (
            f"    def {layer}(self, *given, **more):\n"
            f"        return {how}(super().{layer}(*given, **more))\n"
        )
    return RecipeFile("both.py", text)


@pytest.fixture
def own_recipes() -> Iterator[Callable[[list[RecipeFile]], None]]:
    """Enters recipes from files, for one test."""
    yield recipe.use
    recipe.use([])


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks and tensors in double precision, where "equal" can mean equal."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def small() -> Callable[..., TrainConfig]:
    """A configuration that trains in milliseconds, with some fields replaced."""

    def make(**fields: object) -> TrainConfig:
        defaults: dict[str, object] = {
            "features": 4,
            "code_size": 6,
            "batch_size": 8,
            "lr": 1e-3,
            "iterations": 5,
            "evaluate_every": 2,
            "reconstruction_steps": 3,
            "seed": 11,
        }
        return TrainConfig.of(**{**defaults, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture
def fresh(small: Callable[..., TrainConfig]) -> Callable[..., TrainState]:
    """A fresh small training state, with some fields of its configuration replaced."""

    def make(**fields: object) -> TrainState:
        return TrainState.create(small(**fields), SHAPE)

    return make


@pytest.fixture(scope="session")
def images() -> ImageSet:
    """60 smooth random images of 16×12 pixels: 40 train, 13 running, 7 final."""
    rng = torch.Generator().manual_seed(5)
    coarse = torch.rand(60, 1, 3, 3, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")
    pixels = fine.mul(255).byte().permute(0, 2, 3, 1).contiguous()
    running, final = torch.randperm(60, generator=rng)[:20].split([13, 7])
    # two shards, that both hold some of every split
    return ImageSet.of(pixels.split([25, 35]), running, final, "digest", 0.05)
