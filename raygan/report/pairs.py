"""Which cells are compared with each other, and what their losses say."""

from __future__ import annotations

from raygan.report.compare import Difference, paired
from raygan.report.evidence import Cell, Evidence


def comparisons(evidence: Evidence) -> list[tuple[Cell, Cell, Difference | None]]:
    """The best cell with each other one, then each cell with its reference, none twice."""
    ranked = evidence.ranked
    pairs = [(ranked[0], other) for other in ranked[1:]]
    for cell in ranked:
        reference = evidence.reference(cell)
        if reference in ranked and reference is not cell and (reference, cell) not in pairs:
            pairs.append((cell, reference))
    unique = list({(a.name, b.name): (a, b) for a, b in pairs}.values())
    of = pairs_of(len(ranked))
    return [(a, b, paired(evidence.losses(a), evidence.losses(b), of)) for a, b in unique]


def pairs_of(things: int) -> int:
    """How many pairs so many things make: whoever looks for the best has looked at all of them."""
    return max(1, things * (things - 1) // 2)
