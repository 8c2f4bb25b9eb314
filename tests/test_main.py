"""Every module with a command does something when it is run by its name."""

from __future__ import annotations

import re
import runpy
import sys

import pytest

from tests.conftest import ROOT


def modules() -> list[str]:
    files = {path.relative_to(ROOT) for path in (ROOT / "raygan").rglob("*.py")}
    commands = [f for f in files if re.search(r"^def main\(", (ROOT / f).read_text(), re.MULTILINE)]
    packages = [file.parent for file in files if file.name == "__main__.py"]
    return sorted(".".join(path.with_suffix("").parts) for path in [*commands, *packages])


def test_there_are_such_modules():
    assert {"raygan", "raygan.cli", "raygan.sweep", "raygan.data"} <= set(modules())


@pytest.mark.parametrize("module", [*modules(), "raygan.gan.train"])
def test_module_is_a_command(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--help"])
    for loaded in (module, f"{module}.__main__"):  # or else it warns that it runs them twice
        parent, _, name = loaded.rpartition(".")
        if hasattr(sys.modules.get(parent), name):  # the other tests' module, again afterwards
            monkeypatch.setattr(sys.modules[parent], name, sys.modules.get(loaded))
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_module(module, run_name="__main__")
    assert left.value.code == 0
    assert "usage: " in capsys.readouterr().out.lower()
