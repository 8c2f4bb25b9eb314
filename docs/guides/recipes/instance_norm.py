"""Instance norm, with a scale that is learned."""

from torch import nn

from raygan.recipes import ConfigError, Norm


class InstanceNorm(Norm):
    """Instance norm (Ulyanov et al. 2016): each map of each image by itself, scale and shift."""

    name = "instance"
    instance_eps: float = 1e-5
    """Added to the variance."""

    def normalisation(self, channels):
        return [nn.InstanceNorm2d(channels, eps=self.instance_eps, affine=True)]

    def check_map(self, batch_size, rows, columns):
        if rows * columns == 1:
            return "instance norm needs more than one pixel"
        return None

    def check_parameters(self):
        if self.instance_eps <= 0:
            raise ConfigError(f"`instance_eps` (={self.instance_eps}) must be above 0")
