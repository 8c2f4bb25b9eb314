"""No normalisation."""

from raygan.gan.nets.norms.norm import Norm


class Vanilla(Norm):
    """No normalisation; PReLU."""

    name = "vanilla"
