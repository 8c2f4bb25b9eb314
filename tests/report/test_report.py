import io
import json
import math

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from rich.console import Console

from raygan.gan.config import TrainConfig
from raygan.gan.picture_grid import grid_png
from raygan.records import LOSS, TrialRecord, load_all
from raygan.report import overview, tables
from raygan.report.evidence import CellResults, Evidence
from raygan.report.overview import overview_png
from raygan.storage import Storage
from raygan.sweep.session import publish, terminal


def record(trial: str, losses: list[float], outcome: str | None, reason: str | None = None):
    cell, index = trial.split("-")
    history = [{"step": 10.0 * (i + 1), LOSS: loss} for i, loss in enumerate(losses)]
    config = TrainConfig(norm=cell).to_dict()
    return TrialRecord(
        trial, cell, int(index), f"{cell} lr=1e-4", {}, config, outcome, reason, history
    )


RECORDS = [
    record("bn-000", [0.3, 0.1, 0.2], "ok"),
    record("bn-001", [0.5], "stopped", "asha at iteration 10"),
    record("wn-000", [], "failed", "RuntimeError: out of memory"),
    record("wn-001", [], None),
]


def test_tables_open_in_pandas_with_a_row_per_trial_and_per_evaluation(tmp_path):
    storage = Storage(str(tmp_path))
    tables.write(storage, RECORDS, {"sweep": "a"})
    results = pd.read_parquet(tmp_path / tables.RESULTS).set_index("trial")
    assert list(results.index) == [r.id for r in RECORDS]
    assert results.loc["bn-000", ["best_loss", "best_step", "last_loss"]].tolist() == [0.1, 20, 0.2]
    assert pd.isna(results.loc["wn-000", "best_loss"])
    assert results.loc["wn-000", "reason"] == "RuntimeError: out of memory"
    curves = pd.read_parquet(tmp_path / tables.CURVES)
    assert curves.groupby("trial")[LOSS].count().to_dict() == {"bn-000": 3, "bn-001": 1}
    assert json.loads((tmp_path / tables.SUMMARY).read_text())["trials"][0]["norm"] == "bn"


def test_curves_have_the_metrics_of_all_trials(tmp_path):
    newer = record("bn-002", [0.4], "ok")
    newer.history[0]["val/diversity"] = 0.9  # what the others were trained without
    tables.write(Storage(str(tmp_path)), [*RECORDS, newer], {})
    curves = pd.read_parquet(tmp_path / tables.CURVES).set_index("trial")
    assert curves.loc["bn-002", "val/diversity"] == 0.9
    assert curves.loc["bn-001", ["val/diversity"]].isna().all()


def test_sweep_without_any_result_still_gives_tables_and_a_picture(tmp_path):
    storage = Storage(str(tmp_path))
    nothing = RECORDS[2:]
    tables.write(storage, nothing, {})
    assert pq.read_table(tmp_path / tables.CURVES).num_rows == 0
    picture = overview_png(storage, "nothing", nothing, {"wn": None}, {"digits": 0.1})
    assert Image.open(io.BytesIO(picture)).format == "PNG"


def test_overview_shows_the_samples_of_the_best_checkpoint(tmp_path):
    storage = Storage(str(tmp_path))
    white = torch.full((4, 1, 8, 8), 255, dtype=torch.uint8)
    without = overview_png(storage, "a", RECORDS, {"bn": RECORDS[0]}, {"digits": 0.4})
    storage.write("trials/bn-000/images/samples-000000020.png", grid_png(white))
    found = overview_png(storage, "a", RECORDS, {"bn": RECORDS[0]}, {"digits": 0.4})
    assert found != without


def test_terminal_table_ranks_by_loss_and_names_every_outcome():
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show_trials(console, RECORDS[::-1], ["bn", "wn"], {"digits": 0.0583})
    text = console.export_text()
    assert text.index("0.10000") < text.index("0.50000")
    for words in ("stopped: asha at iteration 10", "out of memory", "unfinished", "0.05830"):
        assert words in text


