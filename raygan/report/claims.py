"""Claims that a sweep declares before its first trial, and the plan that they are part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """One claim about the loss of two cells, or of two values of an axis over all strata."""

    kind: Literal["lower", "not_worse", "equivalent"]
    cell: str
    other: str
    margin: float = 0.0
    """Share of the loss of ``other`` that is allowed; none for ``lower``."""
    declared: bool = True
    """Whether it was declared before the first trial; else it is exploratory."""

    @property
    def text(self) -> str:
        """The claim in words."""
        start = f"{self.cell}'s loss is"
        if self.kind == "lower":
            return f"{start} lower than {self.other}'s"
        margin = f"{100 * self.margin:.3g}%"
        if self.kind == "not_worse":
            return f"{start} at most {margin} higher than {self.other}'s"
        return f"{start} within {margin} of {self.other}'s"


@dataclass(frozen=True)
class PlanEntry:
    """What a sweep was to be at some time: its plan, or a later change of it."""

    time: str
    """ISO 8601, UTC."""
    sha256: str
    """Of the plan's canonical JSON."""
    changed: str = ""
    """What has changed since the entry before, in words; empty for the first."""
    trials: int = 0
    """Trials that had been planned by then."""
