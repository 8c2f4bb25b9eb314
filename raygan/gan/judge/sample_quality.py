"""The quality of a generator's samples: at each evaluation of a run, and at the end of a sweep.

The samples are compared with held-out images that were not trained on, those of the final
reconstruction test: the running test has only 200. No decision is based on the quality, so the
final test stays untouched by it. The measures are those of :mod:`raygan.gan.judge.quality`.

=================  ==========================================  ===================================
When               samples                                     real images
=================  ==========================================  ===================================
each evaluation    256, from the fixed codes of the pictures   up to 256, evenly spaced
end of the sweep   1,000, from codes that depend on the seed   up to 1,000, evenly spaced
=================  ==========================================  ===================================

The measures depend on the numbers of images: only values with the same numbers can be compared.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from raygan import liveness
from raygan.data.images import ImageSet
from raygan.errors import DataError
from raygan.gan import sampling
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import Quality, TrainConfig
from raygan.gan.judge import quality, weights
from raygan.gan.judge.wasserstein import PATCH
from raygan.gan.nets.layers import frozen
from raygan.gan.workers import Workers

RUNNING, FINAL = 256, 1_000
"""Most real images at an evaluation and at the end; at the end, also the number of samples."""
LEAST = 10
"""Fewest real images: with fewer, there is no quality."""
_BATCH = 64


def best_available() -> Quality:
    """``features`` if this machine has the package of their weights, else ``wasserstein``."""
    return "features" if quality.is_available() else "wasserstein"


class RunningQuality:
    """``val/NAME`` of each measure of ``kind`` at the evaluations of one run."""

    def __init__(self, kind: Quality, images: ImageSet, workers: Workers) -> None:
        """Raises :class:`~raygan.errors.ConfigError` if this machine cannot measure ``kind``."""
        if kind != "none":
            quality.check(kind)
        self._kind, self._images, self._workers = kind, images, workers
        self._reference: quality.Reference | None = None

    def __call__(self, samples: Tensor) -> tuple[dict[str, float], list[str]]:
        """The measures of ``samples`` (float [n, C, H, W] in [0, 1], the same on all workers), and
        notes.

        None of them is a number if a sample is not. They are left out, with a note, if there are
        fewer than :data:`LEAST` real images, or if the images are too small.
        """
        if self._kind == "none":
            return {}, []
        if (problem := _problem(self._kind, self._images)) is not None:
            return {}, [f"no quality of samples is measured: {problem}"]
        if self._reference is None:
            real = _real(self._images, RUNNING)
            self._reference = quality.reference(self._kind, real, samples.device, self._workers)
            liveness.progress()
        measured = _measure(self._kind, samples, self._reference, self._workers)
        liveness.progress()
        return {f"val/{name}": value for name, value in measured.items()}, []


@arithmetic("fp32")
def final_quality(
    generator: nn.Module, config: TrainConfig, images: ImageSet, kind: Quality
) -> dict[str, Any]:
    """Each measure of ``kind`` of ``generator``'s samples, by name (None if it is not a finite
    number), and how they were made.

    Raises :class:`~raygan.errors.ConfigError` if this machine cannot measure ``kind``, and
    :class:`~raygan.errors.DataError` if there are fewer than :data:`LEAST` real images, or if the
    images are too small.
    """
    quality.check(kind)
    if (problem := _problem(kind, images)) is not None:
        raise DataError(f"the quality of samples cannot be measured: {problem}")
    device = next(generator.parameters()).device
    codes = sampling.codes(
        config.seed, sampling.QUALITY, 0, FINAL, config.code_size, config.latent
    ).to(device)
    with torch.no_grad(), frozen(generator):
        samples = torch.cat([generator(part) for part in codes.split(_BATCH)])
    real = _real(images, FINAL)
    alone = Workers()
    reference = quality.reference(kind, real, device, alone)
    measured = _measure(kind, samples, reference, alone)
    return {
        **{name: value if math.isfinite(value) else None for name, value in measured.items()},
        "kind": kind,
        "images": len(samples),
        "real_images": len(real),
        "seed": config.seed,
        **({"weights_sha256": weights.SHA256} if kind == "features" else {}),
    }


def _measure(
    kind: Quality, samples: Tensor, reference: quality.Reference, workers: Workers
) -> dict[str, float]:
    if not bool(samples.isfinite().all()):
        return dict.fromkeys(quality.MEASURES[kind], math.nan)
    return quality.measure(kind, samples, reference, workers)


def _real(images: ImageSet, most: int) -> Tensor:
    """At most ``most`` of the final held-out images, uint8 [n, C, H, W], evenly spaced."""
    final = images.final
    count = min(most, len(final))
    return images.take(final[torch.arange(count, device=final.device) * len(final) // count])


def _problem(kind: Quality, images: ImageSet) -> str | None:
    """Why ``kind`` cannot be measured on ``images``; None if it can."""
    if (found := len(images.final)) < LEAST:
        return f"of at least {LEAST} final held-out images that it needs, there are {found}"
    _, height, width = images.shape
    if kind == "wasserstein" and min(height, width) < PATCH:
        return (
            f"the sliced Wasserstein distance needs images of at least {PATCH}×{PATCH} pixels, and "
            f"these have {height}×{width}"
        )
    return None
