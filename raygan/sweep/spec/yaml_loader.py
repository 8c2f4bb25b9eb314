"""A strict reader of YAML: what it returns is plain, bounded, and means what it looks like.

No aliases, no duplicate keys, no tags, no dates or base-60 numbers; ``1e-4`` is a number and
``no`` is a word, as in YAML 1.2; size and depth are capped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from raygan.errors import ConfigError
from raygan.shown import shown

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16

Path = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")


@dataclass
class Document:
    """Parsed YAML with the line on which each key or item stands."""

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)
    """Values that do not stand in the file, with the option that gave them."""
    end: int = 0
    """Characters up to the end of the last value; a comment may follow."""

    def where(self, path: Path) -> str:
        """``file:line`` or option of the deepest known part of ``path``."""
        for length in range(len(path), 0, -1):
            if option := self.overrides.get(path[:length]):
                return option
            if line := self.lines.get(path[:length]):
                return f"{self.name}:{line}"
        return self.name


def parse(text: bytes | str, name: str, most: int = MAX_BYTES) -> Document:
    """Read one YAML document of up to ``most`` bytes; raises
    :class:`~raygan.errors.ConfigError` with file and line."""
    raw = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    if len(raw) > most:
        raise ConfigError(f"{name}: too large; a sweep's YAML may have at most {most} bytes")
    document = Document(name, None)
    try:
        _check_events(raw.decode(), name)
        node = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
        if node is not None:
            document.data, document.end = _build(node, (), document), node.end_mark.index
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{name}{line}: not valid YAML: {shown(problem)}") from error
    return document


def parse_value(text: str) -> Any:
    """The value of one line that is given on a command line.

    What is in brackets, braces or quotes is read as in a YAML file. All else is a number, true,
    false, null or the text itself, whatever YAML would make of a ``#`` or a ``:`` in it. Raises
    :class:`~raygan.errors.ConfigError`, which does not repeat the text.
    """
    text = text.strip()
    if not text.startswith(("[", "{", "'", '"')):
        if not text.isprintable():
            raise ConfigError("a value must be one line of text without control characters")
        return _scalar(text, "value", 1)
    document = parse(text, "value")
    if text[document.end :].strip():
        raise ConfigError("there is text after the closing quote or bracket; move it inside")
    return document.data


def is_text(text: str) -> bool:
    """Whether ``text``, without quotes, is read as a text."""
    kinds = (_NULL, _TRUE, _FALSE, _INT, _FLOAT)
    return not any(kind.fullmatch(text) for kind in kinds)


def _check_events(text: str, name: str) -> None:
    # before any tree is built: depth and aliases are what make a small file grow
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{name}:{line}: anchors and aliases (&, *) are not allowed")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{name}:{line}: tags ({shown(tag, 80)}) are not allowed")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"{name}:{line}: nested deeper than {MAX_DEPTH} levels")


def _build(node: yaml.Node, path: Path, document: Document) -> Any:
    line = node.start_mark.line + 1
    document.lines.setdefault(path, line)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{document.name}:{key_line}: a key must be a word")
            if key in mapping:
                first = document.lines[(*path, key)]
                raise ConfigError(
                    f"{document.name}:{key_line}: the key '{shown(key, 80)}' occurs twice "
                    f"(first on line {first}); remove one"
                )
            document.lines[(*path, key)] = key_line
            mapping[key] = _build(value_node, (*path, key), document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), document) for i, item in enumerate(node.value)]
    quoted = getattr(node, "style", None)
    return node.value if quoted else _scalar(node.value, document.name, line)


def _scalar(text: str, name: str, line: int) -> Any:
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        if len(text) > 40:
            raise ConfigError(f"{name}:{line}: a number of {len(text)} digits is too large")
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ConfigError(f"{name}:{line}: {shown(text, 80)} is too large a number")
        return value
    return text
