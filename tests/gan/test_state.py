"""The training state: what is loaded goes on exactly as what was saved."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pytest
import torch

import raygan
from raygan.errors import CheckpointError, ConfigError
from raygan.gan import checkpoint
from raygan.gan.config import CORE, choices, fields
from raygan.gan.nets.norms import NORMS
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers

SHAPE = (1, 16, 12)


def play(state: TrainState, steps: range) -> None:
    game = state.game(Workers())
    for step in steps:
        rng = torch.Generator().manual_seed(step)
        real = torch.rand(8, *SHAPE, generator=rng)
        real = real.contiguous(memory_format=torch.channels_last)
        getattr(game, state.config.update)(real, *torch.randn(2, 8, 6, generator=rng))
        state.step += 1


def assert_equal(one: object, other: object) -> None:
    """Bit for bit, through all containers."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("norm", "optimizer", "update"),
    [
        *((norm, "rmsprop", "alternating") for norm in choices()["norm"]),
        *product(("bn", "wn"), choices()["optimizer"], choices()["update"]),
    ],
)
def test_save_load_step_equals_step(fresh, tmp_path, norm, optimizer, update):
    kept = fresh(norm=norm, optimizer=optimizer, update=update)
    play(kept, range(3))
    path = checkpoint.save(kept.state_dict(), tmp_path, kept.step)
    play(kept, range(3, 6))

    loaded = fresh(norm=norm, optimizer=optimizer, update=update)
    loaded.load_state_dict(checkpoint.load(path))
    assert loaded.step == 3
    play(loaded, range(3, 6))
    assert_equal(loaded.state_dict(), kept.state_dict())


def test_a_fresh_state_is_a_function_of_the_seed(fresh):
    torch.manual_seed(1)
    one = fresh(seed=4).state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert_equal(fresh(seed=4).state_dict(), one)
    assert torch.equal(torch.random.get_rng_state(), before)
    other = fresh(seed=5).state_dict()["generator"]["linear.weight"]
    assert not torch.equal(other, one["generator"]["linear.weight"])


def test_a_fresh_state_seeds_no_gpu(fresh, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("GPUs are seeded"))
    fresh(initialisation="pytorch-2017")


def test_a_fresh_state_has_no_best_yet(fresh):
    state = fresh()
    assert (state.step, state.best_step, state.best_loss) == (0, 0, math.inf)


OTHER = {
    "norm": "vanilla", "features": 5, "features_d": 5, "levels": 1, "code_size": 7, "latent": "uniform", "loss": "least-squares", "initialisation": "pytorch-2017",
    "update": "simultaneous", "optimizer": "adam", "lr": 2e-3, "lr_d": 3e-3, "lr_decay": "linear",
    "smoothing": 0.8, "epsilon": 1e-5, "weight_decay": 0.1, "warmup": 2, "warmup_factor": 0.5, "batch_size": 4,
    "flip": True, "d_steps": 2, "r1": 1.0, "augment": "diffaugment", "ema": 0.9, "precision": "tf32", "compile": True, "evaluate_every": 3, "quality": "wasserstein", "reconstruction_steps": 4, "seed": 12,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER)
def test_a_checkpoint_of_another_configuration_is_refused_by_field(fresh, name):
    saved = fresh(**{name: OTHER[name]}).state_dict()
    state = fresh()
    before = {key: value.clone() for key, value in state.generator.state_dict().items()}
    now = state.config.to_dict()[name]
    with pytest.raises(CheckpointError) as caught:
        state.load_state_dict(saved)
    assert f"{name} was {OTHER[name]!r}, is {now!r}" in str(caught.value)
    parameters = {"smoothing", "epsilon"} if name == "optimizer" else set()
    others = set(fields()) - parameters - {name}
    assert not any(f"{field} was" in str(caught.value) for field in others)
    assert_equal(dict(state.generator.state_dict()), before)


def test_every_field_but_two_was_tried():
    assert {*CORE, "smoothing", "epsilon"} - set(OTHER) == {"iterations", "architecture"}


def test_a_checkpoint_of_other_images_is_refused(fresh, small):
    saved = TrainState.create(small(), (3, 16, 12)).state_dict()
    with pytest.raises(CheckpointError, match=r"shape was \[3, 16, 12\], is \[1, 16, 12\]"):
        fresh().load_state_dict(saved)


