"""Several data sets in one sweep: the YAML, the cells, and what each set changes."""

from __future__ import annotations

import pytest

from raygan.errors import ConfigError
from raygan.gan.nets.norms import NORMS as NORMS_TABLE
from raygan.report.claim import Claim
from raygan.sweep.spec import checks, claims, dry_pass, plan, scales
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.space import longest
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep

TWO = """name: a
dataset:
- {name: digits, size: 16, label: small, train: {code_size: 8, iterations: 500, levels: 1}}
- {name: cifar10, path: images}
"""
NORMS = "grid: {norm: [bn, wn]}\n"
PLAIN = "name: a\ndataset:\n- {label: one}\n- {label: two}\n"


def read(text: str) -> SweepSpec:
    return spec.validate(parse(text, "a.yaml"))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_data_sets_are_the_first_axis_of_the_cells():
    sweep = read(TWO + NORMS)
    assert sweep.axes() == {"dataset": ["small", "cifar10"], "norm": ["bn", "wn"]}
    names = [cell.name for cell in plan.cells(sweep)]
    assert names == ["small_bn", "small_wn", "cifar10_bn", "cifar10_wn"]
    assert [cell.name for cell in plan.cells(read(TWO))] == ["small", "cifar10"]


def test_each_data_set_has_its_own_configuration():
    sets = read(TWO).datasets()
    assert list(sets) == ["small", "cifar10"]
    assert sets["small"].shape() == (16, 16, 1)
    assert sets["cifar10"].path == "images"


@pytest.mark.parametrize("listed", ["{name: digits, size: 16}", "[{name: digits, size: 16}]"])
def test_one_data_set_is_no_axis(listed):
    sweep = read(f"name: a\ndataset: {listed}\n{NORMS}")
    assert list(sweep.axes()) == ["norm"]
    assert [cell.name for cell in plan.cells(sweep)] == ["bn", "wn"]
    assert list(sweep.datasets()) == ["digits"]
    assert plan.trial(sweep, plan.cells(sweep)[0], 0, {}).dataset == "digits"


def test_the_changes_of_the_only_item_of_a_list_count():
    sweep = read("name: a\ndataset: [{name: digits, train: {code_size: 8, norm: bn}}]")
    (cell,) = plan.cells(sweep)
    assert (cell.name, plan.trial(sweep, cell, 0, {}).config.code_size) == ("bn", 8)


def test_trials_have_the_fields_that_their_data_set_changes():
    sweep = read(TWO + NORMS + "train: {code_size: 64}\nreplicate: {seeds: 1}")
    for cell in plan.cells(sweep):
        own = (8, 500, 1) if cell.values["dataset"] == "small" else (64, 20_000, None)
        for planned in (
            plan.trial(sweep, cell, 0, {}),
            plan.replicate(sweep, cell, 0, {}, cell.name),
        ):
            config = planned.config
            assert (config.code_size, config.iterations, config.levels) == own
            assert planned.dataset == cell.values["dataset"]
            assert planned.id.startswith(f"{planned.dataset}_")
        assert longest(sweep, cell.values) == own[1]


def test_trials_of_a_cell_are_those_of_a_sweep_with_its_data_set_alone():
    both = read(TWO + NORMS + "search: {lr: [1.0e-4, 1.0e-3]}\nreplicate: {seeds: 2}")
    alone = read("name: b\ndataset: {name: digits, size: 16}\n" + NORMS
                 + "search: {lr: [1.0e-4, 1.0e-3]}\nreplicate: {seeds: 2}\n"
                 "train: {code_size: 8, iterations: 500, levels: 1}")  # fmt: skip
    for cell, only in zip(plan.cells(both)[:2], plan.cells(alone), strict=True):
        for make in (plan.trial, lambda *given: plan.replicate(*given, "x")):
            given = make(both, cell, 1, {"lr": 1e-3}), make(alone, only, 1, {"lr": 1e-3})
            assert given[0].config == given[1].config


def test_what_is_stored_says_the_same():
    sweep = read(TWO + NORMS)
    stored = spec.validate(parse(stored_sweep.dump(sweep), "sweep.yaml"), known=True)
    assert stored.resolved() == sweep.resolved()
    assert stored.datasets() == sweep.datasets()
    small, cifar10 = sweep.resolved()["dataset"]
    assert small["train"] == {"code_size": 8, "iterations": 500, "levels": 1}
    assert (cifar10["label"], cifar10["pool"]) == ("cifar10", False)
    assert "train" not in cifar10
    assert "pool" not in small


