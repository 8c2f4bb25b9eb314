"""Recipes: what a researcher brings to a comparison, one file each.

A *kind* of recipe (a norm, a loss, a stop rule, …) is a subclass of :class:`Recipe` with a
:class:`Table`. A *recipe* is a subclass of its kind with a ``name``. Its annotated attributes are
its parameters, with their types and defaults; the text below each is its documentation::

    class GroupNorm(Norm):
        \"\"\"Group norm (Wu & He 2018).\"\"\"

        name = "gn"
        groups: int = 32
        \"\"\"Groups of channels.\"\"\"

Built-in recipes stand in their kind's table. A user's own are files that the YAML names under
``recipes``; :func:`use` enters them.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import linecache
import math
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from raygan.errors import ConfigError, RayganError
from raygan.shown import shown

Scalar = bool | int | float | str
"""What a parameter may be."""

MOST_BYTES = 2**20
"""Bytes of a recipe's file."""
_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a recipe."""

    name: str
    type: Any
    """bool, int, float, str, or a Literal of words."""
    default: Any
    doc: str
    """What it is, in one line."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are allowed; none: of another type."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def check(self, value: object) -> None:
        """Raise :class:`~raygan.errors.ConfigError` if ``value`` is not of the type."""
        if self.words:
            if value not in self.words:
                raise ConfigError(
                    f"`{self.name}` (={shown(value)}) must be one of {', '.join(self.words)}"
                )
            return
        accepted = (int, float) if self.type is float else self.type
        fits = isinstance(value, accepted) and isinstance(value, bool) == (self.type is bool)
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}
            raise ConfigError(
                f"`{self.name}` (={shown(value)}) must be {wanted.get(self.type, 'a text')}"
            )


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Recipe:
    """Base of every kind of recipe. Subclasses are frozen dataclasses of their parameters."""

    name: ClassVar[str] = ""
    """What the YAML calls it."""
    table: ClassVar[Table[Any]]
    """The table of its kind."""
    described_only: ClassVar[bool] = False
    """Whether its code is not there: it is known from a sweep that somebody has run."""
    reserved: ClassVar[tuple[str, ...]] = ()
    """Keys of the YAML's section that names it: none of its parameters is called so."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        written = cls.__doc__
        dataclass(frozen=True, kw_only=True)(cls)
        cls.__doc__ = written  # dataclass makes one where there is none

    def __post_init__(self) -> None:
        for parameter in parameters(type(self)).values():
            parameter.check(getattr(self, parameter.name))
        self.check_parameters()

    def check_parameters(self) -> None:
        """Raise :class:`~raygan.errors.ConfigError` if a parameter is out of range."""


R = TypeVar("R", bound=Recipe)


def parameters(recipe: type[Recipe]) -> dict[str, Parameter]:
    """The parameters of a recipe, in the order in which it declares them."""
    known = recipe.__dict__.get("_parameters")
    if known is None:
        hints, docs = get_type_hints(recipe), attribute_docs(recipe)
        known = {
            each.name: Parameter(each.name, hints[each.name], each.default, docs.get(each.name, ""))
            for each in dataclasses.fields(recipe)  # type: ignore[arg-type]
        }
        recipe._parameters = known  # type: ignore[attr-defined]
    return known


def attribute_docs(owner: type) -> dict[str, str]:
    """The text below each annotated attribute of a class, those of its bases included."""
    docs: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if dataclasses.is_dataclass(base):
            docs |= _own_attribute_docs(base)
    return docs


def _own_attribute_docs(owner: type) -> dict[str, str]:
    try:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except (OSError, TypeError):  # made at run time
        return {}
    assert isinstance(definition, ast.ClassDef)
    return {
        statement.target.id: " ".join(doc.value.value.split())
        for statement, doc in pairwise(definition.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


_revision = 0


def revision() -> int:
    """A number that changes whenever a table does, for what is derived from the tables."""
    return _revision


class Table(Generic[R]):
    """All recipes of one kind, by name."""

    def __init__(self, kind: str, key: str, base: type[R], *recipes: type[R]) -> None:
        """``kind``: the kind's word; ``key``: the YAML's key that names one of them."""
        self.kind, self.key, self.base = kind, key, base
        base.table = self
        self._recipes: dict[str, type[R]] = {}
        for recipe in recipes:
            self.add(recipe)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all recipes, built-in ones first."""
        return tuple(self._recipes)

    def __iter__(self) -> Any:
        return iter(self._recipes.values())

    def __getitem__(self, name: str) -> type[R]:
        """The recipe ``name``; raises :class:`~raygan.errors.ConfigError` if there is none."""
        if not isinstance(name, str) or name not in self._recipes:
            raise ConfigError(
                f"`{self.key}` (={name!r}) must be one of {', '.join(self._recipes)}; a recipe of "
                "your own needs its file under `recipes`"
            )
        return self._recipes[name]

    def make(self, name: str, values: Mapping[str, Any]) -> R:
        """The recipe ``name`` with those of ``values`` that are its parameters.

        Raises :class:`~raygan.errors.ConfigError` for a value that it does not allow.
        """
        recipe = self[name]
        own = {key: values[key] for key in parameters(recipe) if key in values}
        return recipe(**own)

    def heed(self, parameter: str) -> tuple[str, ...]:
        """The names of the recipes that have the parameter."""
        return tuple(n for n, recipe in self._recipes.items() if parameter in parameters(recipe))

    def parameters(self) -> dict[str, dict[str, Parameter]]:
        """Every parameter of any recipe, with the recipes that have it."""
        known: dict[str, dict[str, Parameter]] = {}
        for name, recipe in self._recipes.items():
            for parameter in parameters(recipe).values():
                known.setdefault(parameter.name, {})[name] = parameter
        return known

    def add(self, recipe: type[R]) -> None:
        """Enter a recipe; raises :class:`~raygan.errors.ConfigError` if it cannot be used."""
        label = f"the {self.kind} `{shown(recipe.name)}` ({recipe.__name__})"
        if not _is_word(recipe.name):
            raise ConfigError(
                f"{label}: `name` must be letters, digits, '-' and '_', and begin with a letter"
            )
        if recipe.name in self._recipes:
            raise ConfigError(f"{label}: there is a {self.kind} of this name; choose another")
        if not (recipe.__doc__ or "").strip():
            raise ConfigError(f"{label}: add a docstring: reports and the reference show it")
        known = self.parameters()
        for parameter in parameters(recipe).values():
            _check_declared(parameter, label)
            if hasattr(self.base, parameter.name):
                raise ConfigError(
                    f"{label}: its parameter `{parameter.name}` has the name of something that "
                    f"every {self.kind} has; rename it, or set it without an annotation"
                )
            if parameter.name in recipe.reserved:
                raise ConfigError(
                    f"{label}: its parameter `{parameter.name}` has the name of another key of the "
                    "same section; rename it"
                )
            for other, same in known.get(parameter.name, {}).items():
                if same.type != parameter.type:
                    raise ConfigError(
                        f"{label}: its parameter `{parameter.name}` has another type than that of "
                        f"{other}; rename it, or use the same type"
                    )
        self._recipes[recipe.name] = recipe
        _changed()

    def remove(self, name: str) -> None:
        """Take out the recipe ``name``."""
        del self._recipes[name]
        _changed()


