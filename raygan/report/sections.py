"""The sections of the report: speed, final loss, stability, and robustness to the learning rate.

Each section answers its question in words, or says what the sweep lacks for an answer.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from raygan.report import rates, stability, words
from raygan.report.audit import audit
from raygan.report.compare import LEAST, geometric_mean, worsening_p
from raygan.report.evidence import CellResults, Evidence, once
from raygan.report.exact import failures_p
from raygan.report.family import (
    Comparison,
    Family,
    of_losses,
    of_speed,
    of_worsening,
    related,
    worsening,
)
from raygan.report.multiple import holm

TARGET = 1.05
"""The target loss, as a multiple of the highest mean end loss of all cells of a data set."""
GOOD = (
    "Learning rates at which all trials end ok, with a median loss within "
    f"{rates.NEAR - 1:.0%} of the cell's best"
)
AGAIN = (
    "With the noise that the runs show, the search would choose about the same rate again (within "
    "0.2 decades) in this share of draws"
)
LAST_OVER_BEST = "ratio of last to best loss"
WHOLE_RUN = "loss over the whole run (geometric mean over the iterations, running test)"


@dataclass(frozen=True)
class Section:
    """One question about training, and the answer of this sweep."""

    key: str
    title: str
    text: str
    answer: str
    figure: str
    """Key of the figure that shows the answer."""
    answered: bool = True
    by_set: tuple[tuple[str, str], ...] = ()
    """Labels of several data sets, each with its answer; ``answer`` is what holds over all."""


def sections(evidence: Evidence) -> list[Section]:
    """All sections, in the order of the report."""
    return [
        _ask("speed", "Speed", "Which trains fastest?", "curves", _speed, _speed_over, evidence),
        _ask("quality", "Final loss", "Which ends with the lowest?", "budget", _quality,
             _quality_over, evidence),
        _ask("stability", "Stability", "Which gets worse again or fails?", "worsening", _stability,
             _stability_over, evidence),
        _ask("rates", "Learning rate", "Which works over the widest range of learning rates?",
             "rates", _robustness, _robustness_over, evidence),
    ]  # fmt: skip


def _ask(
    key: str,
    title: str,
    text: str,
    figure: str,
    answer: Callable[[Evidence], tuple[bool, str]],
    over: Callable[[Evidence], list[str]],
    evidence: Evidence,
) -> Section:
    """``answer``: that of one data set; ``over``: what can be said over several."""
    said = {label: answer(part) for label, part in evidence.parts.items()}
    answered = any(is_answer for is_answer, _ in said.values())
    texts = {
        label: sentences if is_answer else f"Not answered by this sweep: {sentences}"
        for label, (is_answer, sentences) in said.items()
    }
    if len(set(texts.values())) == 1 and not (evidence.several and answered):
        return Section(key, title, text, next(iter(texts.values())), figure, answered)
    head = " ".join(over(evidence)) if answered else ""
    return Section(key, title, text, head, figure, answered, tuple(texts.items()))


def _differences(family: Family, chosen: list[Comparison], what: str, most: int) -> list[str]:
    """The surest of the ``chosen`` differences, in words."""
    order = sorted(
        chosen, key=lambda c: (1.0 if c.adjusted is None else c.adjusted, c.contrast.log)
    )
    return [words.difference(c, what, family.correction) for c in order[:most]]


@once
def target(evidence: Evidence) -> float | None:
    """:data:`TARGET` times the highest of the cells' geometric mean end losses (running test).

    None if no run has ended ok, and with several data sets, each of which has a target of its own.
    Means are used, so that the target does not depend on the lucky lowest evaluation of a run.
    """
    if evidence.several:
        return None
    means = [
        geometric_mean([r.end_loss for r in cell.runs.values() if r.outcome == "ok" and r.end_loss])
        for cell in evidence.cells
    ]
    known = [mean.value for mean in means if mean is not None]
    return TARGET * max(known) if known else None


def iterations_to_target(evidence: Evidence, cell: CellResults) -> dict[int, int | None]:
    """By seed, the iterations that the cell's ended runs took to reach the target.

    None for a run that has not reached it or gave no result. Empty without a target.
    """
    if (aim := target(evidence.part(cell.dataset))) is None:
        return {}
    curves = _curves(cell)
    return {
        seed: stability.iterations_to(curves[seed], aim) if seed in curves else None
        for seed, record in cell.runs.items()
        if record.outcome is not None
    }


def _curves(cell: CellResults) -> dict[int, list[tuple[int, float]]]:
    return {seed: r.curve for seed, r in cell.runs.items() if r.outcome == "ok" and r.history}


def _too_few(evidence: Evidence) -> str:
    """Why nothing is compared; ``evidence``: that of one data set, if there are several."""
    where = "" if evidence.whole is None else " on the same data set"
    return f"fewer than two cells have a result{where}."


def _speed(evidence: Evidence) -> tuple[bool, str]:
    aim = target(evidence)
    if aim is None or len(evidence.ranked) < 2:
        return False, _too_few(evidence)
    sentences = _speeds(evidence) if evidence.replicated else []
    sentences.append(
        f"The target is a loss of {words.loss(aim)} in the running test, {TARGET - 1:.0%} above "
        "the mean end loss of the cell that ends highest."
    )
    arrived: dict[str, float] = {}
    never = []
    for cell in evidence.ranked:
        by_seed = iterations_to_target(evidence, cell)
        steps = [step for step in by_seed.values() if step is not None]
        if len(steps) == len(by_seed):
            arrived[cell.name] = statistics.median(steps)
        else:
            median = f", median {statistics.median(steps):,.0f}" if steps else ""
            never.append(f"{cell.name} ({len(steps)} of {len(by_seed)}{median})")
    medians = [f"{name} after {arrived[name]:,.0f}" for name in sorted(arrived, key=arrived.get)]  # type: ignore[arg-type]
    if medians:
        sentences.append(f"Median iterations until it is reached: {words.listed(medians)}.")
    if never:
        sentences.append(f"Not all runs reach it: {words.listed(never)}.")
    if len(medians) > 1 and (between := apart(evidence)):
        sentences.append(
            f"Evaluations are {between:,} iterations apart; the numbers are no more exact."
        )
    return True, " ".join(sentences)


def _speeds(evidence: Evidence) -> list[str]:
    """The surest differences in speed, over all strata or else of two cells."""
    family = of_speed(evidence)
    if evidence.whole is None:
        return _differences(family, family.pooled or family.within, WHOLE_RUN, 2)
    claimed = [c for c in family.within if c.claimed]
    if not claimed:
        return ["No difference in the loss over the whole run can be claimed."]
    return _differences(family, claimed, "loss over the whole run", 2)


def _speed_over(evidence: Evidence) -> list[str]:
    family = of_speed(evidence)
    return _differences(family, family.pooled, WHOLE_RUN, 2) if evidence.replicated else []


@once
def apart(evidence: Evidence) -> int | None:
    """The most iterations between two evaluations of a run."""
    curves = [curve for cell in evidence.ranked for curve in _curves(cell).values()]
    return max((b - a for curve in curves for (a, _), (b, _) in pairwise(curve)), default=None)


def _quality(evidence: Evidence) -> tuple[bool, str]:
    if len(evidence.ranked) < 2:
        return False, _too_few(evidence)
    if not evidence.replicated:
        return False, "there is one run per cell, the best of its search. Set replicate.seeds."
    best = evidence.ranked[0]
    family = of_losses(evidence)
    with_best = [c for c in family.within if best.name in (c.cell, c.other)]
    lower = [c.other for c in with_best if c.claimed and c.cell == best.name]
    open_ = [c.other if c.cell == best.name else c.cell for c in with_best if not c.claimed]
    sentences = [f"{best.name} has the lowest mean loss, {words.loss(evidence.mean(best))}."]
    if lower:
        sentences.append(f"This is lower than the loss of {words.listed(lower)}.")
    if open_:
        sentences.append(f"No difference from {words.listed(open_, 'or')} can be claimed.")
    better = [
        f"{c.cell} and {c.other} {c.ranks.improvement:.0%}"
        for c in with_best
        if c.ranks is not None
    ]
    if better:
        sentences.append(
            "Probability that a run of the first is better than one of the second (runs without a "
            f"result are the worst): {words.listed(better)}."
        )
    if audited := audit(evidence)[1]:
        sentences.append(audited)
    return True, " ".join(sentences)


def _quality_over(evidence: Evidence) -> list[str]:
    family = of_losses(evidence)
    return _differences(family, family.pooled, "loss", 3)


def _stability(evidence: Evidence) -> tuple[bool, str]:
    cells = [cell for cell in evidence.cells if cell.ended]
    if not cells:
        return False, "no run has ended."
    if not evidence.replicated:
        return False, "there is one run per cell, the best of its search. Set replicate.seeds."
    return True, " ".join([*_failures(evidence, cells), *_worsening(evidence)])


def _stability_over(evidence: Evidence) -> list[str]:
    family = of_worsening(evidence)
    return _differences(family, family.pooled, LAST_OVER_BEST, 2)


FailureRates = tuple[str, str, tuple[int, int], tuple[int, int], float | None, float]
"""Two cells, the failed and the ended runs of each, p of equal shares, and p adjusted by Holm."""


def failure_rates(evidence: Evidence) -> list[FailureRates]:
    """By pair of cells, the comparison of their shares of failed runs; empty without replicates.

    If the search was repeated, repeats without a result count instead of failed runs. The pairs of
    all data sets are corrected together.
    """
    if evidence.whole is not None:
        mine = {cell.name for cell in evidence.cells}
        return [rates for rates in failure_rates(evidence.whole) if rates[0] in mine]
    cells = {c.name: (c.lost, c.tried) for c in evidence.cells if c.ended}
    values = {cell.name: cell.values for cell in evidence.cells if cell.name in cells}
    pairs = related(values) if evidence.replicated else []
    ps = [failures_p(*cells[a], *cells[b]) for a, b in pairs]
    adjusted = holm([1.0 if p is None else p for p in ps])
    return [
        (name, other, cells[name], cells[other], p, after)
        for (name, other), p, after in zip(pairs, ps, adjusted, strict=True)
    ]


def _failures(evidence: Evidence, cells: list[CellResults]) -> list[str]:
    sentences = []
    before = [words.before_warmup(cell) for cell in cells if cell.lost_before]
    for cell in cells:
        count, n = len(cell.failed), len(cell.ended)
        if count:
            rate = words.share(count, n, cell.failure_rate)
            how = words.outcomes(record.outcome for record in cell.failed)
            sentences.append(f"{cell.name}: {rate} of the runs gave no result ({how}).")
    if not sentences:
        n, unit = min(cell.tried for cell in cells), cells[0].unit
        every = "Every run with its warm-up" if before else "Every run"
        return [*before, f"{every} gave a result: of the {unit}s of the cell with the fewest, "
                f"{words.none_of(n)} gave none."]  # fmt: skip
    what = "repeats without a result" if any(c.repeats for c in cells) else "runs without a result"
    if differ := differing_failures(evidence):
        pairs = [f"{a} and {b} (p = {p:.2g})" for a, b, p in differ]
        sentences.append(f"The shares of {what} differ between {words.listed(pairs)}.")
    elif len(cells) > 1:
        sentences.append(f"No difference between the shares of {what} can be claimed.")
    return [*before, *sentences]


def differing_failures(evidence: Evidence) -> list[tuple[str, str, float]]:
    """Pairs of cells whose shares of failed runs differ, with p (Boschloo, adjusted by Holm)."""
    return [(a, b, p) for a, b, _, _, _, p in failure_rates(evidence) if p <= evidence.alpha]


def worse_again(evidence: Evidence) -> dict[str, bool]:
    """By cell with enough runs, whether it can be claimed that they get worse again after their
    best.

    By a one-sided t-test of ln(last / best loss), adjusted by Holm for the cells of all data sets.
    """
    ratios = _ratios(evidence.whole or evidence)
    adjusted = holm([1.0 if (p := worsening_p(g)) is None else p for g in ratios.values()])
    return {name: p <= evidence.alpha for name, p in zip(ratios, adjusted, strict=True)}


def _ratios(evidence: Evidence) -> dict[str, list[float]]:
    """ln(last / best loss) on the final images of the cells with enough runs for a claim."""
    ratios = {cell.name: list(worsening(evidence, cell).values()) for cell in evidence.ranked}
    return {name: values for name, values in ratios.items() if len(values) >= LEAST}


def _worsening(evidence: Evidence) -> list[str]:
    """Sentences on ln(last / best loss) on the final images."""
    ratios = _ratios(evidence)
    if not ratios:
        return [
            "Whether runs get worse again is not known: it takes the final test of the best and "
            f"the last generator of at least {LEAST} runs of a cell."
        ]
    means = {name: 100 * math.expm1(statistics.fmean(g)) for name, g in ratios.items()}
    order = sorted(means, key=lambda name: means[name])
    ends = [f"{name} {words.percent(means[name], signed=True)}" for name in order]
    sentences = [
        "Loss of the last generator against that of the best one, both on the final images (mean): "
        f"{words.listed(ends)}."
    ]
    is_worse = worse_again(evidence)
    if worse := [name for name in order if is_worse[name]]:
        sentences.append(f"The runs of {words.listed(worse)} get worse again after their best.")
    else:
        sentences.append("That any cell's runs get worse again after their best cannot be claimed.")
    family = of_worsening(evidence)
    claimed = [c for c in family.within if c.claimed]
    sentences += [words.difference(c, LAST_OVER_BEST, family.correction) for c in claimed[:2]]
    if not claimed and len(ratios) > 1:
        sentences.append("No difference between cells in this can be claimed.")
    return sentences


def _robustness(evidence: Evidence) -> tuple[bool, str]:
    widths = {}
    tried, trials = 0, []
    for name, records in rates.by_rate_alone(evidence.cells).items():
        by_rate = rates.by_rate(records)
        tried = max(tried, len(by_rate))
        trials += [rate.trials for rate in by_rate]
        widths[name] = rates.width(by_rate)
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
        f"{GOOD}: {'; '.join(parts)}. Each width is a lower "
        f"bound from the rates that were tried, with {usual} per rate (median). It has no "
        "confidence interval."
        if evidence.whole is None
        else f"{'; '.join(parts)}; {usual} per rate (median)."
    )
    if same := rates.same_choices(evidence.cells):
        again = words.listed([f"{name} {share:.0%}" for name, share in same.items()])
        text += f" {AGAIN}: {again}." if evidence.whole is None else f" Same rate again: {again}."
    others = {name: None for record in evidence.records for name in record.params if name != "lr"}
    if others:
        text += f" Trials at one rate also differ in {words.listed(list(others))}."
    return True, text


def _robustness_over(evidence: Evidence) -> list[str]:
    said = [
        f"{GOOD}, by data set. Each width is a lower bound from the rates that were tried. It has "
        "no confidence interval."
    ]
    if rates.same_choices(evidence.cells):
        said.append(f"Same rate again: {AGAIN[0].lower()}{AGAIN[1:]}.")
    return said
