"""The image: its file is clean, and it is built and started where there is a tool for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raygan.version import __version__
from tests.infra.manifests import INFRA, PROJECT, ROOT, pins

DOCKERFILE = INFRA / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text()


@pytest.mark.cluster
def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if (hadolint := shutil.which("hadolint", path=path)) is None:
        pytest.skip("there is no hadolint; the extra `infra` has it")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text("FROM python\n")
    assert subprocess.run([hadolint, str(tmp_path / "Dockerfile")], capture_output=True).returncode


def test_it_is_built_from_a_pinned_image_and_runs_as_user_1000() -> None:
    assert re.search(r"^ARG BASE=python:3\.\d+\.\d+-slim-\w+$", TEXT, flags=re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", TEXT, flags=re.MULTILINE)) == {"${BASE}"}
    last = TEXT.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)", last, flags=re.MULTILINE) == ["1000:1000"]
    python = re.search(r"python:(3\.\d+)", TEXT)
    assert python is not None
    assert f">={python[1]}" == PROJECT["requires-python"]  # what the pins are made for


def test_programs_are_found_in_login_shells() -> None:
    """They set PATH anew, and both KubeRay and Ray's launcher may start such ones."""
    assert "PATH=" not in TEXT
    assert "venv" not in TEXT


def test_what_it_installs_is_declared_and_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    named = re.findall(r"\*extras\['(\w+)'\]", TEXT)
    assert named == ["server", "lsun"]
    pinned = {name.lower().replace("_", "-") for name in pins()}
    for extra in (*named, "infra"):
        for requirement in extras[extra]:
            name = re.match(r"[\w-]+", requirement)
            assert name is not None
            assert name[0] in pinned, requirement
    installs = re.findall(r"pip install ([^&;\n]+)", TEXT.replace("\\\n", " "))
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in i or "/wheel/*.whl" in i for i in installs)


def test_the_tag_in_its_text_is_raygans_version() -> None:
    assert set(re.findall(r"raygan:(\d[\w.]*)", TEXT)) == {__version__}


def test_what_is_copied_exists() -> None:
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, flags=re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name


@pytest.mark.cluster
@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_it_is_built_and_started_as_user_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAYGAN_IMAGE_BASE names the base image where the usual one cannot be fetched."""
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")  # works inside containers, too
    if (buildah := shutil.which("buildah")) is None:
        pytest.skip("there is no buildah")
    base = os.environ.get("RAYGAN_IMAGE_BASE")
    name = "localhost/raygan:test"
    command = [buildah, "build", "--file", str(DOCKERFILE), "--tag", name]
    command += ["--build-arg", f"BASE={base}"] if base else []
    built = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    if built.returncode and re.search(r"pinging container registry|no such host", built.stderr):
        pytest.skip("the base image cannot be fetched here; RAYGAN_IMAGE_BASE may name another")
    assert built.returncode == 0, built.stderr[-2000:]
    made = subprocess.run([buildah, "from", name], capture_output=True, text=True, check=True)
    container = made.stdout.strip()
    try:
        run = [buildah, "run", container, "--", "bash", "--login", "-c"]
        script = "id --user; raygan --version; ray --version; mlflow --version"
        done = subprocess.run([*run, script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        user, *versions = done.stdout.splitlines()
        assert user == "1000"
        assert [line.split()[-1] for line in versions] == [
            __version__, pins()["ray"], pins()["mlflow"],
        ]  # fmt: skip
    finally:
        subprocess.run([buildah, "rm", container], capture_output=True)
        subprocess.run([buildah, "rmi", name], capture_output=True)
