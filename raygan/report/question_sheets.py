"""The tables of the paper's four questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raygan.report import monitoring, norm_words, words
from raygan.report.compare import LEAST, Interval
from raygan.report.evidence import Evidence
from raygan.report.monitoring import DISTANCES
from raygan.report.norm_contrasts import Difference
from raygan.report.paper_numbers import CAVEATS, NUMBERS, PAPER
from raygan.report.questions import dependences, failures, first, fourth, second, varied
from raygan.report.tabular import Column, Sheet

_TEXT, _NUMBER, _COUNT, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()
_IN_CSV = " The CSV of this table has the rows of single data sets and strata, too."
_KINDS = {
    "runs": "over all runs",
    "within": "of runs within their cells",
    "cells": "between means of cells",
}


def question_sheets(evidence: Evidence) -> list[Sheet]:
    """The tables that have a row."""
    every = [
        _differences("rq1_differences", "RQ1: BN against no normalisation", first(evidence)),
        _differences(
            "rq2_differences", "RQ2: WN against BN and against no normalisation", second(evidence)
        ),
        _failures(evidence),
        _paper(evidence),
        *_monitoring(evidence),
        *(_fourth(evidence) if varied(evidence) else []),
    ]
    return [sheet for sheet in every if sheet.rows]


def _differences(key: str, title: str, found: Sequence[Difference], *, brief: bool = True) -> Sheet:
    """``brief``: within data sets and strata, people see the loss only, and single
    strata only in a sweep of one data set."""
    several, lacking = any(one.of > 1 for one in found), any(one.strata < one.of for one in found)
    firsts, seconds = {one.first for one in found}, {one.second for one in found}
    first = next(iter(firsts)) if len(firsts) == 1 else "the first"
    second = next(iter(seconds)) if len(seconds) == 1 else "the other"
    failed = any(sum(one.failed) for one in found)
    columns = [
        Column("cell", _TEXT, "" if len(firsts) == 1 else "norm"),
        Column("against", _TEXT, "" if len(seconds) == 1 else "against"),
        Column("measure", _TEXT),
        Column("group", _TEXT, "measure of"),
        Column("measure_words", _TEXT, "measure"),
        Column("where", _TEXT, "where" if several else ""),
        Column("dataset", _TEXT),
        Column("within", _TEXT),
        Column("whole", _BOOL),
        Column("strata", _COUNT, "strata" if lacking else ""),
        Column("of_strata", _COUNT, "of" if lacking else ""),
        Column("n", _COUNT, f"runs of {first}"),
        Column("others", _COUNT, f"of {second}"),
        Column("failed", _COUNT, f"no result of {first}" if failed else ""),
        Column("others_failed", _COUNT, f"of {second}" if failed else ""),
        Column("difference_words", _TEXT, "difference [95% CI]"),
        Column("difference", _NUMBER),
        Column("unit", _TEXT),
        Column("low", _NUMBER),
        Column("high", _NUMBER),
        Column("p", _NUMBER),
        Column("adjusted_p", _NUMBER, "adjusted p", words.three_digits),
        Column("equal_p", _NUMBER, "p of equal", words.three_digits),
        Column("detectable", _NUMBER),
        Column("detectable_words", _TEXT, "detectable"),
        Column("better_is", _TEXT, "better is"),
        Column("claimed", _BOOL, "can be claimed", words.yes_no),
    ]
    hidden = [
        brief and not one.whole and (one.measure.key != "loss" or bool(one.dataset and one.within))
        for one in found
    ]
    reading = (
        f"One row per measure{', first over all strata' if several else ''}. The difference is "
        f"that of {first} against {second}; “better is” says which direction is better."
    )
    note = (
        "Points: percentage points. CI: Welch's; of runs without a result Newcombe's. p: the "
        "larger of Welch's and, where runs gave no result, that of the ranks with these as the "
        "worst; of their shares Boschloo's exact test, over strata the exact conditional one. "
        "Adjusted: the loss as in the verdict, speed and last / best as in their sections; shares "
        "of runs without a result, and all other measures together, by Holm; rows of single strata "
        "and data sets among themselves. p of equal: that the difference is the same in all "
        "strata. Detectable: the difference that would be claimed in 80% of such sweeps. Last / "
        "best: loss of the last generator against that of the best one, final test. Samples are "
        "those of the best generator where the last one is not named. Neither detectable nor p of "
        "equal is given where runs gave no result."
    )
    if any(hidden):
        note += _IN_CSV
    return Sheet(key, title, columns, [_row(one) for one in found], reading, note, hidden)


def _row(one: Difference) -> dict[str, Any]:
    return {
        "cell": one.first,
        "against": one.second,
        "measure": one.measure.key,
        "group": one.measure.group,
        "measure_words": one.measure.title,
        "where": _where(one),
        "dataset": one.dataset or None,
        "within": one.within or None,
        "whole": one.whole,
        "strata": one.strata,
        "of_strata": one.of,
        "n": one.n,
        "others": one.others,
        "failed": one.failed[0],
        "others_failed": one.failed[1],
        "difference_words": norm_words.signed(one.value, one.interval, points=one.measure.points),
        "difference": one.value,
        "unit": "percentage points" if one.measure.points else "%",
        **_ends(one.interval),
        "p": one.p,
        "adjusted_p": one.adjusted,
        "equal_p": one.heterogeneity,
        "detectable": one.detectable,
        "detectable_words": norm_words.detectable(one) or None,
        "better_is": "higher" if one.measure.higher else "lower",
        "claimed": one.claimed,
    }


def _where(one: Difference) -> str:
    if one.whole:
        return "all strata"
    return " ".join(filter(None, [one.dataset, one.within])) or "the only stratum"


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _failures(evidence: Evidence) -> Sheet:
    found = failures(evidence)
    rows = [
        {"norm": norm, **counts, "without_result": sum(counts.values()) - counts["ended"]}
        for norm, counts in found.items()
        if len(found) > 1 and "wn" in found
    ]
    columns = [
        Column("norm", _TEXT, "norm"),
        Column("ended", _COUNT, "ended"),
        Column("early-failure", _COUNT, "in the first iterations"),
        Column("diverged", _COUNT, "diverged later"),
        Column("collapsed", _COUNT, "collapsed"),
        Column("untrained", _COUNT, "learned nothing"),
        Column("failed", _COUNT, "failed otherwise"),
        Column("without_result", _COUNT, "in all"),
    ]
    reading = "One row per norm: how many trials gave no result, by phase. Fewer are better."
    note = (
        "All trials of all cells of the norm, of the search and of replicates; also those that "
        "were repeated with a warm-up."
    )
    return Sheet("rq2_failures", "RQ2: failures by phase", columns, rows, reading, note)


def _paper(evidence: Evidence) -> Sheet:
    ours = [one for one in second(evidence) if one.measure.key == "loss"]
    rows = [
        {
            "cell": theirs.first,
            "against": theirs.second,
            "paper": theirs.percent,
            "paper_words": theirs.words,
            "dataset": one.dataset or None,
            "within": one.within or None,
            "strata": one.strata,
            "of_strata": one.of,
            "here": one.value,
            **_ends(one.interval),
            "contains": one.interval.low <= theirs.percent <= one.interval.high
            if one.interval
            else None,
            "protocol": _protocol(evidence),
            "source": theirs.source,
        }
        for theirs in NUMBERS
        for one in ours
        if (one.first, one.second) == (theirs.first, theirs.second)
    ]
    columns = [
        Column("cell", _TEXT, "norm"),
        Column("against", _TEXT, "against"),
        Column("paper", _NUMBER),
        Column("paper_words", _TEXT, "paper"),
        Column("dataset", _TEXT, "data set"),
        Column("within", _TEXT, "within"),
        Column("strata", _COUNT, "strata" if any(one.of > 1 for one in ours) else ""),
        Column("of_strata", _COUNT, "of" if any(one.strata < one.of for one in ours) else ""),
        Column("here", _NUMBER, "here", words.signed),
        Column("low", _NUMBER, "CI from", words.signed),
        Column("high", _NUMBER, "to", words.signed),
        Column("contains", _BOOL, "the paper's is in the CI", words.yes_no),
        Column("protocol", _TEXT, "protocol here"),
        Column("source", _TEXT, "source"),
    ]
    reading = (
        "One row per number of the paper: final reconstruction loss of the first norm against the "
        "other, the paper's and ours. Lower is better."
    )
    hidden = [bool(row["dataset"] and row["within"]) for row in rows]
    note = f"Source: {PAPER}. {' '.join(CAVEATS)}{_IN_CSV if any(hidden) else ''}"
    title = "The paper's numbers beside ours"
    return Sheet("paper_numbers", title, columns, rows, reading, note, hidden)


def _protocol(evidence: Evidence) -> str | None:
    """The final tests' protocol; None if it is not recorded, or not the same for all."""
    asked = [both["best"].get("asked") or {} for both in evidence.finals.values() if "best" in both]
    known = {str(one.get("protocol", "")) for one in asked}
    return next(iter(known)) or None if len(known) == 1 else None


