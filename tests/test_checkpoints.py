"""A damaged checkpoint is passed over for a whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

import raygan
from raygan import checkpoints
from raygan.errors import CheckpointError
from raygan.folder import trial_folder
from raygan.gan import checkpoint
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from tests.object_store import far

LOSSES = {10: 0.3, 20: 0.1, 30: 0.2}


def _save(trial: Path, step: int, folder: str | None = None) -> Path:
    history = [{"step": float(step), LOSS: LOSSES[step]}]
    state = {"step": step, "history": history}
    return checkpoint.save(state, trial / (folder or f"checkpoint_{step:03d}"), step)


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    for step in LOSSES:
        _save(tmp_path, step)
    return tmp_path


@pytest.mark.parametrize("local", [True, False])
def test_the_newest_whole_one_is_resumed_from(trial: Path, local: bool) -> None:
    storage = Storage(str(trial)) if local else far(trial)
    saved, passed_over = checkpoints.load_newest(storage)
    assert saved is not None
    assert (saved["step"], passed_over) == (30, [])
    _damage(trial / "checkpoint_030" / "step-000000030.pt")
    saved, (reason,) = checkpoints.load_newest(storage)
    assert saved is not None
    assert saved["step"] == 20
    assert "after iteration 30 is damaged" in reason
    assert "SHA-256" in reason


def test_one_that_was_cut_off_is_passed_over(trial: Path) -> None:
    (trial / "checkpoint_030" / "step-000000030.pt.sha256").unlink()
    saved, passed_over = checkpoints.load_newest(Storage(str(trial)))
    assert saved is not None
    assert (saved["step"], len(passed_over)) == (20, 1)


def test_of_two_after_one_iteration_the_later_is_preferred(trial: Path) -> None:
    later = _save(trial, 30, "checkpoint_031")
    assert checkpoints.find_checkpoints(Storage(str(trial)))[:2] == [
        (30, "checkpoint_031"),
        (30, "checkpoint_030"),
    ]
    _damage(later)
    saved, passed_over = checkpoints.load_newest(Storage(str(trial)))
    assert saved is not None
    assert (saved["step"], len(passed_over)) == (30, 1)


def test_without_a_whole_one_the_trial_starts_again_and_says_why(trial: Path) -> None:
    for step in LOSSES:
        _damage(trial / f"checkpoint_{step:03d}" / f"step-{step:09d}.pt")
    saved, passed_over = checkpoints.load_newest(Storage(str(trial)))
    assert saved is None
    assert len(passed_over) == 3


def test_a_new_trial_has_none(tmp_path: Path) -> None:
    assert checkpoints.load_newest(Storage(str(tmp_path / "new"))) == (None, [])


@pytest.mark.parametrize(("which", "folder", "used"), [("last", 30, 20), ("best", 20, 30)])
def test_another_one_stands_in_for_a_damaged_generator(
    trial: Path, which: str, folder: int, used: int
) -> None:
    storage, name = Storage(str(trial)), f"checkpoint_{folder:03d}"
    saved, replaced = checkpoints.load_or_other(storage, name, [which])
    assert (saved["step"], replaced) == (folder, "")
    _damage(trial / name / f"step-{folder:09d}.pt")
    saved, replaced = checkpoints.load_or_other(storage, name, [which])
    assert saved["step"] == used
    assert f"the checkpoint after iteration {used} is used instead" in replaced


def test_no_other_one_is_an_error(tmp_path: Path) -> None:
    _damage(_save(tmp_path, 10))
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load_or_other(Storage(str(tmp_path)), "checkpoint_010", ["last"])


def test_the_best_and_the_last_are_found_where_they_lie(tmp_path: Path) -> None:
    sweep = Storage(str(tmp_path))
    config = TrainConfig().to_dict()
    history = [{"step": float(step), LOSS: loss} for step, loss in LOSSES.items()]
    record = TrialRecord("bn-000", "bn", 0, "bn", {}, config, history=history)
    home = tmp_path / trial_folder(record.id)
    assert checkpoints.best_and_last(sweep, record) == {}
    for step in (10, 30):
        _save(home, step)
    assert checkpoints.best_and_last(sweep, record) == {"last": "checkpoint_030"}
    for again in ("checkpoint_020", "checkpoint_021"):
        _save(home, 20, again)
    best = {"best": "checkpoint_021"}  # of two, the one that was written last
    assert checkpoints.best_and_last(sweep, record) == {"last": "checkpoint_030", **best}
    record.history.pop()  # its evaluation after 30 iterations was never heard of
    assert checkpoints.best_and_last(sweep, record) == {"last": "checkpoint_021", **best}


def test_checkpoints_are_found_in_one_place() -> None:
    home = Path(raygan.__file__).parent
    texts = {str(path.relative_to(home)): path.read_text() for path in home.rglob("*.py")}
    found = {name for name, text in texts.items() if "is_checkpoint_folder" in text}
    assert found == {"folder.py", "checkpoints.py"}
