"""Write the pages of docs/reference that follow from the code: `python docs/generate.py`.

`--check` writes nothing and exits with 1 if a page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import click

from raygan.cli import main as command
from raygan.sweep.commands.data_command import main as data_command
from raygan.sweep.spec.sweep_spec import spec_class

FOLDER = Path(__file__).parent / "reference"
_INTRO = {
    "yaml.md": """# YAML keys

A sweep is one YAML file. This page lists every key; it is generated from the schema that raygan
itself uses. `python -m raygan.sweep --schema` prints that schema for editors. An unknown key, a
wrong value, or a key without effect is an error that names its line, before anything starts.

`--set train.features=16` overrides a key on the command line. Numbers, `true`, `false`, `null`, and
values that start with a quote, `[` or `{` are read as YAML. Any other value is text.
""",
    "commands.md": """# Command line

`raygan sweep …` and `python -m raygan.sweep …` are the same command. Errors go to standard error.
[Exit codes](exit-codes.md) lists what each command returns.
""",
}


_SEVERAL = """`dataset` may be a list of up to 20 data sets, such as `[{name: cifar10, path: …},
{name: celeba, path: …, size: 64}]`. Each item has these keys and those of `dataset`. With at least
two items, the data sets are the first axis of the grid: cells multiply, and their names begin with
the label, such as `cifar10_bn`. See [several data sets](../guides/images.md#several-data-sets).
"""


def pages() -> dict[str, str]:
    """The pages by file name."""
    found = {"yaml.md": _yaml(), "commands.md": _commands()}
    return {name: f"{_INTRO[name]}\n{text}" for name, text in found.items()}


def _yaml() -> str:
    schema = spec_class().model_json_schema()
    sections = schema["$defs"]
    top = {
        name: {"description": _first(sections, _section(field)), **field}
        for name, field in schema["properties"].items()
    }
    parts = [_table("Top level", top, set(schema["required"]))]
    for name, field in schema["properties"].items():
        section = _section(field)
        if section is None or name in ("grid", "search"):
            continue
        intro = _prose(_first(sections, section))
        parts.append(f"{_table(f'`{name}`', sections[section]['properties'])}\n{intro}\n")
        if name == "dataset":
            item = sections["NamedDataset"]["properties"]
            own = {key: item[key] for key in item if key not in sections[section]["properties"]}
            parts.append(f"{_table('`dataset` as a list', own)}\n{_SEVERAL}\n")
    own = {
        key: field
        for key, field in sections["Search"]["properties"].items()
        if key not in sections["Train"]["properties"] or key == "seed"
    }
    parts.append(
        "## `grid`\n\nAny field of [`train`](#train) but `checkpoint_every` and `quality` with a "
        "list of values. Each combination is a cell: `grid: {norm: [bn, wn], architecture: [dcgan, "
        "resnet]}` makes four.\n"
    )
    parts.append(
        f"{_table('`search`', own)}\nAny field of [`train`](#train) but `seed`, "
        "`checkpoint_every` and `quality` with a list of values or a range: `lr: {min: 1.0e-5, "
        "max: 1.0e-3, scale: log}`. `scale` is `log` or `linear` (default).\n"
    )
    return "\n".join(parts)


def _first(sections: dict[str, Any], section: str | None) -> str:
    """The first paragraph of what a section is."""
    text: str = sections[section].get("description", "") if section else ""
    return text.split("\n\n")[0]


def _section(field: dict[str, Any]) -> str | None:
    several = (option for key in ("anyOf", "allOf", "oneOf") for option in field.get(key, []))
    options = [field, field.get("items", {}), *several]
    return next((o["$ref"].rpartition("/")[2] for o in options if "$ref" in o), None)


def _table(title: str, fields: dict[str, Any], required: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = [f"## {title}\n", "| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        section = _section(field)
        if section is not None and title == "Top level":
            values, default = f"[section](#{name})", ""
        else:
            values = _values(field)
            default = "required" if name in required else _code(field.get("default"))
        rows.append(f"| `{name}` | {values} | {default} | {_prose(field.get('description', ''))} |")
    return "\n".join(rows) + "\n"


def _values(field: dict[str, Any]) -> str:
    if options := field.get("anyOf") or field.get("oneOf"):
        kept = [option for option in options if option.get("type") != "null"]
        types = {option.get("type") for option in kept}
        if types == {"boolean", "integer", "number", "string"}:
            return "a cell's name, or a value of an axis"
        if {"integer", "number"} <= types:  # a whole number is a number
            kept = [option for option in kept if option.get("type") != "integer"]
            kept.sort(key=lambda option: option.get("type") == "string")
        return " or ".join(dict.fromkeys(_values(option) for option in kept))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return "list"
    if field.get("type") == "object" or "$ref" in field:
        return "mapping"
    words = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`"}
    name = words.get(field.get("type", ""), field.get("type", "any"))
    bounds = [
        f"{sign} {field[key]:,}"
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
        )
        if key in field
    ]  # fmt: skip
    return " ".join([name, ", ".join(bounds)]).strip()


def _code(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _prose(text: str) -> str:
    text = re.sub(r":\w+:`~?([\w.]+\.)?(\w+)`", r"`\2`", text).replace("``", "`")
    return " ".join(text.replace("|", "\\|").split())


def _commands() -> str:
    parts = []
    for name, found in sorted(command.commands.items()):
        parts.append(_one_command(f"raygan {name}", found))
    for name, found in sorted(data_command.commands.items()):
        parts.append(_one_command(f"python -m raygan.data {name}", found))
    return "\n".join(parts)


def _one_command(name: str, found: click.Command) -> str:
    arguments = [p for p in found.params if isinstance(p, click.Argument)]
    usage = " ".join(
        [name, "[OPTIONS]", *(a.make_metavar(click.Context(found)) for a in arguments)]
    )
    text = inspect.cleandoc(found.help or "")
    rows = [f"## {name}\n", f"```text\n{usage}\n```\n", f"{_prose_lines(text)}\n"]
    options = [p for p in found.params if isinstance(p, click.Option)]
    if options:
        rows += ["| option | effect | default |", "|---|---|---|"]
    for option in options:
        metavar = "" if option.is_flag else f" {option.make_metavar(click.Context(found))}"
        names = ", ".join(f"`{n}{metavar}`" for n in option.opts)
        shown = "" if option.is_flag or not option.show_default else _code(option.default)
        rows.append(f"| {names.replace('|', '&#124;')} | {_prose(option.help or '')} | {shown} |")
    return "\n".join(rows) + "\n"


def _prose_lines(text: str) -> str:
    return "\n\n".join(_prose(part) for part in text.split("\n\n"))


def main(check: bool = False) -> int:
    """Write the pages, or see that they are current; returns the exit code."""
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not check:
                path.write_text(text)
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv))
