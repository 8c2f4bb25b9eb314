"""DiffAugment."""

from __future__ import annotations

import torch
from torch import Tensor

from raygan.errors import ConfigError
from raygan.gan.augmentations.augmentation import Augmentation

GREY = 0.5
"""What fills the pixels that are shifted in or cut out: 0 in the paper, whose pixels are in
[−1, 1]."""


class DiffAugment(Augmentation):
    """Random color, translation and cutout, in this order (Zhao et al. 2020, section 4)."""

    name = "diffaugment"
    chances = 7

    color: bool = True
    """Whether brightness, saturation and contrast are changed."""
    translation: float = 0.125
    """Longest shift, as a share of the image's height and width; 0: none."""
    cutout: float = 0.5
    """Sides of the rectangle that is made grey, as a share of the image's; 0: none."""

    def check_parameters(self) -> None:
        """Shares are of the image, and something is changed."""
        for name in ("translation", "cutout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"`{name}` (={getattr(self, name)!r}) must be from 0 to below 1")
        if not (self.color or self.translation or self.cutout):
            raise ConfigError(
                "`augment: diffaugment` changes nothing with `color: false`, `translation: 0` and "
                "`cutout: 0`; set `augment: none`"
            )

    def __call__(self, images: Tensor, chances: Tensor) -> Tensor:
        """The authors' formulas, for pixels in [0, 1]; results may lie a little outside."""
        chances = chances.to(images.dtype)
        if self.color:
            images = _colored(images, chances[:, :3])
        if self.translation > 0:
            images = _translated(images, chances[:, 3:5], self.translation)
        if self.cutout > 0:
            images = _cut_out(images, chances[:, 5:], self.cutout)
        return images


def _colored(images: Tensor, chances: Tensor) -> Tensor:
    """Brightness by up to ± 1/4, saturation times 0 to 2, contrast times 1/2 to 3/2."""
    brightness, saturation, contrast = chances.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5) / 2
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (images - middle) * (contrast + 0.5)


def _translated(images: Tensor, chances: Tensor, ratio: float) -> Tensor:
    """Each image shifted by a whole number of pixels, up to ``ratio`` of its sides."""
    channels, height, width = images.shape[1:]
    rows, of_rows = _shifted(chances[:, 0], height, ratio)
    columns, of_columns = _shifted(chances[:, 1], width, ratio)
    sources = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2)
    moved = pixels.gather(1, sources[:, :, None].expand(-1, -1, channels))
    moved = moved.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    # Pixels from outside have no gradient: none is added up twice, in whatever order.
    return torch.where((of_rows[:, :, None] & of_columns[:, None, :])[:, None], moved, GREY)


def _shifted(chances: Tensor, size: int, ratio: float) -> tuple[Tensor, Tensor]:
    """Where each of ``size`` lines comes from, int64 [N, size], and whether it was inside."""
    most = int(size * ratio + 0.5)
    shifts = _whole(chances, 2 * most + 1) - most
    lines = torch.arange(size, device=chances.device) + shifts[:, None]
    return lines.clamp(0, size - 1), (lines >= 0) & (lines < size)


def _cut_out(images: Tensor, chances: Tensor, ratio: float) -> Tensor:
    """Each image with a grey rectangle, which may lie partly outside."""
    rows, columns = (
        _covered(chances[:, dim], size, ratio) for dim, size in enumerate(images.shape[2:])
    )
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], GREY, images)


def _covered(chances: Tensor, size: int, ratio: float) -> Tensor:
    """Which of ``size`` lines are covered, bool [N, size]."""
    length = int(size * ratio + 0.5)
    starts = _whole(chances, size + 1 - length % 2) - length // 2
    lines = torch.arange(size, device=chances.device) - starts[:, None]
    return (lines >= 0) & (lines < length)


def _whole(chances: Tensor, count: int) -> Tensor:
    """Whole numbers from 0 to count − 1, equally likely."""
    return (chances * count).long().clamp(max=count - 1)
