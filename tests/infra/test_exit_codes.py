"""Which ends of a sweep KubeRay tries again: it does so for each job that Ray calls failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from raygan.sweep.cluster import head
from raygan.sweep.session import conclude, signals
from tests.infra.manifests import KUBERNETES, ROOT

pytestmark = pytest.mark.cluster  # a shell is a process

SCRIPT = KUBERNETES / "job" / "part" / "sweep.sh"
REFUSED, KILLED = 2, 137
FINAL = [
    (conclude.EXIT_OK, ""),
    (REFUSED, "refused"),
    (conclude.EXIT_FAILED, "too many trials"),
    (conclude.EXIT_BUDGET, "budget"),
]
AGAIN = [1, head.EXIT_LOST, signals.EXIT_SIGINT, KILLED, signals.EXIT_SIGTERM]


def _program(folder: Path, text: str) -> dict[str, str]:
    """The environment in which `python` is that shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("code", "word"), FINAL)
def test_an_end_that_another_try_cannot_change_is_none_to_try_again(
    tmp_path: Path, code: int, word: str
) -> None:
    env = _program(tmp_path, f"exit {code}")
    done = subprocess.run(["bash", str(SCRIPT)], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    if code:
        assert f"exit code {code}," in done.stdout
        assert word in done.stdout
        assert "not tried again" in done.stdout
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("code", AGAIN)
def test_an_interrupted_sweep_is_tried_again(tmp_path: Path, code: int) -> None:
    env = _program(tmp_path, f"exit {code}")
    done = subprocess.run(["bash", str(SCRIPT)], env=env, capture_output=True, text=True)
    assert done.returncode == code
    assert f"exit code {code}." in done.stdout


def test_the_sweep_gets_the_words_of_the_command(tmp_path: Path) -> None:
    env = _program(tmp_path, 'printf "%s|" "$@"')
    command = ["bash", str(SCRIPT), "/sweeps/full.yaml", "--set", "name=a b"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.stdout == "-m|raygan.sweep|/sweeps/full.yaml|--set|name=a b|"


def test_the_shell_waits_for_a_sweep_that_is_stopped(tmp_path: Path) -> None:
    trap = f"trap 'sleep 0.2; touch {tmp_path}/ended; exit 143' TERM"
    env = _program(tmp_path, f"{trap}\ntouch {tmp_path}/ready\nwhile :; do sleep 0.05; done")
    with subprocess.Popen(["bash", str(SCRIPT)], env=env, start_new_session=True) as shell:
        for _ in range(1000):
            if (tmp_path / "ready").exists():
                break
            time.sleep(0.01)
        os.killpg(shell.pid, signal.SIGTERM)  # as Ray does
    assert shell.returncode == 143
    assert (tmp_path / "ended").exists()


def test_each_documented_code_is_one_or_the_other() -> None:
    table = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, flags=re.MULTILINE)}
    assert documented
    assert documented <= {code for code, _ in FINAL} | set(AGAIN)
