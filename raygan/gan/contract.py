"""What every configuration must be able to do: the contract of norms, architectures, losses,
optimizers, augmentations and metrics.

A sweep holds a user's own recipes to it before anything starts, and ``raygan check`` tries all of
it. Networks are tiny, and everything runs on the CPU: in a second or two, but for two workers.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raygan.data.images import ImageSet
from raygan.errors import ConfigError, RayganError
from raygan.gan import checkpoint
from raygan.gan.config import TrainConfig, recipe_tables
from raygan.gan.draws import Draws
from raygan.gan.judge.metrics import measure
from raygan.gan.nets.layers import held_weights
from raygan.gan.nets.levels import Shape
from raygan.gan.nets.norms import NORMS
from raygan.gan.pixels import as_float
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers
from raygan.recipe import RecipeFile, blamed
from raygan.shown import shown

SHAPE: Shape = (3, 32, 32)
"""Of the images, if no other is asked for."""
_IMAGES = 24
_BATCH = 4
_WIDTH = 8
_CLOSE = 1e-4
"""Largest relative difference that is put down to rounding."""

Check = tuple[str, Callable[[TrainConfig, Shape], None]]


def small(config: TrainConfig) -> TrainConfig:
    """``config`` with tiny networks, for two iterations."""
    tiny: dict[str, Any] = {
        "features": min(config.features, _WIDTH),
        "features_d": None if config.features_d is None else min(config.features_d, _WIDTH),
        "code_size": min(config.code_size, 8),
        "batch_size": _BATCH,
        "iterations": 2,
        "evaluate_every": 2,
        "reconstruction_steps": 1,
        "warmup": 0,
        "precision": "fp32",
        "compile": False,
    }
    return replace(config, **tiny)


def noise_images(shape: Shape) -> ImageSet:
    """Random images [C, H, W] that a contract is tried on."""
    channels, height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, height, width, channels), np.uint8)
    held_out = torch.arange(_IMAGES)[-8:]
    return ImageSet.of([torch.from_numpy(pixels)], held_out[:4], held_out[4:], "noise", 0.1)


def check(config: TrainConfig, shape: Shape = SHAPE) -> None:
    """Hold ``config`` to :data:`BEFORE_A_SWEEP`.

    Raises :class:`~raygan.errors.ConfigError`: what is wrong and, for an error in a user's file,
    its line.
    """
    for _ in checked(config, shape, BEFORE_A_SWEEP):
        pass


def checked(config: TrainConfig, shape: Shape, checks: tuple[Check, ...]) -> Iterator[str]:
    """The name of each of ``checks``, once it is passed; raises as :func:`check` does."""
    tiny = small(config)
    try:  # some networks have a least width, or one that is a multiple of a number
        _shapes(tiny, shape)
    except Exception:
        widths = {"features": config.features, "features_d": config.features_d}
        tiny = replace(tiny, **widths)  # type: ignore[arg-type]
    for name, function in checks:
        try:
            with blamed():
                try:
                    function(tiny, shape)
                except NotImplementedError as error:
                    raise ConfigError(f"{name}: a method is missing: {_where(error)}") from error
        except RayganError:
            raise
        except Exception as error:  # in a layer that a recipe has made, perhaps
            used = ", ".join(f"{key}: {getattr(config, key)}" for key in recipe_tables())
            problem = f"{type(error).__name__}: {shown(' '.join(str(error).split()), 300)}"
            raise ConfigError(f"{name}, with {used}: {problem}") from error
        yield name


def _where(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "?" if frame is None else frame.tb_frame.f_code.co_qualname


def _shapes(config: TrainConfig, shape: Shape) -> None:
    state = TrainState.create(config, shape)
    codes = torch.randn(3, config.code_size)
    with torch.no_grad():
        images = state.generator(codes)
        logits = state.discriminator(images)
    if tuple(images.shape) != (3, *shape):
        raise ConfigError(f"the generator makes {list(images.shape)} of 3 codes, not {[3, *shape]}")
    if tuple(logits.shape) != (3,):
        raise ConfigError(f"the discriminator returns {list(logits.shape)} for 3 images, not [3]")
    if not (images.isfinite().all() and logits.isfinite().all()):
        raise ConfigError("fresh networks return numbers that are not finite")
    if images.min() < 0 or images.max() > 1:
        raise ConfigError(
            f"the generator's images are in [{images.min():.3g}, {images.max():.3g}], not [0, 1]"
        )


def _gradients(config: TrainConfig, shape: Shape) -> None:
    fresh = TrainState.create(config, shape)
    fresh.discriminator(fresh.generator(torch.randn(3, config.code_size))).sum().backward()
    for label, network in (("generator", fresh.generator), ("discriminator", fresh.discriminator)):
        for name, parameter in network.named_parameters():
            if parameter.grad is None:
                raise ConfigError(
                    f"the {label}'s parameter {name} has no gradient: use it in forward, or "
                    "remove it"
                )
    state = TrainState.create(config, shape)
    statistics = _play(state, shape, range(1))
    if not statistics.isfinite().all():
        raise ConfigError("the losses of the first iteration are not finite")
    for label, network in (("generator", state.generator), ("discriminator", state.discriminator)):
        for name, parameter in network.named_parameters():
            last = parameter.grad
            if last is None or not (parameter.isfinite().all() and last.isfinite().all()):
                raise ConfigError(f"the {label}'s parameter {name} is not finite after one update")


def _save_and_load(config: TrainConfig, shape: Shape) -> None:
    whole, first = TrainState.create(config, shape), TrainState.create(config, shape)
    _play(whole, shape, range(2))
    _play(first, shape, range(1))
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint.save(first.state_dict(), Path(folder), first.step)
        second = TrainState.restore(checkpoint.load(path), config=config, shape=shape)
    _play(second, shape, range(1, 2))
    for name, value in whole.generator.state_dict().items():
        if not torch.equal(value, second.generator.state_dict()[name]):
            raise ConfigError(
                f"a resumed run differs from an uninterrupted one in the generator's {name}: all "
                "that changes in training must be a parameter or a buffer of its module"
            )


def _alone(config: TrainConfig, shape: Shape) -> None:
    """In eval mode, the networks treat each image by itself."""
    state = TrainState.create(config, shape)
    state.generator.eval(), state.discriminator.eval()
    codes = torch.randn(3, config.code_size)
    with torch.no_grad():
        images = state.generator(codes)
        pairs = (
            ("generator", images[:1], state.generator(codes[:1])),
            ("discriminator", state.discriminator(images)[:1], state.discriminator(images[:1])),
        )
    for label, together, alone in pairs:
        if not torch.allclose(together, alone, rtol=_CLOSE, atol=_CLOSE):
            raise ConfigError(
                f"in eval mode, the {label}'s output depends on the rest of the batch"
            )


def _mixing(config: TrainConfig, shape: Shape) -> None:
    """In training, D treats each image by itself, unless its norm says that it does not."""
    if NORMS.make(config.norm, config.parameters).mixes_images:
        return
    discriminator = TrainState.create(config, shape).discriminator
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), held_weights(discriminator):  # spectral norm iterates at each call
        together, alone = discriminator(images)[:1], discriminator(images[:1])
    if not torch.allclose(together, alone, rtol=_CLOSE, atol=_CLOSE):
        raise ConfigError(
            f"in training, D's logit of an image depends on the rest of the batch, but the norm "
            f"`{config.norm}` does not say so: let its property `mixes_images` return True"
        )


def _up_to_date(config: TrainConfig, shape: Shape) -> None:
    """After an update, D judges with its new parameters, as G's update needs it to."""
    state, fresh = TrainState.create(config, shape), TrainState.create(config, shape)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    discriminator, other = state.discriminator.eval(), fresh.discriminator.eval()
    with torch.no_grad(), held_weights(state.generator):  # around the update, as in training
        with held_weights(discriminator):
            discriminator(images)
        for network in (discriminator, other):
            rng = torch.Generator().manual_seed(1)
            for parameter in network.parameters():
                parameter.mul_(torch.rand(parameter.shape, generator=rng).add_(0.5))
        with held_weights(discriminator):
            found = discriminator(images)
        expected = other(images)
    if not torch.allclose(found, expected, rtol=_CLOSE, atol=_CLOSE):
        raise ConfigError(
            "after an update, D still judges with what was computed from its old parameters: "
            "compute it again in each forward"
        )