def _monitoring(evidence: Evidence) -> list[Sheet]:
    name = monitoring.distance(evidence)
    ball = _ball(evidence)
    if name is None:
        return [ball]
    return [_within(evidence, name), _between(evidence, name), ball]


def _within(evidence: Evidence, name: str) -> Sheet:
    courses = monitoring.courses(evidence, name)
    groups = {("", ""): courses}
    labels = list(dict.fromkeys(course.dataset for course in courses))
    if len(labels) > 1:
        groups |= {(s, ""): [c for c in courses if c.dataset == s] for s in labels}
    for cell in evidence.cells:
        mine = [course for course in courses if course.cell == cell.name]
        groups[cell.dataset, cell.name] = mine
    rows = [
        {"dataset": dataset or None, "cell": cell or None, **_within_row(mine)}
        for (dataset, cell), mine in groups.items()
        if mine
    ]
    columns = [
        Column("dataset", _TEXT, "data set"),
        Column("cell", _TEXT, "cell"),
        Column("runs", _COUNT, "runs"),
        Column("rho", _NUMBER, "ρ within a run", words.two_digits),
        Column("low", _NUMBER, "CI from", words.two_digits),
        Column("high", _NUMBER, "to", words.two_digits),
        Column("given", _NUMBER, "ρ given the iteration", words.two_digits),
        Column("given_low", _NUMBER, "CI from", words.two_digits),
        Column("given_high", _NUMBER, "to", words.two_digits),
        Column("use", _NUMBER, "use", words.signed),
        Column("use_low", _NUMBER, "CI from", words.signed),
        Column("use_high", _NUMBER, "to", words.signed),
        Column("worse", _COUNT, "got worse again"),
        Column("told", _COUNT, "told by the loss"),
        Column("steady", _COUNT, "others"),
        Column("false", _COUNT, "false alarms"),
        Column("left_out", _COUNT, "left out"),
    ]
    reading = (
        "One row per cell, the first over all. A ρ given the iteration whose interval is above 0, "
        "and a use below 0, are better: the loss monitors the second measure."
    )
    note = (
        f"Second measure: {DISTANCES[name]}, at each evaluation. ρ: Spearman's, mean over the runs "
        f"by Fisher's z, with 95% CI over runs. Given the iteration: what is left after the mean "
        "of the other runs of the cell at the same iteration was taken from the logarithms of "
        "both (or from the values, where some are not above 0); mean over the cells, with 95% CI "
        "over cells. Use: change of the second measure if the evaluation with the lowest loss is "
        "chosen in place of the last. Got worse again: the second measure, smoothed, ends above "
        "its best by more than 95% of flat curves with its noise do; told: the loss does, too; "
        "false alarms: the loss does in the other runs; left out: runs in which the second measure "
        "is not always above 0. "
        "These intervals are not corrected for their number."
    )
    return Sheet("rq3_within", "RQ3: loss and sample quality in runs", columns, rows, reading, note)


