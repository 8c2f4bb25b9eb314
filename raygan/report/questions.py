"""The four questions of Xiang & Li 2017 (arXiv 1704.03971), put to a sweep.

Speed, quality, stability and robustness to the learning rate: each with an answer in words, or
with what the sweep lacks to answer it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from raygan.report import rates, stability, words
from raygan.report.audit import audit
from raygan.report.compare import paired, wilson
from raygan.report.evidence import Cell, Evidence
from raygan.report.pairs import comparisons, pairs_of

TARGET = 1.05
"""Times the reference's best loss: what a cell has to reach for its speed to be compared."""
WORSE = 1.1
"""Times its own lowest loss: a run that ends above this has got worse again."""


@dataclass(frozen=True)
class Question:
    """One of the four, and what this sweep says to it."""

    key: str
    title: str
    text: str
    answer: str
    figure: str
    """Key of the figure that shows it."""
    answered: bool = True


def questions(evidence: Evidence) -> list[Question]:
    """RQ1 to RQ4, in order."""
    return [
        _ask("RQ1", "Speed", "Which trains fastest?", "curves", _speed, evidence),
        _ask("RQ2", "Quality", "Which ends with the lowest loss?", "losses", _quality, evidence),
        _ask("RQ3", "Stability", "Which gets worse again or fails?", "drawup", _stability,
             evidence),
        _ask("RQ4", "Learning rate", "Which works over the widest range of learning rates?",
             "rates", _robustness, evidence),
    ]  # fmt: skip


def _ask(
    key: str,
    title: str,
    text: str,
    figure: str,
    answer: Callable[[Evidence], tuple[bool, str]],
    evidence: Evidence,
) -> Question:
    answered, found = answer(evidence)
    if not answered:
        found = f"Not answered by this sweep: {found}"
    return Question(key, title, text, found, figure, answered)


def target(evidence: Evidence) -> tuple[Cell, float] | None:
    """The reference cell and :data:`TARGET` times the median over its seeds of its best loss."""
    reference = evidence.reference(evidence.cells[0]) if evidence.cells else None
    curves = _curves(reference) if reference else {}
    if reference is None or not curves:
        return None
    return reference, TARGET * statistics.median(stability.best(c) for c in curves.values())


def iterations_to_target(evidence: Evidence, cell: Cell) -> dict[int, int | None]:
    """By seed, the iterations that the cell's ended runs took to the target; empty without one.

    None for a run that has not reached it, or that gave no result in the end.
    """
    if (found := target(evidence)) is None:
        return {}
    curves = _curves(cell)
    return {
        seed: stability.iterations_to(curves[seed], found[1]) if seed in curves else None
        for seed, record in cell.runs.items()
        if record.outcome is not None
    }


def _curves(cell: Cell) -> dict[int, list[tuple[int, float]]]:
    return {seed: r.curve for seed, r in cell.runs.items() if r.outcome == "ok" and r.history}


def _speed(evidence: Evidence) -> tuple[bool, str]:
    if (aim := target(evidence)) is None:
        return False, "the cell that sets the target has no result."
    if len(evidence.ranked) < 2:
        return False, "fewer than two cells have a result."
    reference, loss = aim
    sentences = [
        f"The target is a loss of {words.loss(loss)} in the running test, {TARGET - 1:.0%} above "
        f"the best of {reference.name}."
    ]
    arrived: dict[str, dict[int, int]] = {}
    never = []
    for cell in evidence.ranked:
        found = iterations_to_target(evidence, cell)
        steps = {seed: step for seed, step in found.items() if step is not None}
        if len(steps) == len(found):
            arrived[cell.name] = steps
        else:
            median = f", median {statistics.median(steps.values()):,.0f}" if steps else ""
            never.append(f"{cell.name} ({len(steps)} of {len(found)}{median})")
    order = sorted(arrived, key=lambda name: statistics.median(arrived[name].values()))
    medians = [f"{name} after {statistics.median(arrived[name].values()):,.0f}" for name in order]
    if medians:
        sentences.append(f"Median iterations until it is reached: {words.listed(medians)}.")
    if never:
        sentences.append(f"Not all seeds reach it: {words.listed(never)}.")
    if len(order) > 1:
        first, second = order[:2]
        gap = paired(arrived[first], arrived[second], pairs_of(len(order)))
        sentences.append(words.difference(first, second, gap, "number of iterations"))
        if apart := _apart(evidence):
            sentences.append(
                f"Evaluations are {apart:,} iterations apart; the numbers are no more exact."
            )
    return True, " ".join(sentences)


def _apart(evidence: Evidence) -> int | None:
    """The most iterations between two evaluations of a run."""
    curves = [curve for cell in evidence.ranked for curve in _curves(cell).values()]
    return max((b - a for curve in curves for (a, _), (b, _) in pairwise(curve)), default=None)


