"""The configuration of one training run; the only place where its defaults live."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from raygan.errors import ConfigError
from raygan.recipe import Scalar, Table

if TYPE_CHECKING:
    from raygan.gan.part import Part

Update = Literal["alternating", "simultaneous"]
Latent = Literal["normal", "uniform"]
Decay = Literal["none", "linear", "cosine"]
Precision = Literal["fp32", "tf32", "bf16"]
Initialisation = Literal["pytorch", "pytorch-2017"]
Quality = Literal["none", "features", "wasserstein"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What one GAN is and how it is trained (Xiang & Li 2017, arXiv 1704.03971, section 5).

    The defaults are the paper's. Norm, architecture, loss, optimizer and augmentation are recipes
    (:mod:`raygan.recipe`), whose own parameters stand in :attr:`parameters`; :meth:`of` takes all
    by name. Raises :class:`~raygan.errors.ConfigError` for a value that cannot be trained.
    """

    norm: str = "wn"
    """Normalisation of generator and discriminator."""
    architecture: str = "dcgan"
    """Architecture of generator and discriminator."""
    features: int = 64
    """Channels of the level next to the image; they double per level (dcgan) or are 1, 2, 4, 6,
    8, … times as many (resnet)."""
    features_d: int | None = None
    """``features`` of the discriminator; by default ``features``, as of the generator."""
    levels: int | None = None
    """Stride-2 levels; by default as many as bring the longer side below 8."""
    code_size: int = 128
    """Dimensions of the latent code z."""
    initialisation: Initialisation = "pytorch"
    """Random weights at the start: ``pytorch``: those of today's PyTorch; ``pytorch-2017``: those
    of PyTorch in 2017, which the authors used
    (:func:`raygan.gan.nets.initialisation.as_in_2017`)."""
    latent: Latent = "normal"
    """Distribution of each dimension of z: ``normal``: N(0, 1); ``uniform``: from −1 to 1 (Radford
    et al. 2016)."""
    loss: str = "log"
    """Adversarial loss."""
    update: Update = "alternating"
    """``alternating``: D, then G on fresh noise; ``simultaneous``: one fake batch serves both."""
    d_steps: int = 1
    """Updates of D per iteration, each on its own real images and noise."""
    r1: float = 0.0
    """Factor γ of the penalty γ/2 · ‖∇D(x)‖² on real images x in D's loss (Mescheder et al. 2018,
    equation 9); the gradient is that with respect to pixels in [0, 1]. 0: there is none."""
    optimizer: str = "rmsprop"
    """Optimizer of both networks."""
    weight_decay: float = 0.0
    """Factor of an L2 penalty on the weights of both networks, in the gradient."""
    lr: float = 1e-4
    """Learning rate of both networks."""
    lr_d: float | None = None
    """Learning rate of the discriminator; by default ``lr``."""
    lr_decay: Decay = "none"
    """How both learning rates fall to 0 over ``iterations``: ``linear``, or along half a
    ``cosine``. They change at evaluations only; if the decay is not ``none``, a checkpoint cannot
    be trained to more ``iterations``."""
    warmup: int = 0
    """Iterations at the start with the learning rates multiplied by ``warmup_factor``."""
    warmup_factor: float = 0.1
    """Factor of the learning rates during ``warmup``; that of ``lr_decay`` multiplies it."""
    batch_size: int = 32
    """Real images per update of D over all workers together."""
    flip: bool = False
    """Whether a real image is mirrored left to right with probability one half, each time that it
    is trained on. Held-out images are never mirrored."""
    augment: str = "none"
    """Differentiable augmentation of the real and fake images that D is trained on."""
    iterations: int = 20_000
    """Updates of G."""
    evaluate_every: int = 1_000
    """Iterations between evaluations (running reconstruction test, pictures)."""
    reconstruction_steps: int = 50
    """RMSProp steps of the running reconstruction test."""
    quality: Quality = "none"
    """Measures of the quality of G's samples: ``features``: feature energy distance, recall and
    coverage, which need ``raygan[quality]``; ``wasserstein``: sliced Wasserstein distance of
    patches; ``none``: none."""
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
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """Parameters of the recipes that are named above: all of them, with their defaults."""

    @classmethod
    def of(cls, **values: Any) -> TrainConfig:
        """The configuration with these fields and parameters of recipes, by name.

        Parameters of recipes that it does not name have no effect. Raises
        :class:`~raygan.errors.ConfigError` for a name that no field and no recipe has.
        """
        own = {name: values.pop(name) for name in CORE if name in values}
        own["parameters"] = {**own.get("parameters", {}), **values}
        return cls(**own)

    def __post_init__(self) -> None:
        for name, allowed in WORDS.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"`{name}` (={getattr(self, name)!r}) must be one of {', '.join(allowed)}"
                )
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is None and name in ("features_d", "levels"):
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
        for name in ("weight_decay", "r1"):
            if not (_is_number(value := getattr(self, name)) and value >= 0):
                raise ConfigError(f"`{name}` (={value!r}) must be a number from 0 on")
        if not (_is_number(self.ema) and 0 <= self.ema < 1):
            raise ConfigError(f"`ema` (={self.ema!r}) must be a number from 0 to below 1")
        parts = self._parts()
        if self.update == "simultaneous" and self.d_steps > 1:
            raise ConfigError(
                f"`d_steps` (={self.d_steps}) needs `update: alternating`: simultaneously, one "
                "fake batch serves one update of each network"
            )
        self._check_penalties()
        for part in parts:
            part.check(self)

    def _check_penalties(self) -> None:
        from raygan.gan.losses import LOSSES
        from raygan.gan.penalties import check_penalty

        loss = LOSSES.make(self.loss, self.parameters)
        if loss.gradient_penalty > 0:
            check_penalty(self, f"loss: {self.loss}")
        if self.r1 > 0:
            check_penalty(self, "r1")
        if self.r1 > 0 and loss.gradient_penalty > 0:
            raise ConfigError(
                f"`r1` (={self.r1}) cannot be used with `loss: {self.loss}`, which has a gradient "
                "penalty of its own; remove `r1`, or use another loss"
            )

    def _parts(self) -> list[Part]:
        """The recipes that are named; completes :attr:`parameters` by their defaults."""
        tables = recipe_tables()
        if unknown := self.parameters.keys() - set(fields()):
            raise ConfigError(
                f"`{min(unknown)}` is neither a field of the training configuration nor a "
                "parameter of a recipe"
            )
        metrics = [_metrics().make(name, self.parameters) for name in _metrics().names]
        parts = [table.make(getattr(self, name), self.parameters) for name, table in tables.items()]
        complete = {
            each.name: getattr(part, each.name)
            for part in (*parts, *metrics)
            for each in dataclasses.fields(part)
        }
        object.__setattr__(self, "parameters", complete)
        return parts

    def rate_factor(self, step: int) -> float:
        """The factor of both learning rates in the iteration after ``step`` iterations.

        ``lr_decay`` is that at the last evaluation before it: on a GPU, each change costs a new
        recording of the iteration.
        """
        factor = self.warmup_factor if step < self.warmup else 1.0
        if self.lr_decay == "none":
            return factor
        share = step // self.evaluate_every * self.evaluate_every / self.iterations
        if self.lr_decay == "linear":
            return factor * (1 - share)
        return factor * (1 + math.cos(math.pi * share)) / 2

    def to_dict(self) -> dict[str, Any]:
        """Every field and every parameter of a recipe by name, as plain values; see :meth:`of`."""
        return {name: getattr(self, name) for name in CORE} | dict(self.parameters)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


