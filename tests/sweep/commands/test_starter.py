"""``raygan init`` writes a sweep that runs."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.errors import ConfigError
from raygan.report import rates
from raygan.report.compare import LEAST
from raygan.report.evidence import Evidence
from raygan.report.sections import sections
from raygan.sweep.commands import starter
from raygan.sweep.spec.sweep_spec import load
from raygan.sweep.study.compared import cells
from tests.sweep import simulated

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("source", starter.SHIPPED)
def test_each_shipped_sweep_can_be_started_from(source: str, tmp_path: Path) -> None:
    path = starter.write("mine", source, tmp_path)
    written, original = load(path), load(ROOT / "sweeps" / f"{source}.yaml")
    assert written.name == "mine"
    assert written == original.model_copy(update={"name": "mine"})
    assert f"sweeps/{source}.yaml" not in path.read_text()


def test_every_shipped_sweep_is_offered() -> None:
    assert set(starter.SHIPPED) == {path.stem for path in (ROOT / "sweeps").glob("*.yaml")}


def test_the_quickstart_answers_every_section() -> None:
    quickstart = load(ROOT / "sweeps" / "quickstart.yaml")
    study = simulated.run(quickstart, seed=0)
    found = Evidence("quickstart", cells(quickstart, study.records), finished=True)
    assert [section.key for section in sections(found) if not section.answered] == []
    assert quickstart.final_config().steps > 0
    for cell in found.cells:
        assert len(cell.runs) >= LEAST, "too few seeds for an interval of the mean"
        tried = rates.by_rate(cell.records)
        assert len([rate for rate in tried if rate.loss is not None]) > 1, "one learning rate only"


def test_the_first_line_points_editors_at_the_schema(tmp_path: Path) -> None:
    path = starter.write("mine", "quickstart", tmp_path)
    found = re.fullmatch(
        r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0]
    )
    assert found is not None
    schema = json.loads((tmp_path / found[1]).read_text())
    assert "grid" in schema["properties"]


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kept")
    with pytest.raises(ConfigError, match="exists already"):
        starter.write("mine", "quickstart", tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == "kept"


@pytest.mark.parametrize("name", ["../up", "a b", "", "x" * 65])
def test_a_name_that_no_sweep_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NAME"):
        starter.write(name, "quickstart", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_to_run_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "mine.yaml"])
    assert done.exit_code == 0, done.output
    assert "raygan sweep mine.yaml --dry-run" in done.output
    again = CliRunner().invoke(main, ["init", "mine"])
    assert again.exit_code == 2
    assert "error: mine.yaml exists already" in again.output


def test_the_wheel_holds_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "raygan").rglob("__init__.py")
    }
    assert listed == found | {"raygan.sweeps"}
