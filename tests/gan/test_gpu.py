"""What holds on a GPU: the numbers, no wait in the loop, resumption, several GANs at once."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from raygan.data.images import ImageSet
from raygan.errors import ConfigError
from raygan.gan import checkpoint, recorded
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig, choices
from raygan.gan.judge.final import final_test
from raygan.gan.judge.final_config import FinalConfig, SearchProtocol
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.recorded import WARM_UP, Recorded
from raygan.gan.state import TrainState
from raygan.gan.steps import STATISTICS, Game
from raygan.gan.train import Stack, train
from raygan.gan.workers import Workers

GPU = torch.device("cuda")
ITERATIONS = 50
SHAPE = (3, 16, 16)
TOLERANCES = {
    "fp32": {"dcgan": (5e-5, 5e-3), "resnet": (3e-3, 3e-2), "groups": (2e-2, 0.2)},
    "tf32": {"dcgan": (8e-3, 2e-2), "resnet": (2e-2, 5e-2), "groups": (5e-2, 0.4)},
    "bf16": {"dcgan": (2e-2, 4e-2), "resnet": (4e-2, 6e-2), "groups": (0.12, 0.4)},
}
"""Most mean difference of the losses from those in float64, in the first ten iterations and in
all, as a share of their mean size; two to four times the largest that was seen (H200, torch 2.11).
``groups``: a ResNet with layer or group norm, whose rounding errors grow fastest."""


def combinations() -> Iterator[dict[str, str]]:
    names = ("norm", "architecture", "loss", "update", "precision")
    for values in itertools.product(*(choices()[name] for name in names)):
        fields = dict(zip(names, values, strict=True))
        try:
            TrainConfig.of(**fields)
        except ConfigError:  # a combination that is refused
            continue
        yield fields


@pytest.fixture(scope="module")
def pictures() -> ImageSet:
    """120 smooth random images of 16×16 pixels."""
    rng = torch.Generator().manual_seed(5)
    coarse = torch.rand(120, 3, 4, 4, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")
    pixels = fine.mul(255).byte().permute(0, 2, 3, 1).contiguous()
    return ImageSet.of([pixels], torch.arange(20), torch.arange(20, 40), "digest", 0.05)


def config(**fields: Any) -> TrainConfig:
    defaults = {
        "features": 16,
        "code_size": 16,
        "batch_size": 16,
        "lr": 1e-4,
        "iterations": ITERATIONS,
        "evaluate_every": 20,
        "reconstruction_steps": 12,
        "seed": 3,
    }
    return TrainConfig.of(**{**defaults, **fields})


def curve(game: Game, update: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Losses of :data:`ITERATIONS` iterations on the same images and codes, [n, 2]."""
    rng = torch.Generator().manual_seed(7)
    play = getattr(game, update)
    found = torch.zeros(len(STATISTICS), device=device, dtype=dtype)

    def work(*given: Tensor | None) -> None:
        found.copy_(play(*given))

    iterate = Recorded(work, on_gpu=device.type == "cuda")
    losses = []
    for _ in range(ITERATIONS):
        real = torch.rand(16, *SHAPE, generator=rng).contiguous(memory_format=torch.channels_last)
        draw = real, *torch.randn(2, 16, 16, generator=rng), torch.rand(16, generator=rng)
        penalty = game.loss.name == "wgan-gp"
        given = [each.to(device, dtype) for each in draw[: 4 if penalty else 3]]
        iterate(*given, *([] if penalty else [None]))
        losses.append(found[:2].tolist())
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields", [pytest.param(one, id="-".join(one.values())) for one in combinations()]
)
def test_each_combination_trains_as_on_a_cpu_in_float64(fields: dict[str, str]):
    chosen = config(**fields)
    ours = TrainState.create(chosen, SHAPE, GPU)
    # networks in float64 on the CPU, with the same initial weights
    exact = TrainState.create(replace(chosen, precision="fp32"), SHAPE)
    for network, optimizer in (
        (exact.generator, exact.optimizer_g),
        (exact.discriminator, exact.optimizer_d),
    ):
        network.double()
        optimizer.param_groups[0]["params"] = list(network.parameters())
    with arithmetic(chosen.precision):
        found = curve(ours.game(Workers()), chosen.update, GPU, torch.float32)
    expected = curve(exact.game(Workers()), chosen.update, torch.device("cpu"), torch.float64)
    early, whole = differences(found, expected)
    groups = chosen.architecture == "resnet" and chosen.norm in ("ln", "gn")
    most_early, most = TOLERANCES[chosen.precision]["groups" if groups else chosen.architecture]
    assert early < most_early
    assert whole < most


