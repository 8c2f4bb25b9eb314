"""The tables of cells, of declared claims and of differences."""

from __future__ import annotations

import statistics
from typing import Any

import pyarrow as pa

from raygan.report import rates, stability, words
from raygan.report.compare import Interval, percent, wilson, worsening_p
from raygan.report.declared import results
from raygan.report.evidence import CellResults, Evidence
from raygan.report.exact import MOST_PAIRS
from raygan.report.family import Comparison, of_losses, worsening
from raygan.report.multiple import Choice
from raygan.report.sections import TARGET, apart, iterations_to_target, target
from raygan.report.tabular import Column, Sheet
from raygan.report.verdict import over

_TEXT, _NUMBER, _COUNT, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()


OVER_SETS = " A row without a data set is over all of them."


def cells(evidence: Evidence) -> Sheet:
    """The table of cells: mean loss and its interval, limit above the others, failures."""
    aims = [
        f"{words.loss(aim)} ({label})" if evidence.several else words.loss(aim)
        for label, part in evidence.parts.items()
        if (aim := target(part))
    ]
    goal = (
        f" Iterations to target: until the running test's loss is at most {words.listed(aims)}, "
        f"{TARGET - 1:.0%} above the mean end loss of the cell that ends highest; median over the "
        "runs that reached it."
        if aims
        else ""
    )
    first = "the one with the lowest mean loss"
    reading = (
        f"One row per cell, {f'of each data set {first}' if evidence.several else first} first. "
        "Lower is better in every column but runs, reached by and same rate again."
    )
    lowest = "the lowest of its data set" if evidence.several else "the lowest"
    note = (
        f"Mean loss: geometric mean over the runs that gave a result, {evidence.measure}. CI: 95%, "
        "Student's t on ln(loss). "
        f"{over(evidence)} sd: of ln(loss), about the spread as a share of the loss. Above "
        f"others at most: by how much the cell's mean loss lies above {lowest}; all of these "
        "limits hold together with 95%. No result, collapsed: share of the runs that gave no "
        "result, or that collapsed, with Wilson's 95% CI. Last / best: loss of the last generator "
        "against that of the best one in the final test (geometric mean). Roughness: mean change "
        "of the log loss between evaluations. Mean log loss: over all iterations. Both: running "
        "test, median. Same rate again: share of draws of the noise in which the search would "
        "choose a learning rate within 0.2 decades of the chosen one."
        f"{goal}"
    )
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("setting", _TEXT, "setting"),
        Column("runs", _COUNT, "runs"),
        Column("mean", _NUMBER, "mean loss", words.loss),
        Column("low", _NUMBER, "CI from", words.loss),
        Column("high", _NUMBER, "to", words.loss),
        Column("sd_log", _NUMBER, "sd", words.as_percent),
        Column("regret", _NUMBER, "above others at most", words.percent),
        Column("out", _BOOL),
        Column("failed_words", _TEXT, "no result"),
        Column("failed", _COUNT),
        Column("ended", _COUNT),
        Column("failed_low", _NUMBER),
        Column("failed_high", _NUMBER),
        Column("collapsed_words", _TEXT, "collapsed"),
        Column("collapsed", _COUNT),
        Column("collapsed_low", _NUMBER),
        Column("collapsed_high", _NUMBER),
        Column("worsening", _NUMBER, "last / best", words.signed),
        Column("worsening_p", _NUMBER),
        Column("roughness", _NUMBER, "roughness", words.ratio),
        Column("log_area", _NUMBER, "mean log loss", words.ratio),
        Column("same_choice", _NUMBER, "same rate again", lambda share: f"{share:.0%}"),
        Column("to_target", _NUMBER, "iterations to target", words.whole),
        Column("reached", _COUNT, "reached by", words.whole),
        Column("target", _NUMBER),
        Column("apart", _COUNT),
        Column("mean_image", _NUMBER),
    ]
    chosen = {choice.cell: choice for choice in of_losses(evidence).choices}
    same = rates.same_choices(evidence.cells)
    rows = [
        {
            **_cell_row(evidence, cell, chosen.get(cell.name)),
            "same_choice": same.get(cell.name),
        }
        for cell in evidence.ordered
    ]
    return Sheet("cells", "Cells", columns, rows, reading, note)


