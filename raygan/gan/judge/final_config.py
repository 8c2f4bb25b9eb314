"""The configuration of the final test, with all of its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from raygan.errors import ConfigError

SearchProtocol = Literal["per-image", "authors"]
PER_IMAGE: SearchProtocol = "per-image"


@dataclass(frozen=True, kw_only=True)
class FinalConfig:
    """Steps and images of the final test."""

    steps: int = 2_000
    """RMSProp steps per image; 0: no final test."""
    images: int | None = None
    """Number of the final held-out images that are reconstructed; by default all."""
    restarts: int = 3
    """Code searches from random codes for each audited image, besides the one from z = 0."""
    audited: int = 200
    """Number of audited images, which are tested from random codes, too, and once more from z = 0
    with codes kept within the prior's ball."""
    protocol: SearchProtocol = PER_IMAGE
    """Whose gradient a code search follows: `per-image`: that of each image's own squared error;
    `authors`: that of the mean over 32 images and their pixels, as in the authors' code, for
    numbers that stand beside the paper's."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("images", 1), ("restarts", 0), ("audited", 0)):
            value = getattr(self, name)
            if value is None and name == "images":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"`final.{name}` (={value!r}) must be a whole number, at least {least}"
                )
        if self.protocol not in (known := get_args(SearchProtocol)):
            raise ConfigError(
                f"`final.protocol` (={self.protocol!r}) must be one of {', '.join(known)}"
            )
