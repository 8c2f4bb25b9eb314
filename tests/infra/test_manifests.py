"""What Kubernetes gets of each overlay: valid objects, closed pods, a closed network."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from raygan.sweep.spec import sweep_spec
from tests.infra.manifests import (
    BUILDS,
    CLOUDS,
    IMAGE,
    KUBERNETES,
    ROOT,
    Network,
    build,
    containers,
    gigabytes,
    mistakes,
    of_kind,
    pins,
    pod_specs,
    ray_cluster,
)

pytestmark = pytest.mark.cluster  # kustomize is a process, and KubeRay's schemas are large

built = pytest.mark.parametrize("folder", BUILDS)
OPERATOR = {"namespace": "kuberay-system", "app.kubernetes.io/name": "kuberay-operator"}
API_SERVER, BUCKET, METADATA = "10.96.0.1", "52.95.1.1", "169.254.169.254"


@built
def test_objects_are_valid(folder: str) -> None:
    assert [mistake for one in build(folder) for mistake in mistakes(one)] == []


def test_objects_of_the_nodes_of_eks_are_valid() -> None:
    kinds = {one["kind"]: one for one in build("overlays/eks/nodes")}
    assert kinds.keys() == {"NodePool", "StorageClass", "ConfigMap"}
    del kinds["NodePool"]  # no schema of it is at hand
    assert [mistake for one in kinds.values() for mistake in mistakes(one)] == []


@pytest.mark.parametrize(
    ("kind", "spoil", "named"),
    [
        ("RayCluster", lambda spec: spec.update(headGroup=1), "headGroup"),
        ("RayCluster", lambda spec: spec["autoscalerOptions"].update(version="v3"), "v3"),
        ("RayCluster", lambda spec: spec["workerGroupSpecs"][0].pop("groupName"), "groupName"),
        ("RayCluster", lambda spec: spec.update(managedBy="me"), "managedBy"),
        ("RayJob", lambda spec: spec.update(deletionStrategy={"onSuccess": {}}), "BOTH"),
        ("Deployment", lambda spec: spec.update(replica=1), "replica"),
        ("NetworkPolicy", lambda spec: spec.update(ingres=[]), "ingres"),
    ],
)
def test_a_mistake_is_noticed(
    kind: str, spoil: Callable[[dict[str, Any]], object], named: str
) -> None:
    (one, *_) = of_kind(build("job/eks" if kind == "RayJob" else "overlays/eks"), kind)
    spoil(one["spec"])
    assert any(named in mistake for mistake in mistakes(one))


@built
def test_the_autoscaler_of_ray_reads_two_groups_that_start_from_zero(folder: str) -> None:
    from ray.autoscaler._private.kuberay import autoscaling_config

    metadata = {"name": "raygan", "namespace": "raygan"}
    cluster = {"metadata": metadata, "spec": ray_cluster(build(folder))}
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    types = read["available_node_types"]
    assert types.keys() == {"headgroup", "gpu-spot", "cpu"}
    assert [types[name]["min_workers"] for name in types] == [0, 0, 0]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["headgroup"]["labels"] == {"ray.io/market-type": "on-demand"}
    assert types["gpu-spot"]["labels"] == {"ray.io/market-type": "spot"}
    assert types["gpu-spot"]["max_workers"] > 0
    assert types["gpu-spot"]["resources"].get("GPU", 0) == (0 if folder.endswith("kind") else 1)
    assert "GPU" not in types["cpu"]["resources"]
    assert 1 <= read["idle_timeout_minutes"] <= 10


@built
def test_the_cluster_is_that_of_the_pinned_ray_and_asks_for_a_token(folder: str) -> None:
    cluster = ray_cluster(build(folder))
    assert cluster["rayVersion"] == pins()["ray"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert all(group["replicas"] == 0 for group in cluster["workerGroupSpecs"])


@built
def test_a_worker_that_has_to_go_has_the_time_to_keep_its_trials(folder: str) -> None:
    from ray._private import ray_constants

    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, name)  # this Ray drains a node that gets SIGTERM
    most = 15 if folder.endswith("gke") else 120 - 15  # the notice of a spot node
    for group in ray_cluster(build(folder))["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        grace = spec["terminationGracePeriodSeconds"]
        assert grace <= most or group["groupName"] != "gpu-spot"
        (container,) = spec["containers"]
        drain = {one["name"]: one["value"] for one in container["env"]}[name]
        # the workers agree every 5 s whether they keep their state
        assert 10 <= float(drain) < grace
        assert "lifecycle" not in container  # a hook would take from the time


@built
def test_images_are_pinned_and_raygans_is_the_same_everywhere(folder: str) -> None:
    images = {one["image"] for _, one in containers(build(folder))}
    assert {image for image in images if "raygan" in image} == {IMAGE}
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]*", image) for image in images), images


@built
def test_pods_are_not_root_and_can_write_only_where_they_must(folder: str) -> None:
    objects = build(folder)
    for name, (_, spec) in pod_specs(objects).items():
        context = spec["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        volumes = [volume for volume in spec.get("volumes", ()) if "hostPath" in volume]
        assert not volumes, name
    autoscaler = ray_cluster(objects)["autoscalerOptions"]
    for name, one in [*containers(objects), ("autoscaler", autoscaler)]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert one["resources"]["requests"].keys() >= {"cpu", "memory"}, name
        assert "memory" in one["resources"]["limits"], name
    labels = of_kind(objects, "Namespace")[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@built
def test_only_the_head_may_ask_kubernetes(folder: str) -> None:
    objects = build(folder)
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    for name, account in accounts.items():
        assert account["automountServiceAccountToken"] is False, name
    for name, (_, spec) in pod_specs(objects).items():
        assert spec["automountServiceAccountToken"] is (name == "head"), name
        assert spec.get("serviceAccountName", "ray-head") in accounts
    assert pod_specs(objects)["head"][1]["serviceAccountName"] == "ray-head"
    assert pod_specs(objects)["gpu-spot"][1]["serviceAccountName"] == "ray-worker"


@built
def test_the_network_is_closed_but_for_what_is_used(folder: str) -> None:
    objects, cloud = build(folder), folder.rpartition("/")[2]
    network = Network(objects)
    pods = {name: labels for name, (labels, _) in pod_specs(objects).items()}
    stranger = {"app.kubernetes.io/name": "stranger"}
    used = {
        ("head", "gpu-spot", 10002), ("gpu-spot", "head", 6379), ("gpu-spot", "cpu", 30000),
        ("head", "mlflow", 5000), ("mlflow", "postgres", 5432),
    }  # fmt: skip
    if "submitter" in pods:
        used.add(("submitter", "head", 8265))
    if "objects" in pods:
        users = ("head", "gpu-spot", "cpu", "mlflow", "bucket")
        used |= {(user, "objects", 8333) for user in users}
    ports = {"mlflow": (5000,), "postgres": (5432,), "objects": (8333,), "submitter": (22,)}
    for source in pods:
        for target in pods:
            for port in ports.get(target, (6379, 8265, 10002, 30000)):
                wanted = (source, target, port) in used or (
                    {source, target} <= {"head", "gpu-spot", "cpu"}
                )
                found = network.passes(pods[source], pods[target], port)
                assert found == wanted, (source, target, port)
    assert network.passes(OPERATOR, pods["head"], 8265)
    assert not network.passes(OPERATOR, pods["head"], 6379)
    assert not network.passes({**OPERATOR, "namespace": "other"}, pods["head"], 8265)
    for name, labels in pods.items():
        assert not network.passes(stranger, labels, 8265), name
        assert not network.passes(labels, stranger, 8080), name
        assert network.passes(labels, API_SERVER, 443) == (name == "head"), name
        assert network.passes(labels, METADATA, 80) == (
            cloud == "gke" and name in ("head", "gpu-spot", "cpu", "mlflow")
        ), name
        assert network.passes(labels, BUCKET, 443) == (
            name == "head" or (cloud != "kind" and name in ("gpu-spot", "cpu", "mlflow"))
        ), name
        assert not network.passes(labels, BUCKET, 80), name
        assert network.passes(labels, API_SERVER, 53, protocol="UDP"), name


@built
def test_nothing_is_offered_to_the_outside(folder: str) -> None:
    objects = build(folder)
    assert {one["spec"].get("type", "ClusterIP") for one in of_kind(objects, "Service")} == {
        "ClusterIP"
    }
    assert ray_cluster(objects)["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not {one["kind"] for one in objects} & {"Ingress", "Gateway", "HTTPRoute"}


def _secrets(*words: str) -> dict[str, dict[str, str]]:
    command = ["sh", str(KUBERNETES / "secrets.sh"), *words]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    made = list(yaml.safe_load_all(text))
    assert [mistake for one in made for mistake in mistakes(one)] == []
    assert {one["metadata"]["namespace"] for one in made} == {"raygan"}
    return {one["metadata"]["name"]: one["stringData"] for one in made}


def _wanted_secrets(objects: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The secrets that must exist, and the keys of them that are named."""
    wanted: dict[str, set[str]] = {
        ray_cluster(objects)["authOptions"]["secretName"]: {"auth_token"}
    }
    for _, spec in pod_specs(objects).values():
        for volume in spec.get("volumes", ()):
            if (secret := volume.get("secret")) is not None and not secret.get("optional"):
                wanted.setdefault(secret["secretName"], set())
    for _, one in containers(objects):
        for variable in one.get("env", ()):
            if (found := variable.get("valueFrom", {}).get("secretKeyRef")) is not None:
                wanted.setdefault(found["name"], set()).add(found["key"])
    return wanted


