"""Training as an iterator of evaluations.

    for evaluation in train(config, images, state):
        ...  # log it, save the state, or stop by not iterating on

``python -m raygan.gan.train --help`` (also under ``torchrun``) trains one configuration by hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from raygan.data.images import ImageSet
from raygan.gan import sampling
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig
from raygan.gan.draws import Draws
from raygan.gan.layers import frozen
from raygan.gan.pictures import side_by_side
from raygan.gan.reconstruction import Reconstruction, as_bytes, reconstruct
from raygan.gan.state import Metrics, TrainState
from raygan.gan.steps import STATISTICS, Game
from raygan.gan.variety import variety
from raygan.gan.workers import Workers

SAMPLES = 64
"""Images of the sample grid."""
PAIRS = 16
"""Held-out images that are shown with their reconstructions."""
EARLY = 100
"""Iterations after which it is seen whether the losses are finite: a run that fails at its start
is not trained to its first evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """One training run after ``step`` iterations."""

    step: int
    metrics: Metrics
    """``train/…``: means since the last evaluation (losses, D's accuracy on real and fake), and
    gradient norms of the last iteration; ``val/reconstruction_loss``: mean squared error per
    pixel in [0, 1]; ``val/diversity`` and ``val/duplicates`` (:mod:`raygan.gan.variety`) of the
    samples; ``perf/images_per_second``: real images of all workers per second of
    training; ``perf/images_seen``."""
    finite: bool
    """Whether every metric is a finite number; if not, one that comes at iteration :data:`EARLY`
    at the latest is an early failure."""
    best: bool
    """Whether this is the lowest reconstruction loss so far."""
    samples: Tensor
    """G's images from fixed codes, uint8 [64, C, H, W], on the CPU."""
    reconstructions: Tensor
    """Held-out images (even) and their reconstructions (odd), uint8 [2·n, C, H, W], on the CPU;
    of this worker's share."""
    reconstruction_losses: Tensor
    """Loss of each running-test image, float32 [N], on the CPU."""

    @property
    def loss(self) -> float:
        """The reconstruction loss."""
        return self.metrics["val/reconstruction_loss"]


def train(
    config: TrainConfig, images: ImageSet, state: TrainState, *, gpu_share: float = 1.0
) -> Iterator[Evaluation]:
    """Train ``state`` to ``config.iterations``; yield every ``config.evaluate_every`` and at the
    end.

    ``state`` goes on from where it is; at each evaluation it can be saved. All workers of a
    process group iterate together and get the same metrics. ``gpu_share`` is the part of the GPU
    that the trial has: images that fit well into it are kept there. Nothing in the loop waits for
    the device, but once at iteration :data:`EARLY`. Raises :class:`~raygan.errors.ConfigError` if
    the batch cannot be shared.
    """
    workers = Workers()
    device = state.device
    images = images.resident(device, gpu_share)
    game = state.game(workers)
    iterate = game.alternating if config.update == "alternating" else game.simultaneous
    draws = Draws(config, images, workers, device)
    while state.step < config.iterations:
        started, first = time.perf_counter(), state.step
        until = min((first // config.evaluate_every + 1) * config.evaluate_every, config.iterations)
        totals = torch.zeros(len(STATISTICS), device=device)
        with arithmetic(config.precision):
            while state.step < until:
                if state.step <= config.warmup:
                    state.set_rates()
                if state.step == EARLY and not _finite(totals, workers):
                    until = state.step
                    break
                totals += iterate(*draws(state.step))
                state.advance()
        workers.sum_(totals)
        means = (totals / (until - first)).tolist()  # waits for the device
        seen = (until - first) * config.d_steps * config.batch_size
        metrics = dict(zip(STATISTICS, means, strict=True))
        metrics["perf/images_per_second"] = seen / (time.perf_counter() - started)
        with arithmetic("fp32"):
            evaluation = _evaluate(config, images, state, game, metrics)
        yield evaluation


def _finite(totals: Tensor, workers: Workers) -> bool:
    """Whether no worker's losses are beyond numbers; waits for the device."""
    everywhere = totals.clone()
    workers.sum_(everywhere)
    return bool(everywhere.isfinite().all())


def _evaluate(
    config: TrainConfig, images: ImageSet, state: TrainState, game: Game, metrics: Metrics
) -> Evaluation:
    workers = game.workers
    held_out = images.take(images.running)
    reconstruction = reconstruct(
        state.judged,
        config.code_size,
        held_out,
        steps=config.reconstruction_steps,
        workers=workers,
    )
    loss = reconstruction.loss
    samples = _sample(state.judged, config, SAMPLES)
    metrics |= {
        "train/gradient_norm_d": float(game.discriminator.gradient_norm()),
        "train/gradient_norm_g": float(game.generator.gradient_norm()),
        "perf/images_seen": float(state.step * config.d_steps * config.batch_size),
        "val/reconstruction_loss": loss,
        **variety(samples, images.spread),
    }
    finite = all(math.isfinite(value) for value in metrics.values())
    best = finite and loss < state.best_loss
    if best:
        state.best_step, state.best_loss = state.step, loss
    state.history.append({"step": float(state.step), **metrics})
    return Evaluation(
        step=state.step,
        metrics=metrics,
        finite=finite,
        best=best,
        samples=as_bytes(samples),
        reconstructions=_pairs(held_out, reconstruction, workers),
        reconstruction_losses=reconstruction.losses,
    )


def sample(generator: torch.nn.Module, config: TrainConfig, count: int = SAMPLES) -> Tensor:
    """G's images from ``count`` codes that only ``config.seed`` fixes; uint8, on the CPU."""
    return as_bytes(_sample(generator, config, count))


def _sample(generator: torch.nn.Module, config: TrainConfig, count: int) -> Tensor:
    device = next(generator.parameters()).device
    rng = torch.Generator().manual_seed(sampling.derive_seed(config.seed, sampling.SAMPLES, 0))
    codes = torch.randn(count, config.code_size, generator=rng).to(device)
    with torch.no_grad(), frozen(generator):
        images: Tensor = generator(codes)
    return images


def _pairs(held_out: Tensor, reconstruction: Reconstruction, workers: Workers) -> Tensor:
    found = as_bytes(reconstruction.images[:PAIRS])
    start = workers.share(len(held_out)).start
    originals = held_out[start : start + len(found)].cpu()
    return side_by_side(originals, found)


if __name__ == "__main__":
    from raygan.gan.cli import main

    main()
