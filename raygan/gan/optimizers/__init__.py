"""The optimizers, one file each."""

from raygan.gan.optimizers.adam import Adam
from raygan.gan.optimizers.optimizer import OptimizerRecipe
from raygan.gan.optimizers.rmsprop import RMSProp
from raygan.recipe import Table

OPTIMIZERS: Table[OptimizerRecipe] = Table("optimizer", "optimizer", OptimizerRecipe, RMSProp, Adam)
"""All optimizers."""
