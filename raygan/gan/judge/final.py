"""The final test: a long reconstruction test on images that no decision was based on.

By default it has 2,000 images, none of them an image of the running test (arXiv 1704.03971, section
5.2). The reported loss is that of the search from z = 0. An audit shows whether this search gets
stuck: searches of the same length start from random codes, and the lowest loss of each
image counts. In ``tests/bench/audit.py`` (digits, 1,000 iterations, 100 images), three such
searches lower the mean loss by 4% for vanilla, 2% for bn and 18% for wn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygan.errors import RayganError
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import Latent
from raygan.gan.judge.final_config import FinalConfig
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.pixels import as_bytes
from raygan.gan.sampling import RESTARTS, codes

_MOST_VALUES = 2**22
"""A GPU searches more than 100 images at once if they have at most this many values together."""


@dataclass(frozen=True)
class FinalTest:
    """The result of one generator's final test."""

    losses: Tensor
    """Mean squared error per pixel in [0, 1] of each image, searched from z = 0; float32 [N]."""
    restarts: Tensor
    """Losses of the first n images, searched from random codes, float32 [restarts, n]. The loss of
    a search that diverged is not finite."""
    reconstructions: Tensor
    """Reconstructions from z = 0, uint8 [N, C, H, W]. All tensors are on the CPU."""

    @property
    def loss(self) -> float:
        """The final reconstruction loss: the mean of :attr:`losses`."""
        return float(self.losses.double().mean())

    @property
    def audited_loss(self) -> float | None:
        """The mean of :attr:`losses` over the audited images; compare :attr:`restarts_loss`."""
        return float(self.losses[: self.audited].double().mean()) if self.audited else None

    @property
    def restarts_loss(self) -> float | None:
        """Mean, over the audited images, of the lowest loss of all searches of an image."""
        return float(self._searches.amin(0).double().mean()) if self.audited else None

    @property
    def winners(self) -> Tensor:
        """By audited image, the search with the lowest loss, int64 [n]; 0: that from z = 0."""
        return self._searches.argmin(0)

    @property
    def audited(self) -> int:
        """n: number of images that were searched from random codes, too."""
        return self.restarts.shape[1] if len(self.restarts) else 0

    @property
    def _searches(self) -> Tensor:
        searches = torch.cat((self.losses[None, : self.restarts.shape[1]], self.restarts))
        return searches.nan_to_num(nan=float("inf"), posinf=float("inf"))

    def hardest(self, count: int) -> Tensor:
        """Indices of the ``count`` images with the highest losses, the highest first."""
        return self.losses.argsort(descending=True, stable=True)[:count]

    def easiest(self, count: int) -> Tensor:
        """Indices of the ``count`` images with the lowest losses, the lowest first."""
        return self.losses.argsort(stable=True)[:count]


@arithmetic("fp32")
def final_test(
    generator: nn.Module,
    code_size: int,
    images: Tensor,
    config: FinalConfig,
    *,
    seed: int,
    latent: Latent = "normal",
    batch_size: int | None = None,
    progress: Callable[[float], object] = lambda _: None,
) -> FinalTest:
    """Test ``generator``, frozen and in eval mode, on ``images`` (uint8 [N, C, H, W]).

    The random codes of an image, of the distribution ``latent``, depend on ``seed`` and its place.
    ``batch_size``: images on the device at the same time; by default 100, or up to 1,000 small ones
    on a GPU. Losses do not depend on it, up to float rounding. ``progress`` is called after each
    batch with the share of the searches that are done, from 0 to 1. Raises
    :class:`~raygan.errors.RayganError` if a loss from z = 0 is not finite.
    """
    images = images[: config.images]
    audited = images[: config.audited]
    searches, searched = len(images) + config.restarts * len(audited), 0
    if batch_size is None:
        on_gpu = next(generator.parameters()).is_cuda
        most = max(100, min(1000, _MOST_VALUES // math.prod(images.shape[1:])))
        batch_size = most if on_gpu else 100
    losses, reconstructions = [], []
    for part in images.split(batch_size):
        done = reconstruct(generator, code_size, part, steps=config.steps, batch_size=batch_size)
        losses.append(done.losses)
        reconstructions.append(as_bytes(done.images))
        searched += len(part)
        progress(searched / searches)
    lost = int((~torch.cat(losses).isfinite()).sum())
    if lost:
        raise RayganError(
            f"the searches from z = 0 of {lost} of {len(images)} images diverged (NaN or infinite "
            "loss): this generator has no final loss"
        )
    restarts = torch.empty(config.restarts, len(audited))
    for number in range(config.restarts):
        starts = codes(seed, RESTARTS, number, len(audited), code_size, latent)
        parts = zip(audited.split(batch_size), starts.split(batch_size), strict=True)
        again = []
        for part, start in parts:
            done = reconstruct(
                generator, code_size, part, steps=config.steps, batch_size=batch_size, start=start
            )
            again.append(done.losses)
            searched += len(part)
            progress(searched / searches)
        restarts[number] = torch.cat(again)
    return FinalTest(torch.cat(losses), restarts, torch.cat(reconstructions))
