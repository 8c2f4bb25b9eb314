"""What is wrong with a YAML, in words: the place, what was given, what is allowed."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import ValidationError

from raygan.shown import shown
from raygan.sweep.spec.yaml_loader import Document

MOST = 20
"""Mistakes that one message names."""
MOST_VALUE = 100
"""Characters of a key or value that are repeated."""
Keys = dict[str, list[str]]
"""Allowed keys per section; the top level is the section '', an item of a list is `.*`."""

LIST, RANGE, NUMBER, SECTION = TAGS = ("(list)", "(range)", "(number)", "(section)")
"""Marks of a union's members in pydantic's paths; no keys of the YAML."""


def explain(document: Document, error: ValidationError, keys: Keys) -> str:
    """The first :data:`MOST` mistakes, one a line, and how many more there are."""
    problems = _most_telling(error)
    lines = [_explain_one(document, problem, keys) for problem in problems[:MOST]]
    if (left := len(problems) - MOST) > 0:
        lines.append(f"and {left:,} more mistakes")
    return "\n".join(dict.fromkeys(lines))


def _most_telling(error: ValidationError) -> list[Any]:
    """One problem for each key.

    pydantic reports a problem for each member of a union; their messages are joined by "or".
    """
    problems: dict[Any, Any] = {}
    for problem in error.errors():
        path = tuple(part for part in problem["loc"] if part not in TAGS)
        path = path[: _depth(path)]
        first = problems.setdefault(path, {**problem, "loc": path})
        if first["msg"] != problem["msg"]:
            first["msg"] += f", or {_lower(problem['msg'])}"
    return list(problems.values())


def _depth(path: tuple[Any, ...]) -> int:
    """How many parts of a path of pydantic's are keys of the YAML: the rest names members of a
    union."""
    if path[:1] == ("dataset",) and "train" not in path:
        return 3 if any(isinstance(part, int) for part in path[1:2]) else 2
    return 2 if path[1:2] == ("max_concurrent",) else len(path)


def _explain_one(document: Document, problem: Any, keys: Keys) -> str:
    path = problem["loc"]
    # an error of the whole document names its key in backticks: find the line of that key
    if not path and (named := re.search(r"`([A-Za-z0-9_.=+-]+)`", problem["msg"])):
        path = tuple(named[1].split("."))
        # the number of an item of a list is text here
        found = [known for known in document.lines if tuple(map(str, known[-len(path) :])) == path]
        path = min(found, key=len, default=path)  # a field of `train` before one of a data set
        return f"{document.where(path)}: {message(problem)}"
    where, key = document.where(path), shown(".".join(str(part) for part in path), MOST_VALUE)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key `{key}`{_nearest(path, keys)}"
    if problem["type"] == "missing":
        return f"{where}: the key `{key}` is missing"
    given = problem.get("input")
    value = ""
    if isinstance(given, bool | int | float | str | None):
        value = f" (={shown(repr(given), MOST_VALUE)})"
    return f"{where}: {f'`{key}`{value}: ' if key else ''}{message(problem)}"


def message(problem: Any) -> str:
    text = shown(_lower(problem["msg"].removeprefix("Value error, ")))
    if problem["type"] in ("model_type", "model_attributes_type"):  # which names our class
        return "must be a mapping of keys to values, such as {key: value}"
    if problem["type"] == "string_type" and isinstance(problem.get("input"), bool | int | float):
        return f"{text}; if it is text, put it in quotes"
    return text


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _nearest(path: tuple[Any, ...], keys: Keys) -> str:
    section = ".".join("*" if isinstance(part, int) else str(part) for part in path[:-1])
    if section.startswith("scale.by."):
        section = "scale.by"
    allowed = keys.get(section, [])
    key = str(path[-1])[:MOST_VALUE]
    very_near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.8)
    near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
    elsewhere = [
        f"{section}.{path[-1]}".replace(".*", "")
        for section, names in keys.items()
        if section and path[-1] in names
    ]
    if not very_near and path[-1] in keys.get(f"{section}.*", []):
        return f"; it belongs to an item of a list: make `{section}` a list"
    if section in ("grid", "search") and path[-1] == "dataset":
        return f"; for several data sets, make `dataset` at the top level a list, not `{section}`"
    if not (very_near or elsewhere) and path[-1] in keys.get("", []):
        return f"; did you mean the key `{path[-1]}` of the top level?"
    if likely := very_near or elsewhere or near:
        return f"; did you mean `{likely[0]}`?"
    return f"; allowed here: {', '.join(allowed)}" if allowed else ""