def differences(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Mean differences of two curves, early and in all, as shares of the expected one's size."""
    difference = (found - expected).abs() / expected.abs().mean().clamp_min(0.1)
    return difference[:10].mean().item(), difference.mean().item()


def tensors(state: TrainState) -> list[Tensor]:
    saved = state.state_dict()
    found = [*saved["generator"].values(), *saved["discriminator"].values()]
    for name in ("optimizer_g", "optimizer_d"):
        found += [each for of in saved[name]["state"].values() for each in of.values()]
    return [each.detach().cpu() for each in found]


def same(one: TrainState, other: TrainState) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def trained(chosen: TrainConfig, pictures: ImageSet) -> tuple[TrainState, list[float]]:
    state = TrainState.create(chosen, pictures.shape, GPU)
    return state, [evaluation.loss for evaluation in train(chosen, pictures, state)]


GAMES: list[dict[str, Any]] = [
    {"norm": norm, "architecture": architecture, "precision": precision}
    for norm in ("wn", "bn")
    for architecture in ("dcgan", "resnet")
    for precision in ("fp32", "tf32", "bf16")
] + [
    {
        "optimizer": "adam",
        "ema": 0.9,
        "flip": True,
        "d_steps": 2,
        "warmup": 15,
        "lr_decay": "cosine",
        "r1": 1.0,
        "augment": "diffaugment",
    }
]


@pytest.mark.gpu
@pytest.mark.parametrize("fields", GAMES)
def test_the_graph_computes_what_its_kernels_compute_one_by_one(fields, pictures, monkeypatch):
    one, losses = trained(config(**fields), pictures)
    monkeypatch.setattr(recorded, "WARM_UP", 10**9)
    other, others = trained(config(**fields), pictures)
    assert losses == others
    assert same(one, other)


@pytest.mark.gpu
@pytest.mark.parametrize("fields", GAMES)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(fields, pictures, tmp_path: Path):
    chosen = config(**fields)
    whole, losses = trained(chosen, pictures)
    first = TrainState.create(chosen, pictures.shape, GPU)
    for evaluation in train(chosen, pictures, first):
        saved = checkpoint.save(first.state_dict(), tmp_path, evaluation.step)
        break
    second = TrainState.create(chosen, pictures.shape, GPU)
    second.load_state_dict(checkpoint.load(saved))
    assert [losses[0], *(e.loss for e in train(chosen, pictures, second))] == losses
    assert same(whole, second)


@pytest.mark.gpu
def test_several_at_once_have_the_numbers_of_each_alone(pictures: ImageSet):
    chosen = [config(seed=seed, lr=1e-4 * (1 + seed)) for seed in range(4)]
    alone = [trained(each, pictures) for each in chosen]
    together = [TrainState.create(each, pictures.shape, GPU) for each in chosen]
    losses: list[list[float]] = [[] for _ in chosen]
    for place, evaluation in Stack(list(zip(chosen, together, strict=True)), pictures):
        losses[place].append(evaluation.loss)
    assert losses == [expected for _, expected in alone]
    assert all(same(one, state) for (one, _), state in zip(alone, together, strict=True))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize("kept", [True, False], ids=["resident", "fed"])
@pytest.mark.parametrize("loss", choices()["loss"])
def test_an_iteration_does_not_wait_for_the_device(loss: str, kept: bool, pictures: ImageSet):
    chosen = config(loss=loss, ema=0.9, flip=True, warmup=8)
    state = TrainState.create(chosen, pictures.shape, GPU)
    stack = Stack([(chosen, state)], pictures, gpu_share=1.0 if kept else 0.0)
    (run,) = stack._runs
    run.begin(0.0)
    run.advance()  # takes memory
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3 * WARM_UP + 8):  # with what is recorded again after the warm-up
            run.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        run.wait()
    assert run._play._graph is not None


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", choices()["optimizer"])
def test_a_checkpoint_of_a_cpu_is_trained_on_by_a_gpu_and_back(optimizer, pictures, tmp_path):
    chosen = config(optimizer=optimizer, iterations=12, evaluate_every=4)
    devices = [torch.device("cpu"), GPU, torch.device("cpu")]
    saved, before = None, None
    losses = []
    for device in devices:
        state = TrainState.create(chosen, pictures.shape, device)
        if saved is not None and before is not None:
            state.load_state_dict(checkpoint.load(saved))
            assert same(state, before)
        before = state
        for evaluation in train(chosen, pictures, state):
            losses.append(evaluation.loss)
            saved = checkpoint.save(state.state_dict(), tmp_path, evaluation.step)
            break
    assert state.step == 12
    assert all(loss == loss for loss in losses)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", choices()["norm"])
