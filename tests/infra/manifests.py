"""What the tests of infra/ share: kustomize's output, the schemas, and what a pod may reach."""

from __future__ import annotations

import copy
import functools
import importlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raygan.version import __version__

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
CLOUDS = ("kind", "gke", "eks")
BUILDS = [f"{kind}/{cloud}" for kind in ("overlays", "job") for cloud in CLOUDS]
IMAGE = f"registry.example.org/raygan:{__version__}"
CRDS = Path(os.environ.get("RAYGAN_KUBERAY_CRDS") or ROOT.parent / "shared/data/kuberay-crds")
"""KubeRay's own schemas; they are larger than all of raygan."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Object = dict[str, Any]


def pins() -> dict[str, str]:
    """The versions in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


@functools.cache
def _kustomize(folder: str) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl, which has kustomize")
    command = ["kubectl", "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: str) -> list[Object]:
    """The objects that ``kubectl apply --kustomize`` of a folder would send."""
    return list(yaml.safe_load_all(_kustomize(folder)))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [one for one in objects if one["kind"] == kind]


def ray_cluster(objects: list[Object]) -> Object:
    """The specification of the Ray cluster, which stands by itself or inside a RayJob."""
    for one in objects:
        if one["kind"] == "RayCluster":
            return one["spec"]
        if one["kind"] == "RayJob":
            return one["spec"]["rayClusterSpec"]
    raise AssertionError("no Ray cluster")


def mistakes(one: Object) -> list[str]:
    """What Kubernetes or KubeRay would refuse in an object, or drop without a word."""
    if one["apiVersion"] == "ray.io/v1":
        return list(_crd_mistakes(one))
    return list(_core_mistakes(json.dumps(one)))


@functools.cache  # the overlays have most objects in common
def _core_mistakes(text: str) -> tuple[str, ...]:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="not installed; the extra `infra` has it"
    )
    try:
        newest = kubernetes_validate.latest_version()
        kubernetes_validate.validate(json.loads(text), newest, strict=True)
    except kubernetes_validate.ValidationError as error:
        return (error.message,)
    return ()


@functools.cache
def _crd(kind: str) -> Object:
    path = CRDS / f"{kind.lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"KubeRay's schema is not at {path}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(path.read_text(), loader)["spec"]["versions"]
    (found,) = [version for version in versions if version["name"] == "v1"]
    return found["schema"]["openAPIV3Schema"]


def _strict(schema: Any) -> Any:
    """The schema, but with fields that it does not name refused."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _strict(value) for key, value in schema.items()}
    listed = isinstance(out.get("properties"), dict) and "type" in out
    if listed and not out.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    if out.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
    return out


@functools.cache
def _validator(kind: str) -> Any:
    schema = copy.deepcopy(_crd(kind))
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(_strict(schema))


def _crd_mistakes(one: Object) -> Iterator[str]:
    for error in _validator(one["kind"]).iter_errors(one):
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    yield from _rules(_crd(one["kind"]), one, one["kind"])


def _rules(schema: Object, value: Any, where: str) -> Iterator[str]:
    """The rules of the schema, in CEL, that ``value`` breaks."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{where}: {rule.get('message', rule['rule'])}"
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _rules(schema.get("items", {}), each, f"{where}.{number}")
    elif isinstance(value, dict):
        others = schema.get("additionalProperties")
        for key, each in value.items():
            below = schema.get("properties", {}).get(key, others)
            if isinstance(below, dict):
                yield from _rules(below, each, f"{where}.{key}")


def _holds(rule: str, value: Any) -> bool:
    celpy = pytest.importorskip("celpy", reason="not installed; the extra `infra` has it")
    to_cel = importlib.import_module("celpy.adapter").json_to_cel
    environment = celpy.Environment()
    return bool(environment.program(environment.compile(rule)).evaluate({"self": to_cel(value)}))


def pod_specs(objects: list[Object]) -> dict[str, tuple[dict[str, str], Object]]:
    """Labels and specification of each pod that will run, by a short name.

    KubeRay's own labels are there, too.
    """
    found: dict[str, tuple[dict[str, str], Object]] = {}
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = one["spec"]["template"]
            found[one["metadata"]["name"]] = (template["metadata"]["labels"], template["spec"])
        if one["kind"] == "RayJob":
            template = one["spec"]["submitterPodTemplate"]
            found["submitter"] = (template["metadata"]["labels"], template["spec"])
    cluster = ray_cluster(objects)
    groups = [("head", "head", cluster["headGroupSpec"])]
    groups += [(g["groupName"], "worker", g) for g in cluster["workerGroupSpecs"]]
    for name, kind, group in groups:
        labels = {
            "app.kubernetes.io/name": "kuberay",
            "ray.io/is-ray-node": "yes",
            "ray.io/node-type": kind,
        }
        found[name] = (labels, group["template"]["spec"])
    return found


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """All containers, each with its pod's name."""
    for name, (_, spec) in pod_specs(objects).items():
        for one in [*spec.get("initContainers", ()), *spec["containers"]]:
            yield name, one


class Network:
    """What the network policies of a namespace let through."""

    def __init__(self, objects: list[Object]) -> None:
        self._policies = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]

    def passes(
        self, source: dict[str, str] | str, target: dict[str, str] | str, port: int, **kind: str
    ) -> bool:
        """Whether a connection is let out and in. Only pods of the namespace are asked: an address
        or a pod with the label ``namespace``, which stands for another one, has its own rules."""
        protocol = kind.get("protocol", "TCP")
        out = _elsewhere(source) or self._side("egress", source, target, port, protocol)
        into = _elsewhere(target) or self._side("ingress", target, source, port, protocol)
        return out and into

    def _side(self, side: str, pod: Any, peer: Any, port: int, protocol: str) -> bool:
        policies = [
            policy
            for policy in self._policies
            if side.capitalize() in policy["policyTypes"] and _selects(policy["podSelector"], pod)
        ]
        rules = [rule for policy in policies for rule in policy.get(side, ())]
        ends = "to" if side == "egress" else "from"
        return not policies or any(
            _has_port(rule, port, protocol)
            and (ends not in rule or any(_is_peer(one, peer) for one in rule[ends]))
            for rule in rules
        )


def _elsewhere(end: dict[str, str] | str) -> bool:
    return isinstance(end, str) or "namespace" in end


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", ())
    )


def _has_port(rule: Object, port: int, protocol: str) -> bool:
    return "ports" not in rule or any(
        one["port"] == port and one.get("protocol", "TCP") == protocol for one in rule["ports"]
    )


def _is_peer(one: Object, peer: dict[str, str] | str) -> bool:
    if isinstance(peer, str):
        address, block = ipaddress.ip_address(peer), one.get("ipBlock")
        return block is not None and (
            address in ipaddress.ip_network(block["cidr"])
            and not any(address in ipaddress.ip_network(n) for n in block.get("except", ()))
        )
    if "namespaceSelector" in one:
        wanted = one["namespaceSelector"].get("matchLabels", {})
        if wanted.get("kubernetes.io/metadata.name") != peer.get("namespace"):
            return False
    elif "namespace" in peer:
        return False
    return "podSelector" in one and _selects(one["podSelector"], peer)


def gigabytes(quantity: str) -> float:
    """Of a quantity such as 16Gi."""
    found = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert found is not None, quantity
    return int(found[1]) * {"Mi": 2**20, "Gi": 2**30}[found[2]] / 1e9