def test_a_smoke_test_shrinks_every_data_set():
    small = spec.smoke(read(TWO + NORMS))
    for cell in plan.cells(small):
        config = small.train_config(**cell.values)
        assert (config.iterations, config.code_size) == (20, 16)
    assert small.train_config(dataset="small").levels == 1  # it says what the images allow


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {}\n- {}", "4: `dataset.1`: two data sets are called 'digits'; give one"),
        ("- {}\n- {label: b_c}", "4: `dataset.1.label` (='b_c'): string should match"),
        ("- {}\n- {label: ../b}", "4: `dataset.1.label` (='../b'): string should match"),
        ("- {}\n- {label: b, siz: 8}", "4: unknown key `dataset.1.siz`; did you mean `size`?"),
        ("- {}\n- label: b\n  train:\n    levls: 1",
         "6: unknown key `dataset.1.train.levls`; did you mean `levels`?"),
        ("- {}\n- {label: b, train: {seed: 1}}",
         "4: unknown key `dataset.1.train.seed`; did you mean `train.seed`?"),
        ("- {}\n- {label: b, train: {levels: null}}",
         "4: `dataset.1.train.levels` (=None): input should be a valid integer"),
        ("- {}\n- {label: b, train: {lr: -1.0}}",
         "4: `dataset.1.train`: `lr` (=-1.0) must be a positive number"),
        ("- {}\n- {label: b, train: {beta1: 0.3}}",
         "4: `dataset.1.train.beta1` applies to `optimizer: adam`, but `optimizer` is rmsprop"),
        ("- {}\n- {label: b, train: {levels: 9}}",
         "4: `dataset.1`: `levels` (=9) is too many for images of 32×32 pixels"),
        ("- {}\n- {label: b, split: 3}", "4: `dataset.1.split` (=3): input should be a valid "
         "string, or input should be a valid list"),
        ("- {}\n- {name: folder}", "4: `dataset.1`: `dataset.path` is missing: `name: folder` "
         "reads images from a path; give one in the YAML"),
        ("- {}\n- {label: b, path: x}",
         "4: `dataset.1.path` has no effect without `dataset.1.name`"),
        ("- {}\n- {label: b, train: {warmup_factor: 0.2}}",
         "4: `dataset.1.train.warmup_factor` has no effect without `dataset.1.train.warmup`"),
        ("- {label: a, train: {warmup: 9}}\n- {label: b, train: {warmup_factor: 0.2}}",
         "4: `dataset.1.train.warmup_factor` has no effect without `dataset.1.train.warmup`"),
        ("- {}\n- label: b\ntrain: {warmup_factor: 0.2}",
         "5: `warmup_factor` has no effect without `train.warmup`"),
        ("- {}\n- {label: b, train: {batch_size: 9}}\nscale: {workers: 2}",
         "4: `dataset.1.train.batch_size` (=9) must be divisible by `scale.workers` (=2)"),
        ("- {}\n- {label: b, train: {norm: bn}}\ngrid: {norm: [bn, wn]}",
         "4: `dataset.1.train.norm` is also under `grid` or `search`; keep one"),
        ("- {}\n- {label: b, train: {lr: 0.1}}\nsearch: {lr: [0.1, 0.2]}",
         "4: `dataset.1.train.lr` is also under `grid` or `search`; keep one"),
        ("- {}\n- {label: b, train: {warmup: 3}}\nwarmup: {iterations: 5}",
         "4: `dataset.1.train.warmup` cannot be used with the section `warmup`"),
        ("- {}\n- {label: b}\nwarmup: {iterations: 5}\ntrain: {warmup: 3}",
         "6: `train.warmup` cannot be used with the section `warmup`"),
        ("- {}\n- {label: b}\nwarmup: {iterations: 5}\ngrid: {warmup: [3, 5]}",
         "6: `grid.warmup` cannot be used with the section `warmup`"),
        ("- {}\n- {label: Digits}", "4: `dataset.1`: the labels 'Digits' and 'digits' differ only"),
        ("- {}\n- {label: wn}\ngrid: {norm: [bn, wn]}",
         "4: `dataset.1`: the label 'wn' is also a value of `grid.norm`"),
        ("- {}\n- {label: '64'}\ngrid: {features: [32, 64]}",
         "4: `dataset.1`: the label '64' is also a value of `grid.features`"),
        ("- digits", "3: `dataset.0` (='digits'): must be a mapping of keys to values"),
        ("- {}\n- {label: 1}", "4: `dataset.1.label` (=1): input should be a valid string; if it is "
         "text, put it in quotes"),
        ("- {}\n- {label: b, train: {iterations: 900}}\ntrain: {lr_decay: cosine}",
         "`lr_decay` has no effect with `evaluate_every` (=1000) and `iterations` (=900)"),
        ("- 3", "3: `dataset.0` (=3): must be a mapping of keys to values"),
        ("[]", "`dataset`: list should have at least 1 item"),
        ("{label: a}", "2: unknown key `dataset.label`; it belongs to an item of a list"),
    ],
)  # fmt: skip
def test_mistakes_in_a_list_are_named_with_their_line(text, says):
    text = text if text[0] in "[{" else f"\n{text}"
    found = refused(f"name: a\ndataset: {text}")
    assert says in found
    assert found.startswith("a.yaml:")


