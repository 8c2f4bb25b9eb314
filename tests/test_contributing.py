"""CONTRIBUTING.md is true: its rooms, its files, its table of recipes, and the walk of `lr`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from raygan.gan.config import TrainConfig
from raygan.recipe import Table
from raygan.recipes import tables
from raygan.sweep.cluster.job import Job
from raygan.sweep.spec import plan
from raygan.sweep.spec.sweep_spec import validate
from raygan.sweep.spec.yaml_loader import parse
from tests.conftest import ROOT
from tests.test_rooms import FLOORS

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
PATHS = sorted({span for span in SPANS if re.fullmatch(r"[\w./-]+/[\w./-]*|[A-Z]+\.md", span)})


def part(title: str) -> str:
    """The text below a heading."""
    return TEXT.split(f"## {title}")[1].split("\n## ")[0]


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_its_rooms_are_those_of_the_test_of_imports() -> None:
    tree = re.search(r"```text\nraygan/\n(.*?)```", TEXT, re.DOTALL)
    assert tree is not None
    # a room stands two spaces in; what it is, behind it or further in
    lines = [line[2:].split("  ")[0] for line in tree[1].splitlines() if line[2] != " "]
    assert [tuple(line.split()) for line in lines] == list(FLOORS)


@pytest.mark.parametrize("path", [path for path in PATHS if "NAME" not in path])
def test_the_files_that_it_names_exist(path: str) -> None:
    assert (ROOT / path).exists()


def test_it_names_files() -> None:
    assert len(PATHS) > 30


def rows(text: str) -> list[list[str]]:
    """The rows of a section's tables whose cells hold code, without their marks."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in row] for row in cells]


KINDS = {row[0]: row for row in rows(part("How to add something")) if row[0] in tables()}


def test_it_says_how_to_add_a_recipe_of_each_kind() -> None:
    assert KINDS.keys() == tables().keys()


def entries(table: Table[Any]) -> list[Path]:
    """The files that import the table's built-in recipes and enter them."""
    names = [recipe.__name__ for recipe in table]
    files = [path for path in (ROOT / "raygan").rglob("*.py") if "Table(" in path.read_text()]
    return [path for path in files if all(name in path.read_text() for name in names)]


@pytest.mark.parametrize("kind", tables())
def test_a_recipe_is_one_file_that_is_entered_where_it_says(kind: str) -> None:
    _, file, entered = KINDS[kind]
    assert [str(path.relative_to(ROOT)) for path in entries(tables()[kind])] == [entered]
    for recipe in tables()[kind]:
        assert f"{recipe.__module__.replace('.', '/')}.py".startswith(file.partition("NAME")[0])
        lines = (ROOT / entered).read_text().splitlines()
        assert f"from {recipe.__module__} import {recipe.__name__}" in lines


def test_the_walk_of_lr_takes_the_files_that_it_says() -> None:
    walk = [row[0] for row in rows(part("A walk")) if row[0].endswith(".py")]
    assert len(walk) == 6
    changes = re.findall(r"\((\d)\) \|$", part("A walk"), re.MULTILINE)
    assert changes == ["1", "2", "3"]
    loader, spec_file, plan_file, job_file, worker, state = ((ROOT / p).read_text() for p in walk)
    assert "_scalar" in loader
    assert "def train_config" in spec_file
    assert "spec.train_config(**values)" in plan_file
    assert "config=plan.config.to_dict()" in job_file
    assert "job.train_config()" in worker
    assert "config.lr" in state


def test_lr_takes_the_three_forms_of_the_walk() -> None:
    document = parse("name: a\nsearch: {lr: [1e-4, 2e-4]}\n", "a.yaml")
    assert document.data["search"]["lr"] == [1e-4, 2e-4]
    spec = validate(document)
    assert spec.space()["lr"] == [1e-4, 2e-4]
    (cell,) = plan.cells(spec)
    planned = plan.trial(spec, cell, 0, {"lr": 2e-4})
    assert planned.config.lr == 2e-4
    job = Job(trial="a", config=planned.config.to_dict(), folder="", prepared="", digest="")
    assert job.to_plain()["config"]["lr"] == 2e-4
    back: TrainConfig = Job(**job.to_plain()).train_config()
    assert back.lr == 2e-4
