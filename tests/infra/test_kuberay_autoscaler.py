"""Ray's own autoscaler for KubeRay reads the manifests, and asks Kubernetes for a sweep's nodes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clusters import (
    BIN,
    PATIENCE,
    Sweep,
    free_port,
    make_sweep,
    ray_env,
    serve,
    start,
    stop,
    wait_until,
)
from tests.infra.kubernetes_api import HEAD, NAME, Kubernetes
from tests.infra.manifests import build, ray_cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl"),
]


@dataclass
class Box:
    """A Ray cluster made of a manifest: its head and its autoscaler run, and no worker."""

    kubernetes: Kubernetes
    env: dict[str, str]
    """Of a user's shell on the head."""
    logs: Path
    tracking: str
    pods_start: bool = True
    """Whether there are nodes for pods."""

    def sweep(self, name: str, scale: dict, **sections: object) -> Sweep:
        return make_sweep(
            name,
            self.logs / "storage",
            self.env,
            scale={**scale, "autoscaling": True},
            tracking={"uri": self.tracking},
            **sections,
        )


@pytest.fixture
def box(request, tmp_path) -> Iterator[Box]:
    """The cluster of the job of a cloud, ``request.param``."""
    from ray.autoscaler._private.kuberay import autoscaling_config

    spec = ray_cluster(build(f"job/{request.param}"))
    spec["autoscalerOptions"]["idleTimeoutSeconds"] = 10  # two minutes are long in a test
    port, mlflow = free_port(), free_port()
    env = ray_env(tmp_path / "token", RAY_ADDRESS=f"127.0.0.1:{port}")

    def ray(name: str, log: str, *arguments: str, **more: str) -> subprocess.Popen:
        command = [str(BIN / "ray"), name, *arguments]
        own = {k: v for k, v in env.items() if k != "RAY_ADDRESS"}
        return start(command, tmp_path / f"{log}.log", {**own, **more})

    def of_pod(pod: str, group: str) -> dict[str, str]:
        return {"RAY_CLOUD_INSTANCE_ID": pod, "RAY_NODE_TYPE_NAME": group}

    def start_pod(pod: str, group: str) -> subprocess.Popen | None:
        if not made.pods_start:
            return None
        read = autoscaling_config._derive_autoscaling_config_from_ray_cr(kubernetes.cluster)
        kind = read["available_node_types"][group]
        labels = ",".join(f"{key}={value}" for key, value in kind["labels"].items())
        return ray(
            "start", pod, "--block", "--disable-usage-stats", f"--address=127.0.0.1:{port}",
            f"--num-cpus={kind['resources']['CPU']}",
            f"--num-gpus={kind['resources'].get('GPU', 0)}", f"--labels={labels}",
            "--object-store-memory=100000000",
            f"--dashboard-agent-listen-port={free_port()}", **of_pod(pod, group),
        )  # fmt: skip

    with (
        tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary,
        Kubernetes(spec, tmp_path, start_pod, stop) as kubernetes,
    ):
        made = Box(kubernetes, env, tmp_path, f"http://127.0.0.1:{mlflow}")
        processes = [
            ray(
                "start", "head", "--head", "--block", "--no-monitor", "--disable-usage-stats",
                f"--port={port}", "--node-ip-address=127.0.0.1", "--num-gpus=0",
                *(f"--{k}={v}" for k, v in spec["headGroupSpec"]["rayStartParams"].items()),
                "--object-store-memory=100000000", "--include-dashboard=true",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={free_port()}",
                f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={temporary}",
                RAY_enable_autoscaler_v2="1", **of_pod(HEAD, "headgroup"),
            )
        ]  # fmt: skip
        try:
            log = tmp_path / "head.log"
            wait_until(
                lambda: "Ray runtime started" in log.read_text(), "the head starts", *processes
            )
            processes.append(serve(tmp_path, mlflow, env))
            processes.append(
                ray(
                    "kuberay-autoscaler", "autoscaler", f"--cluster-name={NAME}",
                    f"--cluster-namespace={NAME}", f"--gcs-address=127.0.0.1:{port}",
                    AUTOSCALER_UPDATE_INTERVAL_S="1", **kubernetes.env,
                )
            )  # fmt: skip
            yield made
        finally:
            for process in reversed(processes):
                stop(process)


ON_GPU = {"gpus_per_worker": 1, "max_concurrent": 8}


@pytest.mark.parametrize(
    ("box", "scale"),
    [
        ("eks", ON_GPU),
        pytest.param("gke", ON_GPU, marks=pytest.mark.soak),
        pytest.param("kind", {"cpus_per_worker": 2, "max_concurrent": 2}, marks=pytest.mark.soak),
    ],
    indirect=["box"],
)
def test_a_sweep_on_a_cluster_of_zero_nodes_makes_kubernetes_add_one(box, scale):
    box.pods_start = False  # the cloud is slow
    made = box.sweep("waits", scale)
    with made.running() as process:
        said = "the autoscaler has asked for 1 × gpu-spot"
        wait_until(lambda: made.log.exists() and said in made.log.read_text(), said, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    # for one trial: no more are paid for before it is known that one can start
    assert box.kubernetes.replicas == {"gpu-spot": [0, 1], "cpu": [0]}
    assert box.kubernetes.refused == []


@pytest.mark.soak
@pytest.mark.parametrize("box", ["kind"], indirect=True)
def test_the_pods_of_a_sweep_come_and_go_with_it(box):
    made = box.sweep(
        "whole",
        {"cpus_per_worker": 2, "max_concurrent": 2},
        grid={"norm": ["bn", "wn"]},
        train={"iterations": 120, "reconstruction_steps": 300},
    )
    output = made.run()
    assert all(made.record(trial)["outcome"] == "ok" for trial in ("bn-000", "wn-000")), output
    replicas = box.kubernetes.replicas
    wait_until(lambda: replicas["gpu-spot"][-1] == 0, "the group is empty again")
    assert max(replicas["gpu-spot"]) == 2
    assert replicas["cpu"] == [0]
    assert sorted(box.kubernetes.deleted) == [f"{NAME}-gpu-spot-worker-{n}" for n in (1, 2)]
    assert box.kubernetes.refused == []
