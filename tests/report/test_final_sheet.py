"""The final test in the report: both generators, the audit by restarts, FID."""

import io
import json
import statistics
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raygan.report.audit import audit
from raygan.report.family import of_losses
from raygan.report.final_sheet import final_test
from raygan.report.finals import read_all, read_image_losses
from raygan.report.sections import sections
from raygan.report.verdict import verdict
from raygan.storage import Storage
from raygan.sweep.study import gather
from tests.report.builders import cell, evidence, final, finals

BN = [0.0120, 0.0124, 0.0118, 0.0122, 0.0121]
LOWER = [0.9 * loss * f for loss, f in zip(BN, [1, 1.01, 0.99, 1.005, 0.995], strict=True)]
FID = {"fid": 30.0, "kid": 0.01, "n": 10_000, "split": "train", "bits": 8, "resizer": "bilinear",
       "weights_sha256": "0123456789", "torch_fidelity": "0.4.0"}  # fmt: skip


def audited(**restarts):
    cells = cell("bn", BN), cell("wn", LOWER)
    return evidence(*cells, finals=finals(restarts, *cells))


def quality(found):
    return next(q.answer for q in sections(found) if q.key == "quality")


def test_restarts_that_change_the_order_are_said():
    found = audited(bn=0.8, wn=0.98)
    text = verdict(found)
    assert "wn has the lowest mean loss" in text
    assert (
        "the cells are in another order on the audited images: bn and wn, the lowest loss first"
        in text
    )
    assert "Restarts lower the loss of bn by 20.0% and wn by 2.0%" in text
    # by z = 0, wn is 10% lower; 0.8 / (0.9 · 0.98) = 1 − 0.093
    assert "bn's loss with restarts is 9.3% lower than wn's (95% CI" in text
    assert audit(found)[1] in quality(found)


def test_restarts_that_keep_the_order_are_said_where_quality_is():
    found = audited(bn=0.95, wn=0.9)
    words = "Restarts from random codes do not change the order of the cells."
    assert audit(found) == (False, words)
    assert words in quality(found)
    assert words not in verdict(found)


def test_a_claim_that_restarts_undo_is_said():
    found = audited(bn=0.9, wn=0.997)
    changed, text = audit(found)
    assert changed
    assert text == ("With restarts, the difference between wn and bn can no longer be claimed.")
    assert text in verdict(found)


def test_nothing_is_said_of_restarts_that_not_all_had():
    found = audited(bn=0.8, wn=0.98)
    lacking = found.finals[found.cells[0].best.id]["best"]
    lacking |= {"restarts_loss": None, "audited_loss": None, "audited": 0}
    assert audit(found) == (False, "")


def test_table_has_best_and_last_generators_and_the_audit():
    sheet = final_test(audited(bn=0.8, wn=0.98))
    assert [(row["cell"], row["generator"]) for row in sheet.rows] == [
        ("wn", "best"), ("wn", "last"), ("bn", "best"), ("bn", "last")
    ]  # fmt: skip
    row = sheet.rows[2]
    assert row["seeds"] == 5
    assert row["loss"] == row["audited_loss"] == pytest.approx(statistics.geometric_mean(BN) / 2)
    assert row["restarts_loss"] == pytest.approx(0.8 * row["loss"])
    assert row["gain"] == pytest.approx(20)
    assert sheet.rows[3]["loss"] == pytest.approx(1.2 * row["loss"])
    assert "the first 200 images" in sheet.note
    assert "3 restarts" in sheet.note
    assert "FID" not in sheet.note
    assert not any("FID" in column.heading for column in sheet.shown)


def test_lengths_of_codes_and_losses_within_the_ball_are_shown_if_they_were_measured():
    found = audited(bn=0.8, wn=0.98)
    old = final_test(found)
    assert not any("ball" in column.heading or "|z|" in column.heading for column in old.shown)
    assert "99%" not in old.note
    assert "protocol" not in old.note
    for number, record in enumerate(found.cells[0].replicates):
        found.finals[record.id]["best"] |= {
            "code_norm": 0.9 + number, "outside": 0.0, "ball_images": 200,
            "ball_loss": 0.02, "ball_free_loss": 0.01, "asked": {"protocol": "authors"},
        }  # fmt: skip
    sheet = final_test(found)
    row = sheet.rows[2]
    assert row["code_norm"] == pytest.approx(2.9)
    shown = [row[key] for key in ("outside", "ball_loss", "ball_free_loss")]
    assert shown == pytest.approx([0, 0.02, 0.01])
    assert sheet.rows[3]["code_norm"] is None
    assert "within the ball: loss of the first 200 images" in sheet.note
    assert "the authors' protocol" in sheet.note
    assert "lack" not in sheet.note


@pytest.mark.parametrize(
    ("lacking", "together"),
    [
        ("code_norm", ("code_norm", "outside")),
        ("ball_free_loss", ("ball_loss", "ball_free_loss")),
        ("restarts_loss", ("audited_loss", "restarts_loss", "gain")),
    ],
)
def test_a_mean_is_over_all_runs_of_its_row_or_not_shown(lacking, together):
    found = audited(bn=0.8, wn=0.98)
    known = {"code_norm": 0.9, "outside": 0.1, "ball_loss": 0.02, "ball_free_loss": 0.01}
    for both in found.finals.values():
        both["best"] |= known
    whole = final_test(found).rows[2]
    found.finals[found.cells[0].replicates[0].id]["best"].pop(lacking)  # of an earlier version
    sheet = final_test(found)
    row = sheet.rows[2]
    assert row["seeds"] == 5
    assert all(whole[key] is not None for key in together)
    assert row == {**whole, **dict.fromkeys(together)}
    assert "A value that some of a row's runs lack, as tests of earlier versions do, is not" in (
        sheet.note
    )


