"""What a sweep knows of its images once they are prepared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from raygan import stored

_Text = Annotated[str, StringConstraints(max_length=1000)]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The images of a sweep, decoded once before its first trial; the contents of ``data.json``."""

    __pydantic_config__ = stored.STRICT

    id: stored.Word = ""
    """The sweep's, in MLflow; empty as long as the sweep has not begun."""
    folder: _Text = ""
    """Folder or address in which they lie. Like what follows, empty if an earlier version did not
    store it."""
    digest: stored.Word
    """Of the images and their split."""
    baseline: Annotated[float, Field(ge=0, le=1e6)]
    """Reconstruction loss of the mean training image."""
    shape: _Text = ""
    """For people: channels×height×width."""
    train: stored.Count = 0
    """How many images are trained on."""

    def to_plain(self) -> dict[str, Any]:
        """Its fields by name, as JSON has them."""
        return asdict(self)