def test_a_mistake_under_train_is_not_looked_for_in_a_data_set():
    own = "dataset:\n- {train: {lr: 0.1}}\n- {label: b}\n"
    assert refused(f"name: a\n{own}train: {{lr: -1.0}}").startswith("a.yaml:5: `lr` (=-1.0)")
    assert refused("name: a\ndataset:\n- {}\n- label: b\n  train:\n    lr: -1.0").startswith(
        "a.yaml:5: `dataset.1.train`: `lr` (=-1.0)"
    )


def test_more_data_sets_than_allowed_are_refused():
    listed = [f"{{label: d{n}}}" for n in range(21)]
    assert "at most 20 items" in refused(f"name: a\ndataset: [{', '.join(listed)}]")
    assert len(read(f"name: a\ndataset: [{', '.join(listed[1:])}]").labels) == 20


def test_a_grid_of_data_sets_is_sent_to_the_right_place():
    for section in ("grid", "search"):
        said = refused(f"name: a\n{section}: {{dataset: [a]}}")
        assert "make `dataset` at the top level a list, not `" in said


def test_a_warmup_in_one_place_serves_a_factor_in_another():
    read("name: a\ndataset:\n- {train: {warmup: 9}}\n- {label: b}\ntrain: {warmup_factor: 0.2}")
    read("name: a\ndataset:\n- {train: {warmup_factor: 0.2}}\n- {label: b}\ntrain: {warmup: 9}")
    read("name: a\ndataset:\n- {train: {warmup_factor: 0.2}}\n- {label: b}\ngrid: {warmup: [3, 4]}")


def test_the_label_of_the_only_data_set_is_no_value_of_an_axis():
    assert read("name: a\ndataset: [{label: wn}]\ngrid: {norm: [bn, wn]}").labels == ["wn"]


def test_all_trials_of_all_data_sets_count_to_the_most():
    seeds = "grid: {seed: %s}" % [*range(501)]
    assert "`dataset`, `grid` and `search` define 10020 trials" in refused(
        f"name: a\ndataset: [{', '.join(f'{{label: d{n}}}' for n in range(20))}]\n{seeds}"
    )


def test_images_are_checked_with_the_configurations_of_their_own_data_set(monkeypatch):
    """Two sizes that no number of levels fits can be trained with one for each."""
    text = "- {label: big, size: 64, train: {levels: 5}}\n- {label: small, size: 8%s}"
    sweep = read(f"name: a\ndataset:\n{text % ''}")
    assert [config.levels for config in checks.extremes(sweep, "big")] == [5]
    assert [config.levels for config in checks.extremes(sweep, "small")] == [None]
    wrong = text % ", train: {levels: 5}"
    assert "`dataset.1`: `levels` (=5) is too many for images of 8×8" in refused(
        f"name: a\ndataset:\n{wrong}"
    )