def _changed() -> None:
    global _revision
    _revision += 1


def _is_word(text: object) -> bool:
    return (
        isinstance(text, str)
        and text.isascii()
        and text[:1].isalpha()
        and len(text) <= 64
        and text.replace("-", "").replace("_", "").isalnum()
    )


def _is_parameter(name: str) -> bool:
    """Whether a parameter may have this name; Python gives those with '_' meanings of their own."""
    return (
        name.isascii() and name.isidentifier() and not name.startswith("_") and not iskeyword(name)
    )


def _check_declared(parameter: Parameter, label: str) -> None:
    of_words = get_origin(parameter.type) is Literal and all(
        isinstance(word, str) for word in get_args(parameter.type)
    )
    if parameter.type not in _TYPES and not of_words:
        raise ConfigError(
            f"{label}: `{parameter.name}` must be a bool, int, float, str or Literal of words"
        )
    if parameter.default is dataclasses.MISSING:
        raise ConfigError(f"{label}: its parameter `{parameter.name}` needs a default")
    if not _is_parameter(parameter.name):
        raise ConfigError(
            f"{label}: `{parameter.name}` must be letters, digits and '_', and begin with a letter"
        )
    if not parameter.doc:
        raise ConfigError(
            f"{label}: its parameter `{parameter.name}` needs documentation: a text below it"
        )
    parameter.check(parameter.default)


