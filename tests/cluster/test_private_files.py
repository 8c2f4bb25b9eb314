"""What Ray leaves on disk when a sweep has started it: no keys, and nothing that others can read."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest

from tests.clusters import make_sweep, ray_env

KEY = "x1Secret9Key5That7Nobody3Else1Has"


@pytest.fixture
def home(tmp_path) -> Path:
    """A home folder without a token of Ray's."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def umask() -> int:
    os.umask(found := os.umask(0))
    return found


def run(home: Path, temporary: str, *options: str, code: int = 0) -> tuple[Path, str]:
    """A sweep that starts Ray itself; where its results are, and what it printed."""
    env = ray_env(home / "unused", AWS_SECRET_ACCESS_KEY=KEY, HOME=str(home), TMPDIR=temporary)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        del env[name]
    made = make_sweep("alone", home / "storage", env, train={"iterations": 10})
    return made.storage / made.name, made.run(*options, code=code)


def test_nothing_of_a_ray_that_was_started_tells_a_key_or_is_open(home):
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary:
        results, output = run(home, temporary, "--verbose")
        (folder,) = map(Path, re.findall(r"Ray's files: (\S+)", output))
        assert folder.parent == Path(temporary)
        assert folder.stat().st_mode & 0o777 == 0o700
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        assert len(files) > 10
        assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    token = home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    # what the sweep itself wrote is as open as ever
    pictures = list(results.glob("trials/*/images/*.webp"))
    assert pictures
    assert {path.stat().st_mode & 0o777 for path in pictures} == {0o666 & ~umask()}


@pytest.mark.soak
def test_files_of_a_ray_that_was_started_are_removed(home):
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("f" * 64)
    token.chmod(0o644)  # as an earlier version of Ray has left it
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary:
        run(home, temporary)
        assert list(Path(temporary).glob("raygan-*")) == []
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text() == "f" * 64


def test_ray_that_cannot_start_is_told_from_one_that_cannot_be_joined(home):
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary:
        (home / ".ray").write_text("in the way of the token's folder")
        _, output = run(home, temporary, code=2)
    assert "error: Ray could not be started on this machine: " in output
    assert "try again" in output
    assert "Traceback" not in output