def test_early_stopping_is_checked_in_each_data_set():
    short = "- {label: b, train: {iterations: 900}}"
    stop = "search: {lr: [0.1, 0.2]}\nstop: {rule: median, grace: 2000}"
    read(f"name: a\ndataset:\n- {{}}\n{short}\n{stop}")  # it stops trials of the first
    assert "`stop.grace` (=2000) is too large" in refused(
        f"name: a\ndataset:\n{short}\n- {{label: c, train: {{iterations: 800}}}}\n{stop}"
    )
    sweep = read(f"name: a\ndataset:\n- {{}}\n{short}\nstop: {{rule: asha, grace: 901}}")
    with pytest.raises(ConfigError, match="grace"):
        checks.check_fair(sweep)


def test_resources_may_depend_on_the_data_set():
    sweep = read(TWO + NORMS + "scale: {by: {dataset: {cifar10: {workers: 4}}}}")
    taken = {cell.name: sweep.scale.of(cell.values).most for cell in plan.cells(sweep)}
    assert taken == {"small_bn": 1, "small_wn": 1, "cifar10_bn": 4, "cifar10_wn": 4}
    assert len(scales.of(sweep)) == 2
    assert "`scale.by.dataset.celeba` is no value of `dataset`: it has small, cifar10" in refused(
        TWO + "scale: {by: {dataset: {celeba: {workers: 4}}}}"
    )
    assert "`dataset` is not a list of several data sets" in refused(
        "name: a\nscale: {by: {dataset: {digits: {workers: 4}}}}"
    )


def test_claims_are_pooled_over_data_sets_or_within_one():
    text = TWO + NORMS + "claims: [{lower: wn, than: bn}, {lower: small_wn, than: small_bn}]"
    assert claims.of_spec(read(text)) == (
        Claim("lower", "wn", "bn"),
        Claim("lower", "small_wn", "small_bn"),
    )


@pytest.mark.parametrize("pair", [("small", "cifar10"), ("small_bn", "cifar10_bn")])
def test_claims_between_data_sets_are_refused_with_the_reason(pair):
    lower, than = pair
    said = refused(f"{TWO}{NORMS}claims: [{{lower: {lower}, than: {than}}}]")
    assert f"`claims`: '{lower}' and '{than}' are not compared, since losses on different" in said
    said = refused(f"{TWO}claims: [{{lower: small, than: cifar10}}]")
    assert "losses on different data sets have no common scale" in said


def test_own_recipes_are_tried_on_the_images_of_each_data_set(monkeypatch):
    tried = []
    monkeypatch.setattr("raygan.recipe.in_use", lambda: {"x": (None, [])})
    monkeypatch.setattr("raygan.gan.contract.check", lambda c, shape: tried.append((c, shape)))
    monkeypatch.setattr(dry_pass, "_combinations", lambda sweep, label: [label] * 40)
    dry_pass.check(read(TWO))
    assert set(tried) == {("small", (1, 16, 16)), ("cifar10", (3, 32, 32))}
    assert len(tried) == dry_pass.MOST


def test_combinations_of_own_recipes_have_the_fields_of_their_data_set(monkeypatch):
    sweep = read(TWO)
    monkeypatch.setattr("raygan.recipe.in_use", lambda: {"x": (None, [NORMS_TABLE["wn"]])})
    assert {c.code_size for c in dry_pass._combinations(sweep, "small")} == {8}
    assert {c.code_size for c in dry_pass._combinations(sweep, "cifar10")} == {128}
    one = read("name: a\ndataset: [{label: a, train: {norm: bn}}, {label: b}]")
    assert dry_pass._combinations(one, "a") == []  # the own norm is not used there
    assert [config.norm for config in dry_pass._combinations(one, "b")] == ["wn"]


@pytest.mark.parametrize("key", ["dataset.path=x", "dataset.0.path=x"])
def test_an_option_cannot_change_one_of_several(tmp_path, key):
    file = tmp_path / "a.yaml"
    file.write_text(PLAIN)
    with pytest.raises(ConfigError, match=f"{key[:-2]}=…: `dataset` is a list of data sets here"):
        spec.load(file, [key])
    changed = spec.load(file, ["dataset=[{label: b}, {label: c}]"])
    assert changed.labels == ["b", "c"]


def test_secrets_in_a_path_of_a_list_are_not_repeated():
    said = refused("name: a\ndataset: [{name: folder, path: 's3://key:secret@b/x'}, {}]")
    assert "secret" not in said
    assert "dataset.0.path" in said
