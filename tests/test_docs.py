"""The documentation: its examples run, its links lead somewhere, its generated pages are current."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from raygan.cli import main
from raygan.sweep import spec
from raygan.sweep.yaml_loader import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "infra" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.name != "report.md"]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_yaml_examples_are_valid_sweeps(page: Path) -> None:
    for number, text in enumerate(_blocks(page, "yaml")):
        found = parse(text, f"{_named(page)}, example {number}")
        found.data.setdefault("name", "example")  # a part of a sweep
        assert spec.validate(found).name


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{_named(page)}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{_named(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_commands_in_examples_exist(page: Path) -> None:
    for text in _blocks(page, "sh"):
        for name in re.findall(r"\braygan ([a-z]+)\b", text):
            assert name in main.commands, f"{_named(page)}: raygan {name}"
        for path in re.findall(r"(?<!/)\bsweeps/[\w./-]+\w", text):
            assert (ROOT / path).exists(), path


def test_generated_pages_are_current() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for name, text in pages.items():
        written = (ROOT / "docs" / "reference" / name).read_text()
        assert written == text, f"{name} is out of date: run `make docs`"


@pytest.mark.cluster
def test_python_examples_run(tmp_path: Path) -> None:
    code = _blocks(ROOT / "docs" / "guides" / "python.md", "python")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 ")


def test_the_readme_names_every_make_target_and_shipped_sweep_rightly() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)`?", readme)) <= targets | {"and"}
    shipped = {path.name for path in (ROOT / "sweeps").glob("*.yaml")}
    assert set(re.findall(r"`sweeps/([\w-]+\.yaml)`", readme)) == shipped
    assert len(readme.splitlines()) <= 150
