"""The examples of the README are run, and its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raygan.sweep import spec
from raygan.sweep.yaml_loader import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_yaml_examples_are_valid_sweeps():
    for number, text in enumerate(blocks("yaml")):
        assert spec.validate(parse(text, f"README, example {number}")).axes()


@pytest.mark.cluster
def test_python_examples_run(tmp_path):
    for code in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("10 ")


def test_make_targets_and_sweeps_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) - {"and"} <= targets
    for path in re.findall(r"(?:sweeps|docs|infra)/[\w./-]+\w", README):
        assert (ROOT / path).exists(), path
    assert set(re.findall(r"`sweeps/([\w-]+\.yaml)`", README)) == {
        path.name for path in (ROOT / "sweeps").glob("*.yaml")
    }