def _within_row(courses: Sequence[monitoring.Course]) -> dict[str, Any]:
    within = monitoring.over_runs([monitoring.spearman(c.losses, c.distances) for c in courses])
    given = monitoring.over_cells(courses, monitoring.given_iteration(courses))
    use, alarms = monitoring.use(courses), monitoring.alarms(courses)
    row: dict[str, Any] = {"runs": len(courses)}
    if within:
        row |= {"rho": within.rho, **_ends(within.interval)}
    if given:
        row["given"] = given.rho
        if given.interval:
            row |= {"given_low": given.interval.low, "given_high": given.interval.high}
    if use:
        row["use"] = use.percent
        if use.interval:
            row |= {"use_low": use.interval.low, "use_high": use.interval.high}
    if alarms:
        row |= vars(alarms)
    return row


def _between(evidence: Evidence, name: str) -> Sheet:
    rows = []
    for label in dict.fromkeys(cell.dataset for cell in evidence.cells):
        ends = monitoring.ends(evidence, name, label)
        rows += [
            {
                "dataset": label or None,
                "kind": one.kind,
                "n": one.n,
                "value": one.rho,
                **_ends(one.interval),
            }
            for one in monitoring.between(ends)
        ]
        if (order := monitoring.order(ends)) is not None:
            rows.append(
                {
                    "dataset": label or None,
                    "kind": "order",
                    "n": order.n,
                    "value": order.tau,
                    **_ends(order.interval),
                    "by_loss": ", ".join(map(" = ".join, order.by_loss)),
                    "by_other": ", ".join(map(" = ".join, order.by_other)),
                }
            )
    kinds = {**_KINDS, "order": "order of the cells (Kendall's τ)"}
    columns = [
        Column("dataset", _TEXT, "data set"),
        Column("kind", _TEXT, "correlation", lambda kind: kinds[kind]),
        Column("n", _COUNT, "runs or cells"),
        Column("value", _NUMBER, "ρ or τ", words.two_digits),
        Column("low", _NUMBER, "CI from", words.two_digits),
        Column("high", _NUMBER, "to", words.two_digits),
        Column("by_loss", _TEXT, "order by loss"),
        Column("by_other", _TEXT, "order by the second measure"),
    ]
    reading = (
        "Loss and second measure of different runs at their end; near 1 is better: the loss "
        "reflects the samples' quality."
    )
    note = (
        f"Loss: {evidence.measure}. Second measure: {DISTANCES[name]} of the best generator at the "
        "end, or else at the last evaluation. Runs within a data set only. CI: 95%, from "
        f"{monitoring.DRAWS} draws of cells and of the runs in them, with a fixed seed; with few "
        "cells, it is rough. For the order, the runs alone are drawn again: where they hardly "
        "differ, the range is too narrow for a claim. The order is that of the "
        f"observed means, if every cell has {LEAST} runs; = stands between tied cells (τ-b)."
    )
    title = "RQ3: loss and sample quality between runs and cells"
    return Sheet("rq3_between", title, columns, rows, reading, note)


