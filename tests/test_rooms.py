"""The rooms of the code: imports, those inside functions included, go down and in no circle."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    ("errors", "shown", "liveness", "addresses", "version", "stored", "local_files", "retries", "storage",
     "folder", "recipe", "background"),
    ("data",),
    ("gan",),
    ("records", "pictures", "checkpoints"),
    ("report",),
    ("tracking",),
    ("sweep.stopping",),
    ("recipes", "own_recipes"),
    ("sweep.spec",),
    ("sweep.study",),
    ("sweep.cluster",),
    ("sweep.session",),
    ("sweep.commands",),
    ("cli", "__init__"),
)  # fmt: skip
"""From the ground up. A module may import from its own floor and from those below."""

WITH_RAY = "raygan.sweep.cluster."
"""The one room that imports Ray."""

PRIVATE = ("v2", "generated", "execution")
"""Parts of the names of Ray's modules that are private without an underscore."""


class Import(NamedTuple):
    """One module imported by another."""

    importer: str
    imported: str
    for_types: bool
    """Whether it is below ``if TYPE_CHECKING``, and so not executed."""


def module_of(path: Path, root: Path) -> str:
    """``raygan/data/files.py`` → ``raygan.data.files``; a package's is its ``__init__``."""
    return ".".join(path.relative_to(root).with_suffix("").parts)


def imports(
    root: Path, package: str = "raygan", outside: Iterable[str] = ()
) -> tuple[list[str], list[Import]]:
    """The modules of ``package`` and what they import of it, and of the packages ``outside``.

    Programs are left out, which nothing imports: modules ``__main__``, and what stands below
    ``if __name__ == "__main__"``.
    """
    files = {module_of(path, root): path for path in sorted((root / package).rglob("*.py"))}
    found: list[Import] = []
    for module, path in files.items():
        if module.endswith("__main__"):
            continue
        for name, for_types in _imported(ast.parse(path.read_text()), files):
            if name.partition(".")[0] in (package, *outside) and name != module:
                found.append(Import(module, name, for_types))
    return [module for module in files if not module.endswith("__main__")], found


def _imported(
    node: ast.AST, known: Mapping[str, Path], for_types: bool = False
) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield _module(alias.name, known), for_types
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute in this project"
        assert node.module is not None
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            is_module = whole in known or f"{whole}.__init__" in known
            yield _module(whole if is_module else node.module, known), for_types
    elif isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
        return
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _imported(child, known, for_types=True)
        for child in node.orelse:
            yield from _imported(child, known, for_types)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child, known, for_types)


def _module(name: str, known: Mapping[str, Path]) -> str:
    return name if name in known or f"{name}.__init__" not in known else f"{name}.__init__"


def floor(module: str) -> int:
    """How high a module stands; raises LookupError for one that has no room."""
    inner = module.removeprefix("raygan.")
    for height, rooms in enumerate(FLOORS):
        if any(inner == room or inner.startswith(f"{room}.") for room in rooms):
            return height
    raise LookupError(f"{module} stands in no room: name its room in FLOORS")


def arrows_up(found: Iterable[Import]) -> list[tuple[str, str]]:
    """Imports of a floor above that of their module."""
    return sorted({(a, b) for a, b, _ in found if b.startswith("raygan.") and floor(a) < floor(b)})


def circle(found: Iterable[Import]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for importer, imported, for_types in found:
        if not for_types:
            graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@cache
def of_raygan() -> tuple[list[str], list[Import]]:
    return imports(ROOT, outside=["ray"])


def test_every_module_has_a_room() -> None:
    modules, _ = of_raygan()
    empty = ("raygan.sweep.__init__",)  # its docstring alone
    assert len([floor(module) for module in modules if module not in empty]) > 100


def test_no_import_goes_up() -> None:
    _, found = of_raygan()
    assert arrows_up(found) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    _, found = of_raygan()
    assert circle(found) == []


def test_only_the_room_of_the_cluster_imports_ray() -> None:
    _, found = of_raygan()
    ray = {a for a, b, _ in found if b.partition(".")[0] == "ray"}
    assert ray
    assert [module for module in sorted(ray) if not module.startswith(WITH_RAY)] == []


def test_private_modules_of_ray_are_imported_in_one_file() -> None:
    _, found = of_raygan()
    private = {
        importer
        for importer, imported, for_types in found
        if imported.startswith("ray.") and not for_types
        if any(part.startswith("_") or part in PRIVATE for part in imported.split("."))
    }
    assert private == {"raygan.sweep.cluster.ray_quirks"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two modules of ``raygan`` that are empty so far."""
    for name in ("gan", "report"):
        (tmp_path / "raygan" / name).mkdir(parents=True)
        (tmp_path / "raygan" / name / "one.py").touch()
    return tmp_path


INSIDE = "def work():\n    from raygan.report import one\n"
FOR_TYPES = "if TYPE_CHECKING:\n    from raygan.report.one import One\n"


@pytest.mark.parametrize("text", ["import raygan.report.one\n", INSIDE, FOR_TYPES])
def test_an_import_that_goes_up_is_seen_wherever_it_stands(small: Path, text: str) -> None:
    (small / "raygan/gan/one.py").write_text(text)
    assert arrows_up(imports(small)[1]) == [("raygan.gan.one", "raygan.report.one")]


def test_a_circle_is_seen_unless_one_arrow_of_it_is_for_types_alone(small: Path) -> None:
    (small / "raygan/report/one.py").write_text("import raygan.gan.one\n")
    (small / "raygan/gan/one.py").write_text(FOR_TYPES)
    assert circle(imports(small)[1]) == []
    (small / "raygan/gan/one.py").write_text(INSIDE)
    assert set(circle(imports(small)[1])) == {"raygan.gan.one", "raygan.report.one"}


PROGRAM = """
import importlib, json, pkgutil, sys
import raygan.gan, raygan.data
for package in (raygan.gan, raygan.data):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""


def test_gan_and_data_load_neither_ray_nor_mlflow_nor_optuna() -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(run.stdout))
    modules = {file.stem for file in (ROOT / "raygan" / "gan").glob("[!_]*.py")}
    assert {f"raygan.gan.{module}" for module in modules} <= loaded
    assert "raygan.data.sources.find" in loaded
    # pyarrow: only when a Parquet source is read; scikit-learn: only for the digits
    unwanted = {"ray", "mlflow", "optuna", "pydantic", "pyarrow", "sklearn"}
    assert not unwanted & loaded