def test_reconstruction_finds_what_a_cpu_finds_in_float64(norm: str, pictures: ImageSet):
    state = TrainState.create(config(norm=norm), pictures.shape)
    for _ in train(config(norm=norm), pictures, state):
        pass
    images = pictures.take(pictures.running)
    exact = copy.deepcopy(state.generator).double()
    on_gpu = copy.deepcopy(state.generator).to(GPU)
    expected = reconstruct_exactly(exact, images)
    found = reconstruct(on_gpu, 16, images, steps=40, batch_size=8)
    again = reconstruct(on_gpu, 16, images, steps=40, batch_size=8)
    torch.testing.assert_close(found.losses.double(), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.losses, again.losses)


def reconstruct_exactly(generator: torch.nn.Module, images: Tensor) -> Tensor:
    generator.eval()
    target = images.double() / 255
    codes = torch.zeros(len(images), 16, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([codes], lr=0.01, alpha=0.9, eps=1e-6)
    for _ in range(40):
        optimizer.zero_grad()
        (generator(codes) - target).square().sum().backward()
        optimizer.step()
    return (generator(codes) - target).square().mean((1, 2, 3)).detach()


@pytest.mark.gpu
def test_the_final_test_runs_there(pictures: ImageSet):
    state, _ = trained(config(), pictures)
    chosen = FinalConfig(steps=50, images=20, restarts=2, audited=10)
    images = pictures.take(pictures.final)
    found = final_test(state.generator, 16, images, chosen, seed=1)
    parts = final_test(state.generator, 16, images, chosen, seed=1, batch_size=7)
    torch.testing.assert_close(found.losses, parts.losses, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.restarts, parts.restarts, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(found.ball_losses, parts.ball_losses, rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("protocol", get_args(SearchProtocol))
def test_codes_kept_within_a_radius_there_are_those_of_a_cpu(
    protocol: SearchProtocol, pictures: ImageSet
):
    state = TrainState.create(config(), pictures.shape)
    images = pictures.take(pictures.running)
    cpu, gpu = (
        reconstruct(
            copy.deepcopy(state.generator).to(device), 16, images, steps=40, protocol=protocol,
            radius=0.3,
        )
        for device in (torch.device("cpu"), GPU)
    )  # fmt: skip
    torch.testing.assert_close(gpu.losses, cpu.losses, rtol=1e-3, atol=1e-5)
    assert gpu.codes.norm(dim=1).max() <= 0.3 * (1 + 1e-5)


def _train_on_half(queue: Any, pictures: ImageSet) -> None:
    chosen = config()
    state = TrainState.create(chosen, pictures.shape, GPU)
    queue.put([evaluation.loss for evaluation in train(chosen, pictures, state, gpu_share=0.5)])


@pytest.mark.gpu
def test_two_processes_share_a_gpu(pictures: ImageSet):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_train_on_half, args=(queue, pictures)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    _, alone = trained(config(), pictures)
    assert found == [alone, alone]


@pytest.mark.parametrize("norm", ["vanilla", "bn", "wn"])
@pytest.mark.parametrize("still", ["generator", "discriminator"])
def test_a_network_that_is_not_updated_would_be_noticed(norm: str, still: str):
    """On a CPU: the bounds are tight enough to tell."""
    cpu = torch.device("cpu")
    games = [TrainState.create(config(norm=norm), SHAPE).game(Workers()) for _ in range(2)]
    getattr(games[0], still).update = lambda _: None
    broken, right = (curve(game, "alternating", cpu, torch.float32) for game in games)
    assert differences(broken, right)[0] > TOLERANCES["fp32"]["dcgan"][0]
