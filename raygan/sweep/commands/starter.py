"""``raygan init``: a commented YAML to start from, and its schema for editors."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click

from raygan.errors import ConfigError, RayganError
from raygan.sweep.spec.sweep_spec import NAME, load, spec_class

SCHEMA_FILE = "raygan.schema.json"
SHIPPED = ("quickstart", "cifar10", "paper-small", "full")


def shipped(name: str) -> str:
    """The text of the sweep ``name`` that comes with raygan."""
    # a wheel holds the sweeps in the package; a checkout beside it
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "sweeps", package.parent / "sweeps"):
        if (path := folder / f"{name}.yaml").is_file():
            return path.read_text()
    raise ConfigError(f"the sweep {name!r} is missing from this installation; install raygan again")


@click.command()
@click.argument("name", default="my-sweep")
@click.option(
    "--from",
    "source",
    type=click.Choice(SHIPPED),
    default="quickstart",
    show_default=True,
    help="Example sweep to start from.",
)
def init(name: str, source: str) -> None:
    """Write NAME.yaml, a commented sweep, and raygan.schema.json into the current folder."""
    try:
        path = write(name.removesuffix(".yaml"), source, Path())
    except RayganError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)
    click.echo(
        f"Written: {path} and {SCHEMA_FILE} (for editors).\n\n"
        f"Next:  raygan sweep {path} --dry-run     # shows the plan; --calibrate estimates time and"
        " cost\n"
        f"       raygan sweep {path} --smoke-test  # runs a small version, about a minute\n"
        f"       raygan sweep {path}"
    )


def write(name: str, source: str, folder: Path) -> Path:
    """Write the sweep ``source`` as ``name``, and the schema, into ``folder``.

    Raises :class:`~raygan.errors.ConfigError` if the name cannot be used or the file exists.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"NAME (={name!r}) must be up to 64 letters, digits, '.', '_' or '-', and begin with a "
            "letter or digit"
        )
    path = folder / f"{name}.yaml"
    text = shipped(source).replace(f"sweeps/{source}.yaml", path.name)
    text = re.sub(rf"^name: {source}$", f"name: {name}", text, flags=re.MULTILINE)
    try:
        with path.open("x") as file:
            file.write(f"# yaml-language-server: $schema={SCHEMA_FILE}\n{text}")
        schema = json.dumps(spec_class().model_json_schema(), indent=1)
        (folder / SCHEMA_FILE).write_text(schema)
        load(path)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already: choose another name, or delete it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error
    return path
