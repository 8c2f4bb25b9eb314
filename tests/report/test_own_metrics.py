"""What reports and tables say of the metrics that users have brought."""

from __future__ import annotations

import pandas as pd
import pytest

from raygan.report import tables
from raygan.report.own_metrics import own_metrics
from raygan.report.sheets import sheets
from raygan.storage import Storage
from tests.report.builders import cell, evidence


def measured(found, values):
    for record, value in zip(found.replicates, values, strict=True):
        for point in record.history:
            point["val/variety"] = 0.9
            if value is not None:
                point["val/sharpness"] = value
    return found


def test_own_metrics_have_a_row_per_cell_with_mean_and_interval():
    bn = measured(cell("bn", [0.02, 0.021, 0.022]), [1.0, 2.0, 3.0])
    wn = measured(cell("wn", [0.02, "diverged", 0.022]), [-4.0, 100.0, -6.0])
    sheet = own_metrics(evidence(bn, wn))
    one, other = sheet.rows
    assert (one["metric"], one["cell"], one["n"], one["mean"]) == ("val/sharpness", "bn", 3, 2.0)
    # t of 0.975 with 2 degrees of freedom, of a standard error 1 / √3
    assert (one["low"], one["high"]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert (other["n"], other["mean"], other["low"]) == (2, -5.0, None)
    assert "exploratory" in sheet.title
    assert sheet.texts[0] == ["val/sharpness", "bn", "3", "2", "-0.4841", "4.484"]


def test_runs_without_a_value_are_left_out_and_repeats_count_once():
    some = measured(cell("bn", [0.02, 0.021, 0.022]), [1.0, None, 3.0])
    assert own_metrics(evidence(some)).rows[0]["mean"] == 2.0
    runs = [record.id for record in some.replicates]
    some.repeats.update({runs[0]: 0, runs[1]: 0, runs[2]: 0})
    assert own_metrics(evidence(some)).rows[0]["n"] == 1


def test_measures_of_quality_are_no_own_metrics_unless_the_sweep_has_none():
    some = measured(cell("bn", [0.02, 0.021, 0.022]), [None] * 3)
    for record in some.replicates:
        record.history[-1]["val/recall"] = 0.5
    assert [row["metric"] for row in own_metrics(evidence(some)).rows] == ["val/recall"]
    for record in some.replicates:
        record.config["quality"] = "features"
    assert own_metrics(evidence(some)).rows == []


def test_without_own_metrics_there_is_no_table():
    bn, wn = (measured(cell(name, [0.02, 0.021, 0.022]), [None] * 3) for name in ("bn", "wn"))
    assert "own_metrics" not in [sheet.key for sheet in sheets(evidence(bn, wn))]
    measured(bn, [1.0, 2.0, 3.0])
    assert "own_metrics" in [sheet.key for sheet in sheets(evidence(bn, wn))]


def test_results_have_the_last_value_of_each_metric(tmp_path):
    found = measured(cell("bn", [0.02, 0.021]), [1.0, None])
    found.replicates[0].history[-1]["val/sharpness"] = 7.0
    tables.write(Storage(str(tmp_path)), found.replicates, {})
    results = pd.read_parquet(tmp_path / tables.RESULTS)
    assert results["val/sharpness"].tolist()[0] == 7.0
    assert results["val/sharpness"].isna().tolist() == [False, True]
    assert results["val/variety"].tolist() == [0.9, 0.9]
