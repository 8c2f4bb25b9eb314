"""The contract that recipes are held to: built-in ones keep it, broken ones are told why not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raygan import recipe
from raygan.errors import ConfigError
from raygan.gan import contract
from raygan.gan.config import TrainConfig, choices
from raygan.recipe import RecipeFile
from tests.gan.conftest import parametrized_norm

SHAPE = (1, 16, 16)
CHECKS = dict(contract.ALL)
SHAPES, GRADIENTS, METRICS, MIXING, RESUMED, ALONE, UPDATED, MEANWHILE, TWO = CHECKS
ONE_PROCESS = tuple(check for check in contract.ALL if check[0] not in (TWO, MEANWHILE))

NORM = '''
import torch
from torch import nn
from raygan.recipes import Architecture, Metric, Norm


class Layer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.seen = 0
        {init}

    def forward(self, x):
        {forward}


class Mine(Norm):
    """A norm of mine."""

    name = "mine"

    def normalisation(self, channels):
        return [Layer(channels)]
'''
FORWARD_LINE = 15
ARCHITECTURE = '''
from torch import nn
from raygan.recipes import Architecture

class Flat(Architecture):
    """One layer."""

    name = "flat"

    def generator(self, config, norm, shape):
        return nn.Sequential({generator})

    def discriminator(self, config, norm, shape):
        return nn.Sequential({discriminator})

    def smallest_map(self, config, height, width):
        return height, width
'''
FAKE = "nn.Linear(config.code_size, 256), nn.Unflatten(1, (1, 16, 16)), nn.Sigmoid()"
REAL = "nn.Flatten(), nn.Linear(256, 1), nn.Flatten(0)"


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    recipe.use([])


def norm(forward: str, init: str = "pass") -> TrainConfig:
    """A configuration with an own norm, whose layer has these lines."""
    recipe.use([RecipeFile("mine.py", NORM.format(forward=forward, init=init))])
    return TrainConfig.of(norm="mine")


def architecture(generator: str = FAKE, discriminator: str = REAL) -> TrainConfig:
    text = ARCHITECTURE.format(generator=generator, discriminator=discriminator)
    recipe.use([RecipeFile("flat.py", text)])
    return TrainConfig.of(architecture="flat", norm="vanilla")


def hold(config: TrainConfig, *names: str) -> None:
    checks = tuple((name, CHECKS[name]) for name in names)
    assert list(contract.checked(config, SHAPE, checks)) == list(names)


@pytest.mark.parametrize(
    "values",
    [
        {"norm": "vanilla"},
        {"norm": "bn", "architecture": "resnet"},
        {"norm": "wn", "update": "simultaneous"},
        {"norm": "sn", "loss": "hinge", "d_steps": 2},
    ],
)
def test_built_in_recipes_keep_the_contract(values) -> None:
    names = [name for name, _ in ONE_PROCESS]
    assert list(contract.checked(TrainConfig.of(**values), SHAPE, ONE_PROCESS)) == names


def test_own_recipes_that_are_right_keep_the_contract() -> None:
    contract.check(norm("return x * self.scale"), SHAPE)
    contract.check(architecture(), SHAPE)


@pytest.mark.parametrize(
    ("generator", "discriminator", "message"),
    [
        (FAKE.replace("1, 16, 16", "1, 8, 32"), REAL, r"makes \[3, 1, 8, 32\] .* not \[3, 1, 16"),
        (FAKE, REAL.replace(", nn.Flatten(0)", ""), r"returns \[3, 1\] for 3 images, not \[3\]"),
        (FAKE.replace("Sigmoid", "Tanh"), REAL, r"the generator's images are in \[-.*not \[0, 1\]"),
        (
            FAKE.replace("Sigmoid()", "Threshold(9, float('nan'))"),
            REAL,
            "fresh networks return numbers that are not finite",
        ),
    ],
)
def test_wrong_shapes_and_ranges_are_refused(generator, discriminator, message) -> None:
    config = architecture(generator, discriminator)
    with pytest.raises(ConfigError, match=message):
        contract.check(config, SHAPE)


def test_a_parameter_without_a_gradient_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the generator's parameter .*scale has no gradient"):
        hold(norm("return x"), GRADIENTS)
    with pytest.raises(ConfigError, match=r"the losses of the first iteration are not finite"):
        hold(norm("return x * self.scale / 0"), GRADIENTS)


def test_state_that_is_no_buffer_is_refused() -> None:
    config = norm("self.seen += 1; return x * self.scale * self.seen")
    hold(config, SHAPES, GRADIENTS)
    with pytest.raises(ConfigError, match=r"differs from an uninterrupted one .* or a buffer"):
        hold(config, RESUMED)
    counted = "self.register_buffer('count', torch.zeros(()))"
    hold(norm("self.count.add_(1); return x * self.scale * self.count.clone()", counted), RESUMED)


@pytest.mark.parametrize(
    "forward",
    ["return (x - x.mean()) * self.scale", "return x * self.scale * x.abs().mean(0, keepdim=True)"],
)
def test_a_batch_that_mixes_images_in_eval_mode_is_refused(forward: str) -> None:
    with pytest.raises(ConfigError, match=r"in eval mode, the generator's output depends on the"):
        hold(norm(forward), ALONE)


def test_what_is_kept_of_old_parameters_is_refused() -> None:
    kept = "self.kept = getattr(self, 'kept', self.scale.detach() * 2); return x * self.scale"
    with pytest.raises(ConfigError, match=r"D still judges with what was computed from its old"):
        hold(norm(f"{kept} * self.kept"), UPDATED)
    hold(norm("return x * self.scale"), UPDATED)


@pytest.mark.parametrize("d_steps", [1, 2])
@pytest.mark.parametrize("how", ["spectral_norm", "weight_norm"])
def test_parametrizations_of_pytorch_in_both_networks_keep_the_contract(how, d_steps) -> None:
    recipe.use([parametrized_norm(how)])
    config = TrainConfig.of(norm="both", d_steps=d_steps)
    names = [name for name, _ in ONE_PROCESS]
    assert list(contract.checked(config, SHAPE, ONE_PROCESS)) == names


@pytest.mark.parametrize(
    "forward",
    [
        "return x * self.scale * x.abs().max().item()",
        "return x * self.scale if x.max() > 0 else x * 2 * self.scale",
        "return x * self.scale + float(x.detach().mean())",
    ],
)
def test_reading_values_on_the_host_is_refused(forward: str) -> None:
    config = norm(forward)
    hold(config, SHAPES, GRADIENTS)
    with pytest.raises(ConfigError, match=r"a training step reads a value back to the host"):
        hold(config, MEANWHILE)
    hold(norm("return x * self.scale"), MEANWHILE)


@pytest.mark.cluster  # starts processes
def test_statistics_over_the_batch_of_one_worker_are_refused() -> None:
    own = "return x * self.scale / (1 + x.abs().mean((0, 2, 3), keepdim=True))"
    with pytest.raises(ConfigError, match=r"two workers train another generator than one: its "):
        hold(norm(own), TWO)
    hold(norm("return x * self.scale"), TWO)


@pytest.mark.cluster  # starts processes
def test_an_error_that_comes_with_two_workers_only_names_its_line() -> None:
    config = norm("torch.distributed.is_initialized() and x.nothing; return x * self.scale")
    with pytest.raises(ConfigError, match=rf"with two workers: mine.py:{FORWARD_LINE}: Attr"):
        hold(config, TWO)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("return x.nothing", "AttributeError: 'Tensor' object has no attribute 'nothing'"),
        ("return x + torch.ones(7, 5, 3)", "RuntimeError: The size of tensor"),
    ],
)
def test_an_error_names_file_and_line(forward: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mine.py:{FORWARD_LINE}: {message}"):
        contract.check(norm(forward), SHAPE)


def test_a_missing_method_is_named() -> None:
    config = architecture()
    text = ARCHITECTURE.format(generator=FAKE, discriminator=REAL)
    recipe.use([RecipeFile("flat.py", text.replace("discriminator", "discriminate"))])
    with pytest.raises(ConfigError, match=r"a method is missing: Architecture.discriminator"):
        contract.check(config, SHAPE)


def test_a_metric_with_two_values_for_the_same_images_is_refused() -> None:
    metric = '''
import itertools
from raygan.recipes import Metric

COUNT = itertools.count()

class Counting(Metric):
    """Counts."""

    name = "counting"

    def measure(self, samples, images):
        return next(COUNT)
'''
    recipe.use([RecipeFile("counting.py", metric)])
    with pytest.raises(ConfigError, match=r"a metric has two values for the same images"):
        hold(TrainConfig(), METRICS)


def test_a_norm_that_mixes_images_must_say_so() -> None:
    config = norm("return (x - x.mean()) * self.scale")
    with pytest.raises(ConfigError, match=r"let its property `mixes_images` return True"):
        hold(config, MIXING)
    hold(norm("return x * self.scale"), MIXING)


def test_networks_that_need_a_width_are_tried_with_that_of_the_sweep() -> None:
    text = (
        "from torch import nn\nfrom raygan.recipes import Norm\n"
        'class Wide(Norm):\n    """Wide."""\n    name = \'wide\'\n'
        "    def normalisation(self, channels):\n        return [nn.GroupNorm(12, channels)]\n"
    )
    recipe.use([RecipeFile("wide.py", text)])
    contract.check(TrainConfig.of(norm="wide", features=12), (1, 8, 8))


@pytest.mark.parametrize("architecture", choices()["architecture"])
@pytest.mark.parametrize("built_in", choices()["norm"])
def test_built_in_norms_say_rightly_whether_they_mix_images(built_in, architecture) -> None:
    hold(TrainConfig(norm=built_in, architecture=architecture), MIXING)
