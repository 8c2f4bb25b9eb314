"""The report's tables, made from a sweep's results."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import pyarrow as pa

from raygan.records import LAST, TrialRecord
from raygan.report import rates, stability, words
from raygan.report.compare import LEAST_MEAN, LEVEL, mean_interval, wilson
from raygan.report.evidence import Cell, Evidence
from raygan.report.final_sheet import final_test
from raygan.report.pairs import comparisons, pairs_of
from raygan.report.questions import TARGET, iterations_to_target, target
from raygan.report.tables import REASON, WHOLE_REASONS
from raygan.report.tabular import Column, Sheet
from raygan.shown import shown

_TEXT, _NUMBER, _COUNT, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()
COLLAPSE = ("val/diversity", "val/duplicates")
"""Metrics of an evaluation that tell a collapse, where they are measured."""


def sheets(evidence: Evidence) -> list[Sheet]:
    """All tables, the most important one first."""
    return [
        cells(evidence),
        compared(evidence),
        final_test(evidence),
        runs(evidence),
        learning_rates(evidence),
        outcomes(evidence),
        ended_early(evidence),
        compute(evidence),
    ]


def cells(evidence: Evidence) -> Sheet:
    """A row per cell: mean loss with its interval, stability, failures."""
    aim = target(evidence)
    goal = (
        f" Iterations to target: until the running test's loss is at most {words.loss(aim[1])}, "
        f"{TARGET - 1:.0%} above the best of {aim[0].name}; median over the seeds that reached it."
        if aim
        else ""
    )
    reading = (
        "One row per cell, the one with the lowest mean loss first. Lower is better in every "
        "column but seeds and reached by."
    )
    note = (
        f"Mean loss: {evidence.measure}. CI: 95%, bootstrap over seeds (at least {LEAST_MEAN}). "
        "Failed, collapsed: share of the replicates that gave no result, or that collapsed, with "
        "Wilson's 95% CI. The other columns: medians over seeds, on the running test. Last / best: "
        "last loss divided by the lowest. Drawup: largest ratio of a loss to the lowest before it. "
        "Roughness: mean change of the log loss between evaluations. Mean log loss: over all "
        f"iterations.{goal}"
    )
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("setting", _TEXT, "setting"),
        Column("seeds", _COUNT, "seeds"),
        Column("mean", _NUMBER, "mean loss", words.loss),
        Column("low", _NUMBER, "CI from", words.loss),
        Column("high", _NUMBER, "to", words.loss),
        Column("sd", _NUMBER, "sd", words.loss),
        Column("failed_words", _TEXT, "failed"),
        Column("failed", _COUNT),
        Column("ended", _COUNT),
        Column("failed_low", _NUMBER),
        Column("failed_high", _NUMBER),
        Column("collapsed_words", _TEXT, "collapsed"),
        Column("collapsed", _COUNT),
        Column("collapsed_low", _NUMBER),
        Column("collapsed_high", _NUMBER),
        Column("last_over_best", _NUMBER, "last / best", _ratio),
        Column("drawup", _NUMBER, "drawup", _ratio),
        Column("roughness", _NUMBER, "roughness", _ratio),
        Column("log_area", _NUMBER, "mean log loss", _ratio),
        Column("to_target", _NUMBER, "iterations to target", _whole),
        Column("reached", _COUNT, "reached by", _whole),
    ]
    order = [*evidence.ranked, *(c for c in evidence.cells if c not in evidence.ranked)]
    return Sheet(
        "cells", "Cells", columns, [_cell_row(evidence, cell) for cell in order], reading, note
    )


def _cell_row(evidence: Evidence, cell: Cell) -> dict[str, Any]:
    losses = list(evidence.losses(cell).values())
    mean = mean_interval(losses)
    failed, ended = len(cell.failed), len(cell.ended)
    collapsed = sum(record.outcome == "collapsed" for record in cell.failed)
    rate, collapses = (wilson(n, ended) if cell.replicates else None for n in (failed, collapsed))
    whole = [stability.summary(r.curve) for r in cell.runs.values() if r.outcome == "ok"]
    steps = iterations_to_target(evidence, cell)
    reached = [step for step in steps.values() if step is not None]
    return {
        "cell": cell.name,
        "setting": cell.setting,
        "seeds": len(losses),
        "mean": statistics.fmean(losses) if losses else None,
        "low": mean.low if mean else None,
        "high": mean.high if mean else None,
        "sd": statistics.stdev(losses) if len(losses) > 1 else None,
        "failed_words": words.share(failed, ended, rate) if cell.replicates else None,
        "failed": failed,
        "ended": ended,
        "failed_low": rate.low if rate else None,
        "failed_high": rate.high if rate else None,
        "collapsed_words": words.share(collapsed, ended, collapses) if collapsed else None,
        "collapsed": collapsed,
        "collapsed_low": collapses.low if collapses else None,
        "collapsed_high": collapses.high if collapses else None,
        **{
            name: statistics.median(found) if found else None
            for name in ("last_over_best", "drawup", "roughness", "log_area")
            for found in [[one[name] for one in whole if name in one]]
        },
        "to_target": statistics.median(reached) if reached else None,
        "reached": len(reached) if steps else None,
    }


def compared(evidence: Evidence) -> Sheet:
    """A row per pair of cells: the difference by seed."""
    rows = [
        {
            "cell": a.name,
            "against": b.name,
            "n": found.n if found else 0,
            "percent": found.percent if found else None,
            "low": found.interval.low if found and found.interval else None,
            "high": found.interval.high if found and found.interval else None,
            "p": found.p if found else None,
            "least_p": found.least_p if found else None,
            "effect": found.effect if found else None,
            "claimed": bool(found and found.claimed),
        }
        for a, b, found in (comparisons(evidence) if evidence.ranked else [])
    ]
    reading = (
        "One row per pair of cells. A negative difference: the loss of the first cell is lower, "
        "which is better."
    )
    note = (
        "Difference: of the loss, paired by seed; 100 · (geometric mean of the ratios − 1). CI: "
        "95%, Student's t on the log ratios, for each pair alone. p: two-sided permutation "
        "test; with n seeds it cannot be below 2/2ⁿ, the lowest possible p. Effect size: mean ÷ "
        "standard deviation of the log ratios. A difference can be claimed if its interval at "
        f"{_level(evidence)} does not contain 0. Of the sweeps whose cells are equal, at most one "
        "in 20 then claims a difference."
    )
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("against", _TEXT, "against"),
        Column("n", _COUNT, "seeds"),
        Column("percent", _NUMBER, "difference", _signed),
        Column("low", _NUMBER, "CI from", _signed),
        Column("high", _NUMBER, "to", _signed),
        Column("p", _NUMBER, "p", _three),
        Column("least_p", _NUMBER, "lowest possible p", _three),
        Column("effect", _NUMBER, "effect size", _two),
        Column("claimed", _BOOL, "can be claimed", _yes),
    ]
    return Sheet("comparisons", "Differences between cells", columns, rows, reading, note)


def _level(evidence: Evidence) -> str:
    pairs = pairs_of(len(evidence.ranked))
    level = 100 * (1 - (1 - LEVEL) / pairs)
    return f"{level:.3g}%" if pairs == 1 else f"{level:.4g}% (Bonferroni, for {pairs} pairs)"


def runs(evidence: Evidence) -> Sheet:
    """A row per run that the verdict stands on."""
    rows = [
        {
            "cell": cell.name,
            "trial": record.id,
            "seed": seed,
            "outcome": record.outcome or "unfinished",
            "loss": evidence.losses(cell).get(seed),
            "end_loss": record.end_loss,
            "final_best": evidence.final_loss(record, "best"),
            "final_last": evidence.final_loss(record, "last"),
            **stability.summary(record.curve),
            **{name: record.history[-1].get(name) for name in COLLAPSE if record.history},
        }
        for cell in evidence.cells
        for seed, record in sorted(cell.runs.items())
    ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("trial", _TEXT),
        Column("seed", _COUNT, "seed"),
        Column("outcome", _TEXT, "outcome"),
        Column("loss", _NUMBER),
        Column("final_best", _NUMBER, "final test, best", words.loss),
        Column("final_last", _NUMBER, "final test, last", words.loss),
        Column("end_loss", _NUMBER, "end loss", words.loss),
        Column("best", _NUMBER, "best loss", words.loss),
        Column("last", _NUMBER, "last loss", words.loss),
        Column("last_over_best", _NUMBER, "last / best", _ratio),
        Column("drawup", _NUMBER, "drawup", _ratio),
        Column("roughness", _NUMBER, "roughness", _ratio),
        Column("log_area", _NUMBER, "mean log loss", _ratio),
        Column(COLLAPSE[0], _NUMBER, "diversity", _two),
        Column(COLLAPSE[1], _NUMBER, "duplicates", _two),
    ]
    reading = (
        "One row per run. Lower is better, except: diversity should be near 1, duplicates near 0."
    )
    note = (
        f"End loss (median of the last {LAST} evaluations), best loss, last loss: running "
        "test. Diversity: mean distance between samples, divided by that between training images. "
        "Duplicates: share of the samples that have a near-duplicate. Both: at the last evaluation."
    )
    return Sheet("runs", "Runs that the verdict is based on", columns, rows, reading, note)


def learning_rates(evidence: Evidence) -> Sheet:
    """A row per recipe and learning rate."""
    rows = []
    for name, records in rates.recipes(evidence.cells).items():
        found = rates.by_rate(records)
        width = rates.width(found)
        rows += [
            {
                "cell": name,
                "lr": rate.lr,
                "trials": rate.trials,
                "ok": rate.ok,
                "stopped": rate.stopped,
                "bad": rate.bad,
                "loss": rate.loss,
                "good": width is not None and rate.lr in width,
            }
            for rate in found
        ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("lr", _NUMBER, "learning rate", _rate),
        Column("trials", _COUNT, "trials"),
        Column("ok", _COUNT, "ok"),
        Column("stopped", _COUNT, "stopped"),
        Column("bad", _COUNT, "no result"),
        Column("loss", _NUMBER, "median end loss", words.loss),
        Column("good", _BOOL, "in the good range", _yes),
    ]
    reading = (
        "One row per cell and learning rate. A low loss in a wide good range, with all trials ok, "
        "is better."
    )
    note = (
        "All trials that have ended count, those of the search and replicates. Good range: the "
        "learning rates around the cell's best one at which all trials end ok and the median end "
        f"loss is within {rates.NEAR - 1:.0%} of the best."
    )
    return Sheet("learning_rates", "Learning rates", columns, rows, reading, note)


def outcomes(evidence: Evidence) -> Sheet:
    """A row per cell, kind of trial and outcome."""
    counts = Counter(
        (c.name, r.kind, r.outcome or "unfinished") for c in evidence.cells for r in c.records
    )
    rows = [
        {"cell": cell, "kind": kind, "outcome": outcome, "trials": count}
        for (cell, kind, outcome), count in counts.items()
    ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("kind", _TEXT, "kind"),
        Column("outcome", _TEXT, "outcome"),
        Column("trials", _COUNT, "trials"),
    ]
    reading = (
        "How many trials ended in which way. ok is best; stopped: early-stopped; all others gave "
        "no result."
    )
    return Sheet("outcomes", "Outcomes", columns, rows, reading)


def ended_early(evidence: Evidence) -> Sheet:
    """A row per trial whose outcome is not ok, with its last iteration and the reason."""
    rows = [
        {
            "trial": record.title,
            "kind": record.kind,
            "outcome": record.outcome,
            "step": record.step,
            "iterations": record.config["iterations"],
            "reason": record.reason or "",
        }
        for record in evidence.records
        if record.outcome not in (None, "ok")
    ]
    columns = [
        Column("trial", _TEXT, "trial"),
        Column("kind", _TEXT, "kind"),
        Column("outcome", _TEXT, "outcome"),
        Column("step", _COUNT, "at iteration", _whole),
        Column("iterations", _COUNT, "of", _whole),
        Column("reason", _TEXT, "why", lambda text: shown(text, REASON)),
    ]
    reading = (
        "One row per trial whose outcome is not ok, with its last iteration and the reason. "
        "Outcome stopped (early-stopped) is normal; fewer of the others are better."
    )
    note = WHOLE_REASONS if any(len(row["reason"]) > REASON for row in rows) else ""
    title = "Trials that were early-stopped or gave no result"
    return Sheet("ended_early", title, columns, rows, reading, note)


def compute(evidence: Evidence) -> Sheet:
    """A row per cell, and all: iterations and hours, against all trials run to their end."""
    rows = [_compute_row(cell.name, cell.records) for cell in evidence.cells]
    if len(rows) > 1:
        rows.append(_compute_row("all", evidence.records))
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("trials", _COUNT, "trials"),
        Column("iterations", _COUNT, "iterations", _whole),
        Column("full", _COUNT, "without early stopping", _whole),
        Column("share", _NUMBER, "share", lambda value: f"{value:.0%}"),
        Column("hours", _NUMBER, "trial-hours", _two),
        Column("gpu_hours", _NUMBER, "GPU-hours", _two),
    ]
    reading = "One row per cell. A lower share means that early stopping has saved more."
    note = (
        "Without early stopping: the iterations of the same trials, if each ran to its end. Share: "
        "iterations ÷ these."
    )
    return Sheet("compute", "Compute spent", columns, rows, reading, note)


def _compute_row(name: str, records: list[TrialRecord]) -> dict[str, Any]:
    done = sum(record.step for record in records)
    full = sum(int(record.config["iterations"]) for record in records)
    gpu = sum(record.gpu_seconds for record in records) / 3600
    return {
        "cell": name,
        "trials": len(records),
        "iterations": done,
        "full": full,
        "share": done / full if full else None,
        "hours": sum(record.seconds for record in records) / 3600,
        "gpu_hours": gpu or None,
    }


def _ratio(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _three(value: float) -> str:
    return f"{value:.3g}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _rate(value: float) -> str:
    return f"{value:g}"


def _signed(value: float) -> str:
    return words.percent(value, signed=True)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
