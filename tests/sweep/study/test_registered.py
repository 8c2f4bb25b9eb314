import json

import pytest

from raygan.errors import ConfigError, RayganError
from raygan.folder import PLAN_FILE
from raygan.report.claim import Claim
from raygan.storage import Storage
from raygan.sweep.spec import claims
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import registered
from raygan.sweep.study import stored_sweep as state

SWEEP = """
name: a
grid: {norm: [vanilla, bn, wn]}
search: {lr: [1e-3, 1e-4]}
replicate: {seeds: 5}
"""
CLAIMS = "claims: [{lower: wn, than: bn}, {not_worse: wn, than: vanilla, margin: 5%}]\n"


def read(text: str) -> spec.SweepSpec:
    return spec.validate(parse(text, "sweep.yaml"))


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path / "a"))


def test_claims_are_read_and_put_in_words():
    text = CLAIMS.replace("]", ", {equivalent: bn, to: vanilla, margin: 0.05}]")
    assert [claim.text for claim in claims.of_spec(read(SWEEP + text))] == [
        "wn's loss is lower than bn's",
        "wn's loss is at most 5% higher than vanilla's",
        "bn's loss is within 5% of vanilla's",
    ]


def test_values_of_one_of_several_axes_are_claimed_over_the_others():
    grid = SWEEP.replace("wn]", "wn], features: [32, 64]")
    pooled, within = claims.of_spec(
        read(f"{grid}claims: [{{lower: 64, than: 32}}, "
             "{lower: bn_features=32, than: wn_features=32}]")
    )  # fmt: skip
    assert (pooled.cell, pooled.other) == ("64", "32")
    assert (within.cell, within.other) == ("bn_features=32", "wn_features=32")


def test_values_of_the_only_axis_are_its_cells():
    grid = SWEEP.replace("norm: [vanilla, bn, wn]", "features: [32, 64]")
    (claim,) = claims.of_spec(read(f"{grid}claims: [{{lower: 64, than: 32}}]"))
    assert (claim.cell, claim.other) == ("features=64", "features=32")


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ("{lower: wm, than: bn}", "there is no cell 'wm'; known are bn, vanilla, wn"),
        ("{lower: wn, than: wn}", "'wn' and 'wn' are not compared"),
        ("{lower: wn, to: bn}", "`lower` takes than, and no other key"),
        ("{lower: wn, than: bn, margin: 5%}", "`lower` takes than, and no other key"),
        ("{not_worse: wn, than: bn}", "`not_worse` takes margin, than"),
        ("{not_worse: wn, than: bn, margin: 0}", "must be above 0% and below 100%"),
        ("{equivalent: wn, to: bn, margin: 100%}", "must be above 0% and below 100%"),
        ("{equivalent: wn, to: bn, margin: much}", "must be like 5% or 0.05"),
        ("{lowr: wn, than: bn}", "unknown key `claims.0.lowr`; did you mean `lower`?"),
        ("{than: bn}", "must have one of lower, not_worse, equivalent"),
        ("{lower: wn, than: bn}, {lower: wn, than: bn}", "stands there twice"),
    ],
)
def test_claims_that_make_no_sense_are_refused(claim, words):
    with pytest.raises(ConfigError, match=r"sweep\.yaml:\d") as caught:
        read(f"{SWEEP}claims: [{claim}]")
    assert words in str(caught.value)


def test_the_plan_is_the_same_wherever_it_runs():
    elsewhere = "storage: /b\nscale: {workers: 2}\nbudget: {trials: 9}\ntracking: {experiment: x}\n"
    found = {
        registered.sha256(registered.content(read(text), "d", "c"))
        for text in (SWEEP, SWEEP + elsewhere)
    }
    assert len(found) == 1
    changed = [
        registered.content(read(SWEEP + CLAIMS), "d", "c"),
        registered.content(read(SWEEP), "e", "c"),
        registered.content(read(SWEEP), "d", "f"),
        registered.content(read(SWEEP + "stop: {rule: none}"), "d", "c"),
    ]
    assert len(found | {registered.sha256(plan) for plan in changed}) == 5


