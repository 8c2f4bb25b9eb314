"""How fast a configuration trains, measured by training it for some seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from raygan.data.images import ImageSet
from raygan.gan.config import TrainConfig
from raygan.gan.state import TrainState
from raygan.gan.train import train

WARM_UP = 2
"""Iterations before any that counts: memory is taken, kernels are loaded."""
FEWEST, FEWEST_ON_GPU = 3, 50
"""Iterations that count, at the least; a GPU's first ones of each stretch are slow."""


@dataclass(frozen=True)
class Speed:
    """How fast one worker trains one configuration."""

    iterations_per_second: float
    """Iterations per second of training; above 0."""
    evaluation_seconds: float
    """Seconds of one evaluation: the running reconstruction test and the samples, without what
    a caller does with them (pictures, checkpoint)."""


def measure(
    config: TrainConfig,
    images: ImageSet,
    device: torch.device,
    seconds: float,
    gpu_share: float = 1.0,
) -> Speed:
    """Train ``config`` from fresh networks for about ``seconds``, then evaluate once.

    The speed is that of the longest stretch of iterations between two waits for the device, about
    half of all. Building the networks, the fewest iterations and the evaluation may come on top of
    ``seconds``, which may be 0. ``gpu_share`` is the part of the GPU that the worker has. Neither
    ``images`` nor PyTorch's global random state changes.

    Raises :class:`~raygan.errors.ConfigError` if the networks cannot be built for ``images``. For
    one process alone: the workers of a process group would disagree on when to end.
    """
    images = images.resident(device, gpu_share)  # once for all
    state = TrainState.create(config, images.shape, device)
    # next to no reconstruction test, so that the time goes into training
    quick = replace(config, reconstruction_steps=1)
    few = replace(images, running=images.running[:1])
    _train(quick, few, state, WARM_UP, gpu_share)
    started = time.perf_counter()
    count = FEWEST_ON_GPU if device.type == "cuda" else FEWEST
    speed = _train(quick, few, state, count, gpu_share)
    # each stretch takes as long as all before it
    while 2 * (time.perf_counter() - started) <= seconds:
        count *= 2
        speed = _train(quick, few, state, count, gpu_share)
    started = time.perf_counter()
    training = 1 / _train(config, images, state, 1, gpu_share)
    return Speed(speed, time.perf_counter() - started - training)


def _train(
    config: TrainConfig, images: ImageSet, state: TrainState, count: int, gpu_share: float
) -> float:
    """``count`` iterations more and an evaluation; iterations per second of training."""
    until = state.step + count
    config = replace(config, iterations=until, evaluate_every=until)
    *_, last = train(config, images, state, gpu_share=gpu_share)
    return last.metrics["perf/images_per_second"] / (config.d_steps * config.batch_size)
