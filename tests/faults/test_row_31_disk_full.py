"""Row 31: the storage's disk fills up while a sweep runs, and has room again later."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import LONGER, wait_until

TRIALS = ("vanilla-000", "bn-000")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(1000):
            file.write(bytes(2**16))


@pytest.mark.soak
def test_trials_wait_and_end_well(reference, sweep, disk, tmp_path):
    made = sweep(
        "disk-full",
        grid={"norm": ["vanilla", "bn"]},
        train=LONGER,
        scale={"max_concurrent": 1},
        storage=str(disk / "storage"),
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"},
    )
    made.storage = disk / "storage"
    filler = disk / "filler"
    with made.running() as process:
        wait_until(lambda: made.curve(TRIALS[0]), "first evaluation", process)
        _fill(filler)
        told = "make the storage available again"
        wait_until(lambda: told in " ".join(made.log.read_text().split()), "it is told", process)
        filler.unlink()
        wait_until(lambda: "can be written again" in made.log.read_text(), "its end", process)
        assert process.wait(360) == 0, made.log.read_text()
    for trial in TRIALS:
        assert made.record(trial)["outcome"] == "ok", made.log.read_text()
        assert made.curve(trial) == reference.curve(trial)
    assert not list(made.storage.rglob("*.tmp"))
