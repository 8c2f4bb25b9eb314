"""The audit of the final test in words: whether restarts change what the verdict says."""

from __future__ import annotations

import statistics

from raygan.report import words
from raygan.report.compare import paired
from raygan.report.evidence import Cell, Evidence
from raygan.report.pairs import comparisons, pairs_of


def by_restarts(evidence: Evidence) -> list[Cell] | None:
    """The cells with a loss by the audit's loss with restarts, that with the lowest mean first.

    None unless all runs that the verdict stands on have been audited.
    """
    if not evidence.by_final_test:
        return None
    means = {}
    for cell in evidence.ranked:
        found = _restarts(evidence, cell)
        if found.keys() != evidence.losses(cell).keys():
            return None
        means[cell.name] = statistics.fmean(found.values())
    return sorted(evidence.ranked, key=lambda cell: means[cell.name])


def audit(evidence: Evidence) -> tuple[bool, str]:
    """Whether restarts from random codes change what the verdict says, and what they show.

    No words if they were not tried, or if there is nothing to compare.
    """
    order = by_restarts(evidence)
    if order is None or len(order) < 2:
        return False, ""
    best, pairs, sentences = evidence.ranked[0], pairs_of(len(order)), []
    if order != evidence.ranked:
        gains = [f"{cell.name} by {_gain_words(evidence, cell)}" for cell in order]
        sentences.append(
            "With restarts from random codes, the cells are in another order on the audited "
            f"images: {words.listed([cell.name for cell in order])}, the lowest loss first. "
            f"Restarts lower the loss of {words.listed(gains)}: the search from z = 0 does not "
            "find the best code of each cell equally well."
        )
    if order[0] is not best:
        found = paired(_restarts(evidence, order[0]), _restarts(evidence, best), pairs)
        sentences.append(words.difference(order[0].name, best.name, found, "loss with restarts"))
    lost = [b.name for a, b, found in comparisons(evidence)
            if a is best and b is not order[0] and found and found.claimed
            and not _holds(evidence, best, b, found.percent)]  # fmt: skip
    if lost:
        sentences.append(
            f"With restarts, the difference between {best.name} and {words.listed(lost, 'or')} can "
            "no longer be claimed."
        )
    if sentences:
        return True, " ".join(sentences)
    return False, "Restarts from random codes do not change the order of the cells."


def _holds(evidence: Evidence, cell: Cell, other: Cell, percent: float) -> bool:
    found = paired(
        _restarts(evidence, cell), _restarts(evidence, other), pairs_of(len(evidence.ranked))
    )
    return found is not None and found.claimed and found.percent * percent > 0


def _restarts(evidence: Evidence, cell: Cell) -> dict[int, float]:
    return evidence.final_losses(cell, "best", "restarts_loss")


def _gain_words(evidence: Evidence, cell: Cell) -> str:
    found = gain(evidence.final_losses(cell, "best", "audited_loss"), _restarts(evidence, cell))
    return "an unknown share" if found is None else words.percent(found)


def gain(audited: dict[int, float], restarts: dict[int, float]) -> float | None:
    """By how many per cent restarts lower the mean loss of the audited images."""
    if not audited or audited.keys() != restarts.keys():
        return None
    return 100 * (1 - statistics.fmean(restarts.values()) / statistics.fmean(audited.values()))
