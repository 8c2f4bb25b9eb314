"""How sharp samples are, compared with the images of the data set."""

from raygan.recipes import Metric


class Sharpness(Metric):
    """Mean difference of neighbouring pixels of the samples, relative to that of real images."""

    name = "sharpness"
    sharpness_images: int = 256
    """Held-out images that the samples are compared with, at most."""

    def measure(self, samples, images):
        real = images.take(images.running[: self.sharpness_images]) / 255
        return _roughness(samples) / _roughness(real)


def _roughness(images):
    rows = (images[:, :, 1:] - images[:, :, :-1]).abs().mean()
    columns = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean()
    return rows + columns
