"""Kubernetes' API as far as Ray's autoscaler uses it, and an operator whose pods are processes.

Like KubeRay, the operator starts a pod for each replica of a group, and removes the pods that it is
told to. It serves HTTPS on loopback::

    with Kubernetes(cluster, folder, start_pod) as kubernetes:
        ...  # `ray kuberay-autoscaler` runs with `kubernetes.env`
    assert kubernetes.replicas["gpu-spot"] == [0, 1, 0]
"""

from __future__ import annotations

import copy
import json
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Object = dict[str, Any]

NAME = "raygan"
"""Of the cluster and of its namespace."""
HEAD = f"{NAME}-head"


class Kubernetes:
    """A context manager; the server is stopped at its end, and all pods with it.

    ``start_pod`` starts the process of a pod with a name in a group, or returns None for a pod that
    waits for a node for ever. ``stop_pod`` ends one.
    """

    def __init__(
        self,
        spec: Object,
        folder: Path,
        start_pod: Callable[[str, str], subprocess.Popen | None],
        stop_pod: Callable[[subprocess.Popen], None],
    ) -> None:
        self.cluster: Object = {
            "metadata": {"name": NAME, "namespace": NAME, "resourceVersion": "1"},
            "spec": copy.deepcopy(spec),
        }
        groups = self.cluster["spec"]["workerGroupSpecs"]
        for group in groups:  # KubeRay's defaults
            group.setdefault("numOfHosts", 1)
            group.setdefault("scaleStrategy", {})
        self.replicas = {group["groupName"]: [group["replicas"]] for group in groups}
        """All numbers of replicas that each group has had, in this order."""
        self.deleted: list[str] = []
        """The pods that the autoscaler has named to be removed."""
        self.refused: list[str] = []
        """Requests that no autoscaler should send: KubeRay gives it no right to."""
        self._start, self._stop = start_pod, stop_pod
        self._pods: dict[str, tuple[str, subprocess.Popen | None]] = {}
        self._started = 0
        self._lock = threading.Lock()
        self._key, self._certificate = folder / "kubernetes.key", folder / "kubernetes.crt"

    def __enter__(self) -> Kubernetes:
        make = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
            "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(self._key), "-out", str(self._certificate),
        ]  # fmt: skip
        subprocess.run(make, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for _, process in self._pods.values():
            if process is not None:
                self._stop(process)

    @property
    def env(self) -> dict[str, str]:
        """What Kubernetes and KubeRay set in the container of the autoscaler."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self._server.server_port),
            "RAY_KUBERAY_CA_CERT_PATH": str(self._certificate),
            # in place of an account's token, which Ray reads from a fixed path
            "RAY_KUBERAY_CLIENT_CERT_PATH": str(self._certificate),
            "RAY_KUBERAY_CLIENT_KEY_PATH": str(self._key),
            "NO_PROXY": "127.0.0.1",
        }

    def get(self, path: str) -> Object | None:
        """The object at ``path``, or a list of pods."""
        with self._lock:
            if path == f"/apis/ray.io/v1/namespaces/{NAME}/rayclusters/{NAME}":
                return copy.deepcopy(self.cluster)
            if path.startswith(f"/api/v1/namespaces/{NAME}/pods?labelSelector="):
                pods = [_pod(HEAD, "head", "headgroup", running=True)]
                for name, (group, process) in self._pods.items():
                    running = process is not None and process.poll() is None
                    pods.append(_pod(name, "worker", group, running=running))
                return {"metadata": {"resourceVersion": "1"}, "items": pods}
            self.refused.append(f"GET {path}")
            return None

    def patch(self, path: str, operations: list[Object]) -> Object | None:
        """Change the cluster, and start and remove pods accordingly."""
        with self._lock:
            if path != f"/apis/ray.io/v1/namespaces/{NAME}/rayclusters/{NAME}":
                self.refused.append(f"PATCH {path}")
                return None
            for one in operations:
                assert one["op"] == "replace", one
                *way, last = one["path"].strip("/").split("/")
                target: Any = self.cluster
                for key in way:
                    target = target[int(key)] if isinstance(target, list) else target[key]
                target[last] = one["value"]
            self._reconcile()
            return copy.deepcopy(self.cluster)

    def _reconcile(self) -> None:
        for group in self.cluster["spec"]["workerGroupSpecs"]:
            name = group["groupName"]
            for pod in group["scaleStrategy"].get("workersToDelete", ()):
                if pod in self._pods:
                    self.deleted.append(pod)
                    if (process := self._pods.pop(pod)[1]) is not None:
                        self._stop(process)
            if group["replicas"] != self.replicas[name][-1]:
                self.replicas[name].append(group["replicas"])
            there = sum(of == name for of, _ in self._pods.values())
            for _ in range(min(group["replicas"], group["maxReplicas"]) - there):
                self._started += 1
                pod = f"{NAME}-{name}-worker-{self._started}"
                self._pods[pod] = name, self._start(pod, name)


def _pod(name: str, kind: str, group: str, *, running: bool) -> Object:
    labels = {"ray.io/cluster": NAME, "ray.io/node-type": kind, "ray.io/group": group}
    state = {"running": {}} if running else {"waiting": {}}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "ray", "resources": {}}]},
        "status": {"containerStatuses": [{"name": "ray", "state": state}]},
    }


def _handler(kubernetes: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(kubernetes.get(self.path))

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(kubernetes.patch(self.path, json.loads(body)))

        def _answer(self, found: Object | None) -> None:
            body = json.dumps(found or {}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
