"""The public face: what a user's scripts may rely on. A change here stands in CHANGELOG.md."""

from __future__ import annotations

import inspect
import re

import click
import pytest

import raygan
import raygan.recipes
from raygan.cli import main
from raygan.sweep.commands.data_command import main as data
from raygan.version import __version__
from tests.conftest import ROOT

COMMANDS = {
    "check": "FILES --path --size",
    "evaluate": "NAME --audited --device --fid --fid-weights --images --protocol --quality --recipe"
    " --restarts --steps --storage --which",
    "init": "NAME --from",
    "report": "NAME --out --storage",
    "results": "NAME --format --out --storage",
    "status": "NAME --storage",
    "stop": "NAME --storage",
    "sweep": "FILE --address --calibrate --dry-run --fresh --offline --retry-failed --schema --sd --set"
    " --smoke-test --verbose",
    "sync": "NAME --mlflow --storage",
    "ui": "NAME --browser --port --storage",
    "watch": "NAME --once --storage",
}
"""The commands of ``raygan``, with their arguments and options."""

DATA_COMMANDS = {
    "info": "PATH --sheet --verify",
    "prepare": "FILE --address --crop --download --final --max-corrupt --out --path --pool"
    " --processes --running --set --size --source --split --split-seed",
}
"""The commands of ``python -m raygan.data``."""


def words(command: click.Command) -> str:
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    options = [opt for p in command.params if isinstance(p, click.Option) for opt in p.opts]
    return " ".join([*(str(p.name).upper() for p in arguments), *sorted(options)])


@pytest.mark.parametrize(("group", "pinned"), [(main, COMMANDS), (data, DATA_COMMANDS)])
def test_the_command_line_is_as_pinned(group: click.Group, pinned: dict[str, str]) -> None:
    assert {name: words(command) for name, command in group.commands.items()} == pinned


def test_the_names_of_raygan_are_as_pinned() -> None:
    assert raygan.__all__ == ["__version__", "results", "run"]
    assert all(hasattr(raygan, name) for name in raygan.__all__)
    assert list(inspect.signature(raygan.results).parameters) == ["sweep"]
    assert list(inspect.signature(raygan.run).parameters) == ["sweep", "options"]


def test_what_a_file_of_recipes_imports_is_as_pinned() -> None:
    names = (
        "Architecture Augmentation ConfigError DataSource ImageSet Loss Metric Norm OptimizerRecipe"
    )
    names += " StopRule Stopper TrainConfig plan_levels tables"
    assert raygan.recipes.__all__ == names.split()
    assert all(hasattr(raygan.recipes, name) for name in raygan.recipes.__all__)


def test_the_changelog_begins_with_this_version() -> None:
    heading = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    assert heading[1].split()[0] == __version__


def test_the_wheel_is_told_to_carry_the_mark_of_typed_code() -> None:
    assert (ROOT / "raygan" / "py.typed").is_file()
    assert '"raygan" = ["py.typed"]' in (ROOT / "pyproject.toml").read_text()
