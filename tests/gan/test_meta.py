"""A training step never waits for the device.

On PyTorch's meta device tensors have no values: each call that needs one on the host (`item`, `bool`,
`nonzero`, `cpu`), and on a GPU would wait for it, raises. `test_gpu.py` tests the same on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from raygan.gan.config import choices
from raygan.gan.state import TrainState
from raygan.gan.steps import STATISTICS
from raygan.gan.workers import Workers

META = torch.device("meta")
SHAPE = (1, 16, 12)  # as in conftest.py
GAMES = [
    (norm, architecture, loss, update)
    for norm, architecture, loss, update in product(
        *(choices()[key] for key in ("norm", "architecture", "loss", "update"))
    )
    if loss != "wgan-gp" or (norm != "bn" and update == "alternating")
]


def is_fast(place: int, norm: str, architecture: str, loss: str, update: str) -> bool:
    """Whether a game is among the fast tests; all of them take some seconds.

    Fast are: `wn` with each loss and update; each norm with the shared backward pass and with the
    gradient penalty; about one ResNet of each norm.
    """
    if architecture != "dcgan":
        return place % 6 == 0
    return norm == "wn" or loss == "wgan-gp" or (loss, update) == ("log", "simultaneous")


@pytest.fixture
def state(small) -> Callable[..., TrainState]:
    """A fresh training state without values."""

    def make(**fields: object) -> TrainState:
        return TrainState.create(small(**fields), SHAPE, META)

    return make


def play(state: TrainState) -> Tensor:
    """One iteration: both updates; the statistics."""
    config = state.config
    code, batch, of_d = config.code_size, config.batch_size, config.batch_size * config.d_steps
    given = [torch.empty(size, device=META) for size in ((of_d, *SHAPE), (of_d, code))]
    given += [torch.empty(batch, code, device=META)]
    mix = torch.empty(of_d, device=META) if config.loss == "wgan-gp" else None
    game = state.game(Workers())
    count = game.augmentation.chances
    chances = torch.empty(2 * of_d + batch, count, device=META) if count else None
    statistics: Tensor = getattr(game, config.update)(*given, mix, chances)
    state.advance()
    return statistics


@pytest.mark.parametrize(
    ("norm", "architecture", "loss", "update"),
    [
        pytest.param(*game, marks=() if is_fast(place, *game) else pytest.mark.cluster)
        for place, game in enumerate(GAMES)
    ],
)
def test_a_training_step_needs_no_value_on_the_host(state, norm, architecture, loss, update):
    fields = {"blocks": 1, "levels": 1} if architecture == "resnet" else {}
    played = state(norm=norm, architecture=architecture, loss=loss, update=update, **fields)
    statistics = play(played)
    assert (statistics.device, statistics.shape) == (META, (len(STATISTICS),))


@pytest.mark.parametrize(
    "fields", [{"optimizer": "adam"}, {"d_steps": 2}, {"ema": 0.9}, {"r1": 1.0}]
)
def test_optimizers_more_updates_of_d_averages_and_penalties_need_none_either(state, fields):
    assert play(state(**fields)).device == META


@pytest.mark.parametrize("augment", choices()["augment"])
@pytest.mark.parametrize("update", choices()["update"])
def test_an_augmentation_needs_none_either(state, augment, update):
    assert play(state(augment=augment, update=update)).device == META


@pytest.mark.parametrize(
    "reads",
    [
        lambda output: output.sum().item(),
        lambda output: bool((output > 0).all()),
        lambda output: output.tolist(),
        lambda output: output.cpu(),
        lambda output: output[output > 0],
    ],
    ids=["item", "bool", "tolist", "cpu", "nonzero"],
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_network_that_reads_a_value_is_refused(state, network, reads):
    played = state()

    def read(_module: object, _given: object, output: Tensor) -> None:
        reads(output)

    getattr(played, network).register_forward_hook(read)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        play(played)
