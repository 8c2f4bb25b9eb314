"""One training iteration against the textbook, and what it costs."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raygan.gan import steps
from raygan.gan.config import choices
from raygan.gan.steps import STATISTICS, Game
from raygan.gan.workers import Workers
from raygan.recipe import RecipeFile
from tests.bench import step as bench
from tests.gan import textbook
from tests.gan.conftest import parametrized_norm

NORMS = pytest.mark.parametrize("norm", choices()["norm"])
# a textbook holds no weights for several calls, and so has other power iterations; gn of so few
# channels is ln
PLAIN = sorted({*choices()["norm"]} - {"sn", "gn"})
PLAIN_NORMS = pytest.mark.parametrize("norm", PLAIN)
SIMULTANEOUS_LOSS = pytest.mark.parametrize(
    "loss", [loss for loss in choices()["loss"] if loss != "wgan-gp"]
)

BATCH, CODE, SHAPE = 8, 6, (1, 16, 12)  # as in conftest.py


def batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(step)
    real = torch.rand(BATCH, *SHAPE, generator=rng)
    return real, *torch.randn(2, BATCH, CODE, generator=rng).unbind()


@pytest.fixture
def game(fresh):
    """A small game in double precision whose networks are past their first steps."""

    def make(**fields) -> Game:
        state = fresh(**fields)
        state.generator.double()
        state.discriminator.double()
        return state.game(Workers())

    return make


def networks(game) -> list[torch.nn.Module]:
    if isinstance(game, textbook.Game):
        return [game.generator, game.discriminator]
    return [game.generator.network, game.discriminator.network]


def mixture(step: int, loss: str) -> list[Tensor]:
    """Where a gradient penalty is taken, if there is one."""
    rng = torch.Generator().manual_seed(step + 100)
    return [torch.rand(BATCH, generator=rng)] if loss == "wgan-gp" else []


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("norm", "loss", "optimizer"),
    [
        (norm, loss, optimizer)
        for norm, loss in product(PLAIN, choices()["loss"])
        for optimizer in (choices()["optimizer"] if loss == "log" else ("rmsprop",))
        if (norm, loss) != ("bn", "wgan-gp")
    ],
)
def test_alternating_equals_the_textbook_loop_step_for_step(game, norm, loss, optimizer):
    ours = game(norm=norm, loss=loss, optimizer=optimizer)
    plain = textbook.Game(*networks(ours), loss=loss, optimizer=optimizer, lr=1e-3)
    start = [parameter.clone() for network in networks(ours) for parameter in network.parameters()]
    for step in range(4):
        statistics = ours.alternating(*batch(step), *mixture(step, loss))
        expected = plain.step(*batch(step), *mixture(step, loss))
        torch.testing.assert_close(statistics.tolist(), list(expected), rtol=1e-9, atol=1e-12)
        for network, other in zip(networks(ours), networks(plain), strict=True):
            states, others = network.state_dict(), other.state_dict()
            assert list(states) == list(others)
            torch.testing.assert_close(states, others, rtol=1e-8, atol=1e-9)
    moved = [parameter for network in networks(ours) for parameter in network.parameters()]
    # all but biases that batch norm takes away again
    pairs = [(a, b) for a, b in zip(start, moved, strict=True) if a.dim() > 1]
    assert all((a - b).abs().max() > 1e-4 for a, b in pairs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("norm", "loss"), [("vanilla", "log"), ("wn", "log"), ("ln", "hinge")])
def test_the_r1_penalty_equals_the_textbook_step_for_step(game, norm, loss):
    ours, without = (game(norm=norm, loss=loss, r1=r1) for r1 in (5.0, 0.0))
    plain = textbook.Game(*networks(ours), loss=loss, optimizer="rmsprop", lr=1e-3, r1=5.0)
    for step in range(3):
        statistics = ours.alternating(*batch(step))
        expected = plain.step(*batch(step))
        torch.testing.assert_close(statistics.tolist(), list(expected), rtol=1e-9, atol=1e-12)
        for network, other in zip(networks(ours), networks(plain), strict=True):
            torch.testing.assert_close(
                network.state_dict(), other.state_dict(), rtol=1e-8, atol=1e-9
            )
        assert (statistics[0] - without.alternating(*batch(step))[0]).abs() > 1e-6


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", ["hinge", "wgan-gp"])
def test_two_updates_of_d_are_two_steps_of_d_before_one_of_g(game, loss):
    both, first, second = (game(norm="wn", loss=loss, d_steps=d_steps) for d_steps in (2, 1, 1))
    batches = [[*batch(step), *mixture(step, loss)] for step in range(2)]
    real, noise_d, _, *mix = (torch.cat(parts) for parts in zip(*batches, strict=True))
    statistics = both.alternating(real, noise_d, batches[1][2], *mix)
    # the first of the two without its update of G
    one = first.alternating(*batches[0])
    second.discriminator.network.load_state_dict(first.discriminator.network.state_dict())
    second.discriminator.optimizer.load_state_dict(first.discriminator.optimizer.state_dict())
    other = second.alternating(*batches[1])
    for ours, expected in zip(networks(both), networks(second), strict=True):
        torch.testing.assert_close(ours.state_dict(), expected.state_dict())
    means = (one + other) / 2
    means[1] = other[1]  # G was updated once
    torch.testing.assert_close(statistics, means)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("d_steps", [1, 2])
def test_weights_that_pytorch_normalises_in_both_networks_follow_each_update(
    game, own_recipes, monkeypatch, d_steps
):
    own_recipes([parametrized_norm("weight_norm")])
    ours, plain = (game(norm="both", d_steps=d_steps) for _ in range(2))
    for step in range(3):
        parts = [torch.cat([part] * d_steps) for part in batch(step)[:2]]
        statistics = ours.alternating(*parts, batch(step)[2])
        with monkeypatch.context() as patch:
            patch.setattr(steps, "held_weights", nullcontext)  # computed again at each call
            expected = plain.alternating(*parts, batch(step)[2])
        torch.testing.assert_close(statistics, expected)
        for network, other in zip(networks(ours), networks(plain), strict=True):
            torch.testing.assert_close(network.state_dict(), other.state_dict())


@pytest.mark.cluster  # compiling takes seconds
@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch's compiler's own making
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("norm", ["wn", "sn"])
def test_compiled_networks_play_the_same_game(game, monkeypatch, norm):
    # without the part that makes machine code, which takes a minute
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    ours, compiled = game(norm=norm), game(norm=norm, compile=True)
    for step in range(3):
        expected = ours.alternating(*batch(step))
        torch.testing.assert_close(compiled.alternating(*batch(step)), expected)
        for network, other in zip(networks(compiled), networks(ours), strict=True):
            torch.testing.assert_close(
                network.state_dict(), other.state_dict(), rtol=1e-8, atol=1e-9
            )


def spectral_vectors(network: torch.nn.Module, iterations: int) -> list[Tensor]:
    """The right vector of every σ after so many power iterations more, by hand."""
    state, found = network.state_dict(), []
    for name in [name for name in state if name.endswith("0._v")]:
        matrix, v = state[name.replace("0._v", "original")].flatten(1), state[name]
        for _ in range(iterations):
            u = torch.nn.functional.normalize(matrix @ v, dim=0)
            v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
        found.append(v.clone())
    return found


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("update", "loss", "phases"),
    [
        ("simultaneous", "least-squares", 1),
        ("alternating", "log", 2),
        ("alternating", "wgan-gp", 2),
    ],
)
def test_spectral_norm_has_one_power_iteration_however_often_d_judges(
    game, monkeypatch, update, loss, phases
):
    ours = game(norm="sn", loss=loss)
    for player in (ours.generator, ours.discriminator):
        monkeypatch.setattr(player, "update", lambda _: None)
    judge = ours.discriminator.network
    expected = spectral_vectors(judge, phases)
    assert len(expected) == 3  # two convolutions and the last layer
    getattr(ours, update)(*batch(0), *mixture(0, loss))
    torch.testing.assert_close(spectral_vectors(judge, 0), expected)
    assert not torch.allclose(expected[0], spectral_vectors(judge, 1)[0])


@pytest.mark.usefixtures("float64")
def test_alternating_clamps_the_slopes(game):
    ours = game(norm="wn", lr=10.0)
    for step in range(3):
        ours.alternating(*batch(step))
    slopes = torch.cat([*ours.generator.slopes, *ours.discriminator.slopes])
    assert slopes.min() >= 0
    assert slopes.max() <= 1
    assert ((slopes == 0) | (slopes == 1)).any()


Gradients = tuple[list[Tensor], list[Tensor]]


def separate_gradients(game: Game, real: Tensor, noise: Tensor) -> tuple[Gradients, Tensor]:
    """The gradients of D's and of G's loss, each by a backward pass of its own."""
    loss = game.loss
    g, d = networks(game)
    fake = g(noise)
    loss_d = (loss.real(d(real)) + loss.fake(d(fake.detach()))).sum() / len(real)
    loss_g = loss.generator(d(fake)).sum() / len(real)
    gradients_d = torch.autograd.grad(loss_d, list(d.parameters()), retain_graph=True)
    gradients_g = torch.autograd.grad(loss_g, list(g.parameters()))
    return (list(gradients_d), list(gradients_g)), torch.stack((loss_d, loss_g)).detach()


def assert_same_gradients(got: Gradients, expected: Gradients, tolerance: float) -> None:
    """To a tolerance that is relative to the largest gradient of the same player."""
    for ours, others in zip(got, expected, strict=True):
        largest = max(gradient.abs().max().item() for gradient in others)
        for gradient, other in zip(ours, others, strict=True):
            assert gradient.isfinite().all()
            torch.testing.assert_close(
                gradient, other, rtol=tolerance, atol=tolerance * largest + 1e-25
            )


@pytest.mark.usefixtures("float64")
@PLAIN_NORMS
@SIMULTANEOUS_LOSS
@pytest.mark.parametrize("certainty", [0.0, -50.0, 50.0, -90.0, 90.0])
def test_simultaneous_gradients_equal_those_of_two_passes(game, norm, loss, certainty):
    ours = game(norm=norm, loss=loss)
    real, noise, _ = batch(1)
    ours.discriminator.network.linear.bias.data.add_(certainty)
    expected, losses = separate_gradients(ours, real, noise)
    *gradients, statistics = ours.simultaneous_gradients(real, noise)
    torch.testing.assert_close(statistics[:2], losses)
    assert_same_gradients(gradients, expected, 1e-10)


OWN_BATCH_NORM = '''
import torch
from torch import nn
from raygan.gan.nets.dcgan import DCGAN
from raygan.recipes import Norm


class Layer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + 1e-5)
        return (x - mean) * scale + self.bias.view(1, -1, 1, 1)


class Own(Norm):
    """Batch norm, written out."""

    name = "own"

    @property
    def mixes_images(self):
        return True

    def normalisation(self, channels):
        return [Layer(channels)]


class Architecture(DCGAN):
    """The built-in one with batch norm, written out, for any norm."""

    name = "own"

    def generator(self, config, norm, shape):
        return super().generator(config, Own(), shape)

    def discriminator(self, config, norm, shape):
        return super().discriminator(config, Own(), shape)
'''


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("own", [{"norm": "own"}, {"norm": "bn", "architecture": "own"}])
def test_a_batch_norm_of_ones_own_trains_as_that_of_pytorch(game, own_recipes, update, own):
    own_recipes([RecipeFile("own.py", OWN_BATCH_NORM)])
    ours, expected = game(**own, update=update), game(norm="bn", update=update)
    for step in range(3):
        statistics = [getattr(each, update)(*batch(step)) for each in (ours, expected)]
        torch.testing.assert_close(*statistics)
    for network, other in zip(networks(ours), networks(expected), strict=True):
        for parameter, same in zip(network.parameters(), other.parameters(), strict=True):
            if parameter.dim() > 1:  # not the biases that batch norm takes away again
                torch.testing.assert_close(parameter, same)


def test_a_built_in_d_that_is_too_small_for_batch_norm_judges_all_images_together(game):
    assert not game(norm="bn", levels=1).discriminator.batch_statistics
    assert game(norm="bn").discriminator.batch_statistics


@SIMULTANEOUS_LOSS
@pytest.mark.parametrize("certainty", [-50.0, 50.0, -90.0])
def test_simultaneous_gradients_hold_in_single_precision_when_d_is_certain(fresh, loss, certainty):
    ours = fresh(norm="wn", loss=loss).game(Workers())
    real, noise, _ = batch(1)
    ours.discriminator.network.linear.bias.data.add_(certainty)
    expected, _ = separate_gradients(ours, real, noise)
    gradients_d, gradients_g, _ = ours.simultaneous_gradients(real, noise)
    assert_same_gradients((gradients_d, gradients_g), expected, 1e-4)
    if certainty < 0:  # G learns from a D that is certain that the images are fake
        assert max(gradient.abs().max() for gradient in gradients_g) > 1e-4


@pytest.mark.usefixtures("float64")
@PLAIN_NORMS
def test_simultaneous_updates_both_players_from_the_same_networks(game, norm):
    ours = game(norm=norm)
    real, noise, unused = batch(2)
    expected, _ = separate_gradients(ours, real, noise)
    ours = game(norm=norm)  # fresh again: the passes above moved the running statistics
    statistics = ours.simultaneous(real, noise, unused)
    players = (ours.discriminator, ours.generator)
    got = [[parameter.grad for parameter in player.parameters] for player in players]
    assert_same_gradients(got, expected, 1e-10)
    assert statistics.shape == (len(STATISTICS),)


@pytest.mark.usefixtures("float64")
def test_accuracies_count_the_images_that_d_judges_right(game):
    ours = game(norm="vanilla")
    ours.discriminator.network.linear.bias.data.fill_(50.0)  # "all are real"
    assert ours.alternating(*batch(0))[2:].tolist() == [1.0, 0.0]


@pytest.mark.usefixtures("float64")
def test_gradient_norm_is_that_of_the_last_update(game):
    ours = game(norm="wn")
    ours.alternating(*batch(0))
    for player in (ours.generator, ours.discriminator):
        flat = torch.cat([parameter.grad.flatten() for parameter in player.parameters])
        torch.testing.assert_close(player.gradient_norm(), flat.norm())


class CountFlops(TorchDispatchMode):
    """FlopCounterMode without its hooks on modules, which `autograd.grad` does not support."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def flops(function, *arguments) -> int:
    with CountFlops() as counter:
        function(*arguments)
    return counter.total