def _cell_row(evidence: Evidence, cell: CellResults, choice: Choice | None) -> dict[str, Any]:
    part = evidence.part(cell.dataset)
    summary = part.summary(cell) if cell in part.ranked else None
    interval = summary.interval if summary else None
    failed, ended = len(cell.failed), len(cell.ended)
    collapsed = sum(record.outcome == "collapsed" for record in cell.failed)
    rate = cell.failure_rate
    collapses = wilson(collapsed, ended) if rate is not None else None
    whole = [stability.summary(r.curve) for r in cell.runs.values() if r.outcome == "ok"]
    steps = iterations_to_target(evidence, cell)
    reached = [step for step in steps.values() if step is not None]
    worse = list(worsening(evidence, cell).values())
    return {
        "cell": cell.name,
        "setting": cell.setting,
        "runs": summary.n if summary else 0,
        "mean": summary.value if summary else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "sd_log": summary.sd if summary else None,
        "regret": choice.regret if choice else None,
        "out": choice.out if choice else None,
        "failed_words": _failed_words(cell, rate) if cell.replicates else None,
        "failed": failed,
        "ended": ended,
        "failed_low": rate.low if rate else None,
        "failed_high": rate.high if rate else None,
        "collapsed_words": words.share(collapsed, ended, collapses) if collapsed else None,
        "collapsed": collapsed,
        "collapsed_low": collapses.low if collapses else None,
        "collapsed_high": collapses.high if collapses else None,
        "worsening": percent(statistics.fmean(worse)) if worse else None,
        "worsening_p": worsening_p(worse),
        **{
            name: statistics.median(values) if values else None
            for name in ("roughness", "log_area")
            for values in [[one[name] for one in whole if name in one]]
        },
        "to_target": statistics.median(reached) if reached else None,
        "reached": len(reached) if steps else None,
        "target": target(part),
        "apart": apart(part),
        "mean_image": evidence.baseline_of(cell),
    }


def _failed_words(cell: CellResults, rate: Interval | None) -> str:
    failed, ended = len(cell.failed), len(cell.ended)
    if failed or not ended:
        return words.share(failed, ended, rate)
    return words.none_of(ended) if rate else f"0 of {ended}"


def compared(evidence: Evidence) -> Sheet:
    """The table of differences of cells, and of an axis' values over several strata."""
    family = of_losses(evidence)
    rows = [compared_row(one) for one in family.comparisons]
    reading = (
        "One row per pair of cells that differ along one axis of the grid. A negative difference: "
        "the loss of the first cell is lower, which is better."
    ) + (OVER_SETS if evidence.several else "")
    exact = "exact"
    if any(one.ranks is not None and not one.ranks.exact for one in family.comparisons):
        exact += f" up to {MOST_PAIRS:,} pairs of runs, by the normal distribution above"
    note = (
        "Difference: 100 · (ratio of the geometric mean losses − 1). CI: 95%, for each pair alone "
        f"(Welch's t on ln(loss)). {over(evidence)} p: two-sided, of Welch's test; where runs gave "
        "no result, the larger of this and the p of their ranks with these runs as the worst (Mann "
        f"and Whitney, {exact}). Adjusted p: after {family.correction or 'no correction'} for "
        f"{words.times(len(family.comparisons), 'comparison')}; a difference is claimed if it is "
        f"at most {evidence.alpha:g}. Permutation p: assumes no distribution. Better run: "
        "probability that a run of the first cell is better than one of the second. Detectable: "
        "the difference that would be claimed in 80% of such sweeps. Over strata: the mean "
        "difference over the values of the other axes; p of equal: that it is the same in all "
        "(Welch 1951), not adjusted. Neither detectable nor p of equal is given where runs gave no "
        "result."
    )
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("against", _TEXT, "against"),
        Column("axis", _TEXT),
        Column("within", _TEXT, "within"),
        Column("strata", _COUNT, "over strata" if family.pooled else ""),
        Column("of_strata", _COUNT, "of" if family.lacking else ""),
        Column("n", _COUNT, "runs"),
        Column("others", _COUNT, "of the other"),
        Column("failed", _COUNT),
        Column("others_failed", _COUNT),
        Column("percent", _NUMBER, "difference", words.signed),
        Column("low", _NUMBER, "CI from", words.signed),
        Column("high", _NUMBER, "to", words.signed),
        Column("p", _NUMBER, "p", words.three_digits),
        Column("adjusted_p", _NUMBER, "adjusted p", words.three_digits),
        Column("permutation_p", _NUMBER, "permutation p", words.three_digits),
        Column("improvement", _NUMBER, "better run", lambda value: f"{value:.0%}"),
        Column("detectable", _NUMBER, "detectable", words.percent),
        Column("equal_p", _NUMBER, "p of equal", words.three_digits),
        Column("claimed", _BOOL, "can be claimed", words.yes_no),
    ]
    return Sheet("comparisons", "Differences between cells", columns, rows, reading, note)


