"""What the recipes have in common that a training configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raygan.recipe import Recipe

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig


class Part(Recipe):
    """A norm, architecture, loss, optimizer or augmentation: one key of ``train`` names it."""

    reserved = (
        "parameters", "method", "trials", "try_first", "repeats", "trial", "cell", "title", "kind",
        "outcome", "reason", "step", "best_loss", "best_step", "last_loss", "end_loss", "worsening",
        "worsening_flat", "worsening_flat_95", "worsening_fresh", "log_drawup", "log_drawup_flat",
        "log_drawup_flat_95", "roughness", "log_area", "final_best", "final_best_audited",
        "final_best_restarts", "final_last", "final_last_audited", "final_last_restarts",
        "final_best_code_norm", "final_best_outside", "final_best_ball", "final_best_ball_free",
        "final_last_code_norm", "final_last_outside", "final_last_ball", "final_last_ball_free",
        "final_best_protocol", "final_last_protocol",
        "fid_best", "kid_best", "fid_last", "kid_last", "seconds", "gpu_seconds",
        "best_checkpoint", "last_checkpoint",
    )  # fmt: skip
    """Keys of the YAML's section ``search``, and columns of ``results.parquet``."""

    def check(self, config: TrainConfig) -> None:
        """Refuse what makes no sense together with it.

        Raises :class:`~raygan.errors.ConfigError` that names the keys and what to do.
        """