def pass_costs(game: Game) -> tuple[int, int, int, int]:
    """Of a pass of one batch through G, D, G's linear layer and D's first layer."""
    g, d = networks(game)
    real, noise, _ = batch(0)
    parts = ((g, noise), (d, real), (g.linear, noise), (d.layers[0], real))
    with torch.no_grad():
        return tuple(flops(*part) for part in parts)


@NORMS
def test_alternating_takes_twelve_passes(fresh, norm):
    ours = fresh(norm=norm).game(Workers())
    g, d, linear, first = pass_costs(ours)
    # G: two forward, one backward; D: three forward, two backward, one to its input only.
    # Nobody asks for the gradient of the codes, nor D's update for that of the images.
    expected = (2 + 2) * g - linear + (3 + 4 + 1) * d - 2 * first
    assert flops(ours.alternating, *batch(0)) == expected


@NORMS
@SIMULTANEOUS_LOSS
def test_simultaneous_takes_nine_passes_where_one_backward_serves_both(fresh, norm, loss):
    ours = fresh(norm=norm, loss=loss).game(Workers())
    g, d, linear, _ = pass_costs(ours)
    expected = (1 + 2) * g - linear + (2 + 4) * d
    if norm == "bn" or loss != "log":
        # D once more, to the fake images, but not to the real ones. A Function cannot tell which
        # of its gradients `autograd.grad` wants: that of D's first layer, to both, is found twice.
        expected += d
    assert flops(ours.simultaneous, *batch(0)) == expected


