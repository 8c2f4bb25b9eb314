"""Manifests of prepared sets: whole, or refused in words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raygan.data import DatasetConfig, load, prepare
from raygan.data.manifest import MANIFEST, read_manifest
from raygan.data.shared import verify
from raygan.errors import DataError

JUNK = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1.5, 1e400, -1e400, "", "x", "\0", "\ud800", "\x1b[2J",
    "../000000.arrow", "000000.arrow\0", "/etc/passwd", "x" * 10_000, [], [[]], [0], {}, {"a": {}}, [1] * 4,
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A set of the first digits, with an image said to be left out."""
    where = prepare(DatasetConfig(size=8, running=2, final=2), tmp_path_factory.mktemp("set"))
    found = json.loads((where / MANIFEST).read_text())
    found["corrupt"] = [{"where": "a.png", "reason": "is none"}]
    (where / MANIFEST).write_text(json.dumps(found))
    return where


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to each value within ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, item in inner:
            found += places(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]
    return found


def check(where: Path, manifest: Any) -> None:
    """It is read and used, or a DataError that is fit to be shown."""
    text = (where / MANIFEST).read_text()
    (where / MANIFEST).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    try:
        for use in (read_manifest, load, verify):
            try:
                use(where)
            except DataError as error:
                assert where.name in str(error)
                assert len(str(error)) < 2000
                assert "\x1b" not in str(error)
    finally:
        (where / MANIFEST).write_text(text)


@given(st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_to_a_manifest_is_a_data_error(prepared, data):
    manifest = json.loads((prepared / MANIFEST).read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(places(manifest)))
        holder = manifest
        for key in way:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
        else:
            del holder[last]
    check(prepared, manifest)


@pytest.mark.parametrize(
    "text",
    ["", "5", "null", "[]", "[" * 100_000, "{", '{"format": 2}', "NaN", "\ufeff{}", '{"format": 1e999}'],
)  # fmt: skip
def test_what_is_no_manifest_is_a_data_error(prepared, tmp_path, text):
    check(prepared, text)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match="not a whole prepared data set"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": 10**400}, "baseline"),
        ({"baseline": "0"}, "baseline"),
        ({"shards": [{"file": "", "count": 1797, "sha256": ""}]}, "its shards are"),
        ({"shards": [{"file": "000000.arrow\0", "count": 1797, "sha256": ""}]}, "its shards are"),
        ({"shape": [2**50, 8, 8, 1]}, "its shape is"),
        ({"corrupt": [{"where": 5, "reason": ""}]}, "has no reason"),
        ({"corrupt": [5]}, "not a whole prepared data set"),
        ({"source": "\x1b[2J"}, "source"),
    ],
)
def test_what_a_manifest_cannot_say_is_refused(prepared, tmp_path, change, message):
    manifest = json.loads((prepared / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)
