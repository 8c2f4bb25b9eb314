"""The record of a running trial: small to save, and whole whenever it is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raygan import records
from raygan.errors import RayganError
from raygan.gan.config import TrainConfig
from raygan.records import CHUNK, LOSS, STEP, TrialRecord, load_all
from raygan.storage import Storage
from tests.object_store import ObjectStore, far
from tests.test_stored import changed

ID = "bn-000"
FOLDER = f"trials/{ID}"
RECORD, BACKUP = f"{FOLDER}/record.json", f"{FOLDER}/record.json.bak"
EVALUATIONS = 2 * CHUNK + 7


class Noted(Storage):
    """Storage that notes what is written."""

    written: list[tuple[str, bytes]]

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        super().write(name, data, durable=durable)
        self.written.append((name, data))


@pytest.fixture
def storage(tmp_path: Path) -> Noted:
    found = Noted(str(tmp_path / "noted"))
    found.written = []
    return found


def made() -> TrialRecord:
    config = TrainConfig(norm="bn", seed=0).to_dict()
    return TrialRecord(ID, "bn", 0, "bn lr=1e-4", {"lr": 1e-4}, config)


def point(number: int) -> dict[str, float]:
    return {STEP: 10.0 * number, LOSS: 1.0 / number, "perf/images_per_second": 9.0}


def run(storage: Storage, evaluations: int = EVALUATIONS) -> Iterator[TrialRecord]:
    """A trial that is saved at each evaluation; yields its record after each save."""
    record = made()
    record.in_chunks = record.snapshot().save_running(storage)
    yield record
    for number in range(1, evaluations + 1):
        record.merge([point(number)])
        record.in_chunks = record.snapshot().save_running(storage)
        yield record
    record.outcome = "ok"
    record.save(storage)
    yield record


def test_what_is_saved_while_it_runs_is_read_whole(storage: Noted) -> None:
    for saved in run(storage):
        known = load_all(storage)[ID]
        assert (known.history, known.outcome) == (saved.history, saved.outcome)


class WrittenMeanwhile(list[dict[str, float]]):
    """A history that is being copied while another thread has written its first chunk."""

    record: TrialRecord

    def __getitem__(self, key):  # type: ignore[no-untyped-def, override]
        found = super().__getitem__(key)
        self.record.in_chunks = CHUNK
        return found


def test_a_snapshot_is_whole_while_an_earlier_one_is_written(storage: Noted) -> None:
    record = made()
    record.history = history = WrittenMeanwhile(map(point, range(1, CHUNK + 3)))
    history.record = record
    snapshot = record.snapshot()
    assert record.in_chunks == CHUNK
    snapshot.save_running(storage)
    assert load_all(storage)[ID].history == history


def test_a_save_does_not_grow_with_the_run(storage: Noted) -> None:
    costs = []
    for _ in run(storage, 6 * CHUNK):
        costs.append([(len(data), name) for name, data in storage.written])
        storage.written.clear()
    early, late = (sum(s for cost in part for s, _ in cost) for part in (
        costs[CHUNK : 2 * CHUNK], costs[5 * CHUNK : 6 * CHUNK]))  # fmt: skip
    assert late < 1.1 * early
    assert {len(cost) for cost in costs} == {1, 2, 3}
    assert [len(cost) for cost in costs].count(1) == len(costs) - 6 - 2  # chunks; begin and end


def test_a_save_to_object_storage_is_one_request(store: ObjectStore) -> None:
    storage = Storage("s3://bucket/sweep")
    counts = []
    for _ in run(storage, CHUNK + 2):
        counts.append(len(store.requests))
        assert {request.split()[0] for request in store.requests[-1:]} == {"PUT"}
        store.requests.clear()
    usual = counts[1:CHUNK] + counts[CHUNK + 1 : -1]
    assert set(usual) == {1}
    assert (counts[CHUNK], counts[-1]) == (3, 2)
    assert load_all(storage)[ID].step == 10 * (CHUNK + 2)


@pytest.fixture
def writes(storage: Noted) -> list[tuple[int, str, bytes]]:
    """The writes of a trial, each with the number of evaluations that were saved before it."""
    found: list[tuple[int, str, bytes]] = []
    before = 0
    for record in run(storage):
        found += [(before, name, data) for name, data in storage.written]
        storage.written.clear()
        before = len(record.history)
    return found


def test_a_crash_between_any_two_writes_loses_nothing_that_was_saved(
    writes: list[tuple[int, str, bytes]], tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    whole = [point(number) for number in range(1, EVALUATIONS + 1)]
    for saved, name, data in writes:
        storage.write(name, data)
        history = load_all(storage)[ID].history
        assert len(history) >= saved
        assert history == whole[: len(history)]


def test_the_backup_is_used_at_any_moment_and_lacks_less_than_a_chunk(
    writes: list[tuple[int, str, bytes]], tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    whole = [point(number) for number in range(1, EVALUATIONS + 1)]
    backups = 0
    for saved, name, data in writes:
        storage.write(name, data)
        if storage.read(BACKUP) is None:
            continue
        record = storage.read(RECORD)
        assert record is not None
        storage.write(RECORD, record[: len(record) // 2])
        history = load_all(storage)[ID].history
        assert history == whole[: len(history)]
        assert len(history) > saved - CHUNK - 1
        backups += 1
        storage.write(RECORD, record)
    assert backups > EVALUATIONS


def test_a_reader_that_is_overtaken_by_the_trial_misses_nothing(
    writes: list[tuple[int, str, bytes]], tmp_path: Path
) -> None:
    storage = Storage(str(tmp_path))
    for _, name, data in writes:
        storage.write(name, data)
    for saved, name, data in writes:
        if name == RECORD:  # read then, and its earlier evaluations now
            assert len(records._parse(storage / FOLDER, data).history) >= saved


def test_each_file_of_earlier_evaluations_is_written_once(
    writes: list[tuple[int, str, bytes]],
) -> None:
    names = [name for _, name, _ in writes if name not in (RECORD, BACKUP)]
    assert names == [f"{FOLDER}/history-{first:06d}.json" for first in (0, CHUNK)]


def test_a_snapshot_stays_as_it_is(storage: Noted) -> None:
    record = made()
    record.merge([point(1)])
    record.notes.append("a")
    snapshot = record.snapshot()
    record.merge([point(2)])
    record.notes.append("b")
    record.seconds, record.outcome = 9.0, "failed"
    snapshot.save_running(storage)
    known = load_all(storage)[ID]
    assert (known.history, known.notes, known.seconds, known.outcome) == ([point(1)], ["a"], 0.0, None)  # fmt: skip


def test_a_resumed_trial_goes_on_in_the_files_that_it_has(storage: Noted) -> None:
    for record in run(storage):
        if len(record.history) == EVALUATIONS - 1:
            break
    storage.written.clear()
    resumed = load_all(storage)[ID]
    resumed.merge([point(number) for number in range(EVALUATIONS, 3 * CHUNK + 2)])
    resumed.snapshot().save_running(storage)
    assert [name for name, _ in storage.written] == [
        f"{FOLDER}/history-{2 * CHUNK:06d}.json", RECORD, BACKUP
    ]  # fmt: skip
    assert len(load_all(storage)[ID].history) == 3 * CHUNK + 1


def test_a_trial_that_failed_and_is_run_again_is_split_anew(storage: Noted) -> None:
    *_, ended = run(storage)
    known = load_all(storage)[ID]
    assert (known, known.in_chunks) == (TrialRecord(**{**vars(ended), "in_chunks": 0}), 0)
    known.outcome = None
    known.merge([point(EVALUATIONS + 1)])
    known.snapshot().save_running(storage)
    again = load_all(storage)[ID]
    assert (again.in_chunks, again.history) == (2 * CHUNK, known.history)


@pytest.mark.parametrize("damage", [None, b"", b"[", b"[]", b"[1]", b'[{"step": 1e999}]'])
def test_a_damaged_file_of_earlier_evaluations_is_named(
    storage: Noted, damage: bytes | None
) -> None:
    for record in run(storage):
        if len(record.history) == CHUNK + 1:
            break
    name = f"{FOLDER}/history-000000.json"
    storage.delete(name)
    if damage is not None:
        storage.write(name, damage)
    with pytest.raises(RayganError, match=r"record.json: damaged \(history-000000.json"):
        load_all(storage)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_whatever_stands_in_one_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("stored")))
    record = made()
    record.merge([point(number) for number in range(1, CHUNK + 2)])
    record.snapshot().save_running(storage)
    name = f"{FOLDER}/history-000000.json"
    whole = storage.read(name)
    assert whole is not None
    storage.write(name, data.draw(changed(whole)))
    try:
        known = load_all(storage)[ID]
    except RayganError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
    else:
        assert len(known.history) == CHUNK + 1


def test_no_more_is_read_than_a_record_may_hold(
    storage: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for record in run(storage):
        if len(record.history) == 2 * CHUNK + 1:
            break
    size = len(storage.read(RECORD) or b"") + len(storage.read(f"{FOLDER}/history-000000.json") or b"")  # fmt: skip
    monkeypatch.setattr("raygan.stored.MOST_BYTES", size)
    with pytest.raises(RayganError, match=r"MiB in history-000050.json and before"):
        load_all(storage)


@pytest.mark.parametrize("local", [True, False])
def test_a_trial_whose_record_was_never_written_is_left_out(tmp_path: Path, local: bool) -> None:
    storage = Storage(str(tmp_path)) if local else far(tmp_path)
    storage.write(f"{FOLDER}/images/samples-000000010.png", b"")
    storage.write(f"{FOLDER}/history-000000.json", b"[]")
    assert load_all(storage) == {}
    storage.write(f"{FOLDER}/checkpoint_000000010_0a/step-000000010.pt", b"")
    with pytest.raises(RayganError, match=r"record.json is missing: restore it, or delete"):
        load_all(storage)


def test_records_are_read_in_the_order_of_their_names(storage: Noted) -> None:
    for number in reversed(range(30)):
        record = made()
        record.id = f"bn-{number:03}"
        record.save(storage)
    assert list(load_all(storage)) == [f"bn-{number:03}" for number in range(30)]
    storage.write("trials/bn-007/record.json", b"")
    storage.write("trials/bn-007/record.json.bak", b"")
    with pytest.raises(RayganError, match=r"bn-007/record.json: damaged"):
        load_all(storage)
    assert json.loads(storage.read("trials/bn-008/record.json") or b"")["id"] == "bn-008"
