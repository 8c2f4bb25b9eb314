"""Batch norm."""

from __future__ import annotations

from torch import nn

from raygan.gan.nets.norms.norm import Norm, batch_norm_problem


class BatchNorm(Norm):
    """Batch norm (Ioffe & Szegedy 2015) over the global batch; PReLU."""

    name = "bn"

    @property
    def mixes_images(self) -> bool:
        """D's statistics are those of the batch."""
        return True

    def normalisation(self, channels: int) -> list[nn.Module]:
        """Batch norm with scale and bias."""
        return [nn.BatchNorm2d(channels)]

    def check_map(self, batch_size: int, rows: int, columns: int) -> str | None:
        """One value per channel has no variance."""
        return batch_norm_problem(batch_size, rows, columns)
