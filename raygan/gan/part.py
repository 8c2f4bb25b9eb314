"""What the recipes have in common that a training configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygan.recipe import Recipe

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig


class Part(Recipe):
    """A norm, architecture, loss, optimizer or augmentation: one key of ``train`` names it."""

    def check(self, config: TrainConfig) -> None:
        """Refuse what makes no sense together with it.

        Raises :class:`~raygan.errors.ConfigError` that names the keys and what to do.
        """