def test_more_iterations_may_be_asked_for(fresh):
    saved = fresh(iterations=5)
    play(saved, range(2))
    longer = fresh(iterations=50)
    longer.load_state_dict(saved.state_dict())
    assert longer.step == 2
    assert longer.config.iterations == 50


def test_more_iterations_are_refused_where_the_learning_rates_decay_over_them(fresh):
    saved = fresh(iterations=5, lr_decay="linear").state_dict()
    fresh(iterations=5, lr_decay="linear").load_state_dict(saved)
    with pytest.raises(CheckpointError, match=r"was 5, is 50 \(`lr_decay` depends on it\)"):
        fresh(iterations=50, lr_decay="linear").load_state_dict(saved)


def test_what_was_saved_is_restored_without_saying_what_it_is_of(fresh, tmp_path):
    kept = fresh(norm="wn", ema=0.9)
    play(kept, range(2))
    restored = TrainState.restore(checkpoint.load(checkpoint.save(kept.state_dict(), tmp_path, 2)))
    assert (restored.config, restored.shape) == (kept.config, kept.shape)
    assert_equal(restored.state_dict(), kept.state_dict())
    play(restored, range(2, 4))
    play(kept, range(2, 4))
    assert_equal(restored.state_dict(), kept.state_dict())


def test_it_is_restored_only_as_what_it_has_to_be(fresh, small):
    saved = fresh(iterations=5).state_dict()
    assert TrainState.restore(saved, config=small(iterations=50)).config.iterations == 50
    with pytest.raises(CheckpointError, match="norm was 'wn', is 'bn'"):
        TrainState.restore(saved, config=small(norm="bn"))
    with pytest.raises(CheckpointError, match=r"shape was \[1, 16, 12\], is \[3, 16, 12\]"):
        TrainState.restore(saved, config=small(), shape=(3, 16, 12))


@pytest.mark.parametrize(
    "damage",
    [{"config": None}, {"config": {"lr": "fast"}}, {"config": {"wings": 2}}, {"shape": [1]},
     {"shape": None}, {"generator": {}}, {"step": None, "history": None}],
)  # fmt: skip
def test_half_a_state_is_refused(fresh, damage):
    saved = fresh().state_dict()
    with pytest.raises(CheckpointError):
        TrainState.restore({**saved, **damage})
    for name in damage:
        del saved[name]
    with pytest.raises(CheckpointError):
        TrainState.restore(saved)


def test_states_are_restored_in_one_place():
    home = Path(raygan.__file__).parent
    files = [path for path in home.rglob("*.py") if "load_state_dict(" in path.read_text()]
    assert [str(path.relative_to(home)) for path in files] == ["gan/state.py"]


def test_rmsprop_is_that_of_the_paper(fresh):
    for optimizer in (fresh().optimizer_g, fresh().optimizer_d):
        options = optimizer.param_groups[0]
        assert type(optimizer) is torch.optim.RMSprop
        assert (options["alpha"], options["eps"], options["momentum"]) == (0.9, 1e-6, 0)
        assert not options["centered"]


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_an_optimizer_keeps_how_its_own_device_computes(fresh, optimizer: str):
    """A checkpoint of a GPU says that its optimizers can be recorded, and that Adam is fused."""
    state = fresh(optimizer=optimizer)
    saved = state.state_dict()
    for name in ("optimizer_g", "optimizer_d"):
        for group in saved[name]["param_groups"]:
            group["capturable"] = True
            if "fused" in group:
                group["fused"] = True
    state.load_state_dict(saved)
    for one in (state.optimizer_g, state.optimizer_d):
        assert not one.param_groups[0]["capturable"]
        assert not one.param_groups[0].get("fused")


def test_a_recipe_that_needs_another_field_is_restored(small):
    class Deep(NORMS["vanilla"]):
        """Needs two levels."""

        name = "deep"

        def check(self, config):
            if config.levels != 2:
                raise ConfigError("needs `levels: 2`")

    NORMS.add(Deep)
    try:
        config = small(norm="deep", levels=2)
        saved = TrainState.create(config, SHAPE).state_dict()
        del saved["config"]["ema"]  # a field that is younger
        assert TrainState.restore(saved, config=config).config == config
    finally:
        NORMS.remove("deep")
