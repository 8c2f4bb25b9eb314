import errno
import json
import os
import re
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

import raygan
from raygan import local_files
from raygan import storage as files
from raygan.errors import ConfigError, RayganError
from raygan.storage import Storage
from tests.object_store import ObjectStore, far

ONE_PLACE = {
    r"fsync\(": "local_files.py",
    r"\.tmp\"": "local_files.py",
    r"[\"']://[\"']": "addresses.py",
    r"from_uri|url_to_fs": "storage.py",
    r"expanduser\(\)\.absolute\(\)": "storage.py",
    r"\* 2 ?\*\* ?attempt|2 \* wait": "retries.py",
}
"""What each of these files does for all others."""


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage(str(tmp_path / "new"))


def test_what_is_kept_comes_back(storage):
    assert storage.read_kept("a.json", json.loads) is None
    storage.write_kept("a.json", b"[1]")
    storage.write_kept("a.json", b"[2]")
    assert storage.read_kept("a.json", json.loads) == [2]


@pytest.mark.parametrize("damage", [b"", b"[2", b"\xff"])
def test_version_before_is_used_if_the_last_is_damaged(storage, damage, caplog):
    storage.write_kept("a.json", b"[1]")
    storage.write_kept("a.json", b"[2]")
    storage.write("a.json", damage)
    assert storage.read_kept("a.json", json.loads) == [1]
    assert storage.read("a.json") == damage  # who only looks changes nothing
    assert storage.read_kept("a.json", json.loads, mend=True) == [1]
    assert storage.read("a.json") == b"[1]"
    storage.write("a.json", damage)
    assert "a.json is damaged or lost: its backup is used" in caplog.text
    storage.write("a.json.bak", damage)
    with pytest.raises(RayganError, match=r"a.json: damaged .*no whole backup"):
        storage.read_kept("a.json", json.loads)


def test_half_a_backup_does_no_harm(storage):
    storage.write_kept("a.json", b"[1]")
    storage.write("a.json.bak", b"[")  # killed while it was copied
    assert storage.read_kept("a.json", json.loads) == [1]


def test_delete_of_what_is_not_there_is_nothing(storage):
    storage.write("a", b"")
    storage.delete("a")
    storage.delete("a")
    assert storage.read("a") is None


@pytest.mark.parametrize(
    "uri", ["nowhere://bucket", "memory://x", "a\0b", "/a?b=c", "~nobody-here/x"]
)
def test_places_that_cannot_be_used_are_named(uri):
    with pytest.raises(ConfigError, match="storage"):
        Storage(uri)


@contextmanager
def full_disk():
    """Files end at 4 KiB: what a full disk does to a write, with another number of the error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_is_found_before_anything_starts(storage):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        storage.probe()
    storage.probe()
    assert storage.files() == []


def test_write_that_fails_leaves_the_file_as_it_was_and_nothing_else(storage, monkeypatch):
    storage.write_kept("a", b"1")
    for size in (5000, 2**20):  # on closing, and at once
        with full_disk(), pytest.raises(OSError, match="File too large"):
            storage.write("a", b"2" * size)

    def full(_: int) -> None:  # some file systems take data and find no room for it later
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write_kept("a", b"3")
    assert storage.files() == ["a", "a.bak"]
    assert storage.read("a") == b"1"


def test_what_killed_writes_have_left_is_removed_when_it_is_old(storage):
    aside = f"record.json.{'0' * 32}.tmp"
    kept = ["record.json.tmp", f"{'0' * 32}.tmp", "notes.tmp", "record.json"]
    for folder in ("", "trials/a/"):
        for name in (aside, *kept):
            storage.write(f"{folder}{name}", b"")
            os.utime(storage.local / f"{folder}{name}", (1, 1))
        storage.write(f"{folder}new-{aside}", b"")  # another process may be writing it
    left = sorted([*kept, f"new-{aside}"])
    storage.probe()
    assert storage.files() == left
    assert storage.files("trials/a") == sorted([*left, aside])
    storage.check_tree()
    assert storage.files("trials/a") == left


@pytest.fixture
def outside(tmp_path):
    """A folder of the user's, with a file."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "a").write_bytes(b"the user's")
    return folder


LINKED = {
    "read": lambda storage, name: storage.read(name),
    "write": lambda storage, name: storage.write(name, b"1"),
    "write_kept": lambda storage, name: storage.write_kept(name, b"1"),
    "read_kept": lambda storage, name: storage.read_kept(name, json.loads),
    "delete": lambda storage, name: storage.delete(name),
    "rename": lambda storage, name: storage.rename(name, "b"),
    "rename to": lambda storage, name: storage.rename("whole", name),
    "files": lambda storage, name: storage.files(name),
    "folders": lambda storage, name: storage.folders(name),
    "below": lambda storage, name: (storage / name).files(),
    "refuse_link": lambda storage, name: storage.refuse_link(name),
    "check_tree": lambda storage, name: storage.check_tree(),
}


