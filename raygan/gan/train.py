"""Training as an iterator of evaluations.

    for evaluation in train(config, images, state, keeper=keeper):
        ...  # log it, or stop by not iterating on

``python -m raygan.gan.train --help`` (also under ``torchrun``) trains one configuration by hand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raygan.data.images import REFERENCE, ImageSet
from raygan.gan import sampling
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig
from raygan.gan.draws import Draws
from raygan.gan.judge.metrics import measure
from raygan.gan.judge.reconstruction import Reconstruction, reconstruct
from raygan.gan.judge.sample_quality import RunningQuality
from raygan.gan.keeping import Keeper
from raygan.gan.nets.layers import frozen
from raygan.gan.picture_grid import side_by_side
from raygan.gan.pixels import as_bytes, as_float
from raygan.gan.recorded import Recorded, on_stream
from raygan.gan.state import Best, Metrics, Stretch, TrainState
from raygan.gan.steps import STATISTICS, Game
from raygan.gan.workers import Workers

SAMPLES = 64
"""Number of images in the sample grid."""
PAIRS = 16
"""Number of held-out images that are shown with their reconstructions."""
EARLY = 100
"""Iteration at which the losses are checked to be finite, so that a run that fails at its start is
not trained to its first evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """One training run after ``step`` iterations."""

    step: int
    metrics: Metrics
    """``train/…``: means since the last evaluation (losses, D's accuracy on real and fake), and
    gradient norms of the last iteration; ``val/reconstruction_loss``: mean squared error per
    pixel in [0, 1]; ``val/variety`` and each metric of the user's own
    (:mod:`raygan.gan.judge.metrics`) of G's images, and the measures of their quality
    (:mod:`raygan.gan.judge.sample_quality`) that the configuration asks for;
    ``perf/images_per_second``: real images of all workers per second of training;
    ``perf/images_seen``."""
    finite: bool
    """Whether every metric is finite. If not, and ``step`` is at most :data:`EARLY`, the run is an
    early failure."""
    best: bool
    """Whether this is the lowest reconstruction loss so far."""
    samples: Tensor
    """G's images from fixed codes, uint8 [64, C, H, W], on the CPU."""
    reconstructions: Tensor
    """Held-out images (at even indices) of this worker's share and their reconstructions (at odd
    ones), uint8 [2·n, C, H, W], on the CPU."""
    reconstruction_losses: Tensor
    """Loss of each running-test image, float32 [N], on the CPU."""
    notes: tuple[str, ...] = ()
    """What a reader of the metrics should know; the same words each time that it happens."""

    @property
    def loss(self) -> float:
        """The reconstruction loss."""
        return self.metrics["val/reconstruction_loss"]


def train(
    config: TrainConfig,
    images: ImageSet,
    state: TrainState,
    *,
    gpu_share: float = 1.0,
    keeper: Keeper | None = None,
) -> Iterator[Evaluation]:
    """Train ``state`` to ``config.iterations``; yield an evaluation every ``config.evaluate_every``
    iterations and at the end.

    Training starts at the step of ``state``, which can be saved at each evaluation. All workers of
    a process group iterate together and get the same metrics. ``gpu_share``: the part of the GPU
    that the trial has; images that fit into it are kept there. ``keeper``: keeps ``state`` when it
    says that a checkpoint is due, at evaluations and between them, and ends the iteration when it
    is told to stop; the caller calls :meth:`Keeper.finish`. Between evaluations, the loop waits for
    the device once, at iteration :data:`EARLY`, and where the keeper says so. Raises
    :class:`~raygan.errors.ConfigError` if the batch cannot be shared by the workers.
    """
    keepers = None if keeper is None else [keeper]
    for _, evaluation in Stack([(config, state)], images, gpu_share=gpu_share, keepers=keepers):
        yield evaluation


