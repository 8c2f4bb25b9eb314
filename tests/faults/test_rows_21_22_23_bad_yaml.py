"""Rows 21, 22, 23: YAML that is hostile, wrong, or names what is none of its business.

All of it is refused before Ray is even imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan import cli
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import MAX_BYTES, parse
from raygan.sweep.study import stored_sweep as state
from tests.sweep.prepared import one_set


def nested(levels: int, width: int) -> str:
    """The billion laughs: each level holds the one before so many times."""
    lines = ["name: a", "grid:", "  l0: &l0 [x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*l{level - 1}"] * width)
        lines.append(f"  l{level}: &l{level} [{aliases}]")
    return "\n".join(lines)


HOSTILE = {
    "huge": ("name: a\n#" + "#" * (64 << 20), f"may have at most {MAX_BYTES} bytes"),
    "deep": ("name: a\ntrain: " + "[" * 60_000, "nested deeper than 16 levels"),
    "deep-keys": ("name: a\ntrain: " + "{a: " * 15_000, "nested deeper than 16 levels"),
    "aliased": (nested(30, 30), "anchors and aliases (&, *) are not allowed"),
    "duplicate": ("name: a\ntrain: {}\ntrain: {}", ":3: the key 'train' occurs twice (first on line 2)"),
    "duplicates": ("name: a\n" + "train: {}\n" * 6_000, "the key 'train' occurs twice"),
    "number": ("name: a\ntrain: {seed: " + "9" * 60_000 + "}", "a number of 60000 digits is too large"),
    "tag": ("name: !!python/object/apply:os.system ['touch owned']", "tags ("),
}  # fmt: skip


LAUNCHER = """
import json, resource, subprocess, sys
with open(sys.argv[1], "w") as file:
    code = subprocess.call(sys.argv[2:], stdout=file, stderr=subprocess.STDOUT)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def used(arguments: list[str], folder: Path) -> tuple[int, float, int, str]:
    """Exit code, seconds of CPU, most memory in KiB, and output of the command.

    A process counts the memory of the one it was forked from as its own, up to its exec
    (getrusage(2)): it is started by a small one, not by the tests, which may have grown large.
    """
    output = folder / "output"
    command = [sys.executable, "-m", "raygan.sweep", *arguments]
    said = subprocess.run(
        [sys.executable, "-c", LAUNCHER, str(output), *command],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, cpu, memory = json.loads(said.stdout)
    return code, cpu, memory, output.read_text()


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> tuple[float, int]:
    """CPU seconds and memory that it takes to read a tiny sweep."""
    folder = tmp_path_factory.mktemp("valid")
    (folder / "tiny.yaml").write_text("name: a\n")
    code, cpu, memory, output = used(["tiny.yaml", "--dry-run"], folder)
    assert code == 0, output
    return cpu, memory


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_costs_no_more_than_a_tiny_one(kind, valid, tmp_path):
    text, says = HOSTILE[kind]
    (tmp_path / "bad.yaml").write_text(text)
    code, cpu, memory, output = used(["bad.yaml"], tmp_path)
    assert code == 2, output
    assert output.startswith("error: bad.yaml:")
    assert says in output
    assert len(output) < 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "output"]
    assert cpu < 1.5 * valid[0] + 1, "CPU seconds"
    assert memory < valid[1] + (32 << 10), "KiB"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `raygan` in an empty folder, without Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it raises

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli.main, arguments)
        assert done.exit_code == 2, done.output
        assert isinstance(done.exception, SystemExit), done.exception
        return done.output

    return run


WRONG = [
    ("train:\n  featurs: 8", "bad.yaml:3: unknown key `train.featurs`; did you mean `features`?"),
    ("serch: {}", "bad.yaml:2: unknown key `serch`; did you mean `search`?"),
    ("lr: 1e-4", "bad.yaml:2: unknown key `lr`; did you mean `train.lr`?"),
    ("stop:\n  rule: asha\n  graze: 3", "bad.yaml:4: unknown key `stop.graze`; did you mean `grace`?"),
    ("train: {features: eight}", "bad.yaml:2: `train.features` (='eight'): input should be a valid integer"),
    ("train:\n  lr: fast", "bad.yaml:3: `train.lr` (='fast'): input should be a valid number"),
    ("grid:\n  norm: bn", "bad.yaml:3: `grid.norm` (='bn'): input should be a valid list"),
    ("train: [1]", "bad.yaml:2: `train`: must be a mapping of keys to values"),
    ("budget: {trials: true}", "bad.yaml:2: `budget.trials` (=True): input should be a valid integer"),
    ("stop: {rule: ahsa}", "bad.yaml:2: `stop.rule` (='ahsa'): input should be 'asha', 'median'"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_wrong_key_or_type_is_named_with_its_place(run, tmp_path, line, says):
    (tmp_path / "bad.yaml").write_text(f"name: a\n{line}\n")
    assert says in run("sweep", "bad.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


NAMES = [
    "../up", "..", ".", "up/../../up", "/tmp/up", "a\0b", "n" * 300, "", "a b", "~", "~/up", "-up",
    ".up", "a\nb", "s3://up", "ü", "%2e%2e",
]  # fmt: skip
RESERVED = ["data", "mlartifacts", "mlflow.db"]


@pytest.fixture
def beside(tmp_path) -> Path:
    """The storage; beside it lies a sweep `up` that is none of its own."""
    sweep = Storage(str(tmp_path / "up"))
    up = spec.validate(parse("name: up", "up.yaml"))
    state.store(sweep, up, one_set(id="1", digest="d", baseline=0.1))
    storage = tmp_path / "storage"
    storage.mkdir()
    (tmp_path / "good.yaml").write_text(f"name: good\nstorage: {storage}\n")
    return storage


def everything(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("name", NAMES + RESERVED)
def test_name_that_is_no_name_is_refused_and_nothing_is_written(run, beside, tmp_path, name):
    quoted = "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04x}" for c in name)
    bad = tmp_path / "bad.yaml"
    bad.write_text(f'name: "{quoted}"\nstorage: {beside}\n')
    before = everything(tmp_path)
    for options in ([], ["--dry-run"], ["--fresh"], ["--smoke-test"]):
        assert run("sweep", "bad.yaml", *options).startswith("error: bad.yaml:1: `name`")
    for value in (name, f'"{quoted}"'):
        output = run("sweep", "good.yaml", "--set", f"name={value}")
        assert output.startswith(("error: --set name=", "error: --set 'name="))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", NAMES + RESERVED)
@pytest.mark.parametrize("command", ["status", "stop", "results"])
def test_no_command_leaves_the_storage(run, beside, tmp_path, command, name):
    before = everything(tmp_path)
    output = run(command, "--storage", str(beside), "--", name)
    if name in RESERVED:
        assert f"there is no sweep '{name}' in {beside}" in output
    else:
        assert "is not a valid sweep name" in output
    assert everything(tmp_path) == before


def test_without_the_check_the_sweep_beside_the_storage_would_be_found(beside):
    assert state.stored_spec(Storage(str(beside / ".." / "up"))).name == "up"
