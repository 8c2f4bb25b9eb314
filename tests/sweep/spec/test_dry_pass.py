"""Users' recipes in a YAML: tried when it is read, and their parameters are keys like others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raygan import recipe
from raygan.errors import ConfigError
from raygan.gan import contract
from raygan.gan.nets.norms import NORMS
from raygan.sweep.spec import dry_pass
from raygan.sweep.spec.sweep_spec import SweepSpec, load

OWN = '''
from torch import nn
from raygan.recipes import Metric, Norm, Stopper, StopRule

class Mine(Norm):
    """A norm of mine."""

    name = "mine"
    mine_groups: int = 1
    """Groups."""

    def normalisation(self, channels):
        return [nn.GroupNorm(self.mine_groups, channels)]
'''
METRIC = '''
class Brightness(Metric):
    """Mean brightness."""

    name = "brightness"
    brightness_factor: float = 1.0
    """Factor."""

    def measure(self, samples, images):
        return self.brightness_factor * samples.mean()
'''
RULE = '''
class Late(StopRule):
    """Stops late."""

    name = "late"
    factor: float = 2.0
    """By which a loss exceeds the lowest one."""

    def start(self, grace):
        return Watcher()

class Watcher(Stopper):
    def stops(self, trial, step, loss):
        return False
'''


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    recipe.use([])


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., SweepSpec]:
    """Write a recipe file and a sweep that names it, and load the sweep."""

    def make(source: str, sections: str) -> SweepSpec:
        (tmp_path / "mine.py").write_text(source)
        dataset = "dataset: {name: folder, path: /none, size: 16}\n"
        (tmp_path / "s.yaml").write_text(f"name: s\nrecipes: [mine.py]\n{dataset}{sections}")
        return load(tmp_path / "s.yaml")

    return make


@pytest.mark.parametrize(
    "sections",
    [
        "train: {norm: mine, mine_groups: 2}",
        "train: {norm: mine}\ngrid: {mine_groups: [1, 2]}",
        "train: {norm: mine}\nsearch: {trials: 2, mine_groups: [1, 2]}",
        "train: {norm: mine}\nsearch: {trials: 2, mine_groups: {min: 1, max: 4}}",
        "grid: {norm: [mine, bn]}\ntrain: {mine_groups: 2}",
    ],
)
def test_parameters_of_own_recipes_are_keys_like_others(read, sections: str) -> None:
    spec = read(OWN, sections)
    assert spec.resolved()["recipes"] == ["mine.py"]
    given = spec.axes().get("mine_groups") or spec.space().get("mine_groups")
    assert given or spec.train.mine_groups == 2


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ("train: {norm: bn, mine_groups: 2}", "`mine_groups` applies to `norm: mine`, but `norm`"),
        ("grid: {norm: [mine, bn], mine_groups: [1, 2]}", "`mine_groups` applies to `norm: mine`"),
        ("train: {norm: mine, mine_groups: many}", r"s.yaml:4.*mine_groups"),
        ("train: {norm: mine, mine_grups: 2}", "did you mean.*mine_groups|mine_groups"),
        ("train: {norm: own}", "s.yaml:4.*mine"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(read, sections: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(OWN, sections)


def test_a_file_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: s\nrecipes:\n  - none.py\n")
    with pytest.raises(ConfigError, match=r"s.yaml:3: .*none.py: cannot be read"):
        load(tmp_path / "s.yaml")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(OWN)
    (tmp_path / "s.yaml").write_text("name: s\nrecipes: [a/mine.py, b/mine.py]\n")
    with pytest.raises(ConfigError, match=r"s.yaml:2: two files are called mine.py; rename one"):
        load(tmp_path / "s.yaml")


MISTAKES = [
    ("nn.GroupNorm(self", "nn.GroupNorms(self", "mine.py:13: AttributeError: .*GroupNorms"),
    (
        "[nn.GroupNorm(self.mine_groups, channels)]",
        "[nn.MaxPool2d(2)]",
        "s.yaml: shapes and ranges, with norm: mine, architecture: dcgan, .*: RuntimeError: Given",
    ),
    ("name = ", "nam = ", "mine.py: defines no recipe"),
    ("class Mine(Norm):", "class Mine(Norm)", "mine.py:5: SyntaxError"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_broken_recipe_is_refused_when_the_sweep_is_read(read, old, new, message) -> None:
    assert old in OWN
    with pytest.raises(ConfigError, match=message):
        read(OWN.replace(old, new), "train: {norm: mine}")


def test_the_message_names_the_yaml_the_file_and_the_line(read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(OWN.replace("self.mine_groups,", "self.nothing,"), "train: {norm: mine}")
    start = f"{tmp_path / 's.yaml'}: mine.py:13: AttributeError: 'Mine' object has no attribute"
    assert str(raised.value).startswith(start)


def test_a_broken_metric_and_a_broken_stop_rule_are_refused(read) -> None:
    broken = METRIC.replace("samples.mean()", "samples")
    with pytest.raises(ConfigError, match=r"the metric `brightness` returned tensor"):
        read(OWN + broken, "train: {norm: bn}")
    rule = RULE.replace("return False", "return step > 100")
    early = "train: {norm: bn}\nstop: {rule: late}\nsearch: {trials: 2, lr: [1.0e-4, 1.0e-3]}"
    with pytest.raises(ConfigError, match=r"`late` stops a trial at iteration 200|before its"):
        read(OWN + rule.replace("step > 100", "step > 50"), early)
    assert read(OWN + RULE, early).stopping().rule == "late"


def test_only_combinations_with_an_own_recipe_are_tried(read, monkeypatch) -> None:
    tried: list[tuple[str, str]] = []
    monkeypatch.setattr(
        contract, "check", lambda config, shape: tried.append((config.norm, config.architecture))
    )
    grid = "grid: {norm: [mine, bn], architecture: [dcgan, resnet]}"
    read(OWN, grid)
    assert tried == [("mine", "dcgan"), ("mine", "resnet")]
    tried.clear()
    read(OWN, "train: {norm: bn}")  # the file is named, but not used
    assert tried == []
    read(OWN + METRIC, grid)  # a metric is measured in every trial
    assert len(tried) == 4
    monkeypatch.setattr(dry_pass, "MOST", 3)
    tried.clear()
    read(OWN + METRIC, grid)
    assert len(tried) == 3


def test_a_sweep_without_own_recipes_is_not_tried(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(contract, "check", None)
    (tmp_path / "s.yaml").write_text("name: s\ntrain: {norm: bn}\n")
    assert load(tmp_path / "s.yaml").recipes == []


def test_the_next_sweep_takes_the_recipes_out(read, tmp_path: Path) -> None:
    read(OWN, "train: {norm: mine}")
    assert "mine" in NORMS.names
    (tmp_path / "other.yaml").write_text("name: other\n")
    load(tmp_path / "other.yaml")
    assert "mine" not in NORMS.names
