import json

import pytest

from raygan.errors import ConfigError, RayganError
from raygan.storage import Storage


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


@pytest.mark.parametrize("uri", ["nowhere://bucket", "a\0b", "/a?b=c", "~nobody-here/x"])
def test_places_that_cannot_be_used_are_named(uri):
    with pytest.raises(ConfigError, match="storage"):
        Storage(uri)