def test_terminal_table_names_the_mean_image_of_each_data_set():
    console = Console(width=160, record=True, file=io.StringIO())
    terminal.show_trials(console, RECORDS, ["bn", "wn"], {"small": 0.0583, "big": 0.0221})
    text = " ".join(console.export_text().split())
    assert "the mean training image has 0.05830 (small), 0.02210 (big)." in text


def of_sets() -> dict[str, TrialRecord]:
    """The best trial of each cell of two data sets, by cell."""
    losses = {"big_bn": 0.02, "big_wn": 0.03, "small_bn": 0.3, "small_wn": 0.2}
    found = {cell: record(f"{cell[-2:]}-000", [loss] * 3, "ok") for cell, loss in losses.items()}
    for cell, one in found.items():
        one.id, one.cell, one.dataset = f"{cell}-000", cell, cell.partition("_")[0]
    return found


def test_picture_has_axes_and_samples_of_each_data_set(tmp_path, monkeypatch):
    best, samples, curves = of_sets(), [], []
    monkeypatch.setattr(overview, "MOST_CELLS", 3)
    monkeypatch.setattr(overview, "_draw_samples", lambda _, __, shown: samples.append(shown.cell))
    monkeypatch.setattr(
        overview,
        "_draw_curves",
        lambda _, found, cells, baseline: curves.append((len(found), cells, baseline)),
    )
    baselines = {"small": 0.4, "big": 0.05}
    overview_png(Storage(str(tmp_path)), "a", [*best.values()], best, baselines)
    assert curves == [(2, ["small_bn", "small_wn"], 0.4), (2, ["big_bn", "big_wn"], 0.05)]
    # the best of each in turn, though the losses of one are all lower
    assert samples == ["small_wn", "big_bn", "small_bn"]


def test_each_data_set_has_a_champion_in_mlflow(tmp_path, monkeypatch):
    best = of_sets()
    cells = [
        CellResults(name, {"dataset": one.dataset, "norm": name[-2:]}, [one], [one], one)
        for name, one in best.items()
    ]
    evidence = Evidence("a", cells)
    found = publish.champions(evidence)
    assert found == {"small": best["small_wn"], "big": best["big_bn"]}
    note = publish.note("no verdict", evidence, has_model=True)
    for label in found:
        assert f'best generator of {label}: `mlflow.pytorch.load_model("models:/raygan-a+{label}@' in (
            note)  # fmt: skip
    rows = [line.split(" | ")[0] for line in note.splitlines() if line.startswith("| ")][1:]
    assert sorted(rows[:2]) == ["| big\\_bn", "| big\\_wn"]
    monkeypatch.setattr(publish, "_model_of", lambda *given: given[1:])
    assert [given[:2] for given in publish.models_of(None, evidence, tmp_path)] == [*found.items()]


def test_the_target_loss_of_a_trial_is_that_of_its_own_data_set():
    cells = []
    for name, one in of_sets().items():
        one.history = [{**point, LOSS: point[LOSS] * factor}
                       for point, factor in zip(one.history, (9, 1, 1), strict=True)]  # fmt: skip
        cells.append(CellResults(name, {"dataset": one.dataset}, [one], [one], one))
    for cell in cells:
        told = publish.summary(cell.records[0], Evidence("a", cells))
        # the loss of one data set is below that of the other from the first evaluation on
        assert told["stability/iterations_to_target"] == cell.records[0].history[1]["step"]


def test_records_survive_storage(tmp_path):
    storage = Storage(str(tmp_path))
    for one in RECORDS:
        one.save(storage)
    assert load_all(storage) == {one.id: one for one in RECORDS}


def test_overview_of_damaged_samples_says_so(tmp_path, monkeypatch):
    storage, said = Storage(str(tmp_path)), []
    storage.write("trials/bn-000/images/samples-000000020.png", b"no picture")
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **more: said.append(text))
    overview_png(storage, "a", RECORDS, {"bn": RECORDS[0]}, {"digits": 0.4})
    name = "trials/bn-000/images/samples-000000020.png"
    assert "".join(said[0].split()) == f"picturedamaged:{name}(nowholePNG)"