def _without_waiting(config: TrainConfig, shape: Shape) -> None:
    """On the ``meta`` device each read of a value on the host raises."""
    state = TrainState.create(config, shape, torch.device("meta"))
    try:
        _play(state, shape, range(1), device="meta")
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            "a training step reads a value back to the host (`.item()`, `if tensor:`, `.cpu()` …), "
            f"which makes a GPU wait: {str(error).splitlines()[0]}"
        ) from error


def _metrics(config: TrainConfig, shape: Shape) -> None:
    samples = torch.rand(64, *shape, generator=torch.Generator().manual_seed(0))
    values, _ = measure(config.parameters, samples, noise_images(shape), 0)
    again, _ = measure(config.parameters, samples, noise_images(shape), 0)
    if values != again:
        raise ConfigError(f"a metric has two values for the same images: {values}, then {again}")


def _two_workers(config: TrainConfig, shape: Shape) -> None:
    """Two processes that share each batch end as one process does."""
    import torch.multiprocessing as mp
    from torch.multiprocessing.spawn import ProcessException

    from raygan.recipe import in_use

    alone = TrainState.create(config, shape)
    _play(alone, shape, range(2))
    files = [file for file, _ in in_use().values()]
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_worker, (config.to_dict(), files, shape, folder), nprocs=2)
        except ProcessException as error:
            problems = sorted(Path(folder).glob("error-*"))
            raise ConfigError(problems[0].read_text() if problems else str(error)) from error
        together = torch.load(Path(folder) / "generator.pt", weights_only=True)
    for name, value in alone.generator.state_dict().items():
        if not torch.allclose(value, together[name], rtol=_CLOSE, atol=_CLOSE):
            largest = (value - together[name]).abs().max()
            raise ConfigError(
                f"two workers train another generator than one: its {name} differs by up to "
                f"{largest:.2g}; what is computed over a batch must be computed over the batches "
                "of all workers"
            )


