"""The configuration of one training run; the only place where its defaults live."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from raygan.errors import ConfigError

Norm = Literal["vanilla", "bn", "wn", "wn-affine", "sn", "ln", "gn"]
Architecture = Literal["dcgan", "resnet"]
Update = Literal["alternating", "simultaneous"]
LossName = Literal["log", "least-squares", "hinge", "wgan-gp"]
OptimizerName = Literal["rmsprop", "adam"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What one GAN is and how it is trained (Xiang & Li 2017, arXiv 1704.03971, section 5).

    The defaults are the paper's. Raises :class:`~raygan.errors.ConfigError` for a value that
    cannot be trained.
    """

    norm: Norm = "wn"
    """Normalisation of generator and discriminator; sn: spectral norm in D, batch norm in G."""
    architecture: Architecture = "dcgan"
    """``dcgan``: strided convolutions; ``resnet``: residual blocks."""
    features: int = 64
    """Channels of the level next to the image; they double per level (dcgan) or are 1, 2, 4, 6,
    8, … times as many (resnet)."""
    levels: int | None = None
    """Stride-2 levels; by default as many as bring the longer side below 8."""
    blocks: int = 2
    """Residual blocks per level; ``resnet`` only."""
    code_size: int = 128
    """Dimensions of the latent code z ~ N(0, 1)."""
    loss: LossName = "log"
    """``log``: non-saturating log loss; ``least-squares``: Mao et al. 2017; ``hinge``: Lim & Ye
    2017; ``wgan-gp``: Gulrajani et al. 2017, with a penalty of 10."""
    update: Update = "alternating"
    """``alternating``: D, then G on fresh noise; ``simultaneous``: one fake batch serves both."""
    d_steps: int = 1
    """Updates of D per iteration, each on its own real images and noise."""
    optimizer: OptimizerName = "rmsprop"
    """``rmsprop``: smoothing 0.9, ε 1e-6; ``adam``: β₁ 0.5, β₂ 0.999."""
    lr: float = 1e-4
    """Learning rate of both networks."""
    lr_d: float | None = None
    """Learning rate of the discriminator; by default ``lr``."""
    warmup: int = 0
    """Iterations at the start with the learning rates multiplied by ``warmup_factor``."""
    warmup_factor: float = 0.1
    """Factor of the learning rates during ``warmup``."""
    batch_size: int = 32
    """Real images per update of D over all workers together."""
    flip: bool = False
    """Whether a real image is mirrored left to right with probability one half, each time that it
    is trained on. Held-out images are never mirrored."""
    iterations: int = 20_000
    """Updates of G."""
    evaluate_every: int = 1_000
    """Iterations between evaluations (running reconstruction test, pictures, checkpoint)."""
    reconstruction_steps: int = 50
    """RMSProp steps of the running reconstruction test."""
    ema: float = 0.0
    """Decay of an exponential moving average of G's weights and running statistics. If it is above
    0, the average is the generator that is evaluated and kept."""
    precision: Precision = "fp32"
    """Arithmetic of the training steps: ``fp32``; ``tf32``, where a GPU has it; ``bf16``: autocast.
    Weights and evaluations are always fp32."""
    compile: bool = False
    """Whether ``torch.compile`` compiles the training steps."""
    seed: int = 0
    """Random seed of the initialisation, the noise and the order of the images."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"`{name}` (={getattr(self, name)!r}) must be one of {', '.join(allowed)}"
                )
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name == "levels":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ConfigError(
                    f"`{name}` (={value!r}) must be a whole number from {least} to {most}"
                )
        for name in ("flip", "compile"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"`{name}` (={value!r}) must be true or false")
        for name in ("lr", "lr_d", "warmup_factor"):
            value = getattr(self, name)
            if value is None and name == "lr_d":
                continue
            if not (_is_number(value) and value > 0):
                raise ConfigError(f"`{name}` (={value!r}) must be a positive number")
        if self.warmup_factor > 1:
            raise ConfigError(f"`warmup_factor` (={self.warmup_factor!r}) must be at most 1")
        if not (_is_number(self.ema) and 0 <= self.ema < 1):
            raise ConfigError(f"`ema` (={self.ema!r}) must be a number from 0 to below 1")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.update == "simultaneous" and self.d_steps > 1:
            raise ConfigError(
                f"`d_steps` (={self.d_steps}) needs `update: alternating`: simultaneously, one "
                "fake batch serves one update of each network"
            )
        if self.loss != "wgan-gp":
            return
        if self.norm == "bn":
            raise ConfigError(
                "`loss: wgan-gp` cannot be used with `norm: bn`: the penalty is on the gradient of "
                "each image by itself, which batch norm in D mixes with the others' (Gulrajani et "
                "al. 2017, section 4); use ln or gn, or another loss"
            )
        if self.update == "simultaneous":
            raise ConfigError(
                "`loss: wgan-gp` needs `update: alternating`: D's penalty has a gradient that G's "
                "update cannot share"
            )
        if self.compile:
            raise ConfigError(
                "`loss: wgan-gp` cannot be used with `compile: true`: torch.compile does not "
                "differentiate a gradient once more, as the penalty asks"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, as plain JSON values."""
        return dataclasses.asdict(self)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


FIELDS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(TrainConfig))
"""Names of all fields, in order."""

CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(hint)
    for name, hint in get_type_hints(TrainConfig).items()
    if get_args(hint) and all(isinstance(value, str) for value in get_args(hint))
}
"""The fields that are one of a few words, with these words."""

_BOUNDS = {
    "features": (1, 2**20),
    "levels": (1, 16),
    "blocks": (1, 64),
    "code_size": (1, 2**20),
    "warmup": (0, 2**40),
    "d_steps": (1, 1000),
    "batch_size": (1, 2**24),
    "iterations": (1, 2**40),
    "evaluate_every": (1, 2**40),
    "reconstruction_steps": (1, 2**24),
    "seed": (0, 2**63 - 1),
}
