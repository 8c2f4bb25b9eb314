"""Declared claims, and the registered plan that they are part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """A claim about the losses of two cells, or of two values of an axis over all strata."""

    kind: Literal["lower", "not_worse", "equivalent"]
    cell: str
    other: str
    margin: float = 0.0
    """Allowed difference, as a share of the loss of ``other``; 0 for ``lower``."""
    declared: bool = True
    """Whether it was declared before the first trial. If not, it is exploratory."""

    @property
    def text(self) -> str:
        """The claim as a sentence."""
        start = f"{self.cell}'s loss is"
        if self.kind == "lower":
            return f"{start} lower than {self.other}'s"
        margin = f"{100 * self.margin:.3g}%"
        if self.kind == "not_worse":
            return f"{start} at most {margin} higher than {self.other}'s"
        return f"{start} within {margin} of {self.other}'s"


@dataclass(frozen=True)
class PlanEntry:
    """The plan of a sweep at one time: the first one, or a changed one."""

    time: str
    """ISO 8601, UTC."""
    sha256: str
    """SHA-256 of the plan's canonical JSON."""
    changed: str = ""
    """What has changed since the previous entry, in words; empty for the first entry."""
    trials: int = 0
    """Number of trials that were planned by then."""
    sets: tuple[str, ...] = ()
    """Labels of the data sets; empty if the sweep has one."""