def test_picture_ranks_the_cells_by_what_trials_are_ranked_by(tmp_path, monkeypatch):
    lucky, steady = record("bn-000", [0.1, 0.4, 0.4], "ok"), record("wn-000", [0.2] * 3, "ok")
    drawn = []
    monkeypatch.setattr(overview, "_draw_samples", lambda _, __, shown: drawn.append(shown.cell))
    overview_png(
        Storage(str(tmp_path)), "a", [lucky, steady], {"bn": lucky, "wn": steady}, {"digits": 0.4}
    )
    assert drawn == ["wn", "bn"]


def test_the_losses_on_the_axis_are_plain_numbers(tmp_path, monkeypatch):
    told = []
    draw = overview._draw_curves

    def drawn(axis, *rest):
        draw(axis, *rest)
        axis.figure.canvas.draw()
        told.extend(text.get_text() for text in axis.get_yticklabels(which="both"))

    monkeypatch.setattr(overview, "_draw_curves", drawn)
    curve = record("bn-000", [0.05, 0.02, 0.008], "ok")
    overview_png(Storage(str(tmp_path)), "a", [curve], {"bn": curve}, {"digits": 0.06})
    assert "0.02" in told
    assert not [text for text in told if "$" in text]


def test_mlflow_has_the_final_quality_of_samples():
    run = record("bn-000", [0.4, 0.1, 0.2], "ok")
    found = {run.id: {"best": {"recall": 0.0, "feature_energy_distance": None, "images": 1000},
                      "last": {"sliced_wasserstein": 0.3, "kind": "wasserstein"}}}  # fmt: skip
    told = publish.summary(run, Evidence("a", [], qualities=found))
    assert {name: value for name, value in told.items() if name.startswith("final/")} == {
        "final/best_recall": 0.0, "final/last_sliced_wasserstein": 0.3,
    }  # fmt: skip


def test_mlflow_and_results_have_the_worsening_on_fresh_images(tmp_path):
    run = record("bn-000", [0.4, 0.1, 0.2], "ok")
    found = {run.id: {"best": {"loss": 0.1}, "last": {"loss": 0.12}}}
    told = publish.summary(run, Evidence("a", [], finals=found))
    assert told["stability/worsening_fresh"] == pytest.approx(math.log(1.2))
    assert not {"stability/last_over_best", "stability/drawup"} & set(told)
    for which, loss in (("best", 0.1), ("last", 0.12)):
        Storage(str(tmp_path)).write(
            f"trials/{run.id}/final/{which}.json", json.dumps({"loss": loss}).encode()
        )
    (row,) = tables.results_table(Storage(str(tmp_path)), [run]).to_pylist()
    assert row["worsening_fresh"] == pytest.approx(math.log(1.2))
    assert row["worsening"] is None  # too few evaluations


@pytest.mark.parametrize("has_model", [True, False])
def test_mlflow_names_the_best_generator_only_if_it_is_registered(has_model):
    note = publish.note("no verdict", Evidence("a", []), has_model=has_model)
    assert ("models:/raygan-a@champion" in note) == has_model


def test_the_champion_is_the_best_run_of_the_best_cell(tmp_path, caplog):
    runs = {c: [record(f"{c}-{seed}", [loss], "ok") for seed, loss in enumerate(losses)]
            for c, losses in {"bn": [0.3, 0.1], "wn": [0.15, 0.16]}.items()}  # fmt: skip
    for found in runs.values():
        for seed, run in enumerate(found):
            run.kind, run.config["seed"] = "replicate", seed
    evidence = Evidence(
        "a", [CellResults(name, {}, found, found, found[0]) for name, found in runs.items()]
    )
    assert evidence.ranked[0].name == "wn"  # 0.155 < 0.173, though the lowest run is one of bn
    assert evidence.best_run(evidence.cells[0]) is runs["bn"][1]
    assert publish.champions(evidence) == {"": runs["wn"][0]}
    assert publish.models_of(Storage(str(tmp_path)), evidence, tmp_path) == ()  # nothing is kept
    assert caplog.text == ""