def _quality(evidence: Evidence) -> tuple[bool, str]:
    if len(evidence.ranked) < 2:
        return False, "fewer than two cells have a result."
    if not evidence.replicated:
        return False, "there is one run per cell, the best of its search. Set replicate.seeds."
    best = evidence.ranked[0]
    found = [(b, difference) for a, b, difference in comparisons(evidence) if a is best]
    claimed = [(b.name, d.percent < 0) for b, d in found if d is not None and d.claimed]
    lower = [name for name, is_lower in claimed if is_lower]
    higher = [name for name, is_lower in claimed if not is_lower]
    others = [b.name for b, _ in found if b.name not in lower + higher]
    sentences = [f"{best.name} has the lowest mean loss, {words.loss(evidence.mean(best))}."]
    if lower:
        sentences.append(f"This is lower than the loss of {words.listed(lower)}.")
    if higher:
        sentences.append(
            f"On the seeds that both have, the loss of {words.listed(higher)} is lower."
        )
    if others:
        sentences.append(f"No difference from {words.listed(others, 'or')} can be claimed.")
    if audited := audit(evidence)[1]:
        sentences.append(audited)
    return True, " ".join(sentences)


def _stability(evidence: Evidence) -> tuple[bool, str]:
    cells = [cell for cell in evidence.cells if cell.ended]
    if not cells:
        return False, "no run has ended."
    if not evidence.replicated:
        return False, "there is one run per cell, the best of its search. Set replicate.seeds."
    sentences, worse = [], {}
    for cell in cells:
        count, n = len(cell.failed), len(cell.ended)
        if count:
            rate = words.share(count, n, wilson(count, n))
            how = words.outcomes(record.outcome for record in cell.failed)
            sentences.append(f"{cell.name}: {rate} of the runs gave no result ({how}).")
        if curves := _curves(cell):
            worse[cell.name] = {s: stability.last_over_best(c) for s, c in curves.items()}
    if not sentences:
        sentences.append("Every run gave a result.")
    medians = {name: statistics.median(found.values()) for name, found in worse.items()}
    order = sorted(medians, key=lambda name: medians[name])
    ends = [f"{name} {words.percent(100 * (medians[name] - 1))}" for name in order]
    if ends:
        sentences.append(f"The last loss of a run is above its lowest by (median over seeds): "
                         f"{words.listed(ends)}.")  # fmt: skip
    regressed = [
        f"{name} ({sum(v > WORSE for v in worse[name].values())} of {len(worse[name])})"
        for name in order
        if any(value > WORSE for value in worse[name].values())
    ]
    if regressed:
        sentences.append(
            f"Runs that end more than {WORSE - 1:.0%} above their lowest loss: "
            f"{words.listed(regressed)}."
        )
    elif order:
        sentences.append(f"No run ends more than {WORSE - 1:.0%} above its lowest loss.")
    if len(order) > 1:
        gap = paired(worse[order[0]], worse[order[-1]], pairs_of(len(order)))
        sentences.append(words.difference(order[0], order[-1], gap, "ratio of last to lowest loss"))
    return True, " ".join(sentences)


def _robustness(evidence: Evidence) -> tuple[bool, str]:
    widths = {}
    tried, trials = 0, []
    for name, records in rates.recipes(evidence.cells).items():
        found = rates.by_rate(records)
        tried = max(tried, len(found))
        trials += [rate.trials for rate in found]
        widths[name] = rates.width(found)
    if tried < 2:
        return False, "no cell has trials that ended at two learning rates."
    known = {name: width for name, width in widths.items() if width is not None}
    order = sorted(known, key=lambda name: -known[name].decades)
    parts = []
    for name in order:
        width = known[name]
        if not width.holds:
            parts.append(f"{name} none: not all trials end ok even at its best, {width.low:g}")
            continue
        ends = " or ".join(
            side for side, is_open in (("lower", width.open_below), ("higher", width.open_above))
            if is_open
        )  # fmt: skip
        tail = f", no {ends} rate was tried" if ends else ""
        where = f"{width.low:g} to {width.high:g}" if width.decades else f"only {width.low:g}"
        unit = "decade" if f"{width.decades:.2g}" == "1" else "decades"
        parts.append(f"{name} {width.decades:.2g} {unit} ({where}{tail})")
    parts += [f"{name} has no trial that ended ok" for name in widths if name not in known]
    if len(parts) > words.MOST:
        parts = [
            *parts[: words.MOST - 1],
            f"{len(parts) - words.MOST + 1} others are in the table",
        ]
    usual = words.times(round(statistics.median(trials)), "trial")
    text = (
        "Learning rates at which all trials end ok, with a median loss within "
        f"{rates.NEAR - 1:.0%} of the cell's best: {'; '.join(parts)}. Each width is a lower "
        f"bound from the rates that were tried, with {usual} per rate (median). It has no "
        "confidence interval."
    )
    others = {name: None for record in evidence.records for name in record.params if name != "lr"}
    if others:
        text += f" Trials at one rate also differ in {words.listed(list(others))}."
    return True, text