def compared_row(comparison: Comparison) -> dict[str, Any]:
    """One row of the table of differences."""
    interval = comparison.contrast.interval()
    return {
        "dataset": comparison.dataset or None,
        "cell": comparison.cell,
        "against": comparison.other,
        "axis": comparison.axis,
        "within": comparison.within or None,
        "strata": comparison.compared,
        "of_strata": comparison.strata,
        "n": comparison.n,
        "others": comparison.others,
        "failed": comparison.failed[0],
        "others_failed": comparison.failed[1],
        "percent": comparison.contrast.percent,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "p": comparison.p,
        "adjusted_p": comparison.adjusted,
        "permutation_p": comparison.contrast.p_permutation,
        "improvement": comparison.ranks.improvement if comparison.ranks else None,
        "detectable": comparison.detectable,
        "equal_p": comparison.heterogeneity,
        "claimed": comparison.claimed,
    }


def claims(evidence: Evidence) -> Sheet:
    """The table of declared claims."""
    found = results(evidence, of_losses(evidence))
    rows = [
        {
            "claim": result.claim.text,
            "declared": result.claim.declared,
            "holds": result.holds,
            "p": result.p,
            "adjusted_p": result.adjusted,
            "why": result.reason,
            "added": ", ".join(result.added) or None,
        }
        for result in found
    ]
    columns = [
        Column("claim", _TEXT, "claim"),
        Column("declared", _BOOL, "declared before the first trial", words.yes_no),
        Column("holds", _BOOL, "confirmed", lambda value: "✓ yes" if value else "✗ no"),
        Column("p", _NUMBER, "p", words.three_digits),
        Column("adjusted_p", _NUMBER, "adjusted p", words.three_digits),
        Column("why", _TEXT, "what was seen"),
        Column("added", _TEXT, "data sets added later" if any(r.added for r in found) else ""),
    ]
    reading = (
        "One row per claim of the sweep's YAML. Confirmed: its adjusted p is at most "
        f"{evidence.alpha:g}."
    )
    note = (
        "p: twice that of the claim's direction. Adjusted p: Holm's correction for the claims that "
        "were declared before the first trial; later ones are corrected by themselves and are "
        "exploratory."
    )
    if any(result.added for result in found):
        note += (
            " Data sets added later: after the first trial, when results may have been known; the "
            "claim was declared over the others alone."
        )
    return Sheet("claims", "Declared claims", columns, rows, reading, note)


def plans(evidence: Evidence) -> Sheet:
    """The table of the plan and its changes."""
    rows = [
        {
            "time": entry.time,
            "trials": entry.trials,
            "changed": entry.changed or "the plan, before the first trial",
            "sha256": entry.sha256,
        }
        for entry in evidence.plans
    ]
    columns = [
        Column("time", _TEXT, "time (UTC)"),
        Column("trials", _COUNT, "trials planned before"),
        Column("changed", _TEXT, "what was written down"),
        Column("sha256", _TEXT, "SHA-256"),
    ]
    reading = (
        "One row per state of the plan: the first was written down before the first trial, the "
        "others are later changes. Fewer changes are better."
    )
    note = (
        "The SHA-256 is of the resolved YAML (without the keys that say where the sweep runs), the "
        "claims, the images' digest and the code's commit; the whole content is in plan.json."
    )
    return Sheet("plans", "Plan and its changes", columns, rows, reading, note)
