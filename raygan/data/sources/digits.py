"""scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from raygan.data.sources.pieces import Item, Piece, ranges
from raygan.data.sources.source import DataSource, Source

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig

_COUNT = 1797
_SIDE = 32


class Digits(DataSource):
    """scikit-learn's handwritten digits (1,797 images, embedded), grey, 32×32 pixels by default."""

    name = "digits"
    needs_path = False
    channels = 1
    known_count = _COUNT

    def sides(self, crop: int | None, size: int | None) -> tuple[int | None, int | None]:  # noqa: ARG002
        return None, size or _SIDE

    def find(self, config: DatasetConfig, path: str) -> Source:  # noqa: ARG002
        return Source("digits", "all", "digits", _COUNT, _cut)


def _cut(size: int) -> Iterator[Piece]:
    return (DigitsPiece(start, stop) for start, stop in ranges(_COUNT, size))


@dataclass(frozen=True)
class DigitsPiece:
    """A range of scikit-learn's handwritten digits."""

    start: int
    stop: int
    path: str = "digits"

    @property
    def count(self) -> int:
        return self.stop - self.start

    def read(self) -> Iterator[Item]:
        from sklearn.datasets import load_digits

        for index, values in enumerate(load_digits().images[self.start : self.stop]):  # 0…16
            pixels = (values * (255 / 16)).round().astype(np.uint8)
            yield f"digits, {self.start + index}", pixels[:, :, None]
