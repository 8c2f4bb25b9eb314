"""The nodes of a cluster, seen all the time by a process of its own.

Ray's client takes its token from the environment of its process, once and for all::

    with nodes_seen(address, env, folder) as seen:
        ...  # a sweep runs
    assert seen.most == 3
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class Look:
    """The cluster at one moment."""

    nodes: list[str]
    """The ids of its nodes, without the head."""
    asked: int
    """How many workers' resources its autoscaler is asked for, besides placement groups."""
    waiting: int
    """How many placement groups wait for nodes."""


@dataclass(frozen=True)
class Seen:
    """What has been seen so far."""

    file: Path

    @property
    def looks(self) -> list[Look]:
        lines = self.file.read_text().splitlines(keepends=True)
        return [Look(**json.loads(line)) for line in lines if line.endswith("\n")]

    @property
    def most(self) -> int:
        """How many nodes there were at once."""
        return max(len(look.nodes) for look in self.looks)

    @property
    def empty(self) -> bool:
        """Whether no node is there now, and nobody waits for one."""
        last = self.looks[-1]
        return not last.nodes and not last.waiting


@contextmanager
def nodes_seen(address: str, env: dict[str, str], folder: Path) -> Iterator[Seen]:
    """Look at the cluster at ``address`` while the block runs; ``env``: has its token."""
    from tests.clusters import start, stop, wait_until

    seen = Seen(folder / "nodes.jsonl")
    seen.file.touch()
    process = start([sys.executable, __file__, address, str(seen.file)], folder / "nodes.log", env)
    try:
        wait_until(lambda: seen.looks, "the first look", process)
        yield seen
    finally:
        stop(process)


def _look(address: str, file: Path) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply, NodeStatus

    client = GcsClient(address=address)
    while True:
        reply = GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=10))
        cluster = reply.cluster_resource_state
        nodes = [
            node.node_id.hex()
            for node in cluster.node_states
            if node.status != NodeStatus.DEAD
            and "node:__internal_head__" not in node.total_resources
        ]
        asked = sum(
            request.count
            for constraint in cluster.cluster_resource_constraints
            for request in constraint.resource_requests
        )
        look = {
            "nodes": nodes,
            "asked": asked,
            "waiting": len(cluster.pending_gang_resource_requests),
        }
        with file.open("a") as lines:
            lines.write(json.dumps(look) + "\n")
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    _look(sys.argv[1], Path(sys.argv[2]))
