"""The table of final sample quality, and its measures in the comparison of norms."""

import io
import math
from dataclasses import replace

import numpy as np
import pyarrow.csv
import pytest
from scipy import stats

from raygan.folder import HTML, MARKDOWN, REPORT_FOLDER
from raygan.report.make import Report
from raygan.report.norm_contrasts import differences
from raygan.report.norm_measures import measures
from raygan.report.qualities import comparable, quality_gaps, quality_notes
from raygan.report.quality_sheet import final_quality
from raygan.report.sheets import sheets
from raygan.storage import Storage
from tests.report.builders import cell, evidence, on, qualities, quality

ENDS = [0.010, 0.011, 0.012]
NAME = "feature_energy_distance"


def two(bn=ENDS, wn=ENDS):
    cells = cell("bn", bn), cell("wn", wn)
    return evidence(*cells, qualities=qualities(*cells))


def change(found, norm, number, which="best", **values):
    """Change what was measured of the run ``number`` of a cell."""
    record = next(c for c in found.cells if c.name == norm).replicates[number]
    found.qualities[record.id][which] |= values
    return record


def by_row(found):
    return {(row["cell"], row["generator"]): row for row in final_quality(found).rows}


def of(found, first="wn", second="bn"):
    return {d.measure.key: d for d in differences(found, first, second, measures(found)) if d.whole}


def alone(found, key, dataset):
    every = differences(found, "wn", "bn", measures(found))
    return [d for d in every if d.measure.key == key and d.dataset == dataset]


# the table


def test_means_and_intervals_of_both_generators_are_in_the_table():
    found = two()
    for number, recall in enumerate((0.1, 0.3, 0.5)):
        change(found, "bn", number, recall=recall)
    sheet = final_quality(found)
    assert [column.heading for column in sheet.shown] == [
        "cell", "generator", "runs", "feature energy distance", "CI from", "to", "recall", "CI from",
        "to", "coverage",
    ]  # fmt: skip
    row = by_row(found)["bn", "best"]
    logs = np.log([20 * end for end in ENDS])
    interval = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert row["runs"] == 3
    assert row[NAME] == pytest.approx(math.exp(logs.mean()))
    assert [row[f"{NAME}_low"], row[f"{NAME}_high"]] == pytest.approx(np.exp(interval))
    assert row["recall"] == pytest.approx(0.3)
    assert (row["recall_low"], row["recall_high"]) == (0, pytest.approx(0.797, abs=1e-3))
    assert (row["coverage"], row["coverage_low"]) == (0.5, None)  # no spread
    assert by_row(found)["bn", "last"][NAME] == pytest.approx(1.5 * row[NAME])
    assert "1,000 samples against 800 held-out images" in sheet.note
    assert "(of the feature energy distance geometric)" in sheet.note
    assert "Lacking" not in sheet.note


def test_the_table_stands_below_the_final_test_in_both_documents_and_as_csv(tmp_path):
    found, storage = two(), Storage(str(tmp_path))
    keys = [sheet.key for sheet in sheets(found)]
    assert keys.index("final_quality") == keys.index("final_test") + 1
    Report.of(storage, found).write(storage)
    for name in (HTML, MARKDOWN):
        text = (storage.local / name).read_text()
        assert text.count("Final sample quality") == 1
        assert text.index("Final sample quality") < text.index("Outcomes")
    read = pyarrow.csv.read_csv(io.BytesIO(storage.read(f"{REPORT_FOLDER}/final_quality.csv")))
    assert read["generator"].to_pylist() == ["best", "last"] * 2
    assert read[NAME].to_pylist()[0] == pytest.approx(by_row(found)["bn", "best"][NAME])


def test_a_sweep_without_quality_has_no_such_table():
    found = evidence(cell("bn", ENDS), cell("wn", ENDS))
    assert final_quality(found).rows == []
    assert quality_gaps(found) == quality_notes(found) == []