def _worker(
    rank: int, config: dict[str, object], files: list[RecipeFile], shape: Shape, folder: str
) -> None:
    import torch.distributed as dist

    from raygan import recipe

    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    try:
        recipe.use(files)
        state = TrainState.create(TrainConfig.of(**config), shape)
        _play(state, shape, range(2))
        if rank == 0:
            torch.save(state.generator.state_dict(), Path(folder) / "generator.pt")
    except Exception as error:
        problem = recipe.blame(error, files) or f"{type(error).__name__}: {error}"
        (Path(folder) / f"error-{rank}").write_text(f"with two workers: {problem}")
        raise
    finally:
        dist.destroy_process_group()


def _play(state: TrainState, shape: Shape, steps: range, device: str = "cpu") -> Tensor:
    """Train ``state`` for the iterations ``steps``; the statistics of the last one."""
    workers = Workers()
    game = state.game(workers)
    iterate = game.alternating if state.config.update == "alternating" else game.simultaneous
    draws = Draws(state.config, noise_images(shape), workers, torch.device("cpu"))
    statistics = torch.full((1,), math.nan)
    for step in steps:
        state.set_rates()
        real, *rest = (None if part is None else part.to(device) for part in draws(step))
        assert real is not None
        statistics = iterate(as_float(real), *rest)  # type: ignore[arg-type]
        state.advance()
    return statistics


MEASURED: Check = ("metrics", _metrics)
BEFORE_A_SWEEP: tuple[Check, ...] = (
    ("shapes and ranges", _shapes),
    ("gradients", _gradients),
    MEASURED,
    ("each image by itself in D", _mixing),
)
IN_ONE_PROCESS: tuple[Check, ...] = (
    *BEFORE_A_SWEEP,
    ("save and load: resumed = uninterrupted", _save_and_load),
    ("each image by itself in eval mode", _alone),
    ("D as its last update left it", _up_to_date),
    ("no host–device synchronisation", _without_waiting),
)
ALL: tuple[Check, ...] = (*IN_ONE_PROCESS, ("two workers = one", _two_workers))
"""All checks, by what they show."""
