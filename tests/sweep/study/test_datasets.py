"""Several data sets in one sweep: what is stored, what each trial gets, and how it is judged."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from raygan import records
from raygan.errors import ConfigError, RayganError
from raygan.records import LOSS
from raygan.report import tables
from raygan.storage import Storage
from raygan.sweep.cluster.job import job_of
from raygan.sweep.cluster.preparing import preparations_of
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import looks, registered
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.prepared import Prepared, PreparedSet
from raygan.sweep.study.study import Study

TWO = """name: a
dataset:
- {label: small, size: 16}
- {label: big, size: 32, train: {iterations: 3000}}
grid: {norm: [bn, wn]}
train: {iterations: 2000}
"""
SMALL = PreparedSet(folder="/s/data/small", digest="s1", baseline=0.1, shape="1×16×16", train=9)
BIG = PreparedSet(folder="/s/data/big", digest="b1", baseline=0.02, shape="1×32×32", train=8)
BOTH = Prepared(id="1", sets={"small": SMALL, "big": BIG})


def read(text: str = TWO) -> SweepSpec:
    return spec.validate(parse(text, "a.yaml"))


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path)) / "a"


@pytest.fixture
def begun(sweep) -> Storage:
    state.store(sweep, read(), BOTH)
    return sweep


def play(study: Study, loss: float) -> None:
    """Run all trials; each has the same losses."""
    for planned in iter(study.next_trial, None):
        study.started(planned.id)
        for step in range(500, planned.config.iterations + 1, 500):
            study.heard(planned.id, {"step": step, LOSS: loss, "perf/images_per_second": 1.0})
        study.ended(planned.id)


def test_each_set_is_stored_and_comes_back_in_the_order_of_the_yaml(begun):
    assert json.loads(begun.read(state.DATA_FILE)) == {
        "id": "1",
        "sets": {
            "small": {"folder": "/s/data/small", "digest": "s1", "baseline": 0.1,
                      "shape": "1×16×16", "train": 9},
            "big": {"folder": "/s/data/big", "digest": "b1", "baseline": 0.02,
                    "shape": "1×32×32", "train": 8},
        },
    }  # fmt: skip
    assert state.stored_data(begun, read()) == BOTH
    turned = Prepared(id="1", sets={"big": BIG, "small": SMALL})
    state.store(begun, read(), turned)
    assert list(state.stored_data(begun, read()).sets) == ["small", "big"]


def test_sets_of_another_sweep_are_refused(begun):
    with pytest.raises(RayganError, match="it holds the data sets small, big, not small, other"):
        state.stored_data(begun, read(TWO.replace("label: big", "label: other")))
    with pytest.raises(RayganError, match="damaged"):
        state.stored_data(begun, read("name: a"))


def test_the_digest_of_all_images_tells_labels_and_images_apart():
    assert Prepared(sets={"x": SMALL}).digest == "s1"
    expected = hashlib.sha256(b'{"big":"b1","small":"s1"}').hexdigest()
    assert BOTH.digest == expected
    assert Prepared(sets={"big": BIG, "small": SMALL}).digest == expected
    others = [
        Prepared(sets={"small": BIG, "big": SMALL}),
        Prepared(sets={"small": SMALL, "large": BIG}),
        Prepared(sets={"small": SMALL, "big": replace(BIG, digest="b2")}),
    ]
    assert len({expected, *(one.digest for one in others)}) == 4


def test_records_of_earlier_versions_are_of_the_only_set():
    assert Prepared(sets={"digits": SMALL}).of("") is SMALL
    with pytest.raises(RayganError, match="the sweep has no data set '', only small, big"):
        BOTH.of("")


def test_the_plan_changes_with_the_images_of_any_set(begun):
    first = registered.register(begun, read(), BOTH.digest, "code", 0)
    same = registered.register(begun, read(), BOTH.digest, "code", 0)
    changed = Prepared(sets={"small": SMALL, "big": replace(BIG, digest="b2")})
    now = registered.register(begun, read(), changed.digest, "code", 4)
    assert (len(first), len(same), len(now)) == (1, 1, 2)
    labels = [one["label"] for one in first[0].content.sweep["dataset"]]
    assert labels == ["small", "big"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("size: 16", "size: 8"), ("label: big", "label: huge"), ("iterations: 3000", "iterations: 3")],
)
def test_a_sweep_is_resumed_with_the_same_sets_alone(begun, old, new):
    assert state.check_unchanged(read(), state.stored_spec(begun), begun) == []
    with pytest.raises(ConfigError, match="was started with another YAML"):
        state.check_unchanged(read(TWO.replace(old, new)), state.stored_spec(begun), begun)


MORE = TWO.replace("grid:", "- {label: huge, size: 64}\ngrid:")


def test_a_sweep_over_several_sets_is_extended_by_more(begun):
    before, now = state.stored_spec(begun), read(MORE)
    assert state.check_unchanged(now, before, begun) == ["`dataset` by huge"]
    study = Study(now, begun, prepared=state.stored_data(begun, before))
    cells = {planned.cell for planned in iter(study.next_trial, None)}
    assert cells == {cell.name for cell in plan.cells(now)}
    # if the sweep is killed when the YAML is stored and the images are not
    assert state.stored_data(begun, now) == BOTH
    with pytest.raises(RayganError, match="no data set 'huge'"):
        BOTH.of("huge")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("name: a\ndataset: {size: 16}", "name: a\ndataset: [{size: 16}, {label: b}]"),
        ("name: a\ndataset: [{size: 16}]", "name: a\ndataset: [{size: 16}, {label: b}]"),
        (MORE, TWO),
        (TWO + "replicate: {seeds: 3, until: 6}", MORE + "replicate: {seeds: 3, until: 6}"),
    ],
)  # fmt: skip
def test_other_changes_of_the_sets_are_refused(sweep, before, now):
    with pytest.raises(ConfigError, match="was started with another YAML"):
        state.check_unchanged(read(now), read(before), sweep)


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        ("name: a", "name: a\ndataset: [{}, {label: b}]", "to a sweep that began with one: the"),
        (TWO + "replicate: {seeds: 3, until: 6}", MORE + "replicate: {seeds: 3, until: 6}",
         "to a sweep with `replicate.until`: its"),
    ],
)  # fmt: skip
def test_it_is_said_why_a_sweep_can_have_no_further_set(sweep, before, now, says):
    with pytest.raises(ConfigError) as caught:
        state.check_unchanged(read(now), read(before), sweep)
    assert f"no data set can be added {says}" in str(caught.value)
    assert "grid.seed may be extended" in str(caught.value)
    other = before.replace("name: a", "name: a\ntrain: {features: 4}").split("train: {iter")[0]
    with pytest.raises(ConfigError) as caught:
        state.check_unchanged(read(other), read(before), sweep)
    assert "data set can be added" not in str(caught.value)


ONE = "name: a\ndataset: {size: 16}\ntrain: {levels: 1, features: 8}"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (ONE, "name: a\ndataset: [{size: 16}]\ntrain: {levels: 1, features: 8}"),
        (ONE, "name: a\ndataset: [{size: 16, train: {levels: 1}}]\ntrain: {features: 8}"),
        (ONE, "name: a\ndataset: [{size: 16, train: {features: 8}}]\ntrain: {levels: 1}"),
        (TWO, TWO.replace("- {label: small, size: 16}\n", "").replace(
            "grid:", "- {label: small, size: 16}\ngrid:")),
        ("name: a\npreset: authors-dcgan\ntrain: {lr: 1.0e-4}", "name: a\ntrain: {lr: 1.0e-4}"),
    ],
)  # fmt: skip
def test_a_yaml_of_the_same_meaning_resumes_a_sweep_and_is_the_same_plan(sweep, before, now):
    for first, second in ((before, now), (now, before)):
        assert state.check_unchanged(read(second), read(first), sweep) == []
        known = registered.register(sweep, read(first), "d", "c", 0)
        assert registered.register(sweep, read(second), "d", "c", 0) == known


def test_another_label_of_the_only_set_is_refused(sweep):
    with pytest.raises(ConfigError, match=r"label: b"):
        state.check_unchanged(read("name: a\ndataset: [{label: b}]"), read("name: a"), sweep)


def test_the_history_of_the_plan_names_the_data_sets(begun):
    registered.register(begun, read(), "d1", "code", 0)
    registered.register(begun, read(MORE), "d2", "code", 4)
    _, changed = registered.history(begun)
    assert changed.changed == "the data sets, now big, huge, small, `images` from d1 to d2"


def test_a_trial_gets_the_images_and_the_resources_of_its_set(sweep):
    made = read(TWO + "scale: {by: {dataset: {big: {workers: 2}}}}")
    for cell in plan.cells(made):
        planned = plan.trial(made, cell, 0, {})
        images, workers = (SMALL, 1) if planned.dataset == "small" else (BIG, 2)
        for one in (planned, plan.of_record(_record(planned))):
            job = job_of(one, made, sweep, BOTH)
            assert (job.prepared, job.digest) == (images.folder, images.digest)
            assert job.workers == (workers,)
            assert job.config["iterations"] == (2000 if images is SMALL else 3000)


def _record(planned: plan.TrialPlan) -> records.TrialRecord:
    return records.TrialRecord(
        planned.id, planned.cell, 0, planned.title, {}, planned.config.to_dict(),
        dataset=planned.dataset,
    )  # fmt: skip


def test_each_set_is_prepared_for_its_own_trials(tmp_path):
    orders = preparations_of(read(), Storage(str(tmp_path)))
    assert {label: order.dataset["size"] for label, order in orders.items()} == {
        "small": 16, "big": 32}  # fmt: skip
    for label, iterations in (("small", 2000), ("big", 3000)):
        assert {config["iterations"] for config in orders[label].configs} == {iterations}
        assert {config["norm"] for config in orders[label].configs} == {"bn", "wn"}


def test_trials_are_judged_by_the_mean_image_of_their_own_set(sweep):
    """The loss is below the mean image's of one set, and above that of the other."""
    study = Study(read(), sweep, prepared=BOTH)
    play(study, 0.05)
    outcomes = {record.id: record.outcome for record in study.records.values()}
    assert outcomes == {
        "small_bn-000": "ok", "small_wn-000": "ok",
        "big_bn-000": "untrained", "big_wn-000": "untrained",
    }  # fmt: skip


