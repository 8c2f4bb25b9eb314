"""A damaged checkpoint is passed over for a whole one."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import raygan
from raygan import checkpoints, local_files
from raygan.checkpoints import Shelf
from raygan.errors import CheckpointError
from raygan.folder import trial_folder
from raygan.gan import checkpoint
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from tests.object_store import ObjectStore, far

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
    saved, passed_over = Shelf(storage).newest()
    assert saved is not None
    assert (saved["step"], passed_over) == (30, [])
    _damage(trial / "checkpoint_030" / "step-000000030.pt")
    saved, (reason,) = Shelf(storage).newest()
    assert saved is not None
    assert saved["step"] == 20
    assert "after iteration 30 is damaged" in reason
    assert "SHA-256" in reason


def test_one_that_was_cut_off_is_passed_over(trial: Path) -> None:
    (trial / "checkpoint_030" / "step-000000030.pt.sha256").unlink()
    saved, passed_over = Shelf(Storage(str(trial))).newest()
    assert saved is not None
    assert (saved["step"], len(passed_over)) == (20, 1)


def test_of_two_after_one_iteration_either_will_do(trial: Path) -> None:
    first = _save(trial, 30, "checkpoint_031")
    assert checkpoints.find_checkpoints(Storage(str(trial)))[:2] == [
        (30, "checkpoint_031"),
        (30, "checkpoint_030"),
    ]
    assert _newest(trial) == (30, [])
    _damage(first)
    step, passed_over = _newest(trial)
    assert (step, len(passed_over)) == (30, 1)


def _newest(trial: Path) -> tuple[int, list[str]]:
    saved, passed_over = Shelf(Storage(str(trial))).newest()
    assert saved is not None
    return saved["step"], passed_over


def test_without_a_whole_one_the_trial_starts_again_and_says_why(trial: Path) -> None:
    for step in LOSSES:
        _damage(trial / f"checkpoint_{step:03d}" / f"step-{step:09d}.pt")
    saved, passed_over = Shelf(Storage(str(trial))).newest()
    assert saved is None
    assert len(passed_over) == 3


def test_a_new_trial_has_none(tmp_path: Path) -> None:
    assert Shelf(Storage(str(tmp_path / "new"))).newest() == (None, [])


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
    config = TrainConfig(evaluate_every=10).to_dict()
    history = [{"step": float(step), LOSS: loss} for step, loss in LOSSES.items()]
    record = TrialRecord("bn-000", "bn", 0, "bn", {}, config, history=history)
    home = tmp_path / trial_folder(record.id)
    assert checkpoints.best_and_last(sweep, record) == {}
    for step in (10, 30):
        _save(home, step)
    inside = {"last": "checkpoint_030", "best": "checkpoint_030"}
    assert checkpoints.best_and_last(sweep, record) == inside
    for again in ("checkpoint_020", "checkpoint_021"):
        _save(home, 20, again)
    best = {"best": "checkpoint_021"}  # of two, the one that was written last
    assert checkpoints.kept_generators(sweep, record) == {
        "last": (30, "checkpoint_030"),
        "best": (20, "checkpoint_021"),
    }
    assert checkpoints.best_and_last(sweep, record) == {"last": "checkpoint_030", **best}
    record.history.pop()  # its evaluation after 30 iterations was never heard of
    assert checkpoints.best_and_last(sweep, record) == {"last": "checkpoint_021", **best}


def test_checkpoints_are_found_in_one_place() -> None:
    home = Path(raygan.__file__).parent
    texts = {str(path.relative_to(home)): path.read_text() for path in home.rglob("*.py")}
    found = {name for name, text in texts.items() if "is_checkpoint_folder" in text}
    assert found == {
        "folder.py",
        "checkpoints.py",
        "records.py",
    }  # the last asks whether one is there


@pytest.fixture(params=[True, False], ids=["local", "far"])
def shelf_of(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path)) if request.param else far(tmp_path)


def state(step: int, best: int) -> dict[str, Any]:
    """A state whose generator says when it was trained."""
    return {
        "step": step,
        "generator": {"weight": torch.tensor(float(step))},
        "best_step": best,
        "best_loss": LOSSES[best],
        "best": {
            "step": best,
            "loss": LOSSES[best],
            "generator": {"weight": torch.tensor(float(best))},
        },
        "history": [{"step": float(s), LOSS: LOSSES[s]} for s in LOSSES if s <= step],
    }


def _steps(trial: Storage) -> list[int]:
    return [step for step, _ in checkpoints.find_checkpoints(trial)]


def test_the_newest_and_the_one_before_it_are_kept(shelf_of: Storage) -> None:
    shelf = Shelf(shelf_of)
    assert shelf.newest() == (None, [])
    for step, kept in ((10, [10]), (20, [20, 10]), (30, [30, 20]), (40, [40, 30])):
        assert shelf.save({"step": step}) > 0
        assert _steps(shelf_of) == kept
        assert Shelf(shelf_of).newest() == ({"step": step}, [])
    assert len(shelf_of.folders()) == 2


def test_a_damaged_one_is_removed_once_there_is_a_newer_whole_one(shelf_of: Storage) -> None:
    shelf = Shelf(shelf_of)
    for step in (10, 20, 30):
        shelf.save({"step": step})
    (path,) = Path(shelf_of._root).glob("*/step-000000030.pt")
    _damage(path)
    resumed = Shelf(shelf_of)
    found, _ = resumed.newest()
    assert found == {"step": 20}
    resumed.save({"step": 25})
    assert _steps(shelf_of) == [25, 20]


def test_what_cannot_be_removed_is_removed_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf = Shelf(Storage(str(tmp_path)))
    shelf.save({"step": 10})
    shelf.save({"step": 20})

    def refuse(*_: object) -> None:
        raise OSError("not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "delete_folder", refuse)
        shelf.save({"step": 30})
    assert "old checkpoints are not removed: not permitted" in capsys.readouterr().out
    assert _steps(Storage(str(tmp_path))) == [30, 20, 10]
    shelf.save({"step": 40})
    assert _steps(Storage(str(tmp_path))) == [40, 30]


def test_the_best_generator_is_read_from_the_newest_checkpoint(shelf_of: Storage) -> None:
    shelf = Shelf(shelf_of)
    shelf.save(state(20, 20))
    shelf.save(state(30, 20))
    newest = checkpoints.find_checkpoints(shelf_of)[0][1]
    best, replaced = checkpoints.load_or_other(shelf_of, newest, ["best"])
    assert (best["step"], float(best["generator"]["weight"]), replaced) == (20, 20.0, "")
    last, replaced = checkpoints.load_or_other(shelf_of, newest, ["last"])
    assert (last["step"], float(last["generator"]["weight"]), replaced) == (30, 30.0, "")


def test_the_best_of_an_older_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    shelf = Shelf(storage)
    shelf.save(state(10, 10))
    shelf.save(state(30, 20))
    newest = checkpoints.find_checkpoints(storage)[0][1]
    _damage(tmp_path / newest / "step-000000030.pt")
    best, replaced = checkpoints.load_or_other(storage, newest, ["best"])
    assert float(best["generator"]["weight"]) == 10.0
    assert "the checkpoint after iteration 10 is used instead" in replaced


def test_the_last_generator_never_stands_in_for_the_best_without_words(tmp_path: Path) -> None:
    saved = state(30, 20)
    del saved["best"]
    checkpoint.save(saved, tmp_path / "checkpoint_030", 30)
    storage = Storage(str(tmp_path))
    found, replaced = checkpoints.load_or_other(storage, "checkpoint_030", ["best"])
    assert found["step"] == 30
    assert "does not hold the best generator" in replaced


def test_the_best_generator_of_an_earlier_version_moves_into_the_state(tmp_path: Path) -> None:
    for step in (20, 30):
        old = state(step, 20)
        del old["best"]
        checkpoint.save(old, tmp_path / f"checkpoint_{step}", step)
    found, _ = Shelf(Storage(str(tmp_path))).newest()
    assert found is not None
    assert found["step"] == 30
    assert (found["best"]["step"], found["best"]["loss"]) == (20, LOSSES[20])
    assert float(found["best"]["generator"]["weight"]) == 20.0


def test_a_checkpoint_between_evaluations_counts_for_a_trial(tmp_path: Path) -> None:
    sweep = Storage(str(tmp_path))
    config = TrainConfig(evaluate_every=10).to_dict()
    history = [{"step": 10.0, LOSS: 0.3}, {"step": 20.0, LOSS: 0.4}]
    record = TrialRecord("bn-000", "bn", 0, "bn", {}, config, history=history)
    shelf = Shelf(sweep / trial_folder(record.id))
    shelf.save({"step": 5})
    shelf.save({"step": 24})
    (last, folder), best = checkpoints.kept_generators(sweep, record).values()
    assert last == 24
    assert best == (10, folder)
    shelf.save({"step": 31})  # after an evaluation that nobody has heard of
    assert checkpoints.kept_generators(sweep, record)["last"] == (24, folder)


def test_the_best_until_the_last_checkpoint_is_kept_of_a_trial_that_was_stopped_later(
    tmp_path: Path,
) -> None:
    sweep = Storage(str(tmp_path))
    config = TrainConfig(evaluate_every=10).to_dict()
    losses = {10: 0.3, 20: 0.2, 30: 0.25, 40: 0.1}
    history = [{"step": float(step), LOSS: loss} for step, loss in losses.items()]
    record = TrialRecord("bn-000", "bn", 0, "bn", {}, config, history=history)
    home = sweep / trial_folder(record.id)
    Shelf(home).save(state(30, 20))
    kept = checkpoints.kept_generators(sweep, record)
    folder = kept["last"][1]
    assert kept == {"last": (30, folder), "best": (20, folder)}
    saved, replaced = checkpoints.load_or_other(home, folder, ["best"])
    assert (saved["step"], replaced) == (20, "")


def test_what_a_killed_worker_has_left_is_removed_and_what_another_one_writes_is_not(
    tmp_path: Path,
) -> None:
    trial = Storage(str(tmp_path))
    Shelf(trial).save({"step": 10})
    (whole,) = trial.folders()
    file = "step-000000020.pt"
    dead, alive = tmp_path / "checkpoint_000000020_0a", tmp_path / "checkpoint_000000020_0b"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / f"{file}.sha256").write_text(f"0  {file}")
    (dead / f"{file}.{'0' * 32}.tmp").write_bytes(b"half of it")
    (tmp_path / "checkpoint_000000030_0c").mkdir()
    writes, done = threading.Event(), threading.Event()

    def write() -> None:
        with local_files.writing(alive / file) as stream:
            stream.write(b"another worker's")
            writes.set()
            assert done.wait(60)

    other = threading.Thread(target=write)
    other.start()
    assert writes.wait(60)
    assert Shelf(trial).newest() == ({"step": 10}, [])
    assert trial.folders() == [whole, alive.name]
    done.set()
    other.join()
    assert trial.files(alive.name) == [file, f"{file}.sha256"]
    assert _steps(trial) == [20, 10]


def test_debris_of_object_storage_is_removed(tmp_path: Path) -> None:
    trial = far(tmp_path)
    Shelf(trial).save({"step": 10})
    left = tmp_path / "checkpoint_000000020_0a"  # to delete its folder was cut off
    left.mkdir()
    (left / "step-000000020.pt.sha256").write_text("0  step-000000020.pt")
    assert Shelf(trial).newest() == ({"step": 10}, [])
    assert not left.exists()


def test_without_locks_a_file_is_taken_for_being_written_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(local_files.fcntl, "flock", no_locks)
    local_files.write(tmp_path / "file", b"x")
    assert local_files.is_being_written(tmp_path / "file")
    os.utime(tmp_path / "file", (0, 0))
    assert not local_files.is_being_written(tmp_path / "file")
    assert local_files.is_being_written(tmp_path / "that has just got its name")


@pytest.mark.cluster  # starts a server, and pyarrow's client takes its time
def test_old_ones_are_removed_from_object_storage(store: ObjectStore) -> None:
    trial = Storage("s3://bucket/a/trials/bn-000")
    shelf = Shelf(trial)
    for step in (10, 20, 30):
        shelf.save({"step": step})
    assert _steps(trial) == [30, 20]
    assert not [key for key in store.objects if "checkpoint_000000010" in key]
    assert Shelf(trial).newest() == ({"step": 30}, [])
