"""Decisions are cheap: no step of a sweep walks all records, and none decides anything else."""

from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study

SWEEP = """
name: a
grid: {norm: [bn, wn]}
search: {method: random, trials: 6, lr: {min: 1e-5, max: 1e-3}}
stop: {rule: none}
train: {iterations: 40, evaluate_every: 10, seed: 7}
scale: {workers: 2, gpus_per_worker: 1}
"""


def open_study(text: str = SWEEP, **options) -> Study:
    return Study(spec.validate(parse(text, "sweep.yaml")), Storage("mock:///decisions"), **options)


def play(study: Study, trial: str, loss: float = 0.1) -> None:
    study.started(trial)
    for step in (10, 20, 30, 40):
        if study.heard(trial, {"step": step, LOSS: loss * 40 / step}):
            break
    study.ended(trial)


def test_time_passes_by_the_clock_that_a_study_is_given():
    now = [0.0]
    study = open_study(SWEEP + "budget: {wall_clock: 2h, gpu_hours: 9}\n", now=lambda: now[0])
    trial, other = (study.next_trial().id for _ in range(2))
    for one in (trial, other):
        study.started(one)
    now[0] = 1800.0
    for one in (trial, other):
        study.heard(one, {"step": 10, LOSS: 0.1})
    now[0] += 3600.0
    study.heard(trial, {"step": 20, LOSS: 0.1})
    now[0] += 1800.0
    assert study.records[trial].seconds == 3600.0
    assert study.records[other].seconds == 0.0
    # of two trials with 2 GPUs each, 1.5 hours since their workers are there
    assert (study.spent.trial_hours, study.spent.gpu_hours) == (3.0, 6.0)
    assert study.spent.wall_clock == 7200.0
    assert study.exhausted == "7200s of 2h"
    study.ended(trial)
    study.close()
    assert study.spent.gpu_hours == sum(r.gpu_seconds for r in study.records.values()) / 3600 == 6.0
    assert not study.lingers(trial)
