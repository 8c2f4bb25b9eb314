"""The norms, one file each."""

from raygan.gan.nets.norms.affine_weight_norm import AffineWeightNorm
from raygan.gan.nets.norms.batch_norm import BatchNorm
from raygan.gan.nets.norms.group_norm import GroupNorm
from raygan.gan.nets.norms.layer_norm import LayerNorm
from raygan.gan.nets.norms.norm import Norm
from raygan.gan.nets.norms.spectral_norm import SpectralNorm
from raygan.gan.nets.norms.vanilla import Vanilla
from raygan.gan.nets.norms.weight_norm import WeightNorm
from raygan.recipe import Table

NORMS: Table[Norm] = Table(
    "norm",
    "norm",
    Norm,
    Vanilla,
    BatchNorm,
    WeightNorm,
    AffineWeightNorm,
    SpectralNorm,
    LayerNorm,
    GroupNorm,
)
"""All norms."""
