"""The audit of the final test: whether restarts change the verdict."""

from __future__ import annotations

import math
import statistics

from raygan.report import words
from raygan.report.compare import geometric_mean
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Family, Values, family, of_losses

SAME = "Restarts from random codes do not change the order of the cells."


def by_restarts(evidence: Evidence) -> list[CellResults] | None:
    """The cells with a loss, ordered by the audit's mean loss with restarts, the lowest first.
    Those of each data set stand together.

    None unless all runs that the verdict rests on were audited.
    """
    if not evidence.by_final_test:
        return None
    means = {}
    for cell in evidence.ranked:
        losses = _restarts(evidence, cell)
        if losses.keys() != evidence.losses(cell).keys():
            return None
        mean = geometric_mean(list(cell.units(losses).values()))
        assert mean is not None
        means[cell.name] = mean.value
    labels = list(evidence.parts)
    return sorted(evidence.ranked, key=lambda cell: (labels.index(cell.dataset), means[cell.name]))


def audit(evidence: Evidence) -> tuple[bool, str]:
    """Whether restarts from random codes change the verdict, and a text that says so.

    The text is empty if there were no restarts, or nothing to compare.
    """
    if not evidence.several:
        return _audit(evidence)
    said = {label: _audit(part) for label, part in evidence.parts.items()}
    changed = [f"{label}: {text}" for label, (is_changed, text) in said.items() if is_changed]
    same = [label for label, (is_changed, text) in said.items() if text and not is_changed]
    if not changed and same:
        return False, SAME if len(same) == len(said) else f"{', '.join(same)}: {SAME}"
    return bool(changed), " ".join(changed)


def _audit(evidence: Evidence) -> tuple[bool, str]:
    order = by_restarts(evidence)
    if order is None or len(order) < 2:
        return False, ""
    best, sentences = evidence.ranked[0], []
    again_compared = with_restarts(evidence)
    if order != evidence.ranked:
        gains = [f"{cell.name} by {_gain_words(evidence, cell)}" for cell in order]
        sentences.append(
            "With restarts from random codes, the cells are in another order on the audited "
            f"images: {words.listed([cell.name for cell in order])}, the lowest loss first. "
            f"Restarts lower the loss of {words.listed(gains)}: the search from z = 0 does not "
            "find the best code of each cell equally well."
        )
    if order[0] is not best:
        comparison = again_compared.of(order[0].name, best.name)
        if comparison is not None:
            sentences.append(
                words.difference(comparison, "loss with restarts", again_compared.correction)
            )
    lost = []
    for claimed in of_losses(evidence).within:
        again = again_compared.of(claimed.cell, claimed.other)
        holds = again is not None and again.claimed and again.cell == claimed.cell
        if claimed.cell == best.name and claimed.claimed and not holds:
            lost += [claimed.other] if claimed.other != order[0].name else []
    if lost:
        sentences.append(
            f"With restarts, the difference between {best.name} and {words.listed(lost, 'or')} can "
            "no longer be claimed."
        )
    if sentences:
        return True, " ".join(sentences)
    return False, SAME


def with_restarts(evidence: Evidence) -> Family:
    """The comparisons of the loss with restarts."""
    return family(evidence, _logs)


def _logs(evidence: Evidence, cell: CellResults) -> Values:
    losses = cell.units(_restarts(evidence, cell))
    return Values(cell.name, [math.log(loss) for loss in losses.values()], cell.lost)


def _restarts(evidence: Evidence, cell: CellResults) -> dict[int, float]:
    return evidence.final_losses(cell, "best", "restarts_loss")


def _gain_words(evidence: Evidence, cell: CellResults) -> str:
    percent = gain(evidence.final_losses(cell, "best", "audited_loss"), _restarts(evidence, cell))
    return "an unknown share" if percent is None else words.percent(percent)


def gain(audited: dict[int, float], restarts: dict[int, float]) -> float | None:
    """By how many per cent restarts lower the loss of the audited images (geometric mean)."""
    if not audited or audited.keys() != restarts.keys():
        return None
    return 100 * (1 - statistics.geometric_mean(restarts[seed] / audited[seed] for seed in audited))