def test_a_test_with_other_settings_is_left_out_and_named():
    found = audited(bn=0.8, wn=0.98)
    record = found.cells[0].replicates[0]
    assert "The final test does not count" not in verdict(found)
    assert "Left out" not in final_test(found).note
    del found.finals[record.id]
    other = replace(found, other_tests={record.id: "protocol: authors"})
    assert (
        "The final test does not count: 1 of 10 runs took it with other settings (protocol: "
        "authors). To give all runs the sweep's, run `raygan evaluate made-up`."
    ) in verdict(other)
    assert f"Left out, since their settings are others: {record.title} (protocol: authors)." in (
        final_test(other).note
    )
    assert final_test(other).rows[2]["seeds"] == 4


def test_what_differs_in_the_settings_of_a_test_is_named():
    budget = {"steps": 5, "images": 4, "protocol": "per-image"}
    tests = [budget, {**budget, "protocol": "authors", "images": None}, {}]
    read = {str(i): {"best": final(0.1) | {"asked": asked}} for i, asked in enumerate(tests)}
    assert gather._other_tests(read, budget) == {
        "1": "images: all, protocol: authors", "2": "not recorded"
    }  # fmt: skip
    assert gather._other_tests({"2": read["2"]}, {}) == {}  # all are of an earlier version


def test_fid_stands_with_its_protocol(tmp_path):
    found, storage = audited(bn=0.8, wn=0.98), Storage(str(tmp_path))
    bn = found.cells[0].replicates
    for record, fid in zip(bn, (30.0, 32.0), strict=False):
        content = json.dumps(FID | {"fid": fid}).encode()
        storage.write(f"trials/{record.id}/final/best-fid.json", content)
    storage.write(f"trials/{bn[2].id}/final/best-fid.json", b"{")
    read = evidence(*found.cells, finals=found.finals, fids=read_all(storage, bn).fids)
    row = final_test(read).rows[2]
    assert (row["fid"], row["fid_images"], row["fid_seeds"]) == (31, 10_000, 2)
    assert "10,000 samples against as many images of the split train, 8 bits" in (
        final_test(read).note
    )


def test_fids_of_different_protocols_are_not_averaged():
    found = audited(bn=0.8, wn=0.98)
    one, other = (record.id for record in found.cells[0].replicates[:2])
    fids = {one: {"best": FID}, other: {"best": FID | {"n": 1_797}}}
    row = final_test(evidence(*found.cells, finals=found.finals, fids=fids)).rows[2]
    assert row["fid"] is row["kid"] is row["fid_images"] is None


def test_damaged_numbers_are_none():
    cells = (cell("bn", BN[:3]),)
    tests = {
        r.id: {"best": final(0.1) | {"restarts_loss": "x", "audited": "y"}}
        for r in cells[0].replicates
    }
    row = final_test(evidence(*cells, finals=tests)).rows[0]
    assert row["loss"] == pytest.approx(0.1)
    assert row["restarts_loss"] is None


def test_a_test_of_another_checkpoint_is_named():
    cells = cell("bn", BN), cell("wn", LOWER)
    made = finals({"bn": 1.0, "wn": 1.0}, *cells)
    assert "damaged" not in (final_test(evidence(*cells, finals=made)).note or "")
    run = next(iter(cells[0].runs.values()))
    made[run.id]["best"] |= {"replaced": "it is damaged", "step": 1234}
    note = final_test(evidence(*cells, finals=made)).note
    assert f"instead of damaged checkpoints: {run.title} (best: iteration 1,234)" in note


def parquet(losses) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"index": list(range(len(losses))), "loss": losses}), sink)
    return sink.getvalue()


def test_few_final_images_widen_the_intervals(tmp_path):
    sweep, generator = Storage(str(tmp_path)), np.random.default_rng(0)
    cells = cell("bn", [0.010, 0.011, 0.0105]), cell("wn", [0.012, 0.0121, 0.0119])
    tests = {}
    for one in cells:
        for record in one.replicates:
            losses = record.end_loss * generator.lognormal(0, 0.6, 50)
            sweep.write(f"trials/{record.id}/final/best.parquet", parquet(losses))
            tests[record.id] = {"best": {**final(float(losses.mean())), "images": 50}}
    images = read_image_losses(sweep, tests)
    assert set(images) == set(tests)
    few, many = (evidence(*cells, finals=tests, images=found) for found in (images, {}))
    narrow, wide = (of_losses(found).comparisons[0].contrast for found in (many, few))
    assert wide.error > 1.5 * narrow.error
    assert "of differences are over seeds and held-out images, those of a cell's mean over seeds" in (
        verdict(few))  # fmt: skip
    (first, losses), *others = images.items()
    for incomplete in (dict(others), {**dict(others), first: losses[1:]}):
        lacking = evidence(*cells, finals=tests, images=incomplete)
        assert of_losses(lacking).comparisons[0].contrast.error == narrow.error
        assert "They leave out the choice of the 50 final images" in verdict(lacking)
    assert "They leave out the choice of the 50 final images, whose losses are not stored" in (
        verdict(many))  # fmt: skip


@pytest.mark.parametrize("data", [b"PAR1", parquet([0.1, 0.2]), parquet([float("nan")] * 3)])
def test_damaged_losses_of_images_are_ignored(tmp_path, data, caplog):
    sweep = Storage(str(tmp_path))
    sweep.write("trials/a/final/best.parquet", data)
    assert read_image_losses(sweep, {"a": {"best": {"images": 3}}}) == {}
    assert "is ignored, since it is damaged" in caplog.text
