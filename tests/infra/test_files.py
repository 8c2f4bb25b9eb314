"""Rules for all files of infra/ and for its README."""

from __future__ import annotations

import re

import pytest
import yaml

from raygan.version import __version__
from tests.infra.manifests import INFRA, KUBERNETES, ROOT

FILES = sorted(path for path in INFRA.rglob("*") if path.is_file())
README = (INFRA / "README.md").read_text()
PLACES = re.compile(r"\b[A-Z]+(?:_[A-Z]+)*\b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(INFRA)))
def test_versions_of_raygan_are_this_one(path) -> None:
    found = re.findall(r"/raygan:(\d[\w.-]*)|newTag: (\S+?)[,}\s]", path.read_text())
    assert {one or other for one, other in found} <= {__version__}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(INFRA)))
def test_no_file_has_a_password(path) -> None:
    text = path.read_text()
    assert not re.search(r"://[^/@\s:]+:[^/@\s]+@", text)  # in an address
    assert not re.search(r"\b(?:[0-9a-f]{20,}|AKIA[0-9A-Z]{16})\b", text)  # drawn once for all
    assert not re.search(r"(?i)changeme|minioadmin|password\d|s3cr|admin:admin", text)


def test_each_folder_of_kustomize_gives_its_images_the_tag() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        text = yaml.safe_load(path.read_text())
        if text["kind"] == "Kustomization" and path.parent.name != "nodes":
            assert [image["name"] for image in text["images"]] == ["raygan"], path


def test_the_readme_names_paths_that_exist() -> None:
    named = set(re.findall(r"\b(?:infra|sweeps)/[\w./-]*\w", README))
    named -= {"infra/compose/client/mlflow", "infra/compose/client/aws", "infra/compose/client"}
    assert named >= {"infra/launcher/aws.yaml", "infra/kubernetes/secrets.sh"}
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_readme_explains_each_word_to_replace() -> None:
    words = {"ACCOUNT", "AMI", "BUCKET", "PROJECT", "REGION", "ZONE", "SECURITY_GROUP"}
    files = [path for path in FILES if path.suffix == ".yaml"]
    used = {word for path in files for word in PLACES.findall(path.read_text())} & words
    assert used == words
    for word in used | {"CPU_IMAGE", "GPU_IMAGE"}:
        assert word in README, word


def test_the_readme_names_the_versions_that_are_pinned() -> None:
    assert "KubeRay 1.7.0" in README
    assert f"raygan:{__version__}" in README
