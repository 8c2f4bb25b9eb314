"""Sweeps from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import raygan
from raygan.errors import ConfigError
from raygan.sweep.commands.results import Results, _flat
from raygan.sweep.session.session import Options
from raygan.sweep.spec.sweep_spec import load

QUICKSTART = Path(__file__).parents[3] / "sweeps" / "quickstart.yaml"


def test_overrides_replace_keys_of_the_yaml() -> None:
    changes = _flat(
        {
            "name": "other-1",
            "train": {"features": 8, "flip": True},
            "search": {"lr": [1e-5, 0.5]},
            "budget": {"wall_clock": "1h"},
        }
    )
    spec = load(QUICKSTART, changes)
    assert spec.name == "other-1"
    assert (spec.train.features, spec.train.flip) == (8, True)
    assert spec.search.lr == [1e-5, 0.5]
    assert spec.budget.wall_clock == "1h"


def test_options_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Options] = []
    monkeypatch.setattr(
        "raygan.sweep.session.run.run", lambda spec, console, options: given.append(options) or 0
    )
    raygan.run(QUICKSTART, storage=str(tmp_path), offline=True, retry_failed=True)
    assert given == [Options(offline=True, retry_failed=True)]


def test_a_wrong_override_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="fetures"):
        raygan.run(QUICKSTART, train={"fetures": 8})


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no sweep"):
        _ = Results(str(tmp_path), 0).verdict
