"""Spectral norm."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from raygan.gan.nets.norms.batch_norm import BatchNorm
from raygan.gan.nets.norms.norm import Norm, batch_norm_problem


class SpectralNorm(Norm):
    """D: spectral norm, W / σ(W) with σ by power iteration (Miyato et al. 2018); PReLU. G: batch
    norm, as in their tables 3 and 4."""

    name = "sn"

    def of_generator(self) -> Norm:
        """Batch norm."""
        return BatchNorm()

    def finish(self, discriminator: nn.Module) -> None:
        """Put every layer of D under spectral norm."""
        for module in list(discriminator.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                spectral_norm(module)

    def check_map(self, batch_size: int, rows: int, columns: int) -> str | None:
        """G has batch norm."""
        return batch_norm_problem(batch_size, rows, columns)
