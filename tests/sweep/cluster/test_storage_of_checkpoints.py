"""Rows 10, 11 and 34 for a worker: for a while, its checkpoints and pictures cannot be written."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train

from raygan import retries
from raygan.checkpoints import Shelf, checkpoint_folders, find_checkpoints
from raygan.folder import IMAGES
from raygan.gan.config import TrainConfig
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.worker import train_worker
from tests.clusters import wait_until
from tests.object_store import ObjectStore
from tests.sweep.cluster.test_worker import job

LOSS = "val/reconstruction_loss"
Fault = Callable[[Job], AbstractContextManager[str]]


@contextmanager
def full(given: Job) -> Iterator[str]:
    """No file can be longer than 1 KiB: what is longer is cut off, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield given.folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def away(given: Job) -> Iterator[str]:
    """The trial's folder is gone, and nothing can be made in its place.

    The folder is a link, which a file replaces: in between, no thread can make a new folder.
    """
    folder = Path(given.folder)
    home = folder.readlink()
    file, link = folder.with_name("file"), folder.with_name("link")
    file.write_text("")
    file.replace(folder)
    try:
        yield str(home)
    finally:
        link.symlink_to(home)
        link.replace(folder)


def trained(monkeypatch: pytest.MonkeyPatch, given: Job, fault: Fault | None) -> list[float]:
    """The losses that a worker reports; between the first and the third evaluation, there is
    ``fault``, which says where the trial's folder is meanwhile."""
    losses: list[float] = []
    home = Storage(given.folder)
    until = ExitStack()

    def report(metrics: dict[str, Any], **_: object) -> None:
        losses.extend([metrics[LOSS]] if LOSS in metrics else [])
        if fault is None:
            return
        if metrics["step"] == 2:
            wait_until(lambda: find_checkpoints(home), "a checkpoint is there")
            place.append(until.enter_context(fault(given)))
        elif metrics["step"] == 6:  # two evaluations later: the training has gone on
            if place[0]:
                found, passed_over = Shelf(Storage(place[0])).newest()
                assert found is not None
                assert (found["step"] <= 3, passed_over) == (True, [])
            until.close()

    place: list[str] = []
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(retries, "SHORTEST_PATIENCE", 0.01)
    monkeypatch.setattr(retries, "LONGEST_PATIENCE", 0.01)
    train_worker(given.to_plain())  # it raises nothing: no restart is used up
    return losses


def longer(tmp_path: Path, folder: str) -> Job:
    config = TrainConfig(
        features=4, code_size=4, batch_size=8, iterations=8, evaluate_every=2,
        reconstruction_steps=1,
    )  # fmt: skip
    return job(tmp_path, config=config.to_dict(), folder=folder, checkpoint_every=1)


@pytest.mark.parametrize("fault", [full, away])
def test_training_continues_and_all_is_written_later(tmp_path, monkeypatch, capfd, fault):
    expected = trained(monkeypatch, longer(tmp_path, str(tmp_path / "whole")), None)
    (tmp_path / "home").mkdir()
    (tmp_path / "trial").symlink_to(tmp_path / "home")
    given = longer(tmp_path, str(tmp_path / "trial"))
    assert trained(monkeypatch, given, fault) == expected
    home = Storage(given.folder)
    newest, passed_over = Shelf(home).newest()
    assert newest is not None
    assert (newest["step"], passed_over) == (8, [])
    assert len(home.files(IMAGES)) == 8
    assert not list(Path(given.folder).rglob("*.tmp"))
    assert {len(files) for files in checkpoint_folders(home).values()} == {2}
    said = capfd.readouterr().out
    assert f"{given.folder}/checkpoint_" in said
    assert "cannot be written" in said


@pytest.mark.cluster  # starts a server, and pyarrow's client takes its time
def test_object_storage_that_answers_503_is_waited_for(tmp_path, monkeypatch, store: ObjectStore):
    @contextmanager
    def refusing(_: Job) -> Iterator[str]:
        store.failures = 10**9
        yield ""
        store.failures = 0

    expected = trained(monkeypatch, longer(tmp_path, str(tmp_path / "whole")), None)
    given = longer(tmp_path, "s3://bucket/trial")
    assert trained(monkeypatch, given, refusing) == expected
    newest, passed_over = Shelf(Storage(given.folder)).newest()
    assert newest is not None
    assert (newest["step"], passed_over) == (8, [])
    assert len([key for key in store.objects if IMAGES in key]) == 8
