"""The final test: a long reconstruction test on images that no decision was based on.

By default it has 2,000 images, none of them an image of the running test (arXiv 1704.03971, section
5.2). The reported loss is that of the search from z = 0. An audit shows whether this search gets
stuck: searches of the same length start from random codes, and the lowest loss of each
image counts. In ``tests/bench/audit.py`` (digits, 1,000 iterations, 100 images), three such
searches lower the mean loss by 4% for vanilla, 2% for bn and 18% for wn.

A search may leave the codes that the generator was trained on, and find there an image that the
generator makes only by chance. :func:`ball_radius` says how long codes of the prior are. The test
reports how long the found codes are, and the loss of the audited images with codes kept that short.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

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

_QUANTILE = 2.3263478740408408
"""The normal distribution's 99% quantile."""


def ball_radius(code_size: int, latent: Latent) -> float:
    """Radius of the prior's ball: 99% of the codes that training draws are within it.

    The radius √d would be of no use: half of the codes of a normal prior are longer. Of codes as
    long as the prior's, 1% are outside of this ball, so that a clearly larger share shows that the
    searches left the prior. The same definition serves both latents: the cube [−1, 1]^d of the
    uniform one would call a code outside if a single one of its d numbers is, which nearly all
    codes are that a search finds.

    With d = 128, the radius is 1.15 √d (normal) or 0.63 √d (uniform). |z|² of a normal code has a
    χ² distribution, whose quantile is that of Wilson and Hilferty (1931). That of a uniform code is
    a sum of d squares of mean 1/3 and variance 4/45, which is nearly normal. Both radii are within
    3% of the exact ones, and within 0.3% from d = 100.
    """
    if latent == "uniform":
        squared = code_size / 3 + _QUANTILE * math.sqrt(code_size * 4 / 45)
        return math.sqrt(min(squared, code_size))  # no corner of the cube is farther away
    spread = 2 / (9 * code_size)
    return math.sqrt(code_size * (1 - spread + _QUANTILE * math.sqrt(spread)) ** 3)


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
    lengths: Tensor = field(default_factory=lambda: torch.empty(0))
    """|z| of the codes found from z = 0, float32 [N]; empty: not measured."""
    ball_losses: Tensor = field(default_factory=lambda: torch.empty(0))
    """Losses of the first n images, searched from z = 0 with codes kept within the prior's ball,
    float32 [n]. The loss of a search that diverged is not finite."""
    code_size: int = 1
    """d, the number of dimensions of z."""
    radius: float = math.inf
    """Of the prior's ball, by :func:`ball_radius`."""

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
    def code_norms(self) -> Tensor:
        """|z|/√d of each image's code, float32 [N]: about 1 for a normal prior's own codes, and
        about 0.58 for a uniform one's."""
        return self.lengths / math.sqrt(self.code_size)

    @property
    def code_norm(self) -> float | None:
        """The mean of :attr:`code_norms`."""
        return float(self.code_norms.double().mean()) if len(self.lengths) else None

    @property
    def outside(self) -> float | None:
        """Share of the images whose code is longer than the ball's radius, from 0 to 1; of codes
        that the prior draws, it is 0.01."""
        return float((self.lengths > self.radius).double().mean()) if len(self.lengths) else None

    @property
    def ball_loss(self) -> float | None:
        """The mean of :attr:`ball_losses`; None without any, or if one is not finite."""
        whole = len(self.ball_losses) and bool(self.ball_losses.isfinite().all())
        return float(self.ball_losses.double().mean()) if whole else None

    @property
    def ball_free_loss(self) -> float | None:
        """The mean of :attr:`losses` over the images of :attr:`ball_losses`: codes left free."""
        count = len(self.ball_losses)
        return float(self.losses[:count].double().mean()) if count else None

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
    searches, searched = len(images) + (config.restarts + 1) * len(audited), 0
    if batch_size is None:
        on_gpu = next(generator.parameters()).is_cuda
        most = max(100, min(1000, _MOST_VALUES // math.prod(images.shape[1:])))
        batch_size = most if on_gpu else 100
    search = partial(
        reconstruct,
        generator,
        code_size,
        steps=config.steps,
        batch_size=batch_size,
        protocol=config.protocol,
    )
    losses, reconstructions, lengths = [], [], []
    for part in images.split(batch_size):
        done = search(part)
        losses.append(done.losses)
        lengths.append(done.codes.norm(dim=1).cpu())
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
            again.append(search(part, start=start).losses)
            searched += len(part)
            progress(searched / searches)
        restarts[number] = torch.cat(again)
    radius = ball_radius(code_size, latent)
    within = []
    for part in audited.split(batch_size):
        within.append(search(part, radius=radius).losses)
        searched += len(part)
        progress(searched / searches)
    return FinalTest(
        torch.cat(losses),
        restarts,
        torch.cat(reconstructions),
        torch.cat(lengths),
        torch.cat(within),
        code_size,
        radius,
    )
