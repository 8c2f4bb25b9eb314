"""The adversarial losses, one file each."""

from raygan.gan.losses.hinge import Hinge
from raygan.gan.losses.least_squares import LeastSquares
from raygan.gan.losses.log import Log
from raygan.gan.losses.loss import Loss
from raygan.gan.losses.wgan_gp import WganGp
from raygan.recipe import Table

LOSSES: Table[Loss] = Table("loss", "loss", Loss, Log, LeastSquares, Hinge, WganGp)
"""All losses."""
