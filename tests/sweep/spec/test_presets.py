"""Presets supply what a YAML does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygan import recipe
from raygan.errors import ConfigError
from raygan.sweep.spec import plan, presets
from raygan.sweep.spec.presets import PRESETS
from raygan.sweep.spec.sweep_spec import SweepSpec, load, validate
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.stored_sweep import dump


def loaded(tmp_path: Path, text: str, *overrides: str) -> SweepSpec:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: small\n{text}")
    return load(path, overrides)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_of_a_preset_reaches_the_trials(tmp_path, preset):
    spec = loaded(tmp_path, f"preset: {preset}\n")
    (cell,) = plan.cells(spec)
    config = plan.trial(spec, cell, 0, {}).config.to_dict()
    assert {key: config[key] for key in PRESETS[preset]} == PRESETS[preset]
    assert presets.differences(spec) == []


def test_what_the_yaml_gives_stays(tmp_path):
    text = """preset: authors-dcgan
grid: {norm: [vanilla, wn]}
search: {lr: [1.0e-4, 2.0e-5]}
train: {features: 16}
"""
    spec = loaded(tmp_path, text, "train.batch_size=64")
    assert spec.space()["lr"] == [1e-4, 2e-5]
    config = spec.train_config(norm="wn", lr=2e-5)
    assert (config.features, config.batch_size, config.code_size) == (16, 64, 128)
    assert config.parameters["norm_epsilon"] == 1e-6
    assert presets.differences(spec) == [
        "features is 16 (preset: 64)",
        "batch_size is 64 (preset: 32)",
        "lr varies (preset: 1e-4)",
    ]


def test_a_parameter_of_weight_norm_is_left_out_where_nothing_has_it(tmp_path):
    spec = loaded(tmp_path, "preset: authors-dcgan\ngrid: {norm: [vanilla, bn]}\n")
    assert "norm_epsilon" not in spec.train_config(norm="bn").parameters


def test_the_stored_yaml_holds_the_values(tmp_path, monkeypatch):
    spec = loaded(tmp_path, "preset: authors-resnet\n")
    monkeypatch.setitem(PRESETS, "authors-resnet", {"lr": 1.0})  # a later version's
    again = validate(parse(dump(spec).encode(), "sweep.yaml"), known=True)
    assert again.resolved() == spec.resolved()
    assert (again.train.lr, again.train.blocks) == (2e-5, 1)


def test_an_unknown_preset_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"sweep.yaml:2.*`preset` \(='authors'\).*authors-dcgan"):
        loaded(tmp_path, "preset: authors\n")
    with pytest.raises(ConfigError, match="authors-dcgan, authors-resnet"):
        loaded(tmp_path, "preset: [authors-dcgan]\n")
    with pytest.raises(ConfigError, match="`train`"):
        loaded(tmp_path, "preset: authors-dcgan\ntrain: 5\n")


def test_another_architecture_is_told(tmp_path):
    spec = loaded(tmp_path, "preset: authors-dcgan\ntrain: {architecture: resnet}\n")
    assert presets.differences(spec) == ["architecture is resnet (preset: dcgan)"]


def test_the_recipes_of_each_data_set_count(tmp_path):
    text = "train: {norm: bn}\ndataset: [{}, {label: b, train: {norm: wn}}]"
    spec = loaded(tmp_path, f"preset: authors-dcgan\n{text}")
    config = spec.train_config(dataset="b")
    assert (config.norm, config.parameters["norm_epsilon"]) == ("wn", 1e-6)
    assert presets.differences(spec) == []


@pytest.mark.parametrize("first", ["", "{label: a, train: {norm: vanilla}}, "])
def test_a_parameter_that_no_data_set_uses_is_left_out(tmp_path, first):
    listed = f"[{first}{{label: b, train: {{norm: bn}}}}]"
    spec = loaded(tmp_path, f"preset: authors-dcgan\ndataset: {listed}")
    assert spec.train.norm_epsilon is None
    assert presets.differences(spec) == []


@pytest.mark.parametrize(
    "text",
    [
        "train: {architecture: dcgan}",
        "grid: {architecture: [dcgan]}",
        "dataset: [{train: {architecture: dcgan}}]",
        "dataset: [{train: {architecture: dcgan}}, {label: b, train: {architecture: dcgan}}]",
    ],
)
def test_a_parameter_of_another_architecture_is_left_out(tmp_path, text):
    spec = loaded(tmp_path, f"preset: authors-resnet\n{text}")
    assert spec.train.blocks is None
    (told,) = presets.differences(spec)
    assert told.startswith("architecture ")


def test_a_preset_serves_own_norms_that_have_its_parameters(tmp_path):
    (tmp_path / "own.py").write_text(
        "from raygan.gan.nets.norms.norm import Norm\n\n\n"
        "class Mine(Norm):\n    'Mine.'\n\n    name = 'mine'\n\n"
        "    norm_epsilon: float = 0.1\n    'Epsilon.'\n"
    )
    document = parse("preset: authors-dcgan\ntrain: {norm: mine}", "a.yaml")
    recipe.use([recipe.read(tmp_path / "own.py")])
    try:
        presets.complete(document.data)
    finally:
        recipe.keep_only({})
    assert document.data["train"]["norm_epsilon"] == 1e-6


def test_what_a_data_set_changes_is_told_with_its_label(tmp_path):
    text = """preset: authors-dcgan
dataset:
- {}
- {label: b, train: {code_size: 8, levels: 1}}
"""
    assert presets.differences(loaded(tmp_path, text)) == [
        "code_size is 8 on the data set b (preset: 128)",
        "levels is 1 on the data set b (preset: not set)",
    ]
    alike = text.replace("{}", "{train: {code_size: 8, levels: 1}}")
    assert presets.differences(loaded(tmp_path, alike))[0] == "code_size is 8 (preset: 128)"
    back = f"{text}train: {{code_size: 64}}".replace("code_size: 8", "code_size: 128")
    assert presets.differences(loaded(tmp_path, back))[0] == (
        "code_size is 64 on the data set digits (preset: 128)"
    )


def test_keys_that_the_preset_does_not_name_are_told(tmp_path):
    given = {"r1": 10, "flip": "true", "ema": 0.999, "weight_decay": 0.1, "lr_decay": "linear",
             "warmup": 50, "levels": 2, "lr_d": 1e-3, "augment": "diffaugment"}  # fmt: skip
    train = ", ".join(f"{key}: {value}" for key, value in given.items())
    train += ", seed: 3, iterations: 5000"  # which no preset is about
    spec = loaded(tmp_path, f"preset: authors-dcgan\ntrain: {{{train}}}")
    told = presets.differences(spec)
    assert {words.split()[0] for words in told} == given.keys()
    assert "flip is true (preset: false)" in told
    varied = loaded(tmp_path, "preset: authors-dcgan\ngrid: {norm: [bn, wn], ema: [0.0, 0.9]}")
    assert presets.differences(varied) == ["ema varies (preset: 0)"]
