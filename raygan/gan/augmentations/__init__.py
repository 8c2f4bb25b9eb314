"""The differentiable augmentations, one file each."""

from raygan.gan.augmentations.augmentation import Augmentation
from raygan.gan.augmentations.diffaugment import DiffAugment
from raygan.gan.augmentations.none import NoAugmentation
from raygan.recipe import Table

AUGMENTATIONS: Table[Augmentation] = Table(
    "augmentation", "augment", Augmentation, NoAugmentation, DiffAugment
)
"""All augmentations."""
