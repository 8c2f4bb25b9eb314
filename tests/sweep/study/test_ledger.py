"""What a sweep knows is written on other threads than the loop's: the latest of it, and nothing is
lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage

from raygan import local_files
from raygan.errors import RayganError
from raygan.records import LOSS, load_all
from raygan.storage import Storage
from raygan.sweep.session import conclude
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import ledger as behind
from raygan.sweep.study.ledger import Ledger
from raygan.sweep.study.search import Journal
from raygan.sweep.study.study import TICK_SECONDS, Study

SWEEP = """
name: a
grid: {norm: [bn, wn]}
search: {lr: [1e-3, 1e-4]}
train: {iterations: 40, evaluate_every: 10}
"""
PATIENCE = 30.0
"""Seconds after which a test that waits for another thread is given up."""


class Fragile(Storage):
    """Storage that can be full, and that writes on a given number of threads."""

    full = False
    threads = 2  # type: ignore[assignment]

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().write(name, data, durable=durable)


@pytest.fixture
def storage(tmp_path: Path) -> Fragile:
    return Fragile(str(tmp_path / "a"))


@pytest.fixture
def ledger(storage: Fragile) -> Ledger:
    return Ledger(storage)


def open_study(storage: Storage, ledger: Ledger | None = None) -> Study:
    sweep = spec.validate(parse(SWEEP, "sweep.yaml"))
    return Study(sweep, storage, ledger=ledger or Ledger(storage))


def report(step: int) -> dict[str, Any]:
    return {"step": step, LOSS: 1 / step, "perf/images_per_second": 1.0}


class Held:
    """Something to write that waits until it is let go, and notes what was written."""

    def __init__(self) -> None:
        self.begun, self.gate, self.noted = threading.Event(), threading.Event(), list[Any]()

    def __call__(self, what: Any) -> Callable[[], None]:
        def write() -> None:
            self.begun.set()
            assert self.gate.wait(PATIENCE)
            self.noted.append(what)

        return write


@pytest.fixture
def held() -> Held:
    return Held()


def test_nothing_is_read_or_written_by_the_loop(
    storage: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(storage)
    journal = JournalStorage(Journal(storage.local / "optuna.log", ledger))
    now = [0.0]
    sweep = spec.validate(parse(SWEEP, "x"))
    study = Study(sweep, storage, journal, ledger=ledger, now=lambda: now[0])
    used: list[str] = []

    def elsewhere(of: Any, name: str) -> None:
        before = getattr(of, name)

        def call(*arguments: Any, **options: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread(), name
            used.append(name)
            return before(*arguments, **options)

        monkeypatch.setattr(of, name, call)

    with monkeypatch.context():
        for name in ("read", "write", "_names", "delete", "rename"):
            elsewhere(Storage, name)
        elsewhere(local_files, "writing")
        elsewhere(Path, "open")
        trials = [planned.id for planned in iter(study.next_trial, None)]
        assert len(trials) == 4
        for trial in trials:
            study.started(trial)
            study.heard(trial, {"step": 0})
            for step in (10, 20, 30, 40):
                study.heard(trial, report(step))
                now[0] += TICK_SECONDS
                study.tick()
            study.ended(trial)
            assert study.waiting in (True, False)
        assert study.flush(PATIENCE)
        monkeypatch.undo()
    assert {"write", "_names", "open"} <= set(used)
    assert {r.outcome for r in load_all(storage).values()} == {"ok"}
    assert storage.read("clock.json") is not None
    assert (storage.read("optuna.log") or b"").count(b"\n") > 8


def test_only_the_latest_state_is_written(ledger: Ledger, held: Held) -> None:
    ledger.write("a", held(1))
    assert held.begun.wait(PATIENCE)
    held.begun.clear()
    for state in (2, 3, 4):
        ledger.write("a", held(state))
    other = threading.Event()
    ledger.write("b", other.set)
    assert other.wait(PATIENCE)  # by the other thread, which has passed by the next state of "a"
    assert not held.begun.is_set()
    assert ledger.left >= 2
    held.gate.set()
    assert ledger.flush(PATIENCE)
    assert held.noted == [1, 4]
    assert ledger.left == 0


def test_new_and_ended_trials_come_first(storage: Fragile, held: Held) -> None:
    storage.threads = 1
    ledger = Ledger(storage)
    study = open_study(storage, ledger)
    first, second, third = (study.next_trial() for _ in range(3))
    assert first is not None and second is not None and third is not None  # noqa: PT018
    assert ledger.flush(PATIENCE)
    order: list[str] = []
    before = storage.write

    def write(name: str, data: bytes, *, durable: bool = False) -> None:
        if name.endswith("record.json"):
            order.append(name.split("/")[1])
        before(name, data, durable=durable)

    storage.write = write  # type: ignore[method-assign]
    ledger.write("x", held(0))
    assert held.begun.wait(PATIENCE)
    study.heard(first.id, report(10))
    study.heard(second.id, report(10))
    fourth = study.next_trial()
    assert fourth is not None
    study.ended(third.id, error="no luck")
    study.heard(fourth.id, report(10))  # it is still new to the storage
    held.gate.set()
    assert ledger.flush(PATIENCE)
    assert order == [fourth.id, third.id, first.id, second.id]


def test_many_things_at_once_are_written_by_many_threads(storage: Fragile) -> None:
    storage.threads = 8
    ledger = Ledger(storage)
    ledger.write("first", lambda: None)
    assert ledger.flush(PATIENCE)  # one thread may be idle now, and is called for all
    together = threading.Barrier(8, timeout=PATIENCE)
    for number in range(16):
        ledger.write(str(number), lambda: together.wait() and None)
    assert ledger.flush(PATIENCE)
    assert ledger._threads == 8


def test_threads_end_when_there_is_nothing_to_do(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "IDLE_SECONDS", 0.001)
    others = set(threading.enumerate())
    done: list[int] = []
    for number in range(3):
        ledger.write("a", lambda number=number: done.append(number))  # type: ignore[misc]
        assert ledger.flush(PATIENCE)
        for thread in set(threading.enumerate()) - others:
            thread.join(PATIENCE)
        assert ledger._threads == ledger._idle == 0
    assert done == [0, 1, 2]


def test_storage_that_is_away_and_back_gets_the_latest_of_everything(storage: Fragile) -> None:
    ledger = Ledger(storage)
    study = open_study(storage, ledger)
    first, second = study.next_trial(), study.next_trial()
    assert first is not None and second is not None  # noqa: PT018
    assert ledger.flush(PATIENCE)
    storage.full = True
    study.heard(first.id, report(10))
    assert not ledger.flush(PATIENCE)
    assert study.storage_error == "[Errno 28] No space left on device"
    assert study.next_trial() is None
    study.heard(first.id, report(20))
    study.ended(second.id, error="no luck")
    assert study.waiting
    storage.full = False
    ledger.write("x", lambda: None)  # as long as the storage is known to be away, nothing is tried
    assert load_all(storage)[first.id].step == 0
    study.storage_error = None  # as the thread that watches the storage does
    assert ledger.flush(PATIENCE)
    known = load_all(storage)
    assert (known[first.id].step, known[second.id].outcome) == (20, "failed")
    assert study.next_trial() is not None


def test_a_write_that_fails_takes_no_newer_state_away(
    storage: Fragile, ledger: Ledger, held: Held
) -> None:
    def fail() -> None:
        held(1)()
        raise OSError("503")

    ledger.write("a", fail)
    assert held.begun.wait(PATIENCE)
    ledger.write("a", held(2))
    held.gate.set()
    assert not ledger.flush(PATIENCE)
    assert ledger.error == "503"
    assert ledger.flush(PATIENCE)
    assert held.noted == [1, 2]


def test_flush_gives_up_on_storage_that_does_not_answer(
    storage: Fragile, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    study = open_study(storage)
    study.ledger.write("a", held(1))
    assert not study.flush(0.001)
    assert "1 files" in caplog.text
    assert "the storage is slow" in caplog.text
    held.gate.set()
    assert study.flush(PATIENCE)


def refuse() -> None:
    raise PermissionError(13, "Permission denied", "trials/bn-000/record.json")


def test_one_file_that_cannot_be_written_keeps_nothing_else_waiting(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[int] = []
    ledger.write("bn-000", refuse)
    assert not ledger.flush(PATIENCE)
    for failures in range(2, behind.GIVEN_UP + 1):
        ledger.write("wn-000", lambda number=failures: written.append(number))  # type: ignore[misc]
        ledger.error = None  # the storage can be written, as the thread that watches it has found
        for _ in range(3):  # more attempts between two looks count once
            assert not ledger.flush(PATIENCE)
        assert (ledger.error is None) == (failures >= behind.ALONE)
        assert bool(ledger.given_up) == (failures == behind.GIVEN_UP)
    assert written[-1] == behind.GIVEN_UP
    assert ledger.given_up.keys() == {"bn-000"}
    assert "trials/bn-000/record.json" in ledger.given_up["bn-000"]
    assert caplog.text.count("will be tried again") == behind.ALONE
    ledger.write("bn-000", lambda: None)
    assert ledger.flush(PATIENCE)
    assert not ledger.given_up


def test_a_sweep_ends_without_the_file_that_it_can_never_write_and_names_it(
    storage: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    study = open_study(storage)
    for planned in iter(study.next_trial, None):
        study.ended(planned.id, error="no luck")
    assert study.ledger.flush(PATIENCE)
    study.ledger.write("bn-000", refuse)
    assert not study.ledger.flush(PATIENCE)
    assert study.complete
    for _ in range(behind.GIVEN_UP - 1):
        assert study.waiting
        study.storage_error = None
        study.ledger.flush(PATIENCE)
    assert not study.waiting
    caplog.clear()
    study.close()
    assert "1 files in" in caplog.text
    assert "trials/bn-000/record.json" in caplog.text
    assert {record.outcome for record in load_all(storage).values()} == {"failed"}


def test_what_is_no_fault_of_the_storage_is_raised_in_the_loop(
    storage: Fragile, tmp_path: Path
) -> None:
    study = open_study(storage)
    planned = study.next_trial()
    assert planned is not None
    assert study.flush(PATIENCE)
    (tmp_path / "elsewhere").mkdir()
    trial = storage.local / "trials" / planned.id
    trial.rename(tmp_path / "moved")
    trial.symlink_to(tmp_path / "elsewhere")
    study.heard(planned.id, report(10))
    for act in (study.flush, study.close, lambda: study.waiting, lambda: study.heard(planned.id, report(20))):  # fmt: skip
        with pytest.raises(RayganError, match="is a symbolic link"):
            act()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_signal_finds_everything_saved(storage: Fragile) -> None:
    study = open_study(storage)
    planned = study.next_trial()
    assert planned is not None
    storage.full = True
    study.heard(planned.id, report(10))
    assert not study.flush(PATIENCE)
    storage.full = False
    known: list[int] = []

    def close(_: str) -> bool:
        known.append(load_all(storage)[planned.id].step)
        return True

    tracker: Any = SimpleNamespace(update=lambda *_, **__: None, close=close)
    assert conclude.close_interrupted(study, tracker)
    assert known == [10]


def test_the_checkpoints_of_a_trial_that_has_ended_are_looked_up(storage: Fragile) -> None:
    study = open_study(storage)
    planned = study.next_trial()
    assert planned is not None
    study.heard(planned.id, report(10))
    folder = "checkpoint_000000010_0a"
    storage.write(f"trials/{planned.id}/{folder}/step-000000010.pt", b"")
    kept = {"last": folder, "best": folder}
    study.ended(planned.id, error="no luck")
    assert study.flush(PATIENCE)
    assert study.records[planned.id].checkpoints == load_all(storage)[planned.id].checkpoints == kept  # fmt: skip
    # a version before, or a run that was killed just then, has not noted them
    study.records[planned.id].checkpoints = {}
    study.records[planned.id].save(storage)
    again = open_study(storage)
    assert again.flush(PATIENCE)
    assert again.records[planned.id].checkpoints == load_all(storage)[planned.id].checkpoints == kept  # fmt: skip


def test_a_trial_whose_record_was_lost_with_its_driver_is_planned_again(storage: Fragile) -> None:
    class Killed(Ledger):
        def write(self, *_: Any, **__: Any) -> None:
            pass

    lost = open_study(storage, Killed(storage)).next_trial()
    assert lost is not None
    storage.write(f"trials/{lost.id}/images/samples-000000010.png", b"")
    again = open_study(storage).next_trial()
    assert again is not None
    assert (again.id, again.config) == (lost.id, lost.config)


def test_the_journal_has_all_operations_and_forgets_what_was_read(
    storage: Fragile, ledger: Ledger
) -> None:
    path = storage.local / "optuna.log"
    storage.write("optuna.log", b"of an earlier run\n")
    journal = Journal(path, ledger)
    study = optuna.create_study(storage=JournalStorage(journal))
    for _ in range(3):
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
    assert ledger.flush(PATIENCE)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 1 + 3 * 3
    assert journal._logs == journal._unwritten == type(journal._logs)()
    reader = JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    (name,) = optuna.get_all_study_names(reader)
    assert [t.params for t in optuna.load_study(study_name=name, storage=reader).trials] == [
        t.params for t in study.trials
    ]


def test_a_journal_that_cannot_be_written_is_given_up_alone(
    storage: Fragile, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    storage.write("optuna.log/x", b"")  # a folder
    journal = Journal(storage.local / "optuna.log", ledger)
    study = optuna.create_study(storage=JournalStorage(journal))
    study.tell(study.ask(), 1.0)
    assert ledger.flush(PATIENCE)
    assert ledger.error is None
    assert caplog.text.count("optuna.log cannot be written any more") == 1
    assert len(study.trials) == 1