def test_the_textbook_loop_takes_fifteen_passes(fresh):
    ours = fresh(norm="vanilla").game(Workers())
    g, d, linear, first = pass_costs(ours)
    plain = textbook.Game(*networks(ours), loss="log", optimizer="rmsprop", lr=1e-3)
    expected = (2 + 2 * 2) * g - 2 * linear + (3 + 2 * 3) * d - first
    assert flops(plain.step, *batch(0)) == expected


@pytest.mark.cluster  # seven rounds of it
@NORMS
def test_the_benchmark_plays_every_norm(norm, monkeypatch, capsys):
    arguments = [
        "--features",
        "2",
        "--size",
        "8",
        "--code-size",
        "3",
        "--batch",
        "2",
        "--norms",
        norm,
    ]
    monkeypatch.setattr("sys.argv", ["step.py", *arguments, "--rounds", "1", "--steps", "1"])
    bench.main()
    printed = capsys.readouterr().out
    assert all(f"{norm} {update} " in printed for update in choices()["update"])


@pytest.mark.usefixtures("float64")
def test_g_makes_its_images_while_the_workers_exchange_the_gradients_of_d(game, monkeypatch):
    ours = game(norm="wn", d_steps=2)
    (real, noise_d, noise_g), (more, noise_more, _) = batch(0), batch(1)
    events: list[str] = []

    def summing(tensors, like):
        events.append(f"begin {len(like)}")
        return lambda: events.append("end") or tensors

    monkeypatch.setattr(ours.workers, "summing", summing)
    ours.generator.network.register_forward_hook(lambda *_: events.append("images"))
    ours.discriminator.network.register_forward_hook(lambda *_: events.append("judged"))
    ours.alternating(torch.cat((real, more)), torch.cat((noise_d, noise_more)), noise_g)
    d, g = (len(p.parameters) for p in (ours.discriminator, ours.generator))
    update = ["images", "judged", f"begin {d}"]
    assert events == [
        *update, "images", "end", "judged", f"begin {d}", "images", "end", "judged", f"begin {g}", "end",
    ]  # fmt: skip
