"""The verdict in words that the numbers carry, and no further."""

from __future__ import annotations

import math

from raygan.report import words
from raygan.report.audit import audit
from raygan.report.compare import LEAST, mean_interval, wilson
from raygan.report.evidence import Cell, Evidence
from raygan.report.pairs import comparisons
from raygan.shown import MOST_MESSAGE, shown

MOST = 5
"""Cells that the best one is compared with in words; the others are in the table."""


def verdict(evidence: Evidence) -> str:
    """One paragraph: which cell reaches the lowest loss, by how much, and how sure that is."""
    return shown(" ".join(_sentences(evidence)), MOST_MESSAGE)


def _sentences(evidence: Evidence) -> list[str]:
    if not evidence.ranked:
        return ["There is no verdict: no trial has ended with a result.", *_lost(evidence)]
    best, others = evidence.ranked[0], evidence.ranked[1:]
    sentences = [_lead(evidence, best, alone=not others)]
    if others:
        sentences += _comparisons(evidence, best, others)
    changed, audited = audit(evidence)
    if changed:
        sentences.append(audited)
    sentences += _lost(evidence)
    return [*sentences, *_caveats(evidence, best)]


def _lead(evidence: Evidence, best: Cell, *, alone: bool) -> str:
    losses = list(evidence.losses(best).values())
    found = [f"n = {words.times(len(losses), 'seed')}"]
    if (interval := mean_interval(losses)) is not None:
        found.insert(0, f"95% CI {words.loss(interval.low)}–{words.loss(interval.high)}")
    if best.setting not in ("", "as given"):
        found.append(best.setting)
    mean = "mean loss" if len(losses) > 1 else "loss"
    start, detail = f"By the {evidence.measure}, {best.name}", f"{words.loss(evidence.mean(best))}"
    detail += f" ({', '.join(found)})"
    if alone:
        return f"{start} has a {mean} of {detail}; no other cell has a result to compare with."
    return f"{start} has the lowest {mean}, {detail}."


def _comparisons(evidence: Evidence, best: Cell, others: list[Cell]) -> list[str]:
    if not evidence.replicated:
        other = others[0]
        gap = 100 * (1 - evidence.mean(best) / evidence.mean(other))
        below = f"{words.percent(gap)} below" if gap >= 0.005 else "the same as"
        return [
            f"That is {below} {other.name}'s, but no difference between cells "
            "can be claimed: each cell has one run only, the best of its search, which is partly "
            "luck. To tell a difference from chance, set replicate.seeds to 5 or more."
        ]
    sentences = []
    pairs = [(b, found) for a, b, found in comparisons(evidence) if a is best]
    for other, found in pairs[:MOST]:
        sentences.append(words.difference(best.name, other.name, found, "loss"))
        if found is not None and found.percent > 0:
            sentences.append(
                f"On the seeds that both have, the loss of {other.name} is lower (mean ratio)."
            )
    if len(others) > MOST:
        sentences.append(f"{len(others) - MOST} more cells are in the table of differences.")
    return sentences


def _lost(evidence: Evidence) -> list[str]:
    """What the losses do not show: runs that gave none."""
    sentences = []
    for cell in evidence.cells:
        failed, ended = cell.failed, cell.ended
        if cell.runs and failed and cell.replicates:
            rate = words.share(len(failed), len(ended), wilson(len(failed), len(ended)))
            how = words.outcomes(record.outcome for record in failed)
            tail = "" if len(failed) == len(ended) else "; its mean is over the other runs"
            sentences.append(f"{rate} of {cell.name}'s replicates gave no result: {how}{tail}.")
        elif not evidence.losses(cell):
            how = words.outcomes(record.outcome for record in cell.records)
            sentences.append(f"{cell.name} has no result{f': {how}' if how else ''}.")
    return sentences


def _caveats(evidence: Evidence, best: Cell) -> list[str]:
    sentences = []
    baseline = math.inf if evidence.baseline is None else evidence.baseline
    useless = [cell.name for cell in evidence.ranked if evidence.mean(cell) >= baseline]
    if useless:
        which = "Nothing" if best.name in useless else f"By {words.listed(useless, 'or')}, nothing"
        sentences.append(
            f"{which} has been learned: the mean training image has a loss of "
            f"{words.loss(baseline)}, which is not higher."
        )
    searched = [c.name for c in evidence.ranked if evidence.replicated and not c.replicates]
    if searched:
        sentences.append(
            f"The loss of {words.listed(searched)} is that of the best trial of the search, which "
            "is partly luck: no replicate has started yet."
        )
    fewest = min(len(evidence.losses(cell)) for cell in evidence.ranked)
    if evidence.replicated and len(evidence.ranked) > 1 and LEAST <= fewest <= 5:
        least = 2.0 ** (1 - fewest)
        sentences.append(
            "The intervals assume that the log ratios of the seeds are normally distributed. The "
            "permutation test does not assume this, but it cannot give a p below "
            f"{least:.3g} with n = {fewest}."
        )
    if (most := max(cell.chosen_from for cell in evidence.ranked)) > 1:
        sentences.append(
            f"Each cell is judged by the best of its replicated settings (up to {most}). The same "
            "runs chose that setting, so all means are a little too low."
        )
    if not evidence.finished:
        sentences.append("The sweep has not finished: these results may change.")
    return sentences
