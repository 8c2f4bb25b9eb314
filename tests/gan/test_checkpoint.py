"""Checkpoints: whole or not at all, and never executed."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raygan.errors import CheckpointError
from raygan.folder import checkpoint_file
from raygan.gan import checkpoint


def state(step: int) -> dict[str, object]:
    return {"step": step, "best_loss": float("inf"), "weight": torch.full((3, 2), float(step))}


def sign(path: Path) -> None:
    """Write the right checksum beside whatever is at ``path``."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 1, 2 and 3."""
    for step in (1, 2, 3):
        checkpoint.save(state(step), tmp_path / "kept", step)
    return tmp_path / "kept"


def newest(folder: Path) -> Path:
    return folder / checkpoint_file(3)


def test_what_is_saved_is_loaded(tmp_path):
    layout = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    path = checkpoint.save({**state(7), "layout": layout, "history": [{"a": 1.0}]}, tmp_path, 7)
    loaded = checkpoint.load(path)
    assert torch.equal(loaded.pop("layout"), layout)
    assert torch.equal(loaded.pop("weight"), state(7)["weight"])
    assert loaded == {"step": 7, "best_loss": float("inf"), "history": [{"a": 1.0}]}


def test_the_checksum_is_one_that_sha256sum_can_check(folder):
    written = newest(folder).with_name(newest(folder).name + ".sha256").read_text()
    digest = hashlib.sha256(newest(folder).read_bytes()).hexdigest()
    assert written == f"{digest}  step-000000003.pt\n"


def test_a_full_disk_is_an_error_of_the_system_and_harms_no_other(folder):
    large = {**state(4), "weight": torch.zeros(500_000)}
    before = {path.name for path in folder.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # bytes of a file
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(large, folder, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in folder.iterdir()} == before
    assert checkpoint.load_latest(folder)[0]["step"] == 3


def test_the_newest_is_found(folder):
    assert checkpoint.steps(folder) == [1, 2, 3]
    loaded, passed_over = checkpoint.load_latest(folder)
    assert loaded["step"] == 3
    assert passed_over == []


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert checkpoint.load_latest(tmp_path) is None
    assert checkpoint.load_latest(tmp_path / "missing") is None


def test_only_the_kept_ones_stay(folder):
    checkpoint.keep_only(folder, {1, 3})
    assert checkpoint.steps(folder) == [1, 3]
    assert len(list(folder.iterdir())) == 4
    assert checkpoint.load(newest(folder))["step"] == 3


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def empty_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_bytes(b"")


def garble_checksum(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe\0")


DAMAGES = [flip_a_bit, truncate, empty, lose_checksum, empty_checksum, garble_checksum]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_is_passed_over_and_the_reason_told(folder, damage):
    damage(newest(folder))
    with pytest.raises(CheckpointError, match=r"step-000000003\.pt"):
        checkpoint.load(newest(folder))
    loaded, (reason,) = checkpoint.load_latest(folder)
    assert loaded["step"] == 2
    assert "step-000000003.pt" in reason


def test_the_reason_for_damage_is_named(folder):
    flip_a_bit(newest(folder))
    with pytest.raises(CheckpointError, match=r"SHA-256.*the file is damaged"):
        checkpoint.load(newest(folder))


def test_if_none_is_whole_all_are_named(folder):
    for step in (1, 2, 3):
        truncate(folder / checkpoint_file(step))
    with pytest.raises(CheckpointError, match="no checkpoint is complete") as caught:
        checkpoint.load_latest(folder)
    assert all(checkpoint_file(step) in str(caught.value) for step in (1, 2, 3))


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch.save", "legacy torch.save", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path, how):
    path, touched = tmp_path / checkpoint_file(1), tmp_path / "touched"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state": Payload(touched)}))
    else:
        zipped = how == "torch.save"
        torch.save({"state": Payload(touched)}, path, _use_new_zipfile_serialization=zipped)
    sign(path)
    with pytest.raises(CheckpointError, match=r"step-000000001\.pt: .*refused"):
        checkpoint.load(path)
    assert not touched.exists()
    pickle.loads(pickle.dumps(Payload(touched)))  # the payload is a live one
    assert touched.exists()


def test_what_is_no_training_state_is_refused(tmp_path):
    path = tmp_path / checkpoint_file(1)
    torch.save([1, 2], path)
    sign(path)
    with pytest.raises(CheckpointError, match="holds a list"):
        checkpoint.load(path)


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail))
@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_rubbish_with_a_right_checksum_is_refused(tmp_path, data):
    path = tmp_path / checkpoint_file(1)
    path.write_bytes(data)
    sign(path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("torch.save", 3),
        ("torch.save", 4),
        ("os.fsync", 3),
        ("os.fsync", 4),
        ("pathlib.Path.replace", 3),
        ("pathlib.Path.replace", 4),
    ],
)
def test_an_interrupted_write_leaves_the_previous_ones_intact(folder, monkeypatch, call, step):
    def fail(*_, **__):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(call, fail)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save(state(40 + step), folder, step)
    assert checkpoint.steps(folder) == [1, 2, 3]
    loaded, passed_over = checkpoint.load_latest(folder)
    assert (loaded["step"], passed_over) == (3, [])
    assert not list(folder.glob("*.tmp"))


