"""Sweeps on clusters that grow from zero nodes and shrink to zero: Ray's own autoscaler over
simulated nodes."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator

import psutil
import pytest
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.clusters import (
    BIN,
    LONGER,
    PATIENCE,
    free_port,
    make_sweep,
    ray_env,
    serve,
    start,
    stop,
    wait_until,
)
from tests.nodes_seen import Seen, nodes_seen

GROWS = {"max_concurrent": 3, "autoscaling": True}
MOST_NODES = 5
"""More than any sweep here may have."""

LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)
"""What the autoscaler's configuration must have and is empty here."""


def config(port: int) -> dict:
    """A head without CPUs, and nodes with one each."""
    memory = {"object_store_memory": 100_000_000}
    return {
        "cluster_name": "simulated",
        "max_workers": MOST_NODES,
        "provider": {
            "type": "external",  # as a type of its own, Ray's wheel lacks a file that it reads
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "small": {
                "resources": {"CPU": 1, **memory},
                "node_config": {},
                "max_workers": MOST_NODES,
            },
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.25,
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in LISTS},
        "file_mounts_sync_continuously": False,
    }


V1 = pytest.param("0", marks=pytest.mark.soak, id="v1")


@pytest.fixture(scope="module", params=[V1, pytest.param("1", id="v2")])
def growing(request, tmp_path_factory) -> Iterator[dict[str, str]]:
    """The environment of who uses a cluster that an autoscaler of either version grows."""
    logs = tmp_path_factory.mktemp("growing")
    port = free_port()
    (logs / "config.yaml").write_text(yaml.safe_dump(config(port)))
    env = ray_env(logs / "token")
    head_env = {
        **env,
        "RAY_enable_autoscaler_v2": request.param,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "600",  # of a node, as version 1 sees it between launches
    }
    # a short path: sockets lie in it
    with tempfile.TemporaryDirectory(prefix="rg", ignore_cleanup_errors=True) as temporary:
        head = start(
            [
                str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats",
                f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=0", "--num-gpus=0",
                "--object-store-memory=100000000", "--include-dashboard=true",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={free_port()}",
                f"--ray-client-server-port={free_port()}",
                f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={temporary}",
                f"--autoscaling-config={logs / 'config.yaml'}",
            ],
            logs / "head.log",
            head_env,
        )  # fmt: skip
        try:
            log = logs / "head.log"
            wait_until(lambda: "Ray runtime started" in log.read_text(), "the head starts", head)
            yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        finally:
            nodes = psutil.Process(head.pid).children(recursive=True)
            stop(head)
            for process in nodes:  # the autoscaler's nodes outlive it
                if process.is_running():
                    process.kill()


@pytest.fixture
def seen(growing, tmp_path) -> Iterator[Seen]:
    """What is seen of the nodes during the test; the cluster has none before it."""
    with nodes_seen(growing["RAY_ADDRESS"], growing, tmp_path) as seen:
        wait_until(lambda: seen.empty, "the nodes of the test before are gone")
        yield seen


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of an MLflow server."""
    port = free_port()
    folder = tmp_path_factory.mktemp("server")
    process = serve(folder, port, ray_env(folder / "token"))
    yield f"http://127.0.0.1:{port}"
    stop(process)


def test_store_in_a_file_is_refused_where_nodes_are_to_come(growing, tmp_path):
    output = make_sweep("filestore", tmp_path / "storage", growing, scale=GROWS).run(code=2)
    assert "the cluster may get other nodes, but MLflow's store sqlite:///" in output


@pytest.mark.soak
def test_what_no_node_can_hold_ends_with_an_error(growing, server, tmp_path):
    made = make_sweep(
        "toolarge",
        tmp_path / "storage",
        growing,
        tracking={"uri": server},
        scale={**GROWS, "cpus_per_worker": 8},
    )
    output = made.run(code=2)
    assert "waiting for resources: one trial asks for 1 workers of 8 CPUs and 0 GPUs" in output
    assert "its autoscaler adds none for it, because no node type is large enough" in output
    assert "lower `scale.workers`, `scale.cpus_per_worker` or `scale.gpus_per_worker`" in output
    assert "started (trial" not in output


def test_nodes_come_for_as_many_trials_as_may_run_at_once_and_go_after_them(
    growing, server, seen, tmp_path
):
    made = make_sweep(
        "grown",
        tmp_path / "storage",
        growing,
        tracking={"uri": server},
        grid={"norm": ["vanilla", "bn", "wn"]},
        train={**LONGER, "iterations": 120},
        scale=GROWS,
    )
    output = made.run()
    # a node that starts between two looks is never seen as one that is coming
    assert "one trial asks for 1 workers of 1 CPUs and 0 GPUs; the autoscaler has " in output
    for trial in ("vanilla-000", "bn-000", "wn-000"):
        assert f"started (trial {trial};" in output
        assert made.record(trial)["outcome"] == "ok"
    wait_until(lambda: seen.empty, "no node is left")
    assert seen.most == 3


@pytest.mark.soak
def test_no_node_comes_or_stays_for_trials_that_have_failed_or_were_interrupted(
    growing, server, seen, tmp_path
):
    made = make_sweep(
        "cut",
        tmp_path / "storage",
        growing,
        tracking={"uri": server},
        search={"lr": [1e30, 1e-6]},  # the first one leaves the finite numbers
        train={**LONGER, "norm": "vanilla", "iterations": 100_000},
        scale={**GROWS, "max_concurrent": 1},
    )
    with made.running() as process:
        wait_until(lambda: len(made.curve("vanilla-001")) >= 3, "the second trial trains", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert made.record("vanilla-000")["outcome"] == "early-failure"
    assert made.record("vanilla-001")["outcome"] is None
    # what Ray Train asks for by itself counts for minutes after a trial has ended
    assert max(look.asked for look in seen.looks) == 0
    assert seen.most == 1
    wait_until(lambda: seen.empty, "no node is left")


@pytest.mark.soak
def test_cluster_without_autoscaler_is_named(server, sweep):
    made = sweep(
        "alone", tracking={"uri": server}, scale={**GROWS, "gpus_per_worker": 1.0}
    )  # fmt: skip
    output = made.run(code=2)
    assert "no autoscaler is running on this cluster" in output
    assert "2 CPUs and 0 GPUs" in output
    assert "started (trial" not in output
