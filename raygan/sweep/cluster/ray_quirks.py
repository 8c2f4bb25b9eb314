"""What raygan needs of Ray's private modules, each with its reason; written for Ray 2.60."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

logger = logging.getLogger(__name__)

_NODE_OF_ITS_OWN = re.compile(r"node_[0-9a-f]{56}")
"""The node types that Ray makes up where no autoscaler runs: one for each node."""


def keep_keys_out_of_logs() -> None:
    """See that Ray Tune writes no cloud keys into Ray's log files.

    Tune copies ``AWS_SECRET_ACCESS_KEY`` and its like from this process into the runtime
    environment of each trial, which Ray's processes log. No setting turns that off.
    """
    from ray.tune.execution import class_cache

    for name in [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        class_cache.ENV_VARS_TO_PROPAGATE.discard(name)


def make_private_token() -> None:
    """Make the token of a local cluster, if there is none, and see that only its owner reads it.

    Ray itself writes it to ``~/.ray/auth_token`` with the usual permissions, so that everybody on
    the machine may read it. Raises OSError.
    """
    from ray._private.authentication import authentication_token_setup as setup
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    if os.environ.get(setup.AUTH_MODE_ENV_VAR, "token").lower() != "token":
        return
    loader = AuthenticationTokenLoader.instance()
    if not loader.has_token(ignore_auth_mode=True):
        before = os.umask(0o077)
        try:
            setup.generate_and_save_token()
        finally:
            os.umask(before)
        loader.reset_cache()
    path = setup._get_default_token_path()  # perhaps of an earlier version, which left it open
    if path.exists() and path.stat().st_uid == os.getuid():
        path.chmod(0o600)


Bundles = tuple[tuple[tuple[str, float], ...], ...]
"""What a placement group asks for: the resources of each bundle, sorted by their names."""


@dataclass(frozen=True)
class Scaling:
    """What a cluster's autoscaler, version 1 or 2, has told last."""

    alive: bool = False
    """Whether there is one."""
    coming: tuple[str, ...] = ()
    """The node types of the nodes that it has asked for and that are not there yet."""
    failures: tuple[str, ...] = ()
    """Why nodes could not be started lately."""
    waiting: tuple[tuple[str, Bundles], ...] = ()
    """Placement groups that wait, each with its id."""
    refused: frozenset[str] = frozenset()
    """The ids of those for which it may add no nodes, because no node type fits or its limits
    are reached; only version 2 tells them."""


def scaling() -> Scaling:
    """What the autoscaler of the joined cluster says; raises whatever Ray raises.

    Ray has a public function only for what to ask of it, none for what it answers. Version 2
    reports to the GCS; version 1, the default of ``ray start`` and ``ray up``, leaves a JSON text
    in the GCS's key-value store, as ``ray status`` reads it.
    """
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray._private.worker import global_worker
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    client = global_worker.gcs_client
    reply = GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=10))
    state, cluster = reply.autoscaling_state, reply.cluster_resource_state
    waiting = tuple(
        (_group_id(gang), tuple(_bundle(request) for request in gang.requests))
        for gang in cluster.pending_gang_resource_requests
    )
    if state.autoscaler_state_version == 0:
        status = client.internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), timeout=10)
        return _scaling_v1(json.loads(status or b"{}").get("autoscaler_report") or {}, waiting)
    coming = [
        request.ray_node_type_name
        for request in state.pending_instance_requests
        for _ in range(request.count)
    ]
    coming += [instance.ray_node_type_name for instance in state.pending_instances]
    failed = [f"{f.ray_node_type_name}: {f.reason}" for f in state.failed_instance_requests]
    return Scaling(
        alive=True,
        coming=tuple(coming),
        failures=tuple(failed),
        waiting=waiting,
        refused=frozenset(map(_group_id, state.infeasible_gang_resource_requests)),
    )


def _scaling_v1(report: dict[str, Any], waiting: tuple[tuple[str, Bundles], ...]) -> Scaling:
    types = list(report.get("active_nodes") or {})
    coming = [
        name for name, count in report.get("pending_launches", {}).items() for _ in range(count)
    ]
    coming += [node_type for _, node_type, _ in report.get("pending_nodes", [])]
    summary = report.get("node_availability_summary") or {}
    failures = []
    for name, record in summary.get("node_availabilities", {}).items():
        if why := record.get("unavailable_node_information"):
            failures.append(f"{name}: {why.get('description') or why.get('category')}")
    return Scaling(
        alive=any(_NODE_OF_ITS_OWN.fullmatch(name) is None for name in types),
        coming=tuple(coming),
        failures=tuple(failures),
        waiting=waiting,
    )


def _group_id(gang: Any) -> str:
    return str(gang.details).partition(":")[0]  # id:strategy|state


def _bundle(request: Any) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(request.resources_bundle.items()))


def free_leftovers() -> None:
    """Remove placement groups of jobs that have ended, and of actors of this job that are dead.

    In Ray 2.60, the controller of a trial that is killed may ask for another group while it dies.
    What is to clean up after it does not know of that one, so that its resources would be lost to
    the trials that wait for them, and even to later jobs.
    """
    from ray._private.state import jobs, state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import remove_placement_group

    try:
        ended = {job["JobID"] for job in jobs() if job["IsDead"]}
        found = state._connect_and_get_accessor().get_placement_group_table()
        own = ray.get_runtime_context().get_job_id()
        for data in found:
            group = PlacementGroupTableData.FromString(data)
            if group.state == PlacementGroupTableData.REMOVED or group.is_detached:
                continue
            job = group.creator_job_id.hex()
            if job in ended or (job == own and _is_dead(group.creator_actor_id)):
                remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
    except Exception as error:  # Ray's own words for what it cannot tell now; there is a next time
        logger.info("placement groups cannot be listed: %s", error)


def _is_dead(actor: bytes) -> bool:
    from ray._private.state import actors

    if not actor.strip(b"\xff"):  # this process
        return False
    known: dict[str, Any] = actors(actor.hex())
    return known.get("State") == "DEAD"