def test_failures_are_told_with_the_mean_image_of_their_own_set(sweep):
    text = TWO.replace("grid: {norm: [bn, wn]}", "search: {lr: [0.1, 0.2]}")
    study = Study(read(text), sweep, prepared=BOTH)
    for planned in [study.next_trial() for _ in range(2)]:
        study.started(planned.id)
        study.heard(planned.id, {"step": 1, "outcome": "early-failure", "reason": "x"})
        study.ended(planned.id)
    again = Study(read(text), sweep, prepared=BOTH)
    for one in (study, again):
        told = {name: cell._search._study.trials[0] for name, cell in one.cells.items()}
        assert told["small"].intermediate_values == {0: pytest.approx(1.0)}
        assert told["big"].intermediate_values == {0: pytest.approx(0.2)}


def test_records_and_tables_carry_the_set(sweep):
    study = Study(read(), sweep, prepared=BOTH)
    play(study, 0.05)
    study.close()
    known = state.stored_records(sweep, read())
    assert {id: record.dataset for id, record in known.items()} == {
        "small_bn-000": "small", "small_wn-000": "small", "big_bn-000": "big", "big_wn-000": "big",
    }  # fmt: skip
    tables.write(sweep, known.values(), {})
    rows = json.loads(sweep.read(tables.SUMMARY))["trials"]
    assert {row["trial"]: row["dataset"] for row in rows} == {
        id: record.dataset for id, record in known.items()
    }
    curves = pq.read_table(io.BytesIO(sweep.read(tables.CURVES))).to_pylist()
    assert {point["trial"]: point["dataset"] for point in curves} == {
        id: record.dataset for id, record in known.items()
    }