@pytest.mark.parametrize("do", LINKED.values(), ids=LINKED)
@pytest.mark.parametrize("name", ["link", "folder/link", "linked/a"])
def test_nothing_goes_through_a_link(storage, outside, do, name):
    storage.write("whole", b"")
    storage.write("folder/x", b"")
    (storage.local / "link").symlink_to(outside / "a")
    (storage.local / "folder/link").symlink_to(outside / "a")
    (storage.local / "linked").symlink_to(outside)
    with pytest.raises(RayganError, match="is a symbolic link"):
        do(storage, name)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"a": b"the user's"}


def test_backup_that_is_a_link_is_not_written_through(storage, outside):
    storage.write("a", b"a stranger's")
    (storage.local / "a.bak").symlink_to(outside / "a")
    with pytest.raises(RayganError, match="is a symbolic link"):
        storage.write_kept("a", b"2")
    assert (outside / "a").read_bytes() == b"the user's"


def test_folder_that_the_user_names_may_be_a_link(storage, outside, tmp_path):
    (tmp_path / "named").symlink_to(outside)
    named = Storage(str(tmp_path / "named"))
    named.probe()
    named.write_kept("sweep/b", b"1")
    assert (named / "sweep").read("b") == b"1"
    (named / "sweep").check_tree()
    assert (outside / "sweep" / "b").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["../a", "b/../../a", ".."])
def test_no_name_leads_out(storage, name):
    storage.write("b/c", b"")
    with pytest.raises(RayganError, match="leads out of"):
        storage.read(name)
    with pytest.raises(RayganError, match="leads out of"):
        (storage / name).read("a")


def test_what_is_no_regular_file_is_refused(storage):
    storage.write("folder/a", b"")
    os.mkfifo(storage.local / "pipe")  # a reader would wait for a writer
    for name in ("pipe", "folder"):
        with pytest.raises(RayganError, match="is not a regular file"):
            storage.read(name)


def test_what_a_sweep_keeps_is_on_the_disk_when_it_is_written(storage, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))  # fmt: skip
    storage.write("a", b"1")
    assert synced == []
    storage.write_kept("a", b"2")
    assert [name.split(".")[0] for name in synced] == ["a", storage.local.name]


@pytest.mark.parametrize("pattern", ONE_PLACE)
def test_each_thing_is_done_in_one_place(pattern):
    home = Path(raygan.__file__).parent
    found = {
        str(p.relative_to(home)) for p in home.rglob("*.py") if re.search(pattern, p.read_text())
    }
    assert found == {ONE_PLACE[pattern]}


def test_a_file_is_the_old_one_until_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a"
    for old, new in ((None, b"1"), (b"1", b"22")):
        with local_files.writing(path) as file:
            file.write(new)
            file.flush()
            assert local_files.read(str(path)) == old
            file.seek(0)
            assert file.read() == new
        assert path.read_bytes() == new
        assert [each.name for each in path.parent.iterdir()] == ["a"]


def test_a_write_that_is_given_up_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")

    def give_up() -> None:
        with local_files.writing(path) as file:
            file.write(b"2")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert path.read_bytes() == b"1"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_prepared_set_is_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))  # fmt: skip
    files.write(str(tmp_path / "manifest.json"), b"{}")
    assert [name.split(".")[0] for name in synced] == ["manifest", tmp_path.name]
    assert files.read(str(tmp_path / "manifest.json"), 2) == b"{}"


def test_a_small_file_is_one_request_to_object_storage_and_makes_no_folder(
    store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "shard").write_bytes(b"3")
    sweep = Storage("s3://bucket/sweep")
    store.requests.clear()
    sweep.write("trials/a/record.json", b"1" * 20_000)
    files.write("s3://bucket/data/manifest.json", b"2")
    files.send(tmp_path / "shard", "s3://bucket/data/shard.arrow")
    assert store.requests == [
        "PUT bucket/sweep/trials/a/record.json",
        "PUT bucket/data/manifest.json",
        "PUT bucket/data/shard.arrow",
    ]
    assert store.objects["bucket/sweep/trials/a/record.json"] == b"1" * 20_000


def test_an_address_with_options_keeps_them(store: ObjectStore) -> None:
    store.requests.clear()
    files.write("s3://bucket/a?region=us-east-1", b"1")
    assert store.requests == ["PUT bucket/a"]


def test_an_address_with_real_folders_gets_them(tmp_path: Path) -> None:
    address = (tmp_path / "new").as_uri()
    far(tmp_path / "new").write("trials/a/record.json", b"1")
    files.write(f"{address}/data/manifest.json", b"2")
    files.send(tmp_path / "new/data/manifest.json", f"{address}/more/manifest.json")
    assert (tmp_path / "new/trials/a/record.json").read_bytes() == b"1"
    assert files.read(f"{address}/more/manifest.json", 1) == b"2"
