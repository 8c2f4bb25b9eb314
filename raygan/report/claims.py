"""Claims that a sweep declares before its first trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Claim:
    """One declared claim."""

    kind: Literal["lower", "not_worse", "equivalent"]
    cell: str
    other: str
    margin: float = 0.0
    declared: bool = True

    @property
    def text(self) -> str:
        """The claim in words."""
        return {"lower": f"{self.cell}'s loss is lower than {self.other}'s"}.get(self.kind, "")
