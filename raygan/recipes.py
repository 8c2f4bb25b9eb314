"""What a file of recipes imports: the kinds, and what they are made of.

See the guide "Your own recipe" (docs/guides/recipes.md).
"""

from __future__ import annotations

from typing import Any

from raygan.data.images import ImageSet
from raygan.data.sources.source import DataSource
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError
from raygan.gan.augmentations.augmentation import Augmentation
from raygan.gan.config import TrainConfig, parameter_tables
from raygan.gan.judge.metric import Metric
from raygan.gan.losses.loss import Loss
from raygan.gan.nets.architecture import Architecture
from raygan.gan.nets.levels import plan_levels
from raygan.gan.nets.norms.norm import Norm
from raygan.gan.optimizers.optimizer import OptimizerRecipe
from raygan.recipe import Table
from raygan.sweep.stopping.rule import Stopper, StopRule
from raygan.sweep.stopping.rules import RULES

__all__ = [
    "Architecture",
    "Augmentation",
    "ConfigError",
    "DataSource",
    "ImageSet",
    "Loss",
    "Metric",
    "Norm",
    "OptimizerRecipe",
    "StopRule",
    "Stopper",
    "TrainConfig",
    "plan_levels",
    "tables",
]


def tables() -> dict[str, Table[Any]]:
    """The table of every kind, by the kind's word."""
    return {table.kind: table for table in (*parameter_tables(), RULES, SOURCES)}


tables()  # a file that imports a kind finds its table loaded
