import json
import shutil

import pytest

from raygan.errors import RayganError
from raygan.records import LOSS, load_all
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import gather as evidence
from raygan.sweep.study.study import Study, outcomes
from tests.sweep.prepared import one_set

SWEEP = """
name: a
grid: {norm: [bn, wn]}
search: {lr: [1e-3, 1e-4]}
stop: {rule: asha, grace: 20, reduction: 2}
train: {iterations: 40, evaluate_every: 10}
"""


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "a"))


def open_study(storage: Storage, text: str = SWEEP) -> Study:
    return Study(spec.validate(parse(text, "sweep.yaml")), storage)


def report(step: int, loss: float, **more) -> dict:
    return {"step": step, LOSS: loss, "perf/images_per_second": 1.0, "config/lr": 1.0, **more}


def test_cells_take_turns(storage):
    study = open_study(storage)
    ids = [planned.id for planned in iter(study.next_trial, None)]
    assert ids == ["bn-000", "wn-000", "bn-001", "wn-001"]


def test_trial_runs_to_its_end(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.started(trial)
    for step in (10, 20, 30, 40):
        assert not study.heard(trial, report(step, 1 / step))
    for step in (30, 40, 50):  # Ray Train keeps a few; the worker may have been ahead
        storage.write(f"trials/{trial}/checkpoint_{step}/step-{step:09d}.pt", b"")
    study.ended(trial)
    record = study.records[trial]
    assert (record.outcome, record.step, record.best) == ("ok", 40, (40, 1 / 40))
    assert record.history[0].keys() == {"step", LOSS, "perf/images_per_second"}
    assert record.checkpoints == {"last": "checkpoint_40", "best": "checkpoint_40"}
    assert json.loads(storage.read(f"trials/{trial}/record.json"))["outcome"] == "ok"


def test_own_metrics_are_kept_and_a_note_about_them_is_kept_once(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.started(trial)
    study.heard(trial, report(10, 0.1, **{"val/sharpness": 3.0}))
    for step in (20, 30):
        study.heard(trial, report(step, 0.1, notes=["val/sharpness is left out"]))
    record = load_all(storage)[trial]
    assert [point.get("val/sharpness") for point in record.history] == [3.0, None, None]
    assert record.notes == ["val/sharpness is left out"]


def test_cells_never_compete(storage):
    study = open_study(storage)
    a, b, c, d = (study.next_trial().id for _ in range(4))
    assert not study.heard(a, report(20, 0.1))  # bn
    assert not study.heard(b, report(20, 0.9))  # wn: worse, but alone in its cell
    assert study.heard(c, report(20, 0.2))  # bn: worse than a
    assert study.records[c].outcome == "stopped"
    assert not study.heard(d, report(20, 0.8))


def test_stop_at_the_last_iteration_is_no_stop(storage):
    study = open_study(
        storage, SWEEP.replace("iterations: 40", "iterations: 20").replace("grace: 20", "grace: 10")
    )
    first, _, second, _ = (study.next_trial().id for _ in range(4))
    study.heard(first, report(20, 0.1))
    assert not study.heard(second, report(20, 0.2))
    study.ended(second)
    assert study.records[second].outcome == "ok"


def test_repeated_reports_change_nothing(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    for step in (10, 20, 10, 20, 30):
        study.heard(trial, report(step, 1.0 / step))
    assert [step for step, _ in study.records[trial].curve] == [10, 20, 30]


def test_lost_reports_come_back_with_the_history(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.heard(trial, report(10, 0.5))
    history = [{"step": float(s), LOSS: 1 / s, "perf/images_per_second": 1.0} for s in (10, 20, 30)]
    study.heard(trial, {"step": 30, "history": history})
    assert study.records[trial].curve == [(10, 0.5), (20, 1 / 20), (30, 1 / 30)]


def test_search_is_told_the_losses_of_the_retry_not_those_of_the_early_failure(storage):
    text = SWEEP.replace("{norm: [bn, wn]}", "{norm: [bn]}") + "warmup: {iterations: 5}\n"
    study = open_study(storage, text.replace("grace: 20", "grace: 10"))
    first = study.next_trial().id
    study.heard(first, report(10, 0.1))
    study.heard(first, report(20, float("nan"), outcome="early-failure", reason="nan at 20"))
    study.ended(first)
    retry = study.next_trial().id
    assert retry == f"{first}-warmup"
    for step in (10, 20, 30, 40):
        study.heard(retry, report(step, 0.5))
    study.ended(retry)
    told = study.cells["bn"]._search._study.trials[0]
    assert told.intermediate_values == dict.fromkeys((10, 20, 30, 40), 0.5)
    assert told.value == study.records[retry].end_loss


def test_diverged_is_an_outcome_and_never_best(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.heard(trial, report(10, 0.001))
    assert study.heard(trial, report(20, float("nan"), outcome="diverged", reason="nan at 20"))
    study.ended(trial)
    record = study.records[trial]
    assert (record.outcome, record.reason) == ("diverged", "nan at 20")
    assert record.curve == [(10, 0.001)]
    assert study.best("bn") is None
    assert "NaN" not in storage.read(f"trials/{trial}/record.json").decode()


def test_trial_that_breaks_off_has_failed(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.heard(trial, report(10, 0.5))
    study.ended(trial, error="out of memory")
    assert (study.records[trial].outcome, study.records[trial].reason) == (
        "failed",
        "out of memory",
    )
    assert outcomes(study) == {"failed": 1}


def test_study_goes_on_from_its_records(storage):
    first = open_study(storage)
    a, b, c, _ = (first.next_trial().id for _ in range(4))
    first.heard(a, report(20, 0.1))
    for step in (30, 40):
        first.heard(a, report(step, 0.1))
    first.ended(a)
    first.heard(b, report(10, 0.5))

    again = open_study(storage)
    assert not again.complete
    assert [p.id for p in iter(again.next_trial, None)] == [b, c, "wn-001"]  # a is not run again
    assert again.records[b].curve == [(10, 0.5)]
    assert again.heard(c, report(20, 0.2))  # the rungs remember a


def test_trial_whose_folder_was_deleted_runs_again(storage):
    first = open_study(storage)
    for planned in iter(first.next_trial, None):
        first.ended(planned.id, error="no luck")
    assert first.complete
    config = first.records["wn-000"].config
    shutil.rmtree(storage.local / "trials" / "wn-000")
    again = open_study(storage)
    assert not again.complete
    assert [planned.id for planned in iter(again.next_trial, None)] == ["wn-000"]
    assert again.records["wn-000"].config == config


def test_sweep_of_a_version_that_drew_settings_twice_is_complete_as_it_is(storage, monkeypatch):
    text = SWEEP.replace("{lr: [1e-3, 1e-4]}", "{method: random, trials: 3, lr: [1e-3, 1e-4]}")
    study = open_study(storage, text)
    for planned in iter(study.next_trial, None):
        study.ended(planned.id, error="no luck")
    assert study.trial_count == 4
    twice = study.records["wn-001"]
    twice.id, twice.index = "wn-002", 2
    twice.save(storage)
    again = open_study(storage, text)
    assert (again.complete, again.trial_count) == (True, 5)
    monkeypatch.setattr(evidence.Report, "of", lambda _, found: found)
    data = one_set(id="1", digest="d", baseline=0.1, shape="1×8×8", train=9)
    found = evidence.make_report(storage, again.spec, again.records, data)
    assert (found.expected_trials, found.search_method) == (5, "random")


def test_listener_that_raises_does_not_end_the_sweep(storage, caplog):
    study = open_study(storage)

    def broken(event, record):
        raise RuntimeError("no terminal")

    study.listeners.append(broken)
    trial = study.next_trial().id
    assert not study.heard(trial, report(10, 0.5))
    assert "no terminal" in caplog.text


def test_storage_that_is_away_for_a_while_loses_nothing(storage, monkeypatch):
    study = open_study(storage)
    trial = study.next_trial().id
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "write", lambda *_, **__: (_ for _ in ()).throw(OSError("503")))
        study.heard(trial, report(10, 0.5))
    assert open_study(storage).records[trial].curve == []
    study.close()  # the last chance: no trial is running any more
    assert open_study(storage).records[trial].curve == [(10, 0.5)]


def test_checkpoints_are_found_where_they_lie_even_if_no_report_came(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    history = [{"step": float(s), LOSS: loss} for s, loss in ((10, 0.5), (20, 0.2), (30, 0.4))]
    study.heard(trial, {"step": 30, "history": history})
    for step in (20, 30, 40):
        storage.write(f"trials/{trial}/checkpoint_{step}/step-{step:09d}.pt", b"")
    study.ended(trial)
    assert study.records[trial].checkpoints == {"last": "checkpoint_30", "best": "checkpoint_20"}


def test_half_a_record_is_no_reason_to_run_a_trial_again(storage):
    study = open_study(storage)
    trial = study.next_trial().id
    study.heard(trial, report(10, 0.5))
    study.ended(trial, error="no luck")
    whole = storage.read(f"trials/{trial}/record.json")
    storage.write(f"trials/{trial}/record.json", whole[:-20])
    again = open_study(storage).records[trial]
    assert (again.outcome, again.curve) == ("failed", [(10, 0.5)])


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"id": "bn-000"}',
        b'{"colour": 1}',
        lambda good: {**good, "id": "../../elsewhere"},
        lambda good: {**good, "history": [1]},
        lambda good: {**good, "history": [{"step": 1.0}]},
        lambda good: {**good, "index": "a"},
        lambda good: {**good, "config": {"norm": "batch"}},
    ],
)
def test_damaged_record_is_named(storage, damage):
    study = open_study(storage)
    trial = study.next_trial().id
    if callable(damage):
        good = json.loads(storage.read(f"trials/{trial}/record.json"))
        damage = json.dumps(damage(good)).encode()
    for name in ("record.json", "record.json.bak"):
        storage.write(f"trials/{trial}/{name}", damage)
    with pytest.raises(RayganError, match=rf"trials/{trial}/record.json: damaged"):
        open_study(storage)