@built
def test_secrets_that_pods_name_are_made_by_the_script(folder: str) -> None:
    made = _secrets(*(["objects"] if folder.endswith("kind") else []))
    objects = build(folder)
    assert not of_kind(objects, "Secret")
    for name, keys in _wanted_secrets(objects).items():
        assert keys <= made[name].keys(), name


def test_secrets_are_drawn_anew_and_fit_together() -> None:
    one, other = _secrets("objects"), _secrets("objects")
    login = one["mlflow"]["admin-password"]
    assert login in one["mlflow-client"]["credentials"]
    assert len(login) == 48
    (user,) = json.loads(one["objects"]["s3.json"])["identities"]
    key = user["credentials"][0]["secretKey"]
    assert f"aws_secret_access_key = {key}" in one["bucket-keys"]["credentials"]
    for name, values in one.items():
        assert values != other[name], name
    flat = [value for values in one.values() for value in values.values()]
    assert len(set(flat)) == len(flat)
    assert "objects" not in _secrets()


@built
def test_no_secret_has_a_value_in_the_manifests(folder: str) -> None:
    objects = build(folder)
    secret = re.compile(r"PASSWORD$|SECRET|TOKEN|_KEY$")
    for name, one in containers(objects):
        for variable in one.get("env", ()):
            assert "value" not in variable or not secret.search(variable["name"]), name
    for one in of_kind(objects, "ConfigMap"):
        assert not any(secret.search(key) for key in one["data"])
        assert "password" not in str(one["data"]).lower()
        assert not re.search(r"://[^/@\s]*:[^/@\s]*@", str(one["data"]))