@dataclass(frozen=True)
class RecipeFile:
    """A user's file of recipes."""

    name: str
    """Its name, without folders."""
    source: str = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its text, in hexadecimal."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def read(path: Path) -> RecipeFile:
    """The file at ``path``; raises :class:`~raygan.errors.ConfigError`."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{shown(path)}: cannot be read ({reason})") from error
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path}: is larger than {MOST_BYTES // 2**20} MiB")
    try:
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text in UTF-8 ({error.reason})") from error
    if path.suffix != ".py" or not _is_word(path.stem):
        raise ConfigError(
            f"{path}: a file of recipes is named in letters, digits, '_' and '-' and ends with .py"
        )
    return RecipeFile(path.name, source)


_used: dict[str, tuple[RecipeFile, list[type[Recipe]]]] = {}
"""The files whose recipes are in the tables, by name."""


def use(files: Iterable[RecipeFile]) -> None:
    """Enter the recipes of these files into their tables, and take out those of others.

    A file runs once: it may define functions and classes of its own, and import what is installed.
    Raises :class:`~raygan.errors.ConfigError` that names the file and the line.
    """
    wanted: dict[str, RecipeFile] = {}
    for file in files:
        if wanted.setdefault(file.name, file) != file:
            raise ConfigError(f"two files are called {file.name}; rename one")
    for name in [name for name, (file, _) in _used.items() if wanted.get(name) != file]:
        _take_out(name)
    for name, file in wanted.items():
        if name not in _used:
            _forget_description(name)
            _used[name] = (file, _enter(file))


def ensure(files: Iterable[RecipeFile]) -> None:
    """Enter the recipes of these files, too, as :func:`use` does; a file of the same name with
    another text gives way."""
    given = {file.name: file for file in files}
    use([*(file for name, (file, _) in _used.items() if name not in given), *given.values()])


def file_of(recipe: type[Recipe]) -> RecipeFile | None:
    """The user's file that the recipe comes from; None of a built-in one."""
    return next((file for file, own in _used.values() if recipe in own), None)


def file_name(recipe: type[Recipe]) -> str:
    """The name of the user's file that the recipe comes from, its code known or not; empty of a
    built-in one."""
    if (file := file_of(recipe)) is not None:
        return file.name
    return next((name for name, (_, own) in _described.items() if recipe in own), "")


def in_use() -> dict[str, tuple[RecipeFile, Sequence[type[Recipe]]]]:
    """The files that :func:`use` has entered, with their recipes, by the file's name."""
    return dict(_used)


@dataclass(frozen=True)
class Description:
    """What a process knows of a recipe whose code it does not have."""

    kind: str
    name: str
    doc: str
    parameters: tuple[Parameter, ...]


def describe(recipe: type[Recipe]) -> Description:
    """What others may know of ``recipe``."""
    doc = inspect.getdoc(recipe) or ""
    return Description(recipe.table.kind, recipe.name, doc, tuple(parameters(recipe).values()))


def enter_described(
    file: str, digest: str, descriptions: Sequence[Description], tables: Mapping[str, Table[Any]]
) -> None:
    """Enter recipes of a user's file by their description, unless its code is in use.

    They name and check values, but cannot train. ``tables``: those of all kinds, by the kind's
    word. Raises :class:`~raygan.errors.ConfigError` for a description that no recipe can have.
    """
    known = _described.get(file)
    if (file in _used and _used[file][0].digest == digest) or (known and known[0] == digest):
        return
    if file in _used:
        _take_out(file)
    _forget_description(file)
    entered: list[type[Recipe]] = []
    _described[file] = (digest, entered)
    for each in descriptions:
        try:
            if each.kind not in tables:
                raise ConfigError(f"there is no kind of recipe {shown(each.kind)!r}")
            recipe = _from_description(each, tables[each.kind].base)
            tables[each.kind].add(recipe)
        except Exception as error:
            _forget_description(file)
            if isinstance(error, ConfigError):
                raise ConfigError(f"{file}: {error}") from error
            raise
        entered.append(recipe)


