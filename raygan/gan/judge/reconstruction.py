"""The reconstruction test: how well G can produce an image that it was not trained on.

For a held-out image x, minimise ‖G(z) − x‖² over z from z = 0 by RMSProp with learning rate
0.01, smoothing 0.9 and ε 1e-6 (arXiv 1704.03971, section 5.2).

The authors' code (github.com/stormraiser/GAN-weight-norm, ``pytorch/main.py``, ``test``) minimises
the mean of the squared error over a batch of 32 images and over their pixels and channels. RMSProp
divides the gradient by its recent size plus ε, so that the factor would cancel if ε were 0. With
ε 1e-6, the mean's gradient is so small that ε counts: steps are shorter. Protocol ``authors``
searches with this gradient. A search still does not depend on the others: each image's gradient is
divided by 32 and by its number of values, in a last batch of fewer images, too. There the authors'
code divides by the smaller number of images (2,000 images leave 16, with twice the gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raygan.gan.judge.final_config import PER_IMAGE, SearchProtocol
from raygan.gan.nets.layers import frozen
from raygan.gan.pixels import as_float
from raygan.gan.recorded import Recorded
from raygan.gan.workers import Workers

LEARNING_RATE, SMOOTHING, EPSILON = 0.01, 0.9, 1e-6
AUTHORS_BATCH = 32
"""Images in a batch of the authors' code."""


@dataclass(frozen=True)
class Reconstruction:
    """The result of one test."""

    losses: Tensor
    """Mean squared error per pixel in [0, 1] of each image, float32 [N], on the CPU."""
    images: Tensor
    """G(z) of this worker's share, float32 [n, C, H, W] in [0, 1], on the device."""
    codes: Tensor
    """The codes z that the searches of this worker's share ended at, [n, code_size], on the
    device."""

    @property
    def loss(self) -> float:
        """Mean over all images: the reconstruction loss."""
        return float(self.losses.double().mean())


def reconstruct(
    generator: nn.Module,
    code_size: int,
    images: Tensor,
    *,
    steps: int,
    batch_size: int = 100,
    workers: Workers | None = None,
    start: Tensor | None = None,
    protocol: SearchProtocol = PER_IMAGE,
    radius: float | None = None,
) -> Reconstruction:
    """Reconstruct ``images`` (uint8 or float32 in [0, 1], [N, C, H, W]) in ``steps`` steps.

    ``start``: codes that the searches start from, [N, code_size]; by default 0.
    ``protocol``: whose gradient a search follows; losses are per image with both. ``radius``: after
    each step, a longer code is shortened to this length; by default codes are free. The generator
    is frozen and in eval mode meanwhile. The images are shared among the ``workers``, and each
    worker gets all losses. The searches of different images do not affect each other, so that a
    loss does not depend on the batch size or the number of workers, up to float rounding.
    """
    workers = workers or Workers()
    device = next(generator.parameters()).device
    share = workers.share(len(images))
    parts: list[Tensor] = []
    found: list[Tensor] = []
    losses = torch.zeros(len(images), device=device)
    with frozen(generator):
        search: _Search | None = None
        for first in range(share.start, share.stop, batch_size):
            part = slice(first, min(first + batch_size, share.stop))
            target = as_float(images[part].to(device, non_blocking=True))
            if search is None or len(search.codes) != len(target):
                search = None  # free its graph before another one is recorded
                search = _Search(generator, code_size, target, protocol, radius)
            image = search(target, None if start is None else start[part], steps)
            losses[part] = (image - target).square_().mean((1, 2, 3))
            parts.append(image)
            found.append(search.codes.detach().clone())
    workers.sum_(losses)
    shape = (0, *images.shape[1:])
    reconstructed = torch.cat(parts) if parts else torch.zeros(shape, device=device)
    codes = torch.cat(found) if found else torch.zeros(0, code_size, device=device)
    return Reconstruction(losses.cpu(), reconstructed, codes)


class _Search:
    """Searches the codes of n images at the same time. ``like``: float32 [n, C, H, W]."""

    def __init__(
        self,
        generator: nn.Module,
        code_size: int,
        like: Tensor,
        protocol: SearchProtocol,
        radius: float | None,
    ):
        on_gpu = like.is_cuda
        self._generator = generator
        codes = torch.zeros(len(like), code_size, device=like.device, requires_grad=True)
        wanted = torch.empty_like(like)
        optimizer = torch.optim.RMSprop(
            [codes], lr=LEARNING_RATE, alpha=SMOOTHING, eps=EPSILON, capturable=on_gpu
        )
        self.codes, self._wanted, self._optimizer = codes, wanted, optimizer
        averaged = AUTHORS_BATCH * like[0].numel() if protocol == "authors" else 1

        def descend() -> None:
            with torch.enable_grad():
                image = generator(codes)
            # the gradient of ‖G(z) − x‖² or of its mean, without computing the loss itself
            with torch.no_grad():
                difference = (image - wanted).mul_(2 / averaged)
            (codes.grad,) = torch.autograd.grad(image, codes, difference)
            optimizer.step()
            if radius is not None:
                # a code within the ball is multiplied by 1: it stays the same
                with torch.no_grad():
                    codes.mul_(radius / codes.norm(dim=1, keepdim=True).clamp_min_(radius))

        self._descend = Recorded(descend, on_gpu=on_gpu, shares=True)

    def __call__(self, target: Tensor, start: Tensor | None, steps: int) -> Tensor:
        """G(z) after ``steps`` steps from ``start``, or from 0."""
        self._wanted.copy_(target)
        with torch.no_grad():
            self.codes.zero_() if start is None else self.codes.copy_(start)
        for state in self._optimizer.state.values():
            state["square_avg"].zero_()
        for _ in range(steps):
            self._descend()
        with torch.no_grad():
            image: Tensor = self._generator(self.codes)
        return image
