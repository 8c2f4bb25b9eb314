"""An architecture with one hidden map in each network."""

from torch import nn

from raygan.recipes import Architecture


class Shallow(Architecture):
    """One hidden map of a quarter of the image's size in each network."""

    name = "shallow"
    shallow_width: int = 2
    """Channels of the hidden map, in multiples of `features`."""

    def generator(self, config, norm, shape):
        channels, height, width = shape
        hidden = self.shallow_width * config.features
        rows, columns = self.smallest_map(config, height, width)
        return nn.Sequential(
            norm.linear(config.code_size, hidden * rows * columns),
            nn.Unflatten(1, (hidden, rows, columns)),
            *norm.normalisation(hidden),
            norm.activation(hidden),
            norm.transposed_convolution(
                hidden, channels, (4, 4), stride=4, padding=(0, 0), last=True
            ),
            nn.Sigmoid(),
        )

    def discriminator(self, config, norm, shape):
        channels, height, width = shape
        hidden = self.shallow_width * config.features
        rows, columns = self.smallest_map(config, height, width)
        return nn.Sequential(
            norm.convolution(channels, hidden, (4, 4), stride=4),
            norm.activation(hidden),
            nn.Flatten(),
            norm.linear(hidden * rows * columns, 1, affine=True),
            nn.Flatten(0),
        )

    def smallest_map(self, config, height, width):
        return height // 4, width // 4
