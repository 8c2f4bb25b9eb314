"""raygan: fair, large-scale comparison of GAN training recipes on Ray."""

__version__ = "0.1.0"