@pytest.mark.parametrize("wrong", ["big", "unknown"])
def test_a_record_of_another_set_than_its_cell_is_refused(sweep, wrong):
    study = Study(read(), sweep, prepared=BOTH)
    play(study, 0.05)
    study.close()
    record = study.records["small_bn-000"]
    record.dataset = wrong
    record.save(sweep)
    for opens in (lambda: state.stored_records(sweep, read()), lambda: Study(read(), sweep)):
        with pytest.raises(RayganError, match="small_bn-000 does not belong to the sweep 'a'"):
            opens()


def test_a_record_of_an_earlier_version_belongs_to_a_sweep_with_one_set(sweep):
    text = "name: a\ngrid: {norm: [bn, wn]}\ntrain: {iterations: 2000}"
    study = Study(read(text), sweep)
    play(study, 0.05)
    study.close()
    for record in study.records.values():
        name = f"trials/{record.id}/record.json"
        content = json.loads(sweep.read(name))
        assert content.pop("dataset") == "digits"
        for copy in (name, f"{name}.bak"):
            sweep.write(copy, json.dumps(content).encode())
    found = state.stored_records(sweep, read(text))
    assert {record.dataset for record in found.values()} == {"digits"}
    again = Study(read(text), sweep, prepared=Prepared(sets={"digits": SMALL}))
    assert again.complete
    job = job_of(plan.of_record(found["bn-000"]), read(text), sweep, again.prepared)
    assert job.digest == "s1"


def test_a_record_of_another_set_than_the_only_one_is_refused(sweep):
    text = "name: a\ntrain: {iterations: 2000}"
    study = Study(read(text), sweep)
    play(study, 0.05)
    study.close()
    study.records["wn-000"].dataset = "cifar10"
    study.records["wn-000"].save(sweep)
    with pytest.raises(RayganError, match="wn-000 does not belong to the sweep 'a'"):
        state.stored_records(sweep, read(text))


def test_cells_of_different_sets_settle_nothing(sweep):
    """There is nothing to compare: no seed is added for it."""
    text = TWO.replace("grid: {norm: [bn, wn]}\n", "") + "replicate: {seeds: 3, until: 9}\n"
    study = Study(read(text), sweep)
    play(study, 0.05)
    assert looks.is_settled(read(text), study.records, 3, 0.01)
    assert len(study.records) == 6
