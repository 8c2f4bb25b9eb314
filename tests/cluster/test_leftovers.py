"""Placement groups that Ray itself never removes: their owners asked for them while they died."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.clusters import BIN, PATIENCE, Cluster, wait_until

GREEDY = """
import time
import ray
from ray.util.placement_group import placement_group

@ray.remote(num_cpus=0)
class Greedy:
    def ready(self):
        pass

    def ask_for_ever(self):
        while True:
            placement_group([{"CPU": 0.001}])

ray.init(log_to_driver=False)
actors = [Greedy.remote() for _ in range(2)]
ray.get([actor.ready.remote() for actor in actors])
for actor in actors:
    actor.ask_for_ever.remote()
time.sleep(0.2)
for actor in actors:
    ray.kill(actor)
"""


def groups(cluster: Cluster) -> list[str]:
    """Ids of the groups that hold resources."""
    listed = subprocess.run(
        [str(BIN / "ray"), "list", "placement-groups", "--address", cluster.dashboard,
         "--filter", "state=CREATED", "--format", "json"],
        env=cluster.env, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    return [group["placement_group_id"] for group in json.loads(listed.stdout)]


def test_groups_of_dead_jobs_are_removed_before_a_sweep(cluster, sweep, tmp_path):
    def leave_some() -> list[str]:
        command = [sys.executable, "-c", GREEDY]
        subprocess.run(command, env=cluster.env, timeout=PATIENCE, check=True)
        return groups(cluster)

    wait_until(leave_some, "groups are left")
    made = sweep("leftovers", dataset={"name": "folder", "path": str(tmp_path / "nowhere")})
    assert "no such file or folder" in made.run(code=2)  # said by a task of the cluster
    assert groups(cluster) == []