class Stack:
    """Several GANs that one process trains at the same time; iterate over it for their evaluations.

    Each is trained as if it were alone, with the same kernels, so that its numbers are those of
    :func:`train`. On a GPU, each has a stream of its own: if one GAN is too small to fill the GPU,
    several take little longer. On a CPU, they take turns. All workers of a process group must
    iterate together and drop the same members.
    """

    def __init__(
        self,
        members: Sequence[tuple[TrainConfig, TrainState]],
        images: ImageSet,
        *,
        gpu_share: float = 1.0,
        keepers: Sequence[Keeper] | None = None,
    ) -> None:
        """``gpu_share``: the part of the GPU that all members have together; ``keepers``: one per
        member; see :func:`train`.

        Raises :class:`~raygan.errors.ConfigError` if a batch cannot be shared by the workers.
        """
        workers = Workers()
        self._images = images.resident(members[0][1].device, gpu_share)
        self._runs = [
            _Run(config, self._images, state, workers, keepers[index] if keepers else None)
            for index, (config, state) in enumerate(members)
        ]
        self._seconds = 0.0

    def __iter__(self) -> Iterator[tuple[int, Evaluation]]:
        """Pairs of a member's index and its next evaluation."""
        try:
            yield from self._evaluations()
        finally:  # also if the caller stops, since running kernels read the images
            for run in self._runs:
                run.wait()

    def drop(self, index: int) -> None:
        """Stop training the member at ``index``; its state is that of its last iteration."""
        run = self._runs[index]
        run.dropped = True
        run.wait()

    def _evaluations(self) -> Iterator[tuple[int, Evaluation]]:
        for run in self._runs:
            run.begin(self._seconds)
        while active := [run for run in self._runs if not run.ended]:
            started = time.perf_counter()
            while not any(run.due for run in active):
                for run in active:
                    run.advance()
            due = [run for run in active if run.due]
            means = [run.means() for run in due]  # waits for the device
            self._seconds += time.perf_counter() - started
            for run, mean in zip(due, means, strict=True):
                if not run.dropped:  # while the caller had the evaluation of another member
                    yield self._runs.index(run), run.evaluate(mean, self._seconds)
                    run.begin(self._seconds)


