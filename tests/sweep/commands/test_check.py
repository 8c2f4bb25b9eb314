"""``raygan check``: what it prints, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raygan import recipe
from raygan.cli import main
from raygan.gan import contract

METRIC = '''
from raygan.recipes import Metric

class Brightness(Metric):
    """Mean brightness of the samples."""

    name = "brightness"
    factor: float = 2.0
    """Factor."""

    def measure(self, samples, images):
        return self.factor * samples.mean()
'''
RULE = '''
from raygan.recipes import Stopper, StopRule

class Late(StopRule):
    """Stops late."""

    name = "late"

    def start(self, grace):
        return Watcher()

class Watcher(Stopper):
    def stops(self, trial, step, loss):
        return step > 900
'''
SOURCE = '''
import numpy as np
from raygan.recipes import DataSource

class Noise(DataSource):
    """Noise."""

    name = "noise"
    needs_path = False

    def count(self, path):
        return 7

    def read(self, path, start, stop):
        for number in range(start, stop):
            yield np.full((8, 8, 3), number, np.uint8)
'''
NORM = '''
from torch import nn
from raygan.recipes import Norm

class Mine(Norm):
    """Group norm of one group."""

    name = "mine"

    def normalisation(self, channels):
        return [nn.GroupNorm(1, channels)]
'''
LOSS = '''
from raygan.recipes import Loss

class Squared(Loss):
    """Squared distances."""

    name = "squared"

    def real(self, logits):
        return (logits - 1) ** 2

    def fake(self, logits):
        return (logits + 1) ** 2

    def generator(self, logits):
        return (logits - 1) ** 2
'''


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    recipe.use([])


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Check a file with this text, by the checks that need one process and little time."""
    quick = ("shapes and ranges", "gradients", "metrics")
    fewer = tuple(c for c in contract.ALL if c[0] in quick)
    for name in ("ALL", "IN_ONE_PROCESS"):
        monkeypatch.setattr(contract, name, fewer)

    def run(text: str, *options: str) -> Result:
        (tmp_path / "mine.py").write_text(text)
        words = ["check", str(tmp_path / "mine.py"), "--size", "8", *options]
        return CliRunner().invoke(main, words)

    return run


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (METRIC, ["metric brightness: factor = 2.0", "    ✓ metrics"]),
        (RULE, ["stop rule late: no parameters", "    ✓ stops nothing before its grace"]),
        (
            SOURCE,
            ["data source noise: no parameters", "    ✓ 7 images, digest ; the first 4 were read"],
        ),
        (
            LOSS,
            [
                "loss squared: no parameters",
                "  with loss: squared, norm: vanilla",
                "    ✓ shapes and ranges",
                "    ✓ gradients",
                "    ✓ metrics",
            ],
        ),
        (
            NORM,
            [
                "norm mine: no parameters",
                "  with norm: mine, architecture: dcgan",
                "    ✓ shapes and ranges",
                "    ✓ gradients",
                "    ✓ metrics",
                "  with norm: mine, architecture: resnet",
                "    ✓ shapes and ranges",
                "    ✓ gradients",
                "    ✓ metrics",
            ],
        ),
    ],
)
def test_a_file_that_keeps_the_contract(check, text: str, lines: list[str]) -> None:
    done = check(text)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [*lines, "All recipes meet the requirements."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (METRIC.replace("samples.mean", "samples.means"), "mine.py:12: AttributeError: 'Tensor'"),
        (METRIC.replace("self.factor * ", "'a' or "), "the metric `brightness` returned 'a'"),
        (RULE.replace("step > 900", "True"), "stops a trial at iteration 100, before its `grace`"),
        (SOURCE.replace("np.full", "np.fill"), "mine.py:16: AttributeError: module 'numpy'"),
        (SOURCE.replace("np.uint8", "float"), "image 0: the data source returns float64"),
        (SOURCE.replace("(start, stop):", "(start, stop + 1):"), "images 0 to 3 and returned more"),
        (SOURCE.replace("(start, stop):", "(start + 1, stop):"), "0 to 3 and returned 3, not"),
        (LOSS.replace("def generator", "def generators"), "a method is missing: Loss.generator"),
        (LOSS.replace("logits - 1)", "logits - one)"), "mine.py:10: NameError: name 'one' is not"),
        (NORM.replace("nn.GroupNorm(1", "nn.GroupNorm(3"), "mine.py:11: ValueError: num_channels"),
        ("import", "mine.py:1: SyntaxError: "),
        ("x = 1", "mine.py: defines no recipe"),
        (NORM.replace('"mine"', '"bn"'), "there is a norm of this name"),
        (METRIC.replace("factor", "seed"), "`seed` is a parameter of the metric brightness and a"),
    ],
)
def test_a_file_that_breaks_the_contract(check, text: str, message: str) -> None:
    done = check(text)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.output
    assert "All recipes" not in done.output


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(tmp_path / "none.py")])
    assert done.exit_code == 2
    assert f"{tmp_path / 'none.py'}: cannot be read (No such file or directory)" in done.stderr


def test_a_source_that_needs_a_path_is_read_where_it_is_given(check, tmp_path: Path) -> None:
    text = SOURCE.replace("    needs_path = False\n", "")
    assert "✓ not read: give --path" in check(text).output
    assert "✓ 7 images, digest" in check(text, "--path", str(tmp_path)).output
