"""What a sweep knows of its images once they are prepared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, StringConstraints, TypeAdapter

from raygan import stored
from raygan.errors import RayganError
from raygan.shown import shown

_Text = Annotated[str, StringConstraints(max_length=1000)]


@dataclass(frozen=True, kw_only=True)
class PreparedSet:
    """One data set, decoded once before the first trial."""

    __pydantic_config__ = stored.STRICT

    folder: _Text = ""
    """Folder or address in which the images lie. Like what follows, empty if an earlier version did
    not store it."""
    digest: stored.Word
    """Of the images and their split."""
    baseline: Annotated[float, Field(ge=0, le=1e6)]
    """Reconstruction loss of the mean training image."""
    shape: _Text = ""
    """For people: channels×height×width."""
    train: stored.Count = 0
    """How many images are trained on."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The data sets of a sweep; the contents of ``data.json``."""

    id: str = ""
    """The sweep's, in MLflow; empty as long as the sweep has not begun."""
    sets: dict[str, PreparedSet]
    """By label; at least one. What was added to the YAML later is missing until the sweep resumes.
    """

    def of(self, label: str) -> PreparedSet:
        """The data set ``label``; empty, as in records of earlier versions: the only one.

        Raises :class:`~raygan.errors.RayganError` if the sweep has no such data set.
        """
        if (known := self.get(label)) is None:
            raise RayganError(
                f"the sweep has no data set {shown(label)!r}, only {shown(', '.join(self.sets))}"
            )
        return known

    def get(self, label: str) -> PreparedSet | None:
        """The data set ``label`` as :meth:`of` returns it; None if it is not known."""
        if not label and len(self.sets) == 1:
            return next(iter(self.sets.values()))
        return self.sets.get(label)

    @property
    def digest(self) -> str:
        """Of all images: of one data set its own, of several the SHA-256 of labels and digests."""
        if len(self.sets) == 1:
            return self.of("").digest
        text = json.dumps(self.digests, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each data set, by label."""
        return {label: one.digest for label, one in self.sets.items()}

    @property
    def baselines(self) -> dict[str, float]:
        """Reconstruction loss of the mean training image of each data set, by label."""
        return {label: one.baseline for label, one in self.sets.items()}

    @property
    def described(self) -> list[str]:
        """How many images are trained on, and their shape: a line for each data set."""
        several = len(self.sets) > 1
        return [
            f"{f'{label}: ' * several}{one.train} training images {one.shape}"
            for label, one in self.sets.items()
        ]

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it: of one data set its fields, without its label; of several all of them."""
        if len(self.sets) == 1:
            return {"id": self.id, **asdict(self.of(""))}
        return {"id": self.id, "sets": {label: asdict(one) for label, one in self.sets.items()}}


@dataclass(frozen=True, kw_only=True)
class _One(PreparedSet):
    """``data.json`` of a sweep with one data set."""

    id: stored.Word


@dataclass(frozen=True, kw_only=True)
class _Several:
    """``data.json`` of a sweep with several data sets."""

    __pydantic_config__ = stored.STRICT

    id: stored.Word
    sets: dict[stored.Word, PreparedSet]


_ONE, _SEVERAL = TypeAdapter(_One), TypeAdapter(_Several)


def parse(data: bytes, labels: list[str]) -> Prepared:
    """``data.json`` of a sweep with the data sets ``labels``; raises ValueError."""
    if len(labels) == 1:
        values = asdict(stored.parse(_ONE, data))
        return Prepared(id=values.pop("id"), sets={labels[0]: PreparedSet(**values)})
    several = stored.parse(_SEVERAL, data)
    sets = {label: several.sets[label] for label in labels if label in several.sets}
    if len(sets) < max(1, len(several.sets)):
        raise ValueError(
            f"it holds the data sets {', '.join(several.sets)}, not {', '.join(labels)}"
        )
    return Prepared(id=several.id, sets=sets)
