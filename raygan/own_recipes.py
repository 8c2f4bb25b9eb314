"""Users' recipes in a sweep's folder: the files' text, and what is needed to read the sweep.

The text is for people; nothing runs it. A process that only reads a sweep, for a report perhaps,
knows its recipes by their description: names, documentation and parameters.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter

from raygan import recipe, stored
from raygan.errors import ConfigError
from raygan.folder import RECIPES_FILE, SPEC_FILE, recipe_file
from raygan.recipe import Description, Parameter
from raygan.recipes import tables
from raygan.storage import Storage

_MOST = 10_000
_Text = Annotated[str, StringConstraints(max_length=_MOST)]
_TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}


class _Parameter(BaseModel):
    model_config = stored.STRICT

    name: stored.Word
    type: Literal["bool", "int", "float", "str"] | Annotated[list[_Text], Field(min_length=1)]
    """A list: the words that are allowed."""
    default: bool | int | float | _Text
    doc: _Text


class _Recipe(BaseModel):
    model_config = stored.STRICT

    kind: _Text
    name: stored.Word
    doc: _Text
    parameters: Annotated[list[_Parameter], Field(max_length=1000)]


class _File(BaseModel):
    model_config = stored.STRICT

    file: stored.Word
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    recipes: Annotated[list[_Recipe], Field(max_length=1000)]


_FILES = TypeAdapter(list[_File])


def store(sweep: Storage) -> None:
    """Keep the files that are in use, and their description, in the sweep's folder."""
    used = recipe.in_use()
    if not used:
        return
    described = []
    for file, recipes in used.values():
        sweep.write_kept(recipe_file(file.name), file.source.encode())
        described.append(
            {
                "file": file.name,
                "sha256": file.digest,
                "recipes": [_plain(recipe.describe(each)) for each in recipes],
            }
        )
    for _ in range(2):  # the first copy becomes the backup of the second
        sweep.write_kept(RECIPES_FILE, json.dumps(described, indent=1).encode())


def is_lost(sweep: Storage) -> bool:
    """Whether the description of the sweep's recipes is not there."""
    return not _read(sweep)


def check_unchanged(sweep: Storage) -> None:
    """See that the files in use are those that the sweep began with.

    Raises :class:`~raygan.errors.ConfigError` that names one that has changed.
    """
    used = {file.name: file.digest for file, _ in recipe.in_use().values()}
    files = _read(sweep)
    if used and SPEC_FILE in sweep.files() and used.keys() != {file.file for file in files}:
        before = ", ".join(file.file for file in files) or "none"
        raise ConfigError(
            f"the sweep {sweep.name!r} began with other files of recipes ({before}) than those now "
            f"({', '.join(used)}): restore them, or start a new sweep (--fresh, or --set name=…)"
        )
    for file in files:
        if file.file in used and used[file.file] != file.sha256:
            raise ConfigError(
                f"{file.file} has changed since the sweep {sweep.name!r} began: restore it (the "
                f"sweep's copy is {sweep.uri}/{recipe_file(file.file)}), or start a new sweep "
                "with the changed file (--fresh, or --set name=…)"
            )


def enter(sweep: Storage) -> None:
    """Enter what is known of the sweep's recipes into the tables, where their code is not there.

    Raises :class:`~raygan.errors.RayganError` if the description is damaged.
    """
    files = _read(sweep)
    if not files and SPEC_FILE not in sweep.files():
        return  # it has not begun
    # of another sweep that this process has read, a recipe may have the same name
    recipe.keep_only({file.file: file.sha256 for file in files})
    for file in files:
        described = [_described(each) for each in file.recipes]
        recipe.enter_described(file.file, file.sha256, described, tables())


def _read(sweep: Storage) -> list[_File]:
    return sweep.read_kept(RECIPES_FILE, _parse) or []


def _parse(data: bytes) -> list[_File]:
    return stored.parse(_FILES, data)


def _plain(description: Description) -> dict[str, Any]:
    names = {kind: name for name, kind in _TYPES.items()}
    return {
        "kind": description.kind,
        "name": description.name,
        "doc": description.doc[:_MOST],
        "parameters": [
            {
                "name": each.name,
                "type": names.get(each.type) or list(each.words),
                "default": each.default,
                "doc": each.doc[:_MOST],
            }
            for each in description.parameters
        ],
    }


def _described(known: _Recipe) -> Description:
    parameters = []
    for each in known.parameters:
        kind: Any = _TYPES[each.type] if isinstance(each.type, str) else Literal[tuple(each.type)]
        parameters.append(Parameter(each.name, kind, each.default, each.doc))
    return Description(known.kind, known.name, known.doc, tuple(parameters))
