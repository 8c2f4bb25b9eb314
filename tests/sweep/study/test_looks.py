"""Seeds until it is settled, by the real study."""

from dataclasses import replace

import numpy as np
import pytest

from raygan.errors import ConfigError
from raygan.report.family import of_losses
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import looks
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.gather import make_report
from raygan.sweep.study.study import Study

SWEEP = """
name: looks
grid: {norm: [bn, wn]}
search: {lr: [1.0e-4]}
replicate: {seeds: 5, until: 12}
train: {iterations: 400, evaluate_every: 100}
"""


def make(tmp_path, text=SWEEP) -> spec.SweepSpec:
    return spec.validate(parse(f"{text}storage: {tmp_path}", "sweep.yaml"))


def run(sweep, tmp_path, wn: float, most: int = 1000, fails: str = "") -> Study:
    """All trials that the study asks for: bn's loss is about 0.01, wn's ``wn`` times that; those of
    the cells whose names begin with ``fails`` fail."""
    study = Study(sweep, Storage(str(tmp_path)) / sweep.name)
    generator = np.random.default_rng(0)
    while most and (planned := study.next_trial()) is not None:
        most -= 1
        if fails and planned.cell.startswith(fails):
            study.heard(planned.id, {"step": 100, "outcome": "diverged"})
            study.ended(planned.id)
            continue
        factor = wn if planned.cell == "wn" else 1.0
        loss = float(0.01 * factor * np.exp(generator.normal(0, 0.02)))
        study.heard(planned.id, {"step": 400, "val/reconstruction_loss": loss})
        study.ended(planned.id)
    return study


def replicates(study: Study) -> int:
    return sum(record.kind == "replicate" for record in study.records.values())


def test_a_clear_difference_takes_no_more_seeds(tmp_path):
    sweep = make(tmp_path)
    study = run(sweep, tmp_path, wn=0.8)
    assert study.complete
    assert study.look == (5, 0.01)
    assert replicates(study) == 2 * 5
    assert study.trial_count == len(study.records)
    evidence = make_report(study.storage, sweep, study.records, None).evidence
    assert evidence.alpha == 0.01
    assert of_losses(evidence).comparisons[0].claimed


def test_equal_cells_take_all_seeds_and_the_verdict_the_last_level(tmp_path):
    sweep = make(tmp_path)
    study = run(sweep, tmp_path, wn=1.0)
    assert study.complete
    assert replicates(study) == 2 * 12
    evidence = make_report(study.storage, sweep, study.records, None).evidence
    assert evidence.alpha == 0.025
    assert not of_losses(evidence).comparisons[0].claimed


def test_a_sweep_that_was_interrupted_looks_the_same(tmp_path):
    sweep = make(tmp_path)
    for _ in range(30):  # each time three more trials by a study that knows the records alone
        study = run(sweep, tmp_path, wn=1.0, most=3)
    assert study.complete
    assert replicates(study) == 2 * 12


def test_levels_of_all_looks_add_up_to_that_of_one(tmp_path):
    for more in ("{seeds: 5, until: 12}", "{seeds: 5, until: 6}", "{seeds: 5}"):
        found = looks.looks(make(tmp_path, SWEEP.replace("{seeds: 5, until: 12}", more)))
        assert sum(level for _, level in found) == pytest.approx(looks.LEVEL)
        numbers = [seeds for seeds, _ in found]
        assert numbers == sorted(set(numbers))
    assert [seeds for seeds, _ in looks.looks(make(tmp_path))] == [5, 8, 12]


@pytest.mark.parametrize(
    "replicate", ["{seeds: 5, until: 5}", "{seeds: 2, until: 9}", "{until: 9}"]
)
def test_looks_that_settle_nothing_are_refused(tmp_path, replicate):
    with pytest.raises(ConfigError, match="`until`"):
        make(tmp_path, SWEEP.replace("{seeds: 5, until: 12}", replicate))


