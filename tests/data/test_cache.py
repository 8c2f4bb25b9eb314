"""The node's copies of prepared sets: one per set, within a size, whatever happens meanwhile."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raygan import retries, storage
from raygan.data import cache as module
from raygan.data.cache import localize, release
from raygan.errors import DataError
from tests.object_store import upload

SIZE = 1000
FORK = multiprocessing.get_context("fork")  # nothing runs in these processes that it would break


@pytest.fixture(autouse=True)
def _nothing_in_use():
    yield
    for folder in list(module._in_use):
        release(folder)


@pytest.fixture
def sets(tmp_path) -> list[str]:
    """Three prepared sets of 1,000 bytes each."""
    for index in range(3):
        folder = tmp_path / "remote" / f"set-{index}"
        (folder / "more").mkdir(parents=True)
        (folder / "manifest.json").write_bytes(bytes([index]) * 100)
        (folder / "more" / "0.arrow").write_bytes(bytes([index]) * 900)
    return [(tmp_path / "remote" / f"set-{index}").as_uri() for index in range(3)]


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    """The sets in the cache; nothing else may lie there but locks and markers."""
    others = [path for path in cache.iterdir() if path.name.startswith(".")]
    assert all(path.is_file() and path.stat().st_size == 0 for path in others)
    return sorted(path.name[:5] for path in cache.iterdir() if path not in others)


def bring(uri: str, cache: Path, cap_bytes: int = 10 * SIZE) -> Path:
    """Localize and no longer use."""
    folder = localize(uri, cache, cap_bytes)
    release(folder)
    return folder


def copies(monkeypatch) -> list[str]:
    """The files that are opened at their source from now on."""
    opened: list[str] = []
    plain = storage.open_file

    def watched(path: str):
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(storage, "open_file", watched)
    return opened


def test_all_files_are_copied_once(sets, cache, monkeypatch):
    opened = copies(monkeypatch)
    folder = localize(sets[1], cache, SIZE)
    assert folder.parent == cache
    assert (folder / "manifest.json").read_bytes() == bytes([1]) * 100
    assert (folder / "more" / "0.arrow").read_bytes() == bytes([1]) * 900
    assert localize(sets[1], cache, SIZE) == folder
    assert len(opened) == 2
    assert kept(cache) == ["set-1"]


def test_a_set_that_has_changed_is_copied_anew(sets, cache, tmp_path):
    old = bring(sets[0], cache)
    (tmp_path / "remote" / "set-0" / "manifest.json").write_bytes(b"new")
    new = bring(sets[0], cache)
    assert new != old
    assert (new / "manifest.json").read_bytes() == b"new"
    assert (old / "manifest.json").read_bytes() == bytes(100)


def test_sets_of_one_name_are_told_apart(tmp_path, cache):
    uris = []
    for place in ("a", "b"):
        folder = tmp_path / place / "set"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(place)
        os.utime(folder / "manifest.json", (1, 1))
        uris.append(folder.as_uri())
    assert [(bring(uri, cache) / "manifest.json").read_text() for uri in uris] == ["a", "b"]


def test_the_set_that_was_used_last_stays(sets, cache):
    for index in (0, 1, 0, 2):
        bring(sets[index], cache, 2 * SIZE)
    assert kept(cache) == ["set-0", "set-2"]


def test_a_clock_that_is_set_back_does_not_change_which_set_was_used_last(sets, cache):
    hour = 3600 * 10**9
    bring(sets[0], cache, 2 * SIZE)
    for marker in cache.glob(
        ".*.used"
    ):  # as if an hour ago by the clock of now, which was set back
        later = marker.stat().st_mtime_ns + hour
        os.utime(marker, ns=(later, later))
    bring(sets[1], cache, 2 * SIZE)
    bring(sets[2], cache, 2 * SIZE)
    assert kept(cache) == ["set-1", "set-2"]


def test_a_set_in_use_stays(sets, cache):
    localize(sets[0], cache, 2 * SIZE)
    for index in (1, 2):
        bring(sets[index], cache, 2 * SIZE)
    assert kept(cache) == ["set-0", "set-2"]


def test_a_set_in_use_by_another_process_stays_until_that_ends(sets, cache):
    ready, done = FORK.Event(), FORK.Event()

    def use() -> None:
        localize(sets[0], cache, SIZE)
        ready.set()
        done.wait(60)
        os._exit(0)  # as if killed

    process = FORK.Process(target=use)
    process.start()
    assert ready.wait(60)
    with pytest.raises(DataError, match=r"set-1: 1,000 bytes do not fit beside the 1,000 .*wait"):
        localize(sets[1], cache, SIZE)
    assert kept(cache) == ["set-0"]
    done.set()
    process.join(60)
    bring(sets[1], cache, SIZE)
    assert kept(cache) == ["set-1"]


def test_a_set_larger_than_the_cache_is_refused(sets, cache):
    bring(sets[0], cache)
    with pytest.raises(
        DataError, match=r"set-1: 1,000 bytes exceed .*\(999 in .*raise RAYGAN_CACHE_GB"
    ):
        localize(sets[1], cache, SIZE - 1)
    assert kept(cache) == ["set-0"]


def test_a_missing_set_is_named(tmp_path, cache):
    with pytest.raises(DataError, match="nowhere"):
        localize((tmp_path / "nowhere").as_uri(), cache, SIZE)


def test_many_at_once_copy_once(sets, cache, monkeypatch):
    opened = copies(monkeypatch)
    barrier = threading.Barrier(8)

    def work(index: int) -> Path:
        barrier.wait()
        return localize(sets[index % 2], cache, 10 * SIZE)

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(work, range(8)))
    assert len(set(folders)) == 2
    assert len(opened) == 4
    assert kept(cache) == ["set-0", "set-1"]


def test_processes_that_compete_for_room_see_whole_sets_only(sets, cache):
    """Six processes, three sets, room for two."""

    def work(first: int) -> None:
        for turn in range(30):
            index = (first + turn) % 3
            try:
                folder = localize(sets[index], cache, 2 * SIZE)
            except DataError as error:
                assert "do not fit beside" in str(error)
                release(next(iter(module._in_use)))
                continue
            assert (folder / "manifest.json").read_bytes() == bytes([index]) * 100
            assert (folder / "more" / "0.arrow").read_bytes() == bytes([index]) * 900
            release(folder)

    processes = [FORK.Process(target=work, args=(first,)) for first in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 6
    assert 1 <= len(kept(cache)) <= 2


def test_what_was_killed_while_it_copied_leaves_nothing(sets, cache, monkeypatch):
    def die() -> None:
        monkeypatch.setattr(storage, "open_file", lambda _: os._exit(9))
        localize(sets[0], cache, SIZE)

    process = FORK.Process(target=die)
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert any(path.name.endswith(".aside") for path in cache.iterdir())
    bring(sets[0], cache, SIZE)
    assert kept(cache) == ["set-0"]


def test_a_full_disk_is_named_and_leaves_nothing(sets, cache, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"set-0: .*cache is full"):
        localize(sets[0], cache, SIZE)
    assert kept(cache) == []


def test_a_copy_that_is_refused_leaves_nothing(sets, cache):
    seen: list[list[str]] = []

    def check(folder: Path) -> None:
        seen.append(sorted(path.name for path in folder.rglob("*")))
        raise DataError("0.arrow: another checksum")

    with pytest.raises(DataError, match="another checksum"):
        localize(sets[0], cache, SIZE, check=check)
    assert seen == [["0.arrow", "manifest.json", "more"]]
    assert kept(cache) == []
    localize(sets[0], cache, SIZE, check=lambda _: None)
    localize(sets[0], cache, SIZE, check=check)  # of what is copied, not of what is there


def test_storage_that_does_not_answer_at_once_is_asked_again(store, tmp_path, cache, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.arrow").write_bytes(os.urandom(20_000))
    upload(store, tmp_path / "set", "bucket/prepared/set")
    store.failures = 2
    folder = localize("s3://bucket/prepared/set", cache, 10**6)
    assert (folder / "0.arrow").read_bytes() == (tmp_path / "set" / "0.arrow").read_bytes()


def test_a_file_that_comes_short_is_not_kept(sets, cache, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    plain = storage.open_file
    opened: list[str] = []

    def short(path: str):
        opened.append(path)
        file = plain(path)
        file.seek(1)
        return file

    monkeypatch.setattr(storage, "open_file", short)
    with pytest.raises(
        DataError, match=r"set-0: cannot be copied .*bytes were received instead of"
    ):
        localize(sets[0], cache, SIZE)
    assert len(opened) >= retries.ATTEMPTS
    assert kept(cache) == []


def test_the_cache_is_for_one_user_alone(sets, cache):
    """With the umask of most machines, its group could write to it."""
    before = os.umask(0o002)
    try:
        bring(sets[0], cache)
        assert cache.stat().st_mode & 0o777 == 0o700
        cache.chmod(0o775)  # as the version before made it
        bring(sets[0], cache)
    finally:
        os.umask(before)
    assert cache.stat().st_mode & 0o777 == 0o755


def test_a_cache_that_others_can_write_to_is_refused(sets, cache, tmp_path, monkeypatch):
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(
        DataError, match=r"cache: can be written to by all .*set RAYGAN_CACHE to a fol"
    ):
        localize(sets[0], cache, SIZE)
    cache.chmod(0o1777)
    with pytest.raises(DataError, match="cache: can be written to by all users"):
        localize(sets[0], cache, SIZE)
    cache.chmod(0o700)
    (tmp_path / "mine").symlink_to(cache)
    assert bring(sets[0], tmp_path / "mine", SIZE).is_dir()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    for folder in (cache, tmp_path / "mine"):
        with pytest.raises(
            DataError, match=f"belongs to the user {user}, who could replace the images"
        ):
            localize(sets[0], folder, SIZE)


def test_a_link_of_another_user_is_refused(sets, cache, tmp_path, monkeypatch):
    """Its folder may be this user's own."""
    cache.mkdir(0o700)
    link = tmp_path / "link"
    link.symlink_to(cache)
    plain = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = plain(path)
        return found if path != link else os.stat_result((*found[:4], 4321, *found[5:]))

    monkeypatch.setattr(Path, "lstat", of_another)
    with pytest.raises(DataError, match="link: belongs to the user 4321"):
        localize(sets[0], link, SIZE)


def test_a_cache_that_cannot_be_made_is_named(sets, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(
            DataError, match=r"file.*: cannot be used .*set RAYGAN_CACHE to another"
        ):
            localize(sets[0], cache, SIZE)
