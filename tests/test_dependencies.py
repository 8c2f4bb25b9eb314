"""What raygan imports is declared, with bounds that exclude known holes, and pinned within them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Distributions that are not called as their package is."""
EXTRAS = PROJECT["optional-dependencies"]


def declared(*groups: list[str]) -> dict[str, Requirement]:
    found = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


NEEDED = declared(PROJECT["dependencies"])
USED = {**NEEDED, **declared(*(lines for name, lines in EXTRAS.items() if name != "dev"))}


IMPORT = re.compile(r"^[ \t]*(?:import[ \t]+([\w., \t]+)|from[ \t]+(\w[\w.]*)[ \t]+import\b)", re.M)
"""Found as text: to parse every module takes seconds."""


def imported(folder: Path) -> dict[str, str]:
    """The distributions whose packages are imported, and one file each that does."""
    found: dict[str, str] = {}
    for path in folder.rglob("*.py"):
        for several, one in IMPORT.findall(path.read_text()):
            names = {name.split()[0].partition(".")[0] for name in (several or one).split(",")}
            for name in names - sys.stdlib_module_names:
                found[canonicalize_name(NAMES.get(name, name))] = str(path)
    return found


def test_the_imports_are_found(tmp_path):
    text = "import a.b as c, d\nfrom e.f import (\n  g)\nif 1:\n    import PIL\nfrom . import h\nimport os\n"
    (tmp_path / "x.py").write_text(text)
    assert set(imported(tmp_path)) == {"a", "d", "e", "pillow"}


def test_each_import_is_declared():
    missing = {k: v for k, v in imported(ROOT / "raygan").items() if k not in {*USED, "raygan"}}
    assert not missing


def test_each_dependency_has_a_lower_bound():
    for name, requirement in USED.items():
        assert any(bound.operator == ">=" for bound in requirement.specifier), name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("pillow", "12.3"), ("pyarrow", "23"), ("ray", "2.56"), ("mlflow", "3.17"),
        ("torch", "2.6"), ("jinja2", "3.1.6"), ("scikit-learn", "1.5"), ("pyyaml", "5.4"),
    ],
)  # fmt: skip
def test_versions_with_known_holes_are_excluded(name, safe):
    (bound,) = [bound for bound in NEEDED[name].specifier if bound.operator == ">="]
    assert Version(bound.version) >= Version(safe)


def test_each_pin_is_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    assert len(pinned) == len(pins)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in pins)
    wanted = {**NEEDED, **declared(EXTRAS["dev"])}
    assert not wanted.keys() - pinned.keys()
    for name, requirement in {**USED, **wanted}.items():
        if name in pinned:
            assert pinned[name] in requirement.specifier, name