def test_no_more_seeds_are_trained_before_all_of_a_look_have_ended(tmp_path):
    study = run(make(tmp_path), tmp_path, wn=1.0, most=2 + 2 * 5 - 1)
    last = study.next_trial()
    assert study.next_trial() is None
    assert study.waiting
    study.heard(last.id, {"step": 400, "val/reconstruction_loss": 0.01})
    study.ended(last.id)
    assert study.next_trial().config.seed == 6
    assert study.trial_count == 2 + 2 * 8


def test_of_declared_claims_these_are_what_is_settled(tmp_path):
    for claim, seeds in (("lower: wn, than: bn", 5), ("lower: bn, than: wn", 12)):
        sweep = make(tmp_path / claim[7:9], SWEEP + f"claims: [{{{claim}}}]\n")
        study = run(sweep, tmp_path / claim[7:9], wn=0.8)
        assert replicates(study) == 2 * seeds


def test_other_cells_do_not_wait_for_one_whose_search_gave_no_result(tmp_path):
    three = SWEEP.replace("[bn, wn]", "[bn, wn, vanilla]")
    study = run(make(tmp_path, three), tmp_path, wn=1.0, fails="vanilla")
    assert study.complete
    assert study.look == (12, 0.025)
    assert replicates(study) == 2 * 12


def test_a_report_finds_the_look_once(tmp_path, monkeypatch):
    sweep = make(tmp_path)
    study = run(sweep, tmp_path, wn=0.8)
    judged, real = [], looks.is_settled
    monkeypatch.setattr(looks, "is_settled", lambda *given: judged.append(given[2]) or real(*given))
    evidence = make_report(study.storage, sweep, study.records, None).evidence
    assert (evidence.expected_trials, evidence.alpha) == (study.trial_count, 0.01)
    assert judged == [5]


def test_one_cell_with_results_takes_no_more_seeds(tmp_path):
    study = run(make(tmp_path), tmp_path, wn=1.0, fails="wn")
    assert study.complete
    assert replicates(study) == 5


def test_cells_that_are_not_compared_take_no_more_seeds(tmp_path):
    # wn has no result, and learning rates are not compared beside norms
    text = SWEEP.replace("[bn, wn]}", "[bn, wn], lr: [1.0e-4, 1.0e-3]}")
    sweep = make(tmp_path, text.replace("{lr: [1.0e-4]}", "{code_size: [64]}"))
    study = run(sweep, tmp_path, wn=1.0, fails="wn")
    assert study.complete
    assert replicates(study) == 2 * 5


def test_no_more_seeds_are_trained_while_a_trial_of_the_search_is_to_be_retried(tmp_path):
    sweep = make(tmp_path, SWEEP.replace("[bn, wn]", "[bn, wn, vanilla]") + "warmup: {}\n")
    study = run(sweep, tmp_path, wn=1.0, fails="vanilla")
    records = dict(study.records)
    records["vanilla-000"].outcome = "early-failure"
    assert looks.reached(sweep, records) == (5, 0.01)
    retried = replace(records["vanilla-000"], id="vanilla-000-warmup", outcome="diverged")
    assert looks.reached(sweep, {**records, retried.id: retried}) == (12, 0.025)


def test_with_looks_the_claims_may_not_change(tmp_path):
    before, claimed = make(tmp_path), make(tmp_path, SWEEP + "claims: [{lower: wn, than: bn}]\n")
    with pytest.raises(ConfigError, match="but not claims, since"):
        state.check_unchanged(claimed, before, Storage(str(tmp_path)))
    once = [
        make(tmp_path, SWEEP.replace(", until: 12", "") + claims)
        for claims in ("", "claims: [{lower: wn, than: bn}]\n")
    ]
    assert state.check_unchanged(once[1], once[0], Storage(str(tmp_path))) == []


def test_looks_at_repeats_of_a_search_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"`replicate\.until` has no effect with"):
        make(tmp_path, SWEEP.replace("[1.0e-4]", "[1.0e-4], repeats: 3"))
