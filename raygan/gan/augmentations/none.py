"""No augmentation."""

from raygan.gan.augmentations.augmentation import Augmentation


class NoAugmentation(Augmentation):
    """D sees the images as they are."""

    name = "none"
