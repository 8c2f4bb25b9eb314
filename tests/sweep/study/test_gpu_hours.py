"""GPU-hours count the GPUs that a trial holds: of its cell, and of the workers that it has."""

import time

import pytest

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
