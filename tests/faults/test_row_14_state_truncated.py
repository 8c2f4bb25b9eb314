"""Row 14: what a sweep has saved is cut in half, or gone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan.storage import Storage
from raygan.sweep.commands.sweep import main
from raygan.sweep.study import stored_sweep as state
from tests.clusters import TRIALS, Sweep


@pytest.fixture
def copied(reference, tmp_path) -> Sweep:
    """A finished sweep that was moved to another storage."""
    storage = tmp_path / "storage"
    shutil.copytree(reference.storage / reference.name, storage / reference.name)
    shutil.copy(reference.storage / "mlflow.db", storage)
    return replace(reference, storage=storage)


def truncate(path: Path) -> None:
    whole = path.read_bytes()
    assert whole
    path.write_bytes(whole[: len(whole) // 2])


def files(made: Sweep) -> dict[Path, bytes]:
    # Optuna's journal is made from the records each time, for people to look at
    found = (made.storage / made.name).rglob("*")
    return {
        path: path.read_bytes() for path in found if path.is_file() and "optuna" not in path.name
    }


@pytest.mark.soak
def test_backups_are_used_and_no_finished_trial_is_run_again(reference, copied):
    folder = copied.storage / copied.name
    shutil.rmtree(folder / "trials" / "wn-000")  # as the README says: this one is to run again
    kept = [
        folder / "sweep.yaml",
        folder / "data.json",
        folder / "clock.json",
        folder / "trials" / "vanilla-000" / "record.json",
        folder / "trials" / "bn-000" / "record.json",
    ]
    experiment = list((folder / "tune").glob("experiment_state*.json"))
    assert experiment
    pictures = {trial: copied.pictures(trial) for trial in TRIALS[:2]}
    for path in (*kept, *experiment):
        truncate(path)
    output = copied.run("--set", f"storage={copied.storage}")
    for path in kept:
        assert f"{path} is damaged or lost: its backup is used" in output
    assert output.count("started (trial") == output.count("started (trial wn-000;") == 1
    assert {trial: copied.pictures(trial) for trial in TRIALS[:2]} == pictures
    for trial in TRIALS:
        assert copied.curve(trial) == reference.curve(trial)


@pytest.mark.soak
def test_yaml_cut_anywhere_is_never_taken_for_another_sweep(copied):
    sweep = Storage(str(copied.storage / copied.name))
    whole = sweep.read(state.SPEC_FILE)
    expected = state.stored_spec(sweep).resolved()
    for length in range(len(whole)):
        sweep.write(state.SPEC_FILE, whole[:length])
        assert state.stored_spec(sweep).resolved() == expected, whole[:length].decode()


FILES = ["sweep.yaml", "data.json", "trials/bn-000/record.json"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in FILES for damage in (truncate, Path.unlink)),
        ("clock.json", truncate),
    ],
)
def test_without_a_whole_backup_it_is_refused_and_nothing_is_touched(copied, name, damage):
    for which in (name, f"{name}.bak"):
        damage(copied.storage / copied.name / which)
    before = files(copied)
    done = CliRunner().invoke(main, [str(copied.file), "--set", f"storage={copied.storage}"])
    assert done.exit_code == 2, done.output
    assert f"{copied.storage}/{copied.name}/{name}" in done.output
    assert "damaged" in done.output or "is missing" in done.output
    assert "restore it" in done.output
    assert files(copied) == before