def _ball(evidence: Evidence) -> Sheet:
    rows = [
        {**vars(ball), "dataset": ball.dataset or None, "change": _change(ball)}
        for ball in monitoring.balls(evidence)
    ]
    columns = [
        Column("dataset", _TEXT, "data set"),
        Column("cell", _TEXT, "cell"),
        Column("loss", _NUMBER, "with any code", words.loss),
        Column("ball_loss", _NUMBER, "within the ball", words.loss),
        Column("change", _NUMBER, "change", words.signed),
        Column("code_norm", _NUMBER, "|z| / √d", words.two_digits),
        Column("outside", _NUMBER, "codes outside", words.as_percent),
    ]
    reading = (
        "One row per cell: its loss with any code, and with codes within the prior's ball. Lower "
        "is better; a large change means that the loss was reached with improbable codes."
    )
    note = (
        "Final test of the best generator, means over runs (losses: geometric), both losses of the "
        "same images. |z| / √d: length of the code found, near 1 for codes of a "
        "normal prior and 0.58 for those of a uniform one."
    )
    return Sheet("rq3_ball", "RQ3: where the codes lie", columns, rows, reading, note)


def _change(ball: monitoring.Ball) -> float | None:
    if ball.loss is None or ball.ball_loss is None:
        return None
    return 100 * (ball.ball_loss / ball.loss - 1)


def _fourth(evidence: Evidence) -> list[Sheet]:
    title = "RQ4: WN against the others in each stratum"
    differences = _differences("rq4_differences", title, fourth(evidence), brief=False)
    rows = [
        {
            "cell": one.first,
            "against": one.second,
            "axis": one.axis,
            "level": one.level,
            "base": one.base,
            "difference": one.contrast.percent,
            **_ends(one.contrast.interval()),
            "p": one.contrast.p,
            "adjusted_p": one.adjusted,
            "claimed": one.claimed,
        }
        for one in dependences(evidence)
    ]
    columns = [
        Column("cell", _TEXT, "norm"),
        Column("against", _TEXT, "against"),
        Column("axis", _TEXT, "axis"),
        Column("level", _TEXT, "at"),
        Column("base", _TEXT, "compared with"),
        Column("difference", _NUMBER, "change of the difference", words.signed),
        Column("low", _NUMBER, "CI from", words.signed),
        Column("high", _NUMBER, "to", words.signed),
        Column("p", _NUMBER, "p", words.three_digits),
        Column("adjusted_p", _NUMBER, "adjusted p", words.three_digits),
        Column("claimed", _BOOL, "can be claimed", words.yes_no),
    ]
    reading = (
        "One row per interaction: how the difference between two norms changes with another axis. "
        "Below 0, the first norm does better there than at the value it is compared with."
    )
    note = (
        "A ratio of ratios of the mean losses, less 1, over the strata that are alike in all other "
        "axes, and over the runs that gave a result. CI: 95%. p adjusted by Holm over these rows. "
        "Nothing is claimed where runs of these norms gave no result."
    )
    changes = Sheet("rq4_interactions", "RQ4: where the difference changes", columns, rows,
                    reading, note)  # fmt: skip
    return [differences, changes]
