"""Which maps lie between an image and a code; the same for every architecture."""

from __future__ import annotations

from typing import NamedTuple

from raygan.errors import ConfigError

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Level(NamedTuple):
    """One halving of the map, seen from the image."""

    padding: tuple[int, int]
    """Rows and columns of padding: 1, or 2 where the half would be odd and halved again."""
    size: tuple[int, int]
    """Height and width of the smaller map."""

    @property
    def extra(self) -> tuple[int, int]:
        """Rows and columns, on each side, by which the smaller map exceeds the half."""
        return self.padding[0] - 1, self.padding[1] - 1


def plan_levels(height: int, width: int, levels: int | None) -> list[Level]:
    """Sizes and paddings of the levels, from the image inwards.

    Raises :class:`~raygan.errors.ConfigError` if a side is odd or runs out of pixels.
    """
    if height % 2 or width % 2 or min(height, width) < 2:
        raise ConfigError(
            f"images of {height}×{width} pixels cannot be used: height and width must be even; "
            "set `dataset.size` to an even size"
        )
    count = _default_levels(max(height, width)) if levels is None else levels
    planned: list[Level] = []
    size = (height, width)
    for level in range(count):
        deepest = level == count - 1
        extra = tuple(0 if deepest else (side // 2) % 2 for side in size)
        halved = (size[0] // 2 + extra[0], size[1] // 2 + extra[1])
        if halved == size:  # 2 is halved to 1 and padded to 2
            raise ConfigError(
                f"`levels` (={count}) is too many for images of {height}×{width} pixels: "
                f"they cannot be halved again after level {level}; lower `levels` to at most "
                f"{level + 1}"
            )
        size = halved
        planned.append(Level((1 + extra[0], 1 + extra[1]), size))
    return planned


def _default_levels(side: int) -> int:
    count = 0
    while side >= 8:
        side = (side + 1) // 2
        count += 1
    return max(count, 1)