class Crash(BaseException):
    """The process is gone: nothing after it runs."""


@pytest.mark.parametrize("step", [3, 4])
def test_a_crash_at_any_call_leaves_a_whole_newest_checkpoint(tmp_path, monkeypatch, step):
    """Before each rename and each fsync of a write in turn, as if by `kill -9`."""
    done = 0
    while True:
        folder = tmp_path / f"{done}"
        for old in (1, 2, 3):
            checkpoint.save(state(old), folder, old)
        left = done
        with monkeypatch.context() as patched:
            for owner, name in ((Path, "replace"), (os, "fsync")):
                real = getattr(owner, name)

                def crash(*arguments, real=real):
                    nonlocal left
                    if not left:
                        raise Crash
                    left -= 1
                    return real(*arguments)

                patched.setattr(owner, name, crash)
            patched.setattr(Path, "unlink", lambda *_, **__: None)  # no clean-up either
            try:
                checkpoint.save(state(40 + step), folder, step)
                break
            except Crash:
                done += 1
        loaded, passed_over = checkpoint.load_latest(folder)
        assert loaded["step"] in (3, 40 + step)
        assert passed_over == []
        checkpoint.save(state(50 + step), folder, step)  # and the next attempt succeeds
        assert checkpoint.load_latest(folder)[0]["step"] == 50 + step
    # two files, or three if one is overwritten: each synced, renamed, and its folder synced
    assert done == (9 if step == 3 else 6)


def test_what_was_saved_is_on_the_disk_before_save_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = checkpoint.save(state(1), tmp_path, 1)
    asides = [f"{path.name}.sha256", path.name]
    written = [re.sub(r"\.[0-9a-f]{32}\.tmp$", "", each.name) for each in synced]
    assert written == [asides[0], tmp_path.name, asides[1], tmp_path.name]
    assert synced[-1] == tmp_path.resolve()


def test_steps_of_ten_digits_are_found_and_sorted_by_number(tmp_path):
    for step in (999_999_999, 1_000_000_000, 2_000_000_000):
        checkpoint.save(state(step), tmp_path, step)
    assert checkpoint.steps(tmp_path) == [999_999_999, 1_000_000_000, 2_000_000_000]
    assert checkpoint.load_latest(tmp_path)[0]["step"] == 2_000_000_000
    checkpoint.keep_only(tmp_path, {1_000_000_000})
    assert checkpoint.steps(tmp_path) == [1_000_000_000]


def test_after_an_interrupted_write_the_next_succeeds(folder):
    half = folder / f"{checkpoint_file(4)}.{'0' * 32}.tmp"
    half.write_bytes(b"half of it")
    os.utime(half, (1, 1))  # its process was killed long ago
    checkpoint.save(state(4), folder, 4)
    assert checkpoint.load_latest(folder)[0]["step"] == 4
    assert not list(folder.glob("*.tmp"))


def test_what_an_attempt_that_was_cut_off_has_left_is_removed_with_the_next(tmp_path):
    left = tmp_path / f"step-000000001.pt.{'0' * 32}.tmp"
    left.write_bytes(b"half of it")
    checkpoint.save(state(1), tmp_path, 1)
    assert checkpoint.steps(tmp_path) == [1]
    assert not left.exists()
