"""The tables of the sections: other differences, crossings, budget curves, failures."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa

from raygan.report import courses, words
from raygan.report.audit import by_restarts, with_restarts
from raygan.report.comparison_sheets import OVER_SETS, compared_row
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Family, of_speed, of_worsening
from raygan.report.sections import failure_rates
from raygan.report.tabular import Column, Sheet

_TEXT, _NUMBER, _COUNT, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()
MEASURES = {
    "log_area": "loss over the whole run",
    "worsening": "last / best",
    "restarts_loss": "loss with restarts",
    "failed": "share of runs without a result",
}
"""By name, the measures that are compared besides the loss, as people read them."""
PHASES = ("early-failure", "diverged", "collapsed", "untrained", "failed")
"""Outcomes without a result, in the order of the phases of training."""


def other_comparisons(evidence: Evidence) -> Sheet:
    """The table of differences in speed, stability, failures and loss with restarts."""
    families = {
        "log_area": of_speed(evidence),
        "worsening": of_worsening(evidence),
        "restarts_loss": with_restarts(evidence) if by_restarts(evidence) else Family([]),
    }
    rows = [
        {"measure": measure, **compared_row(one)}
        for measure, family in families.items()
        for one in family.comparisons
    ]
    rows += [
        {
            "measure": "failed",
            "cell": cell,
            "against": other,
            "n": n,
            "others": m,
            "failed": failed,
            "others_failed": others_failed,
            "p": p,
            "adjusted_p": adjusted,
            "claimed": adjusted <= evidence.alpha,
        }
        for (cell, other, (failed, n), (others_failed, m), p, adjusted) in failure_rates(evidence)
    ]
    pooled = any(family.pooled for family in families.values())
    lacking = any(family.lacking for family in families.values())
    columns = [
        Column("measure", _TEXT, "measure", lambda name: MEASURES[name]),
        Column("cell", _TEXT, "cell"),
        Column("against", _TEXT, "against"),
        Column("within", _TEXT),
        Column("strata", _COUNT, "over strata" if pooled else ""),
        Column("of_strata", _COUNT, "of" if lacking else ""),
        Column("n", _COUNT, "runs"),
        Column("others", _COUNT, "of the other"),
        Column("failed", _COUNT, "no result"),
        Column("others_failed", _COUNT, "of the other"),
        Column("percent", _NUMBER, "difference", words.signed),
        Column("low", _NUMBER, "CI from", words.signed),
        Column("high", _NUMBER, "to", words.signed),
        Column("p", _NUMBER, "p", words.three_digits),
        Column("adjusted_p", _NUMBER, "adjusted p", words.three_digits),
        Column("detectable", _NUMBER, "detectable", words.percent),
        Column("claimed", _BOOL, "can be claimed", words.yes_no),
    ]
    reading = (
        "One row per measure and pair of cells. A negative difference: the first cell's is lower, "
        "which is better."
    ) + (OVER_SETS if evidence.several else "")
    note = (
        "Loss over the whole run: geometric mean over the iterations, running test. Last / best: "
        "loss of the last generator against that of the best one in the final test. Loss with "
        "restarts: of the audited images, from random codes, too. Share of runs without a result: "
        "of those that ended; p by Boschloo's exact test. p is adjusted for the comparisons of one "
        "measure; no detectable difference is given where runs gave no result; all else as in the "
        "table of differences."
    )
    title = "Differences in speed, stability and failures"
    return Sheet("other_comparisons", title, columns, rows, reading, note)


def crossings(evidence: Evidence) -> Sheet:
    """The table of last crossings of mean curves."""
    rows = [
        {
            "cell": crossing.cell,
            "against": crossing.other,
            "iteration": crossing.iteration,
            "loss": math.exp(crossing.log),
            "times": crossing.times,
            "before": crossing.before,
            "after": crossing.after,
            "certain": crossing.certain,
        }
        for crossing in courses.crossings(evidence)
    ]
    columns = [
        Column("cell", _TEXT, "lower from there on"),
        Column("against", _TEXT, "lower before"),
        Column("iteration", _NUMBER, "iteration", words.whole),
        Column("loss", _NUMBER, "loss there", words.loss),
        Column("times", _COUNT, "crossings in all"),
        Column("before", _COUNT, "other lower until", words.whole),
        Column("after", _COUNT, "lower from", words.whole),
        Column("certain", _BOOL, "can be claimed", words.yes_no),
    ]
    reading = (
        "One row per pair of cells: the iteration at which their mean curves cross for the last "
        "time. The first cell is better after it."
    )
    note = (
        "Geometric mean over the runs with a result, running test. Lower until, from: by Welch's "
        "95% intervals of the difference that hold at all evaluations of all pairs together "
        "(Bonferroni), and only where every run gave a result. A crossing without both may be "
        "chance."
    )
    return Sheet("crossings", "Where curves cross", columns, rows, reading, note)


def budget(evidence: Evidence) -> Sheet:
    """The table of budget curves: the mean lowest loss, by cell and number of trials."""
    rows = [
        {"cell": cell, "trials": trials, "loss": loss if loss < math.inf else None}
        for cell, losses in courses.budgets(evidence).items()
        for trials, loss in enumerate(losses, start=1)
    ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("trials", _COUNT, "trials"),
        Column("loss", _NUMBER, "lowest end loss, on average", words.loss),
    ]
    reading = "One row per cell and number of trials of its search. Lower after fewer is better."
    note = (
        "Mean of the lowest end loss of so many of the trials (Dodge et al. 2019, without the bias "
        "as Tang et al. 2020). A trial without a result counts as infinitely high: no value where "
        "all may be such. An early-stopped trial counts with the loss that it had come to."
    )
    return Sheet("budget", "Loss that a search finds", columns, rows, reading, note)


def failures(evidence: Evidence) -> Sheet:
    """The table of trials without a result, by cell, kind of trial and phase."""
    rows = [
        row
        for cell in evidence.cells
        for kind in ("search", "replicate")
        for warmup in (False, True)
        if (row := _failures(cell, kind, warmup)) is not None
    ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("kind", _TEXT, "kind"),
        Column("warmup", _BOOL, "with warm-up", words.yes_no),
        Column("ended", _COUNT, "ended"),
        Column("early-failure", _COUNT, "in the first iterations"),
        Column("diverged", _COUNT, "diverged later"),
        Column("collapsed", _COUNT, "collapsed"),
        Column("untrained", _COUNT, "learned nothing"),
        Column("failed", _COUNT, "failed otherwise"),
        Column("without_result", _COUNT, "in all"),
    ]
    reading = (
        "One row per cell and kind of trial: how many gave no result, by the phase in which they "
        "were lost. Fewer are better."
    )
    note = (
        "Every attempt counts, also one that was repeated with a warm-up. Early-stopped trials are "
        "among the ended ones."
    )
    return Sheet("failures", "Failures by phase", columns, rows, reading, note)


def _failures(cell: CellResults, kind: str, warmup: bool) -> dict[str, Any] | None:
    ended: list[str] = [
        record.outcome
        for record in cell.records
        if record.kind == kind
        and record.outcome is not None
        and bool(record.config["warmup"]) is warmup
    ]
    counts = Counter(ended)
    if not ended:
        return None
    return {
        "cell": cell.name,
        "kind": kind,
        "warmup": warmup,
        "ended": len(ended),
        **{phase: counts[phase] for phase in PHASES},
        "without_result": sum(counts[phase] for phase in PHASES),
    }
