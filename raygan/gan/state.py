"""The state of a training run, which a checkpoint holds: both networks, their optimizers, the
number of iterations done, and the evaluations so far."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raygan.errors import CheckpointError
from raygan.gan import sampling
from raygan.gan.augmentations import AUGMENTATIONS
from raygan.gan.averaging import Average
from raygan.gan.config import TrainConfig, parameter_tables, recipe_tables
from raygan.gan.judge.metrics import METRICS
from raygan.gan.losses import LOSSES
from raygan.gan.nets.architectures import ARCHITECTURES, build
from raygan.gan.nets.global_batch_norm import synchronize_batch_norm
from raygan.gan.nets.initialisation import as_in_2017
from raygan.gan.nets.levels import Shape
from raygan.gan.nets.norms import NORMS
from raygan.gan.optimizers import OPTIMIZERS
from raygan.gan.steps import Game, Player
from raygan.gan.workers import Workers
from raygan.recipe import file_of, require_code

Metrics = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The evaluated generator with the lowest reconstruction loss of a run."""

    step: int
    loss: float
    generator: dict[str, Tensor]
    """Its weights and running statistics."""

    @classmethod
    def of(cls, state: TrainState, loss: float) -> Best:
        """A copy, on the device, of the generator that ``state`` has now."""
        now = state.judged.state_dict()
        return cls(state.step, loss, {name: value.detach().clone() for name, value in now.items()})


@dataclass(frozen=True)
class Stretch:
    """What is known between two evaluations: the sums that become means at the next one."""

    first: int
    """Iterations at its start."""
    totals: Tensor
    """The sums of each worker since then, float32 [workers, statistics], on the CPU."""


