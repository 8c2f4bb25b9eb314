"""Checkpoints: one file each, beside it its SHA-256 as ``sha256sum`` writes it.

A checkpoint is whole if and only if its checksum stands beside it and is right. It is written
under another name and renamed, so that a crash at any moment leaves the ones before it intact,
one of the same step included: until the new one is in place the checksum file holds two lines,
and either makes a file whole. What :func:`save` has returned from survives a power cut. A
checkpoint is read with ``weights_only=True``, so that nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from raygan import local_files
from raygan.errors import CheckpointError
from raygan.folder import checkpoint_file, checksum_file, step_of_checkpoint


def save(state: dict[str, Any], folder: Path, step: int) -> Path:
    """Write ``state`` (tensors and plain values) as ``step``'s checkpoint; return its path.

    Raises OSError if it cannot be written; the checkpoints before it stay as they were.
    """
    return write(*content_of(state, step), folder, step)


def content_of(state: dict[str, Any], step: int) -> tuple[bytes, bytes]:
    """The bytes of ``step``'s checkpoint and of the checksum file beside it."""
    # straight to a disk that is full, PyTorch raises a RuntimeError like that of a broken state
    stream = io.BytesIO()
    torch.save(state, stream)
    content = stream.getvalue()  # no copy
    return content, f"{hashlib.sha256(content).hexdigest()}  {checkpoint_file(step)}\n".encode()


def write(content: bytes, line: bytes, folder: Path, step: int) -> Path:
    """Write what :func:`content_of` has made; see :func:`save`."""
    path = folder / checkpoint_file(step)
    checksum = _checksum_path(path)
    overwrites = path.exists() and checksum.exists()
    with local_files.writing(path) as file:
        file.write(content)
        # before the file takes the place of one of the same step, which stays whole until then
        old = checksum.read_bytes() if overwrites else b""
        local_files.write(checksum, line + old, durable=True)
    if overwrites:
        local_files.write(checksum, line, durable=True)
    local_files.remove_leftovers(folder, of_one_writer=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read the checkpoint at ``path`` onto the CPU.

    Raises :class:`~raygan.errors.CheckpointError` if it is not whole or carries anything but
    tensors and plain values.
    """
    try:
        lines = _checksum_path(path).read_text().splitlines()
        expected = [line.split()[0] for line in lines if line.strip()]
        actual = _sha256(path)
        if not expected:
            raise OSError("its checksum file is empty")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a complete checkpoint ({error})") from error
    if actual not in expected:
        raise CheckpointError(
            f"{path}: its SHA-256 is {actual[:12]}… but {expected[0][:12]}… was written: "
            "the file is damaged"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever rubbish leads it to
        raise CheckpointError(
            f"{path}: not a checkpoint of tensors and plain values; refused ({error})"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a training state")
    return state


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(s for p in folder.iterdir() if (s := step_of_checkpoint(p.name)) is not None)


def load_latest(folder: Path) -> tuple[dict[str, Any], list[str]] | None:
    """The newest whole checkpoint in ``folder``, and why newer ones were passed over."""
    passed_over: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return load(folder / checkpoint_file(step)), passed_over
        except CheckpointError as error:
            passed_over.append(str(error))
    if passed_over:
        raise CheckpointError("no checkpoint is complete: " + "; ".join(passed_over))
    return None


def keep_only(folder: Path, kept: set[int]) -> None:
    """Delete all checkpoints of ``folder`` but those of the steps ``kept``."""
    for step in set(steps(folder)) - kept:
        path = folder / checkpoint_file(step)
        path.unlink()
        _checksum_path(path).unlink(missing_ok=True)


def _checksum_path(path: Path) -> Path:
    return path.with_name(checksum_file(path.name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
