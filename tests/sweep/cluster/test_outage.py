"""Storage that is full or away: nothing starts, what is known waits, and the user is told."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ray.tune.search import Searcher

from raygan.checkpoints import Shelf
from raygan.folder import IMAGES
from raygan.pictures import Album
from raygan.records import load_all
from raygan.retries import GIVEN_UP, patiently
from raygan.storage import Storage
from raygan.sweep.cluster import tune
from raygan.sweep.cluster.outage import Outage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study

SWEEP = """
name: a
grid: {norm: [bn, wn]}
train: {iterations: 20, evaluate_every: 10}
"""


class Fragile(Storage):
    """Storage that can be full."""

    full = False

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(name, data, durable=durable)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(spec.validate(parse(SWEEP, "x")), Fragile(str(tmp_path)))


def test_the_begin_and_the_end_are_told_once(study: Study) -> None:
    said: list[str] = []
    outage = Outage(study, said.append)
    outage.look()
    assert said == []
    study.storage.full = True  # type: ignore[attr-defined]
    outage.look()
    outage.look()
    (begin,) = said
    assert "cannot be written" in begin
    assert "No space left on device" in begin
    study.storage.full = False  # type: ignore[attr-defined]
    outage.look()
    outage.look()
    assert said[1:] == ["The storage can be written again; the sweep continues."]


class FullOutput(io.StringIO):
    """As a log on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_what_cannot_be_said_is_said_at_the_next_look(study: Study) -> None:
    said: list[str] = []
    full = [FullOutput(), FullOutput()]

    def say(line: str) -> None:
        if full:
            full.pop().write(line)
        said.append(line)

    outage = Outage(study, say)
    study.storage.full = True  # type: ignore[attr-defined]
    for _ in range(4):
        outage.look()
        assert study.storage_error is not None
    assert len(said) == 1
    assert "running trials train on, without new checkpoints, but cannot end" in said[0]
    full.append(FullOutput())
    study.storage.full = False  # type: ignore[attr-defined]
    for _ in range(3):
        outage.look()
        assert study.storage_error is None
    assert len(said) == 2


def test_a_log_on_the_same_disk_keeps_nobody_from_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("away")] * 3

    def work_that_fails() -> None:
        raise OSError("away")

    def work() -> str:
        if failures:
            raise failures.pop()
        return "done"

    monkeypatch.setattr(sys, "stdout", FullOutput())
    assert patiently(work, "x", sleep=lambda _: None) == "done"
    album = Album(Storage(str(tmp_path)), most=1)
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    for step in (1, 2, 3):  # each waits for the one before
        evaluation = SimpleNamespace(step=step, samples=images, reconstructions=images)
        album.put(evaluation)  # type: ignore[arg-type]
    album.wait()
    assert len(Storage(str(tmp_path)).files(IMAGES)) == 6
    shelf = Shelf(Storage(str(tmp_path)))
    monkeypatch.setattr(Storage, "folders", lambda *_: work_that_fails())
    assert shelf.save({"step": 1}) > 0


def test_a_disk_with_less_room_than_a_checkpoint_is_full(study: Study) -> None:
    said: list[str] = []
    study.checkpoint_bytes = 10**15
    Outage(study, said.append).look()
    assert "a checkpoint takes more" in said[0]


def test_nothing_starts_meanwhile_and_what_is_known_is_saved_later(study: Study) -> None:
    planned = study.next_trial()
    assert planned is not None
    study.storage.full = True  # type: ignore[attr-defined]
    study.heard(planned.id, {"step": 10, "val/reconstruction_loss": 0.5, "checkpoint_bytes": 7})
    assert study.storage_error is not None
    assert study.checkpoint_bytes == 7
    assert study.next_trial() is None
    assert study.waiting, "the sweep would end without its other trials"
    study.heard(planned.id, {"step": 20, "val/reconstruction_loss": 0.4})
    study.storage.full = False  # type: ignore[attr-defined]
    study.tick()
    assert load_all(study.storage)[planned.id].history == []
    Outage(study, lambda _: None).look()
    assert study.flush()
    assert len(load_all(study.storage)[planned.id].history) == 2
    assert study.next_trial() is not None


def test_an_outage_that_ends_while_a_trial_is_asked_for_does_not_end_the_sweep(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_trial = study.next_trial

    def and_then_the_storage_is_back() -> object:
        planned = next_trial()
        study.storage_error = None  # by another thread
        return planned

    monkeypatch.setattr(study, "next_trial", and_then_the_storage_is_back)
    study.storage_error = "away"
    search = tune._Search(study, lambda _: SimpleNamespace(to_plain=dict))  # type: ignore[arg-type,return-value]
    assert search.suggest("1") is None
    assert [search.suggest("2"), search.suggest("3")] == [{}, {}]
    for trial in study.records:
        study.ended(trial, "no luck")
    assert study.flush()
    assert search.suggest("4") == Searcher.FINISHED


def test_no_trial_starts_once_a_record_could_not_be_written(study: Study) -> None:
    study.storage.full = True  # type: ignore[attr-defined]
    first = study.next_trial()
    assert first is not None  # its record was the first that could not be written
    assert study.next_trial() is None
    study.storage.full = False  # type: ignore[attr-defined]
    Outage(study, lambda _: None).look()
    assert study.flush()
    assert load_all(study.storage).keys() == {"bn-000"}
    planned = [study.next_trial(), study.next_trial()]
    assert [trial and trial.id for trial in planned] == ["wn-000", None]


def test_the_last_trial_is_not_forgotten_when_it_ends_meanwhile(study: Study) -> None:
    trials = [study.next_trial(), study.next_trial()]
    study.storage.full = True  # type: ignore[attr-defined]
    for planned in trials:
        assert planned is not None
        study.heard(planned.id, {"step": 20, "val/reconstruction_loss": 0.4})
        study.ended(planned.id)
    assert study.complete
    assert study.waiting, "the sweep would end without having written what it knows"
    study.storage.full = False  # type: ignore[attr-defined]
    Outage(study, lambda _: None).look()
    assert study.flush()
    assert not study.waiting
    assert {record.outcome for record in load_all(study.storage).values()} == {"ok"}


def test_work_on_the_storage_is_tried_again_until_it_succeeds() -> None:
    failures, waits = [OSError("away")] * 7, []

    def work_that_fails() -> None:
        raise OSError("away")

    def work() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert patiently(work, "x", sleep=waits.append) == "done"
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_work_on_the_storage_is_given_up_after_a_day() -> None:
    waits: list[float] = []

    def work() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        patiently(work, "x", sleep=waits.append)
    assert sum(waits) >= GIVEN_UP
    assert sum(waits[:-1]) < GIVEN_UP


def test_failures_do_not_count_while_the_storage_is_away() -> None:
    from raygan.sweep.cluster.trial import _until_it_fails

    calls, away = [], [True] * 9 + [False] * 4

    def fit() -> None:
        calls.append(1)
        raise RuntimeError("x")

    assert _until_it_fails(fit, lambda: 0, RuntimeError, lambda: away.pop(0), print) is not None
    assert len(calls) == 13


def test_an_error_of_any_kind_is_no_failure_while_the_storage_is_away() -> None:
    from raygan.sweep.cluster.trial import _until_it_fails

    raised: list[Exception] = [KeyError("a"), OSError("storage"), RuntimeError("the actor died")]

    def fit() -> None:
        if raised:
            raise raised.pop()

    assert _until_it_fails(fit, lambda: 0, LookupError, lambda: True, print) is None
    assert not raised