@dataclass
class TrainState:
    """Both networks, both optimizers, and how far they are."""

    config: TrainConfig
    shape: Shape
    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: Optimizer
    optimizer_d: Optimizer
    step: int = 0
    """Iterations done."""
    best: Best | None = None
    """The generator with the lowest reconstruction loss so far; None if there is none yet, or if
    an earlier version kept it in another checkpoint, which is lost."""
    best_step: int = 0
    best_loss: float = math.inf
    """Lowest reconstruction loss so far, and the step it was reached at."""
    stretch: Stretch | None = None
    """Where training resumes between two evaluations; None at an evaluation."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Metrics of every evaluation so far, each with its ``step``."""
    average: Average | None = field(init=False)
    """The running mean of the generator, if there is one."""

    def __post_init__(self) -> None:
        ema = self.config.ema
        self.average = Average(self.generator, ema) if ema > 0 else None

    @classmethod
    def create(
        cls, config: TrainConfig, shape: Shape, device: torch.device | None = None
    ) -> TrainState:
        """Fresh networks for images of ``shape`` (C, H, W), the same on every worker and device."""
        for name, table in recipe_tables().items():
            require_code(table[getattr(config, name)])
        device = device or torch.device("cpu")
        workers = Workers()
        # weights are drawn on the CPU; torch.manual_seed would seed GPUs for good, too
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(sampling.derive_seed(config.seed, sampling.INIT, 0))
            built = build(config, shape)
            if config.initialisation == "pytorch-2017":
                for network in built:
                    as_in_2017(network)
        generator, discriminator = (
            synchronize_batch_norm(
                network.to(device).to(memory_format=torch.channels_last), workers, device
            )
            for network in built
        )
        return cls(
            config,
            shape,
            generator,
            discriminator,
            _optimizer(config, generator, config.lr),
            _optimizer(config, discriminator, config.lr_d or config.lr),
        )

    @classmethod
    def restore(
        cls,
        saved: dict[str, Any],
        device: torch.device | None = None,
        *,
        config: TrainConfig | None = None,
        shape: Shape | None = None,
    ) -> TrainState:
        """The state that :meth:`state_dict` returned, on ``device``.

        ``config`` and ``shape`` (C, H, W) are what it must be of, by default its own; ``config``
        may have more ``iterations``, as :meth:`load_state_dict` says. Raises
        :class:`~raygan.errors.CheckpointError` if it is of another configuration or shape, or lacks
        a part.
        """
        try:
            config = config or TrainConfig.of(**saved["config"])
            channels, height, width = shape or saved["shape"]
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint does not say what it is of ({error}); use another one, or start "
                "in a new folder"
            ) from error
        state = cls.create(config, (channels, height, width), device)
        state.load_state_dict(saved)
        return state

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.generator.parameters()).device

    @property
    def judged(self) -> nn.Module:
        """The generator that is evaluated and sampled: the running mean, if there is one."""
        return self.generator if self.average is None else self.average.network

    def advance(self) -> None:
        """Count an iteration that was played."""
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)

    def game(self, workers: Workers) -> Game:
        """The two networks and their optimizers, ready to play."""
        config = self.config
        augmentation = AUGMENTATIONS.make(config.augment, config.parameters)
        discriminator = self._player(
            self.discriminator, self.optimizer_d, mixes_images=_may_mix_images(config)
        )
        return Game(
            generator=self._player(self.generator, self.optimizer_g),
            discriminator=discriminator,
            loss=LOSSES.make(config.loss, config.parameters),
            workers=workers,
            d_steps=config.d_steps,
            r1=config.r1,
            augmentation=augmentation,
        )

    def _player(
        self, network: nn.Module, optimizer: Optimizer, *, mixes_images: bool = False
    ) -> Player:
        bf16, compiled = self.config.precision == "bf16", self.config.compile
        return Player(network, optimizer, bf16=bf16, compiled=compiled, mixes_images=mixes_images)

    def set_rates(self) -> bool:
        """Give the optimizers the learning rates of the next iteration; whether they changed."""
        factor = self.config.rate_factor(self.step)
        rates = (self.config.lr, self.config.lr_d or self.config.lr)
        changed = False
        for optimizer, lr in zip((self.optimizer_g, self.optimizer_d), rates, strict=True):
            for group in optimizer.param_groups:
                changed |= group["lr"] != lr * factor
                group["lr"] = lr * factor
        return changed

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for :func:`raygan.gan.checkpoint.save`."""
        state = {
            "config": self.config.to_dict(),
            "shape": list(self.shape),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizer_g": self.optimizer_g.state_dict(),
            "optimizer_d": self.optimizer_d.state_dict(),
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "history": self.history,
        }
        if self.average is not None:
            state["average"] = self.average.network.state_dict()
        if self.best is not None:
            state["best"] = vars(self.best)
        if self.stretch is not None:
            state["stretch"] = vars(self.stretch)
        return state

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over a saved state; more ``iterations`` than it was saved with are allowed, unless
        the learning rates decay over them.

        Raises :class:`~raygan.errors.CheckpointError` if it is of another configuration.
        """
        own = {**self.config.to_dict(), "shape": list(self.shape)}
        used = {getattr(self.config, name) for name in recipe_tables()} | set(METRICS.names)
        # fields that are younger than the checkpoint had the effect of their defaults
        defaults = {each.name: each.default for each in dataclasses.fields(TrainConfig)}
        for table in parameter_tables():
            for owners in table.parameters().values():
                defaults |= {p.name: p.default for name, p in owners.items() if name in used}
        other = {**defaults, **(saved.get("config") or {}), "shape": saved.get("shape")}
        changed = [
            f"{name} was {other.get(name)!r}, is {value!r}"
            + (" (`lr_decay` depends on it)" if name == "iterations" else "")
            for name, value in own.items()
            if other.get(name) != value and (name != "iterations" or self.config.lr_decay != "none")
        ]
        if changed:
            raise CheckpointError(
                f"the checkpoint is of another configuration: {'; '.join(changed)}; "
                "restore that configuration or start in a new folder"
            )
        try:
            self._take_over(saved)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"the checkpoint does not hold all of its parts: {reason}"
            ) from error

    def _take_over(self, saved: dict[str, Any]) -> None:
        self.generator.load_state_dict(saved["generator"])
        self.discriminator.load_state_dict(saved["discriminator"])
        if self.average is not None:
            self.average.network.load_state_dict(saved["average"])
        _restore(self.optimizer_g, saved["optimizer_g"])
        _restore(self.optimizer_d, saved["optimizer_d"])
        self.step = saved["step"]
        self.best_step, self.best_loss = saved["best_step"], saved["best_loss"]
        self.history = list(saved["history"])
        self.best = self._best(saved)
        self.stretch = Stretch(**saved["stretch"]) if "stretch" in saved else None

    def _best(self, saved: dict[str, Any]) -> Best | None:
        if "best" not in saved:  # of an earlier version, which kept the best in its own checkpoint
            return Best.of(self, self.best_loss) if 0 < self.best_step == self.step else None
        like, best = self.judged.state_dict(), Best(**saved["best"])
        if like.keys() != best.generator.keys():
            raise KeyError("best")
        moved = {name: best.generator[name].to(value.device) for name, value in like.items()}
        return Best(best.step, best.loss, moved)


def _may_mix_images(config: TrainConfig) -> bool:
    """Whether images may meet in D elsewhere than in PyTorch's batch norm.

    raygan's own recipes have no such layers. A D of theirs that is too small for batch norm judges
    real and fake images together, whatever its norm says.
    """
    recipes = NORMS[config.norm], ARCHITECTURES[config.architecture]
    own = any(file_of(recipe) is not None for recipe in recipes)
    return own and NORMS.make(config.norm, config.parameters).mixes_images


def _optimizer(config: TrainConfig, network: nn.Module, lr: float) -> Optimizer:
    recipe = OPTIMIZERS.make(config.optimizer, config.parameters)
    return recipe.make(list(network.parameters()), lr, config.weight_decay)


def _restore(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Take over a saved state, but not how the device computes that it was saved on."""
    (own,) = optimizer.param_groups
    computed = {key: own[key] for key in ("capturable", "fused") if key in own}
    groups = [{**group, **computed} for group in saved["param_groups"]]
    optimizer.load_state_dict({**saved, "param_groups": groups})
