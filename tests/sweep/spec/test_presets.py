"""Presets supply what a YAML does not say."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        "lr varies (preset: 0.0001)",
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
