"""GPU-hours count the GPUs that a trial holds: of its cell, and of the workers that it has."""

import time
from dataclasses import replace

import pytest

from raygan.records import LOSS, load_all
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study

SWEEP = """\
name: a
grid: {architecture: [dcgan, resnet]}
scale:
  gpus_per_worker: 1
  workers: {min: 1, max: 4}
  by: {architecture: {resnet: {workers: 2, gpus_per_worker: 3}}}
"""


@pytest.fixture
def now(monkeypatch):
    time_of = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: time_of[0])
    return time_of


def test_gpus_are_counted_by_cell_and_by_the_workers_that_there_are(tmp_path, now):
    study = Study(sweep_spec.validate(parse(SWEEP, "x")), Storage(str(tmp_path)))
    small, large = study.next_trial().id, study.next_trial().id
    for trial in (small, large):
        study.started(trial)
    study.heard(small, {"step": 0, "workers": 4})
    study.heard(large, {"step": 0})
    now[0] += 10
    assert study.spent.gpu_hours * 3600 == pytest.approx(10 * 4 + 10 * 6)
    study.heard(small, {"step": 0, "workers": 2})  # two of its workers were lost
    now[0] += 10
    assert study.spent.gpu_hours * 3600 == pytest.approx(10 * 4 + 10 * 2 + 20 * 6)
    study.ended(small, "because")
    study.ended(large, "because")
    assert study.records[small].gpu_seconds == 60
    assert study.records[large].gpu_seconds == 120


ONE_GPU = """\
name: a
grid: {norm: [bn, wn]}
train: {iterations: 20, evaluate_every: 10}
scale: {gpus_per_worker: 1, autoscaling: true, max_concurrent: 2}
budget: {gpu_hours: 1}
"""


@pytest.mark.parametrize("tell", ["lost", "heard"])
def test_a_trial_that_waits_for_a_lost_node_holds_no_gpu(tmp_path, now, tell):
    """``heard``: as its driver reports it; ``lost``: the driver itself is lost."""
    study = Study(sweep_spec.validate(parse(ONE_GPU, "x")), Storage(str(tmp_path)))
    said = []
    study.listeners.append(lambda event, record: said.append((event, record.id)))
    trial = study.next_trial().id
    study.started(trial)
    study.heard(trial, {"step": 0, "notes": ["a"]})
    study.heard(trial, {"step": 10, LOSS: 0.5})
    now[0] += 60
    before = replace(study.records[trial], seconds=60.0, gpu_seconds=60.0)
    for _ in range(2):  # the second time, it has none to lose
        if tell == "lost":
            study.lost(trial)
        else:
            assert not study.heard(trial, {"step": 0, "lost": True})
    assert study.records[trial] == before
    assert study.signs() == {}
    now[0] += 6 * 3600
    study.tick()
    if tell == "lost":
        study.started(trial)
    assert study.counted_until[trial] is None
    assert study.spent.gpu_hours * 3600 == 60
    assert study.records[trial].gpu_seconds == 60
    study.heard(trial, {"step": 5})
    now[0] += 60
    assert not study.heard(trial, {"step": 20, LOSS: 0.4})
    assert study.spent.gpu_hours * 3600 == 120
    assert study.resumed[trial] == 5
    events = [event for event, of in said if of == trial]
    assert events == [
        "waiting", "started", "noted", "evaluated", "waiting", "started", "evaluated"
    ]  # fmt: skip
    assert load_all(study.storage)[trial].step == 20


def test_the_time_until_the_workers_were_lost_is_stored(tmp_path, now):
    study = Study(sweep_spec.validate(parse(ONE_GPU, "x")), Storage(str(tmp_path)))
    trial = study.next_trial().id
    study.started(trial)
    study.heard(trial, {"step": 0})
    now[0] += 50
    study.lost(trial)
    assert load_all(study.storage)[trial].gpu_seconds == 50