def test_changes_of_the_plan_are_written_down_with_what_has_changed(sweep):
    registered.register(sweep, read(SWEEP + CLAIMS), "d", "c" * 40, 0)
    registered.register(sweep, read(SWEEP + CLAIMS), "d", "c" * 40, 6)
    more = SWEEP.replace("seeds: 5", "seeds: 8")
    registered.register(sweep, read(more + CLAIMS), "d", "d" * 40, 21)
    registered.register(sweep, read(more), "d", "d" * 40, 21)
    first, grown, dropped = registered.history(sweep)
    assert (first.changed, first.trials) == ("", 0)
    assert grown.changed == "`replicate.seeds` from 5 to 8, the code from cccccccccccc to " + (
        "d" * 12)  # fmt: skip
    assert (dropped.changed, dropped.trials) == ("the claims", 21)
    assert first.sets == ()


def test_the_plan_has_the_data_sets_of_its_time(sweep):
    two = SWEEP + "dataset: [{name: digits}, {label: small, size: 16}]\n"
    registered.register(sweep, read(two), "d", "c", 0)
    more = two.replace("[{", "[{label: big, size: 64}, {")
    registered.register(sweep, read(more), "e", "c", 6)
    assert [entry.sets for entry in registered.history(sweep)] == [
        ("digits", "small"), ("big", "digits", "small")
    ]  # fmt: skip


def test_claims_of_later_are_exploratory_and_declared_ones_stay(sweep):
    registered.register(sweep, read(SWEEP + CLAIMS), "d", "c", 0)
    later = read(SWEEP + "claims: [{lower: wn, than: bn}, {lower: bn, than: vanilla}]")
    registered.register(sweep, later, "d", "c", 1)
    assert registered.claims_of(sweep, later) == (
        Claim("lower", "wn", "bn"),
        Claim("not_worse", "wn", "vanilla", 0.05),
        Claim("lower", "bn", "vanilla", declared=False),
    )


def test_claims_of_a_sweep_that_began_without_a_plan_are_exploratory(sweep):
    registered.register(sweep, read(SWEEP + CLAIMS), "d", "c", 4)
    assert [claim.declared for claim in registered.claims_of(sweep, read(SWEEP + CLAIMS))] == [
        False,
        False,
    ]


def test_claims_may_change_on_resume(sweep):
    assert state.check_unchanged(read(SWEEP + CLAIMS), read(SWEEP), sweep) == []


def test_a_plan_that_was_altered_is_refused(sweep):
    registered.register(sweep, read(SWEEP + CLAIMS), "d", "c", 0)
    for name in (registered.PLAN_FILE, f"{registered.PLAN_FILE}.bak"):
        sweep.write(name, sweep.read(name).replace(b'"vanilla"', b'"bn"'))
    with pytest.raises(RayganError, match="does not match its content"):
        registered.entries(sweep)


def test_the_digests_of_many_files_of_recipes_fit_into_a_plan(tmp_path) -> None:
    code = ", ".join(["0" * 40, *(f"recipe_{number}.py {'f' * 64}" for number in range(100))])
    storage = Storage(str(tmp_path / "sweep"))
    registered.register(storage, read("name: a"), "digest", code, 0)
    assert registered.entries(storage)[0].content.code == code


def test_defaults_of_a_new_version_are_no_change_of_the_plan(sweep):
    now = registered.content(read(SWEEP), "d", "c")
    old = json.loads(json.dumps(now))
    for section, key in (("train", "initialisation"), ("train", "quality"), ("final", "protocol")):
        del old["sweep"][section][key]
    entry = {"time": "2026-01-01T00:00:00Z", "sha256": registered.sha256(old), "trials": 0,
             "content": old}  # fmt: skip
    sweep.write(PLAN_FILE, json.dumps([entry]).encode())
    spec_now = read(f"{SWEEP}train: {{quality: none}}")
    (first,) = registered.register(sweep, spec_now, "d", "c", 4)
    assert first.sha256 == entry["sha256"]
    registered.register(sweep, spec_now, "d", "d", 4)
    registered.register(sweep, read(f"{SWEEP}train: {{quality: none, ema: 0.9}}"), "d", "d", 4)
    changes = [one.changed for one in registered.history(sweep)]
    assert changes == ["", "the code from c to d", "`train.ema` from 0.0 to 0.9"]


def test_a_claim_that_an_earlier_version_took_for_another_is_kept_as_it_was(tmp_path):
    text = """
name: a
grid: {features: [16, 32], batch_size: [16, 32]}
claims: [{lower: 16, than: 32}]
"""
    with pytest.raises(ConfigError, match="there is no cell '16'; known are batch_size=16"):
        spec.validate(parse(text, "x"))
    known = spec.validate(parse(text, "x"), known=True)  # its sweep can still be read
    found = registered.claims_of(Storage(str(tmp_path)), known)
    assert [(c.cell, c.other, c.declared) for c in found] == [("16", "32", False)]