def test_only_what_was_measured_is_shown():
    found = two()
    for both in found.qualities.values():
        for which in both:
            both[which] = {"sliced_wasserstein": 0.2, "kind": "wasserstein", "images": 1000,
                           "real_images": 800}  # fmt: skip
    sheet = final_quality(found)
    assert [column.heading for column in sheet.shown] == [
        "cell", "generator", "runs", "sliced Wasserstein distance"
    ]  # fmt: skip
    assert quality_gaps(found) == []


def test_repeats_of_a_search_are_what_is_counted():
    found = two([0.010, 0.011, 0.012, 0.013])
    bn = found.cells[0]
    repeats = {record.id: number // 2 for number, record in enumerate(bn.replicates)}
    found = replace(found, cells=[replace(bn, repeats=repeats), found.cells[1]])
    for number, recall in enumerate((0.0, 0.2, 0.4, 0.6)):
        change(found, "bn", number, recall=recall)
    sheet, row = final_quality(found), by_row(found)["bn", "best"]
    assert "repeats" in [column.heading for column in sheet.shown]
    assert (row["runs"], row["recall"]) == (2, pytest.approx(0.3))
    assert of(found)["recall"].others == 2


# distances at 0 or below


def test_the_best_runs_do_not_vanish_where_a_distance_is_at_0_or_below():
    assert quality_notes(two()) == []
    found = two()
    values = {"bn": [0.10, 0.12, 0.11], "wn": [-0.01, 0.0, 0.02]}
    for norm, mine in values.items():
        for number, value in enumerate(mine):
            change(found, norm, number, feature_energy_distance=value)
    one = of(found)[NAME]
    welch = stats.ttest_ind(values["wn"], values["bn"], equal_var=False)
    mean = np.mean([*values["bn"], *values["wn"]])
    difference = np.mean(values["wn"]) - np.mean(values["bn"])
    assert (one.n, one.others) == (3, 3)
    assert one.p == pytest.approx(welch.pvalue)
    assert one.value == pytest.approx(100 * difference / mean)
    interval = welch.confidence_interval()
    assert [one.interval.low, one.interval.high] == pytest.approx(
        [100 * interval.low / mean, 100 * interval.high / mean]
    )
    assert one.better
    assert one.detectable == pytest.approx(  # a difference of contrasts, not of ratios
        100 * math.log1p(one.contrast.detectable(0.95) / 100)
    )
    assert one.measure.words == "feature energy distance in % of its mean"
    row = by_row(found)["wn", "best"]
    assert row[NAME] == pytest.approx(np.mean(values["wn"]))
    assert row[f"{NAME}_low"] < 0
    (note,) = quality_notes(found)
    titles = [record.title for record in found.cells[1].replicates[:2]]
    assert note.startswith(
        "The feature energy distance of 2 runs is 0 or below, as its noise allows near 0: "
        f"{titles[0]} (best) and {titles[1]} (best). So its means and differences are those of the "
        "values"
    )
    assert note in final_quality(found).note
    assert "geometric" not in final_quality(found).note


def test_a_mean_that_is_noise_does_not_set_how_much_a_data_set_counts():
    cells = [on(label, norm, ENDS) for label in ("a", "b") for norm in ("bn", "wn")]
    found = evidence(*cells, qualities=qualities(*cells))
    for norm, values in (("a_bn", (0.012, -0.009, 0.004)), ("a_wn", (-0.01, 0.011, 0.001))):
        for number, value in enumerate(values):
            change(found, norm, number, feature_energy_distance=value)
    assert (of(found)[NAME].strata, of(found)[NAME].of) == (1, 2)
    assert "not above 0: a, best generators" in quality_notes(found)[1]


def test_data_sets_with_a_mean_at_0_or_below_are_said_not_to_be_compared():
    cells = [on(label, norm, ENDS) for label in ("a", "b") for norm in ("bn", "wn")]
    found = evidence(*cells, qualities=qualities(*cells))
    for norm in ("a_bn", "a_wn"):
        for number in range(3):
            change(found, norm, number, feature_energy_distance=-0.01)
    assert quality_notes(found)[1] == (
        "It is not compared where the 95% CI of this mean is not above 0: a, best generators."
    )
    one = of(found)[NAME]
    assert (one.strata, one.of) == (1, 2)
    assert alone(found, NAME, "a") == []
    assert len(alone(found, f"{NAME}_last", "a")) == 1


# the last generator


def test_the_last_generators_distance_is_a_measure_of_its_own():
    found = two(wn=[0.8 * end for end in ENDS])
    for number in range(3):
        change(found, "wn", number, "last", feature_energy_distance=30 * 1.5 * ENDS[number])
    known = of(found)
    assert known[NAME].value == pytest.approx(-20)
    assert known[f"{NAME}_last"].value == pytest.approx(50)
    assert known[f"{NAME}_last"].measure.words == "feature energy distance of the last generator"
    assert not [key for key in known if key in ("recall_last", "coverage_last")]


# what is not alike


def test_values_of_other_numbers_of_images_are_left_out_and_told():
    assert quality_gaps(two()) == []
    found = two()
    first, second = (change(found, "bn", number, images=256) for number in (0, 1))
    change(found, "bn", 1, "last", real_images=500, images=256)
    third = change(found, "bn", 2, "last", weights_sha256="cd")
    assert set(comparable(found, NAME, "best")["bn"]) == {3}
    assert by_row(found)["bn", "best"]["runs"] == 1
    assert of(found)[NAME].others == 1
    cure = (
        "delete their `final/*-quality.json`, then `raygan evaluate made-up --quality` on a machine "
        "with `raygan[quality]`"
    )
    what = "feature energy distance, recall and coverage of"
    others = "and the others of 1,000 samples against 800 images"
    assert quality_gaps(found) == [
        f"{what} 2 of 6 runs, left out, since they are of 256 samples against 800 images {others}: "
        f"{first.title} (best) and {second.title} (best); {cure}",
        f"{what} 1 of 6 runs, left out, since they are of 256 samples against 500 images {others}: "
        f"{second.title} (last); {cure}",
        f"{what} 1 of 6 runs, measured with other weights than those of the others, and so left "
        f"out: {third.title} (last); {cure}",
    ]
    assert quality_gaps(found)[0].replace("`", "") in final_quality(found).note


def test_runs_that_lack_what_others_have_are_told():
    found = two()
    bn, wn = (one.replicates for one in found.cells)
    del found.qualities[bn[0].id]
    other = {"sliced_wasserstein": 0.2, "kind": "wasserstein", "images": 1000, "real_images": 800}
    found.qualities[bn[1].id] = {"best": other, "last": other}
    found.qualities[wn[0].id]["best"] = quality(0.1) | {NAME: None, "recall": None}
    cure = "`raygan evaluate made-up --quality` on a machine with `raygan[quality]`"
    what = "feature energy distance, recall and coverage of 1 of 6 runs"
    assert quality_gaps(found) == [
        f"{what}, not measured: {bn[0].title}; {cure}",
        f"{what}, of which another measure was made: {bn[1].title}; {cure}",
        f"{what}, not measured, since some samples are not finite numbers: {wn[0].title} (best)",
    ]
    row = by_row(found)["bn", "best"]
    assert (row["runs"], row["wasserstein_runs"], row["sliced_wasserstein"]) == (1, 1, 0.2)


def test_data_sets_may_differ_in_their_images():
    cells = [on(label, norm, ENDS) for label in ("a", "b") for norm in ("bn", "wn")]
    found = evidence(*cells, qualities=qualities(*cells))
    for norm in ("b_bn", "b_wn"):
        for number in range(3):
            for which in ("best", "last"):
                change(found, norm, number, which, real_images=300)
    assert quality_gaps(found) == []
    assert of(found)[NAME].strata == 2
    assert "1,000 samples against 800 held-out images (a) and 1,000 samples against 300 held-out " \
        "images (b)" in final_quality(found).note  # fmt: skip
    record = change(found, "b_bn", 0, real_images=800)
    assert quality_gaps(found)[0].startswith(
        "feature energy distance, recall and coverage of 1 of 6 runs on b, left out, since they are "
        f"of 1,000 samples against 800 images and the others of 1,000 samples against 300 images: "
        f"{record.title} (best)"
    )
