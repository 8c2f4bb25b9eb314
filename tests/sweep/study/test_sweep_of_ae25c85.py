"""A small sweep that commit ae25c85, the version before 0.2.0, began: it is read and resumed.

In `sweep_of_ae25c85`, each cell's first trial has ended, and the second was interrupted before its
first evaluation. Left out are checkpoints and pictures.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from optuna.storages import JournalStorage

import raygan
from raygan.errors import ConfigError
from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.spec.sweep_spec import SweepSpec, load, validate
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep
from raygan.sweep.study.ledger import Ledger
from raygan.sweep.study.search import Journal
from raygan.sweep.study.study import Study

SWEEP = """
name: old
dataset: {name: digits}
grid: {norm: [bn, wn]}
search: {lr: [2.0e-3, 5.0e-4]}
replicate: {top: 1, seeds: 2}
final: {steps: 5, restarts: 1}
train: {features: 4, code_size: 4, iterations: 40, evaluate_every: 20, batch_size: 8}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Storage:
    shutil.copytree(Path(__file__).parent / "sweep_of_ae25c85", tmp_path / "old")
    return Storage(str(tmp_path / "old"))


def resumed(sweep: Storage, text: str = SWEEP) -> tuple[SweepSpec, list[str]]:
    """The spec with which the YAML ``text`` resumes the sweep, and how it extends it."""
    before = stored_sweep.stored_spec(sweep)
    assert before is not None
    spec = stored_sweep.with_defaults_of(validate(parse(text, "old.yaml")), before)
    return spec, stored_sweep.check_unchanged(spec, before, sweep)


def test_its_yaml_resumes_it_without_early_stopping(sweep: Storage) -> None:
    spec, grown = resumed(sweep)
    assert grown == []
    assert spec.stopping().rule == "none"
    assert spec.quality() == spec.train_config().quality == "none"


def test_its_interrupted_trials_are_trained_as_they_were_planned_then_replicates(
    sweep: Storage,
) -> None:
    spec, _ = resumed(sweep)
    assert stored_sweep.stored_records(sweep, spec).keys() == {
        "bn-000", "wn-000", "bn-001", "wn-001",
    }  # fmt: skip
    ledger = Ledger(sweep)
    journal = JournalStorage(Journal(Path(sweep.uri) / "optuna.log", ledger))
    study = Study(spec, sweep, journal, ledger=ledger)
    trained = []
    while (trial := study.next_trial()) is not None:
        study.started(trial.id)
        for step in (20, 40):
            study.heard(trial.id, {"step": step, LOSS: 0.2, "perf/images_per_second": 100.0})
        study.ended(trial.id)
        trained.append((trial.id, trial.config.lr, trial.config.seed))
    assert trained[:2] == [("bn-001", 5e-4, 0), ("wn-001", 5e-4, 0)]
    assert {id for id, _, _ in trained[2:]} == {
        f"{norm}-000-seed{seed}" for norm in ("bn", "wn") for seed in (1, 2)
    }
    assert {lr for _, lr, _ in trained[2:]} == {2e-3}


def test_its_stored_yaml_resumes_it(sweep: Storage) -> None:
    before = stored_sweep.stored_spec(sweep)
    assert before is not None
    assert before.quality() == "none"
    spec = stored_sweep.with_defaults_of(load(Path(sweep.uri) / "sweep.yaml"), before)
    assert stored_sweep.check_unchanged(spec, before, sweep) == []


def test_more_seeds_extend_it_and_another_setting_is_refused(sweep: Storage) -> None:
    assert resumed(sweep, SWEEP.replace("seeds: 2", "seeds: 3"))[1] == [
        "`replicate.seeds` from 2 to 3"
    ]
    with pytest.raises(ConfigError, match=r"was started with another YAML[^`]*smoothing: 0\.8"):
        resumed(sweep, SWEEP.replace("features: 4", "features: 4, smoothing: 0.8"))


def test_keys_without_effect_that_it_accepted_neither_stop_nor_change_it(sweep: Storage) -> None:
    stored = sweep.read("sweep.yaml")
    assert stored is not None
    assert b"blocks: 2" in stored  # and `reduction` and `patience` with `rule: none`
    sweep.write("sweep.yaml", stored.replace(b"blocks: 2", b"blocks: 3"))
    assert resumed(sweep)[1] == []
    with pytest.raises(ConfigError, match="`blocks` applies to `architecture: resnet`"):
        resumed(sweep, SWEEP.replace("features: 4", "features: 4, blocks: 3"))


def test_its_trials_get_the_label_of_its_only_data_set(sweep: Storage) -> None:
    spec, _ = resumed(sweep)
    for known in (stored_sweep.stored_records(sweep, spec), Study(spec, sweep).records):
        assert {record.dataset for record in known.values()} == {"digits"}
    assert set(raygan.results(sweep.uri).dataset) == {"digits"}
    for name in ("sweep.yaml", "sweep.yaml.bak"):
        sweep.delete(name)
    assert len(raygan.results(sweep.uri)) == 4


def test_its_results_are_read(sweep: Storage) -> None:
    frame = raygan.results(sweep.uri)
    losses = dict(zip(frame.trial, frame.end_loss, strict=True))
    assert losses["bn-000"] == pytest.approx(0.1224119)
    assert losses["wn-000"] == pytest.approx(0.0837080)
    assert "blocks" not in frame.columns  # dcgan has none
    assert list(frame.smoothing) == [0.9] * 4
    spec = stored_sweep.stored_spec(sweep)
    assert spec is not None
    prepared = stored_sweep.stored_data(sweep, spec)
    assert prepared is not None
    only = prepared.of("")
    assert (only.train, only.shape) == (1373, "1×32×32")
