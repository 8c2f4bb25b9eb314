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
"""Iterations before the measurement, in which memory is allocated and kernels are loaded."""
FEWEST, FEWEST_ON_GPU = 3, 50
"""Least iterations that are measured; the first iterations of each stretch are slow on a GPU."""


@dataclass(frozen=True)
class Speed:
    """How fast one worker trains one configuration."""

    iterations_per_second: float
    """Iterations per second of training; above 0."""
    evaluation_seconds: float
    """Seconds of one evaluation: the running reconstruction test and the samples, but not the
    pictures and the checkpoint, which the caller writes."""


def measure(
    config: TrainConfig,
    images: ImageSet,
    device: torch.device,
    seconds: float,
    gpu_share: float = 1.0,
) -> Speed:
    """Train ``config`` from fresh networks for about ``seconds``, then evaluate once.

    The speed is measured over the last stretch of iterations without a wait for the device, about
    half of all. ``seconds`` may be 0: building the networks, the least number of iterations and the
    evaluation take extra time. ``gpu_share``: the part of the GPU that the worker has. Neither
    ``images`` nor PyTorch's global random state changes.

    Only for a single process: the workers of a process group would not stop at the same iteration.
    Raises :class:`~raygan.errors.ConfigError` if the networks cannot be built for ``images``.
    """
    images = images.resident(device, gpu_share)  # once for all
    config = replace(config, lr_decay="none")  # it may take more iterations than those of a decay
    state = TrainState.create(config, images.shape, device)
    # a minimal reconstruction test, so that almost all of the time is training
    quick = replace(config, reconstruction_steps=1, quality="none")
    few = replace(images, running=images.running[:1])
    _train(quick, few, state, WARM_UP, gpu_share)
    started = time.perf_counter()
    count = FEWEST_ON_GPU if device.type == "cuda" else FEWEST
    speed = _train(quick, few, state, count, gpu_share)
    # each stretch takes about as long as all stretches before it
    while 2 * (time.perf_counter() - started) <= seconds:
        count *= 2
        speed = _train(quick, few, state, count, gpu_share)
    started = time.perf_counter()
    training = 1 / _train(config, images, state, 1, gpu_share)
    return Speed(speed, time.perf_counter() - started - training)


def _train(
    config: TrainConfig, images: ImageSet, state: TrainState, count: int, gpu_share: float
) -> float:
    """Train ``count`` more iterations and evaluate; returns iterations per second of training."""
    until = state.step + count
    config = replace(config, iterations=until, evaluate_every=until)
    *_, last = train(config, images, state, gpu_share=gpu_share)
    return last.metrics["perf/images_per_second"] / (config.d_steps * config.batch_size)