class _Run:
    """One member of a stack: a state that is trained from one evaluation to the next."""

    def __init__(
        self,
        config: TrainConfig,
        images: ImageSet,
        state: TrainState,
        workers: Workers,
        keeper: Keeper | None,
    ) -> None:
        self._keeper = keeper
        self._config, self._images, self._state, self._workers = config, images, state, workers
        self._game = state.game(workers)
        game, device = self._game, state.device
        iterate = game.alternating if config.update == "alternating" else game.simultaneous
        totals = torch.zeros(len(STATISTICS), device=device)

        def play(
            real: Tensor,
            noise_d: Tensor,
            noise_g: Tensor,
            mix: Tensor | None,
            chances: Tensor | None,
        ) -> None:
            with arithmetic(config.precision):
                totals.add_(iterate(as_float(real), noise_d, noise_g, mix, chances))

        self._totals = totals
        self._draws = Draws(config, images, workers, device)
        self._quality = RunningQuality(config.quality, images, workers)
        # communication between workers is not recorded
        recorded = device.type == "cuda" and workers.count == 1
        self._stream = torch.cuda.Stream(device) if recorded else None
        self._play = Recorded(play, on_gpu=recorded)
        self.dropped = False
        if keeper is not None:
            keeper.begin(state)

    @property
    def ended(self) -> bool:
        """Whether it was dropped or has reached its last iteration."""
        return self.dropped or self._state.step >= self._config.iterations

    @property
    def due(self) -> bool:
        """Whether an evaluation comes next, or nothing more."""
        return self.dropped or self._state.step == self._until

    def begin(self, seconds: float) -> None:
        """Begin a stretch up to the next evaluation, or resume one that is in the state; the stack
        has trained for ``seconds``."""
        state = self._state
        self._first = self._begun = state.step
        self._since = seconds
        with on_stream(self._stream):
            self._totals.zero_()
            if state.stretch is not None:
                self._first = state.stretch.first
                self._totals.copy_(self._own(state.stretch.totals))
                state.stretch = None
        every = self._config.evaluate_every
        self._until = min((self._first // every + 1) * every, self._config.iterations)
        self._set_rates()

    def _own(self, totals: Tensor) -> Tensor:
        """This worker's row; if there were more or fewer workers, the first one has the sum."""
        if len(totals) == self._workers.count:
            return totals[self._workers.rank]
        return totals.sum(0) * (self._workers.rank == 0)

    def _keep_if_due(self) -> None:
        """Keep the state if the keeper says so; between two evaluations, with the sums so far."""
        state = self._state
        if self._keeper is None or not self._keeper.due(state.step, state.device):
            return
        if not self.due:
            with on_stream(self._stream):
                totals = self._totals.new_zeros(self._workers.count, len(self._totals))
                totals[self._workers.rank] = self._totals
                self._workers.sum_(totals)
                state.stretch = Stretch(self._first, totals.cpu())
        self.wait()
        self._keeper.keep(state)
        state.stretch = None
        self.dropped = self.dropped or self._keeper.stopped

    def _set_rates(self) -> None:
        if self._state.set_rates():
            self._play.forget()

    def advance(self) -> None:
        """Train one iteration; on a GPU, only start its kernels."""
        state = self._state
        with torch.cuda.stream(self._stream):
            if state.step == self._config.warmup:
                self._set_rates()
            if state.step == EARLY and not _finite(self._totals, self._workers):
                self._until = state.step
                return
            self._play(*self._draws(state.step))
            state.advance()
        if not self.due:
            self._keep_if_due()

    def means(self) -> list[float]:
        """The means of :data:`STATISTICS` since :meth:`begin`; waits for the device."""
        with on_stream(self._stream):
            self._workers.sum_(self._totals)
            means: list[float] = (self._totals / (self._until - self._first)).tolist()
        return means

    def evaluate(self, means: list[float], seconds: float) -> Evaluation:
        """Evaluate; the stack has trained for ``seconds``."""
        config = self._config
        seen = (self._until - self._begun) * config.d_steps * config.batch_size
        metrics = dict(zip(STATISTICS, means, strict=True))
        metrics["perf/images_per_second"] = seen / (seconds - self._since)
        with on_stream(self._stream), arithmetic("fp32"):
            evaluation = _evaluate(
                config, self._images, self._state, self._game, metrics, self._quality
            )
        self.wait()  # so that the caller may use the state on any stream
        if evaluation.finite:
            self._keep_if_due()
        return evaluation

    def wait(self) -> None:
        """Wait until the device has finished all work of this run."""
        if self._stream is not None:
            self._stream.synchronize()


def _finite(totals: Tensor, workers: Workers) -> bool:
    """Whether the losses of all workers are finite; waits for the device."""
    everywhere = totals.clone()
    workers.sum_(everywhere)
    return bool(everywhere.isfinite().all())


def _evaluate(
    config: TrainConfig,
    images: ImageSet,
    state: TrainState,
    game: Game,
    metrics: Metrics,
    quality: RunningQuality,
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
    samples = _sample(state.judged, config, REFERENCE)
    seed = sampling.derive_seed(config.seed, sampling.METRICS, state.step)
    measured, notes = measure(config.parameters, samples, images, seed)
    judged, more_notes = quality(samples)
    metrics |= {
        "train/gradient_norm_d": float(game.discriminator.gradient_norm()),
        "train/gradient_norm_g": float(game.generator.gradient_norm()),
        "perf/images_seen": float(state.step * config.d_steps * config.batch_size),
        "val/reconstruction_loss": loss,
        **measured,
        **judged,
    }
    finite = all(math.isfinite(value) for value in metrics.values())
    best = finite and loss < state.best_loss
    if best:
        state.best_step, state.best_loss = state.step, loss
        state.best = Best.of(state, loss)
    state.history.append({"step": float(state.step), **metrics})
    return Evaluation(
        step=state.step,
        metrics=metrics,
        finite=finite,
        best=best,
        samples=as_bytes(samples[:SAMPLES]),
        reconstructions=_pairs(held_out, reconstruction, workers),
        reconstruction_losses=reconstruction.losses,
        notes=(*notes, *more_notes),
    )


def sample(generator: torch.nn.Module, config: TrainConfig, count: int = SAMPLES) -> Tensor:
    """G's images, uint8 on the CPU, from ``count`` codes that depend only on ``config.seed``."""
    return as_bytes(_sample(generator, config, count))


def _sample(generator: torch.nn.Module, config: TrainConfig, count: int) -> Tensor:
    device = next(generator.parameters()).device
    rng = torch.Generator().manual_seed(sampling.derive_seed(config.seed, sampling.SAMPLES, 0))
    codes = sampling.latent_codes(config.latent, (count, config.code_size), rng).to(device)
    with torch.no_grad(), frozen(generator):
        # SAMPLES at a time, whatever the count, which bounds the memory
        images = torch.cat([generator(part) for part in codes.split(SAMPLES)])
    return images


def _pairs(held_out: Tensor, reconstruction: Reconstruction, workers: Workers) -> Tensor:
    reconstructed = as_bytes(reconstruction.images[:PAIRS])
    start = workers.share(len(held_out)).start
    originals = held_out[start : start + len(reconstructed)].cpu()
    return side_by_side(originals, reconstructed)


if __name__ == "__main__":
    from raygan.gan.train_command import main

    main()
