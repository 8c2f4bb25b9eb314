"""The tree of files that :mod:`raygan.folder` draws, as patterns of paths."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from raygan import folder

_PLACE = re.compile(r"(?<![A-Z])(NAME|DIGEST|NUMBER|ID|ITERATION|TOKEN|WHICH)(?![A-Z])")


def _patterns() -> dict[str, re.Pattern[str]]:
    """Each file of the tree, and each folder whose inside is not drawn, as a pattern."""
    _, _, drawn = (folder.__doc__ or "").partition("::\n\n")
    lines = [line for line in drawn.splitlines() if line.strip()]
    depths = [len(line) - len(line.lstrip()) for line in lines]
    above: dict[int, str] = {}
    found = {}
    for line, depth, after in zip(lines, depths, [*depths[1:], 0], strict=True):
        above = {d: path for d, path in above.items() if d < depth}
        names = re.split(r" {2,}", line.strip())[0].split(", ")
        for name in names:
            path = "".join(above.values()) + name
            if not name.endswith("/"):
                found[path] = _pattern(path)
            elif after <= depth:
                found[path] = re.compile(_pattern(path).pattern + r".+")
        if names[-1].endswith("/"):
            above[depth] = names[-1]
    return found


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(_PLACE.sub(r"[^/]+", re.escape(path).replace(r"\-", "-")))


PATHS = _patterns()
"""Pattern of the paths that each line of the tree stands for."""


def strange(paths: Iterable[str]) -> set[str]:
    """Those of ``paths``, which begin with ``STORAGE/`` or ``OUT/``, that the tree does not have."""
    return {path for path in paths if not any(kind.fullmatch(path) for kind in PATHS.values())}


def files_in(storage: Path) -> set[str]:
    """All files below a storage folder but backups, as paths of the tree."""
    return {
        f"STORAGE/{path.relative_to(storage).as_posix()}"
        for path in storage.rglob("*")
        if path.is_file() and path.suffix != ".bak"
    }