def _from_description(known: Description, base: type[Recipe]) -> type[Recipe]:
    names = [parameter.name for parameter in known.parameters]
    for name in names:
        if not _is_parameter(name) or hasattr(base, name) or names.count(name) > 1:
            raise ConfigError(f"{shown(known.name)} can have no parameter {shown(name)!r}")
    made: dict[str, Any] = {
        "name": known.name,
        "__doc__": known.doc,
        "described_only": True,
        "__annotations__": {parameter.name: parameter.type for parameter in known.parameters},
        "_parameters": {parameter.name: parameter for parameter in known.parameters},
        **{parameter.name: parameter.default for parameter in known.parameters},
    }
    return type("Described", (base,), made)


_described: dict[str, tuple[str, list[type[Recipe]]]] = {}
"""Files whose recipes are in the tables by description only: their digest, and the recipes."""


def keep_only(digests: Mapping[str, str]) -> None:
    """Take out the recipes of all files but these, whose SHA-256 is given by their name."""
    for name in [name for name, (file, _) in _used.items() if digests.get(name) != file.digest]:
        _take_out(name)
    for name in [name for name, (sha256, _) in _described.items() if digests.get(name) != sha256]:
        _forget_description(name)


def _take_out(file: str) -> None:
    for recipe in _used.pop(file)[1]:
        recipe.table.remove(recipe.name)


def _forget_description(file: str) -> None:
    for recipe in _described.pop(file, ("", []))[1]:
        recipe.table.remove(recipe.name)


def require_code(recipe: type[Recipe]) -> None:
    """Raise :class:`~raygan.errors.ConfigError` if only a description of ``recipe`` is known."""
    if recipe.described_only:
        raise ConfigError(
            f"the code of the {recipe.table.kind} `{recipe.name}` is needed: name its file "
            "(in the YAML under `recipes`, or by --recipe)"
        )


def _enter(file: RecipeFile) -> list[type[Recipe]]:
    stem = Path(file.name).stem.replace("-", "_")
    module = ModuleType(f"raygan_recipe_{stem}_{file.digest[:8]}")
    module.__file__ = file.name
    sys.modules[module.__name__] = module  # where type hints are looked up
    lines = file.source.splitlines(keepends=True)
    linecache.cache[file.name] = (len(file.source), None, lines, file.name)
    entered: list[type[Recipe]] = []
    try:
        exec(compile(file.source, file.name, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        for value in list(vars(module).values()):
            if (
                isinstance(value, type)
                and issubclass(value, Recipe)
                and value.__module__ == module.__name__
                and "name" in vars(value)
                and value not in entered
            ):
                value.table.add(value)
                entered.append(value)
    except BaseException as error:
        for recipe in entered:
            recipe.table.remove(recipe.name)
        if isinstance(error, ConfigError):
            raise ConfigError(f"{file.name}: {error}") from error
        if isinstance(error, Exception | SystemExit):
            raise ConfigError(blame(error, [file]) or f"{file.name}: {error}") from error
        raise
    if not entered:
        raise ConfigError(
            f"{file.name}: defines no recipe: a subclass of a kind in raygan.recipes with a `name`"
        )
    return entered


@contextmanager
def blamed(kind: type[RayganError] = ConfigError) -> Iterator[None]:
    """Within it, an error from the code of a user's file is one of ``kind`` that names the file and
    the line."""
    try:
        yield
    except RayganError:
        raise
    except Exception as error:
        if (text := blame(error, [file for file, _ in _used.values()])) is None:
            raise
        raise kind(text) from error


def blame(error: BaseException, files: Iterable[RecipeFile]) -> str | None:
    """``file:line: what is wrong`` if ``error`` comes from the code of one of ``files``."""
    names = {file.name for file in files}
    text = shown(" ".join(traceback.format_exception_only(error)[-1].split()), 500)
    if isinstance(error, SyntaxError) and error.filename in names:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {shown(error.msg, 300)}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in names]
    if not frames:
        return None
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}"
