"""``raygan check``: whether the recipes in a file meet the requirements of their kinds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from raygan import recipe
from raygan.data.decode import UnusableError
from raygan.data.sources.source import DataSource, OwnPiece
from raygan.errors import RayganError
from raygan.gan import contract
from raygan.gan.config import TrainConfig, check_names, recipe_tables
from raygan.gan.judge.metric import Metric
from raygan.shown import shown
from raygan.sweep.stopping.rule import StopRule
from raygan.sweep.stopping.rules import try_rule

_PARTNERS = {"norm": "architecture", "architecture": "norm"}
"""With all built-in recipes of which other kind a recipe is tried."""


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--size", type=click.IntRange(2, 512), default=32, show_default=True,
    help="Side of the test images, in pixels.",
)  # fmt: skip
@click.option("--path", help="Where a data source finds images; without it, none are read.")
def check(files: tuple[Path, ...], size: int, path: str | None) -> None:
    """Check that the recipes in FILES meet the requirements of their kinds.

    Networks are tiny and run on the CPU; it takes a minute or two. Norms, architectures, losses,
    optimizers and augmentations: shapes, gradients, save and load, two workers equal to one, no
    host–device synchronisation. Exit code 2: a recipe does not meet them.
    """
    try:
        recipe.use([recipe.read(file) for file in files])
        check_names()
        with recipe.blamed():
            for _, recipes in recipe.in_use().values():
                for each in recipes:
                    _check(each, size, path)
    except RayganError as error:
        click.secho(f"error: {shown(error, 2000, lines=True)}", fg="red", err=True)
        sys.exit(2)
    click.echo("All recipes meet the requirements.")


def _check(made: type[recipe.Recipe], size: int, path: str | None) -> None:
    click.echo(f"{made.table.kind} {made.name}: {', '.join(_described(made)) or 'no parameters'}")
    if issubclass(made, StopRule):
        try_rule(made())
        _passed("stops nothing before its grace")
    elif issubclass(made, DataSource):
        _passed(_read(made(), path))
    elif issubclass(made, Metric):
        _hold(TrainConfig(), size, (contract.MEASURED,))
    else:
        for number, values in enumerate(_configurations(made)):
            click.echo(f"  with {', '.join(f'{k}: {v}' for k, v in values.items())}")
            # two workers take long to start: once for each recipe
            checks = contract.ALL if number == 0 else contract.IN_ONE_PROCESS
            _hold(TrainConfig.of(**values), size, checks)


def _described(made: type[recipe.Recipe]) -> Iterator[str]:
    for parameter in recipe.parameters(made).values():
        yield f"{parameter.name} = {parameter.default}"


def _configurations(made: type[recipe.Recipe]) -> Iterator[dict[str, Any]]:
    key = made.table.key
    partner = _PARTNERS.get(key)
    if partner is None:
        yield {key: made.name, "norm": "vanilla"}
        return
    for other in recipe_tables()[partner]:
        if recipe.file_of(other) is None:
            yield {key: made.name, partner: other.name}


def _hold(config: TrainConfig, size: int, checks: tuple[contract.Check, ...]) -> None:
    for name in contract.checked(config, (3, size, size), checks):
        _passed(name)


def _read(source: DataSource, path: str | None) -> str:
    if path is None and source.needs_path:
        return "not read: give --path"
    with recipe.blamed():
        count, digest = source.counted(path or ""), source.digest(path or "")
        piece = OwnPiece(path or "", 0, min(4, count), source.name, {})
        for _, image in piece.read():
            if isinstance(image, UnusableError):
                raise image
    return f"{count} images, digest {digest[:12]}; the first {piece.count} were read"


def _passed(name: str) -> None:
    click.echo(f"    ✓ {name}")
