"""The tree of raygan's exceptions."""

from __future__ import annotations

import re
from pathlib import Path

import raygan
from raygan import errors

CLASS = re.compile(r"^class (\w+Error)\((\w+Error)\b", re.MULTILINE)
ENTRY = re.compile(r"^([│├└─ ]*)(\w+Error)  ", re.MULTILINE)


def test_the_tree_shows_every_exception_below_its_base():
    sources = [file.read_text() for file in Path(raygan.__file__).parent.rglob("*.py")]
    bases = {name: base for text in sources for name, base in CLASS.findall(text)}
    depths = {name: len(lines) for lines, name in ENTRY.findall(errors.__doc__ or "")}
    assert depths.keys() == {*bases, "RayganError"}
    assert all(depths[name] == depths[base] + 4 for name, base in bases.items())