@built
def test_mlflow_keeps_users_in_a_second_database_and_files_in_the_bucket(folder: str) -> None:
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(build(folder), "ConfigMap")}
    runs, users = maps["mlflow"]["MLFLOW_BACKEND_STORE_URI"], maps["mlflow-users"]["users.ini"]
    assert runs.endswith("/mlflow")
    assert re.search(r"database_uri = (\S+)", users)[1] == f"{runs}_users"
    assert "CREATE DATABASE mlflow_users" in maps["postgres-databases"]["databases.sql"]
    assert re.match(r"(s3|gs)://", maps["mlflow"]["MLFLOW_ARTIFACTS_DESTINATION"])
    assert maps["ray"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    (server,) = [one for name, one in containers(build(folder)) if name == "mlflow"]
    assert "--app-name=basic-auth" in server["command"]
    assert "mlflow:5000" in server["args"][0].removeprefix("--allowed-hosts=").split(",")
    assert all(probe in server for probe in ("startupProbe", "readinessProbe", "livenessProbe"))


@pytest.mark.parametrize("cloud", ["gke", "eks"])
def test_each_account_has_an_identity_of_the_cloud_and_mlflow_one_of_its_own(cloud: str) -> None:
    accounts = of_kind(build(f"overlays/{cloud}"), "ServiceAccount")
    identity = {one["metadata"]["name"]: one["metadata"]["annotations"] for one in accounts}
    assert identity.keys() == {"ray-head", "ray-worker", "mlflow"}
    assert identity["mlflow"] not in (identity["ray-head"], identity["ray-worker"])
    for (key, value), *others in (list(one.items()) for one in identity.values()):
        assert not others
        assert (
            key
            == {
                "gke": "iam.gke.io/gcp-service-account",
                "eks": "eks.amazonaws.com/role-arn",
            }[cloud]
        )
        assert re.search("ACCOUNT|PROJECT", value)


@pytest.mark.parametrize("cloud", ["gke", "eks"])
def test_the_full_sweep_fits_into_the_groups(cloud: str) -> None:
    scale = sweep_spec.load(ROOT / "sweeps" / "full.yaml").scale
    cluster = ray_cluster(build(f"job/{cloud}"))
    group = cluster["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert scale.autoscaling
    assert scale.max_concurrent != "auto"
    assert scale.cpus_per_worker <= float(limits["cpu"])
    assert scale.gpus_per_worker <= float(limits["nvidia.com/gpu"])
    assert scale.max_concurrent * scale.workers <= group["maxReplicas"]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert gigabytes(head["memory"]) >= 4 + scale.max_concurrent


@pytest.mark.parametrize("cloud", ["gke", "eks"])
def test_gpu_nodes_are_spot_and_others_are_kept_off_them(cloud: str) -> None:
    pods = pod_specs(build(f"overlays/{cloud}"))
    gpu = pods["gpu-spot"][1]
    assert "spot" in str(gpu["nodeSelector"])
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in gpu[
        "tolerations"
    ]
    for name, (_, spec) in pods.items():
        limits = spec["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits) == (name == "gpu-spot")
        assert name == "gpu-spot" or "tolerations" not in spec
        assert name == "gpu-spot" or "spot" not in str(spec.get("nodeSelector"))


def test_eks_tells_the_pods_on_spot_nodes_when_their_node_is_taken_away() -> None:
    cluster = ray_cluster(build("overlays/eks"))
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    groups["head"] = cluster["headGroupSpec"]
    # Karpenter ends pods with this annotation only together with their node, without a notice
    kept = {name for name, group in groups.items() if "do-not-disrupt" in str(group["template"])}
    assert kept == {"head", "cpu"}
    (pool,) = of_kind(build("overlays/eks/nodes"), "NodePool")
    assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"


def test_the_spot_nodes_of_eks_hold_one_worker_each_and_no_other_pod() -> None:
    (pool,) = of_kind(build("overlays/eks/nodes"), "NodePool")
    worker = pod_specs(build("overlays/eks"))["gpu-spot"][1]
    assert worker["nodeSelector"]["karpenter.sh/nodepool"] == pool["metadata"]["name"]
    assert pool["spec"]["template"]["spec"]["taints"] == [
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    ]
    group = ray_cluster(build("overlays/eks"))["workerGroupSpecs"][0]
    assert pool["spec"]["limits"] == {"nvidia.com/gpu": group["maxReplicas"]}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_job_brings_the_cluster_of_its_overlay(cloud: str) -> None:
    objects, standing = build(f"job/{cloud}"), build(f"overlays/{cloud}")
    assert not of_kind(objects, "RayCluster")
    (job,) = of_kind(objects, "RayJob")
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    added = {"name": "job", "configMap": {"name": "job"}}
    head["volumes"].remove(added)
    head["containers"][0]["volumeMounts"].remove(
        {"name": "job", "mountPath": "/job", "readOnly": True}
    )
    assert job["spec"]["rayClusterSpec"] == ray_cluster(standing)
    names = {(one["kind"], one["metadata"]["name"]) for one in standing} - {
        ("RayCluster", "raygan")
    }
    assert names < {(one["kind"], one["metadata"]["name"]) for one in objects}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_job_is_tried_again_on_a_new_cluster_and_leaves_nothing(cloud: str) -> None:
    objects = build(f"job/{cloud}")
    (job,) = of_kind(objects, "RayJob")
    spec = job["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["submitterConfig"]["backoffLimit"] > 0  # a lost head
    assert spec["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in spec  # KubeRay refuses retries with it
    assert "jobId" not in spec  # the same for each try
    assert re.fullmatch(r"bash /job/sweep\.sh /sweeps/[\w-]+\.yaml", spec["entrypoint"])
    (script,) = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"] == "job"]
    assert script["data"].keys() == {"sweep.sh"}
