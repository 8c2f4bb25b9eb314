"""The report's tables, made from a sweep's results."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from raygan.records import DATASET, END_LOSS, TrialRecord
from raygan.report import rates, stability, words
from raygan.report.assumptions import assumptions
from raygan.report.comparison_sheets import cells, claims, compared, plans
from raygan.report.evidence import Evidence
from raygan.report.final_sheet import final_test
from raygan.report.own_metrics import COLLAPSE, own_metrics
from raygan.report.quality_sheet import final_quality
from raygan.report.question_sheets import question_sheets
from raygan.report.recipe_sheet import recipes
from raygan.report.section_sheets import budget, crossings, failures, other_comparisons
from raygan.report.tables import REASON, WHOLE_REASONS
from raygan.report.tabular import Column, Sheet
from raygan.shown import shown

_TEXT, _NUMBER, _COUNT, _BOOL = pa.string(), pa.float64(), pa.int64(), pa.bool_()


def _measures(evidence: Evidence, record: TrialRecord) -> dict[str, float]:
    """Stability of a run from its curve, and from its final tests where it has taken both."""
    measures = stability.summary(record.curve)
    best, last = (evidence.final_loss(record, which) for which in ("best", "last"))
    fresh = stability.fresh_of(best, last)
    return measures if fresh is None else {**measures, "worsening_fresh": fresh}


def sheets(evidence: Evidence) -> list[Sheet]:
    """All tables, the most important one first."""
    own = own_metrics(evidence)
    made = [
        claims(evidence),
        cells(evidence),
        compared(evidence),
        final_test(evidence),
        final_quality(evidence),
        other_comparisons(evidence),
        crossings(evidence),
        failures(evidence),
        assumptions(evidence),
        plans(evidence),
        recipes(evidence),
        runs(evidence),
        *([own] if own.rows else []),
        learning_rates(evidence),
        budget(evidence),
        outcomes(evidence),
        ended_early(evidence),
        compute(evidence),
        *question_sheets(evidence),
    ]
    return [by_set(evidence, sheet) for sheet in made]


def by_set(evidence: Evidence, sheet: Sheet) -> Sheet:
    """``sheet`` with a column for the data set of each row, in the order of the data sets.

    The data set is a row's ``dataset`` or, without this key, that of its ``cell``. A row without a
    data set, such as a difference over all of them, stands first. The sheet is returned as it is if
    the sweep has one data set, if it has such a column, and if its rows are neither about cells nor
    about trials.
    """
    names = {column.name for column in sheet.columns}
    if not evidence.several or DATASET in names or not {"cell", "trial"} & names:
        return sheet
    labels = {cell.name: cell.dataset for cell in evidence.cells}
    rows = [{DATASET: labels.get(str(row.get("cell"))), **row} for row in sheet.rows]
    order = [None, *evidence.parts]
    rows.sort(key=lambda row: order.index(row[DATASET]))
    columns = [Column(DATASET, _TEXT, "data set"), *sheet.columns]
    return replace(sheet, columns=columns, rows=rows)


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
            **_measures(evidence, record),
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
        Column("worsening_fresh", _NUMBER, "worsening, fresh images", words.ratio),
        Column("worsening", _NUMBER, "worsening, running", words.ratio),
        Column("worsening_flat", _NUMBER, "of a flat curve", words.ratio),
        Column("worsening_flat_95", _NUMBER, "95% of flat curves below", words.ratio),
        Column("roughness", _NUMBER, "roughness", words.ratio),
        Column("log_area", _NUMBER, "mean log loss", words.ratio),
        Column(COLLAPSE[0], _NUMBER, "variety", words.two_digits),
        Column(COLLAPSE[1], _NUMBER, "diversity", words.two_digits),
        Column(COLLAPSE[2], _NUMBER, "duplicates", words.two_digits),
    ]
    reading = "One row per run. Lower is better, except: variety and diversity should be near 1."
    note = (
        f"End loss ({END_LOSS}), best loss, last loss: running test. "
        "Variety: effective number of different samples, divided by that of training images, at "
        "the last evaluation. Runs of earlier versions have diversity (mean distance between "
        "samples, divided by that between training images) and duplicates (share of the samples "
        "that have a near-duplicate) in its place: by the present rule it cannot be known whether "
        "they make few different images."
    )
    return Sheet("runs", "Runs that the verdict is based on", columns, rows, reading, note)


def learning_rates(evidence: Evidence) -> Sheet:
    """A row per learning rate of each cell; cells that differ only in ``lr`` are one here."""
    rows = []
    for label, name, records in [
        (label, name, records)
        for label, part in evidence.parts.items()
        for name, records in rates.by_rate_alone(part.cells).items()
    ]:
        by_rate = rates.by_rate(records)
        width = rates.width(by_rate)
        rows += [
            {
                DATASET: label,
                "cell": name,
                "lr": rate.lr,
                "trials": rate.trials,
                "ok": rate.ok,
                "stopped": rate.stopped,
                "bad": rate.bad,
                "loss": rate.loss,
                "good": width is not None and rate.lr in width,
                "good_low": width.low if width else None,
                "good_high": width.high if width else None,
                "decades": width.decades if width and width.holds else None,
            }
            for rate in by_rate
        ]
    columns = [
        Column("cell", _TEXT, "cell"),
        Column("lr", _NUMBER, "learning rate", words.short),
        Column("trials", _COUNT, "trials"),
        Column("ok", _COUNT, "ok"),
        Column("stopped", _COUNT, "stopped"),
        Column("bad", _COUNT, "no result"),
        Column("loss", _NUMBER, "median end loss", words.loss),
        Column("good", _BOOL, "in the good range", words.yes_no),
        Column("good_low", _NUMBER),
        Column("good_high", _NUMBER),
        Column("decades", _NUMBER),
    ]
    reading = (
        "One row per cell and learning rate. A low loss in a wide good range, with all trials ok, "
        "is better."
    )
    note = (
        "All trials of the search that have ended count, and replicates if every rate has some: no "
        "rate is held to more trials than the others. Good range: the "
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
            DATASET: cell.dataset,
            "trial": record.title,
            "kind": record.kind,
            "outcome": record.outcome,
            "step": record.step,
            "iterations": record.config["iterations"],
            "reason": record.reason or "",
        }
        for cell in evidence.cells
        for record in cell.records
        if record.outcome not in (None, "ok")
    ]
    columns = [
        Column("trial", _TEXT, "trial"),
        Column("kind", _TEXT, "kind"),
        Column("outcome", _TEXT, "outcome"),
        Column("step", _COUNT, "at iteration", words.whole),
        Column("iterations", _COUNT, "of", words.whole),
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
        Column("iterations", _COUNT, "iterations", words.whole),
        Column("full", _COUNT, "without early stopping", words.whole),
        Column("share", _NUMBER, "share", lambda value: f"{value:.0%}"),
        Column("hours", _NUMBER, "trial-hours", words.two_digits),
        Column("gpu_hours", _NUMBER, "GPU-hours", words.two_digits),
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