CORE: tuple[str, ...] = tuple(
    each.name for each in dataclasses.fields(TrainConfig) if each.name != "parameters"
)
"""Names of the fields that every configuration has, in order."""

WORDS: dict[str, tuple[str, ...]] = {
    name: get_args(hint)
    for name, hint in get_type_hints(TrainConfig).items()
    if get_args(hint) and all(isinstance(value, str) for value in get_args(hint))
}
"""The fields that are one of a few words, with these words."""


def recipe_tables() -> dict[str, Table[Part]]:
    """The fields that name a recipe, each with the table of its kind."""
    # PyTorch is loaded here and not by whoever reads a configuration's fields
    from raygan.gan.augmentations import AUGMENTATIONS
    from raygan.gan.losses import LOSSES
    from raygan.gan.nets.architectures import ARCHITECTURES
    from raygan.gan.nets.norms import NORMS
    from raygan.gan.optimizers import OPTIMIZERS

    tables: dict[str, Table[Any]] = {
        "norm": NORMS,
        "architecture": ARCHITECTURES,
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "augment": AUGMENTATIONS,
    }
    return tables


def _metrics() -> Table[Any]:
    from raygan.gan.judge.metrics import METRICS

    return METRICS


def parameter_tables() -> tuple[Table[Any], ...]:
    """The tables whose recipes' parameters are in a configuration; all metrics are used."""
    return (*recipe_tables().values(), _metrics())


def fields() -> tuple[str, ...]:
    """Names of all fields and of all parameters of recipes."""
    tables = parameter_tables()
    return tuple(dict.fromkeys((*CORE, *(name for t in tables for name in t.parameters()))))


def varied_fields() -> tuple[str, ...]:
    """The fields and parameters in which trials may differ: not those of metrics, nor the measures
    of quality, since these are the same in each trial."""
    tables = recipe_tables().values()
    core = (name for name in CORE if name != "quality")
    return tuple(dict.fromkeys((*core, *(name for t in tables for name in t.parameters()))))


def check_names() -> None:
    """Each parameter of a recipe has a name of its own.

    Raises :class:`~raygan.errors.ConfigError` if a field, or a recipe of another kind, has it.
    """
    known = dict.fromkeys((*CORE, "parameters"), "a field of the training configuration")
    known["dataset"] = "an axis of a sweep's grid"
    for table in parameter_tables():
        for name, owners in table.parameters().items():
            owner = f"a parameter of the {table.kind} {' and '.join(owners)}"
            if name in known:
                raise ConfigError(f"`{name}` is {owner} and {known[name]}; rename one")
            known[name] = owner


def choices() -> dict[str, tuple[str, ...]]:
    """The fields that are one of a few words or name a recipe, with what they may be."""
    return {name: table.names for name, table in recipe_tables().items()} | WORDS


_BOUNDS = {
    "features": (1, 2**20),
    "features_d": (1, 2**20),
    "levels": (1, 16),
    "code_size": (1, 2**20),
    "warmup": (0, 2**40),
    "d_steps": (1, 1000),
    "batch_size": (1, 2**24),
    "iterations": (1, 2**40),
    "evaluate_every": (1, 2**40),
    "reconstruction_steps": (1, 2**24),
    "seed": (0, 2**63 - 1),
}
