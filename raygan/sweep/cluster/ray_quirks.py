"""What raygan needs of Ray's private modules, and its work-arounds for what Ray does.

All of them stand here, each with what was seen of Ray 2.60 that made it necessary.
``tests/sweep/cluster/test_ray_quirks.py`` fails once a newer Ray no longer needs one, as far as
that can be seen without a cluster. Every process of a sweep imports this module: Ray's own modules
are imported within the functions, where they are needed.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import json
import logging
import os
import pickle
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raygan.addresses import is_address
from raygan.errors import DataError, ResourceError, StalledError
from raygan.shown import COLORS, shown
from raygan.sweep.cluster.elastic import LOOK_SECONDS, START_SECONDS, Elastic, free_workers

if TYPE_CHECKING:
    from ray.train import UserCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.tune.experiment import Trial


logger = logging.getLogger(__name__)

DRIVER_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # without it, a task that asks for no GPU sees all of them
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's old output honours verbose=0, the new one prints boxes all the same
    "RAY_AIR_NEW_OUTPUT": "0",
    # StopSignals tells SIGINT from SIGTERM, and Tune still flushes its state
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # relative paths of the YAML are relative to where the sweep was started
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""Environment variables of the process that runs a sweep: Ray has no other way to set these."""
FIRST_SETTINGS = {
    # by default, Ray ends the process, without a word, when the head has not answered for 60 s:
    # HeadWatch does so earlier, and needs time to save what there is
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
}
"""The same; Ray reads these when it is imported, so that they are set before."""
TRIAL_SETTINGS = {
    # the workers are polled once in this time, by default in 2 s, and one report is relayed per
    # poll
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # by default, workers that wait for a free node for 60 s have failed; what could never start
    # was refused before
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "86400",
    # gauges that nothing scrapes, set up in each controller and worker
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # a process for each trial; trainer_class() has a thread instead
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""The same of the process of a trial, where Train's controller runs."""
HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""The same: for how long a worker's process may not answer, by default 10 minutes. A process that
is stopped cannot notice it itself. See :func:`patience`."""
_HANGS = re.compile(r"hanging for (\d+)")
"""In Ray Train's words for a process that does not answer: since how many seconds."""
ELASTIC = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_SECONDS)}
"""The same where a trial is elastic."""
PREPARING = {"RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "30"}
"""The same of the task that prepares images: for how long the autoscaler keeps nodes that the task
has asked for, every 10 s, if it was killed meanwhile; by default 180 s."""
DRAIN_LOOK_SECONDS = 1.0
"""Between two looks for nodes that are drained; by default 5 s. A node may be gone 15 s after the
notice."""
HEAD_RESOURCE = "node:__internal_head__"
"""Resource by which Ray 2.60 marks the head node. Without nodes for drivers, drivers run there;
they take no CPU. There is no public name for it."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 5.0
"""How long the head node may take to answer; usually it takes milliseconds."""
MOST_OF_A_PATH = 24
"""Characters of the folder in which Ray's may lie: the path of a socket in it has 103 at most."""
_NOTED = "Failure # "
"""Tune begins each of a trial's failures with it."""
_RAISED = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception): )", re.MULTILINE)

_NODE_OF_ITS_OWN = re.compile(r"node_[0-9a-f]{56}")
"""The node types that Ray makes up where no autoscaler runs: one for each node."""


def set_in_environment(settings: dict[str, str]) -> None:
    """Set environment variables that the user has not set."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def check_that_somebody_listens(address: str) -> None:
    """Raise ResourceError if nothing listens at ``address``, a host and its port.

    Ray 2.60 itself tries for minutes to reach a head that is not there.
    """
    host, _, port = address.rpartition(":")
    if not host or is_address(address) or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"no Ray cluster can be reached at {address!r} ({error}); check --address and "
            "RAY_ADDRESS"
        ) from error


def private_folder(*, keep: bool) -> str:
    """A folder for the files of a Ray that is started here; removed when this process ends.

    Ray 2.60 opens the folder that it is given to everybody, so that it is one below a private one.
    """
    parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(parent) > MOST_OF_A_PATH:
        parent = "/tmp"  # noqa: S108 - the folder made in it is private
    private = tempfile.mkdtemp(prefix="raygan-", dir=parent)
    if keep:
        print(f"Ray's files: {private}", file=sys.stderr)
    else:  # at the very end: Ray's own handlers, which come first, end its processes
        atexit.register(shutil.rmtree, private, ignore_errors=True)
    return f"{private}/r"


def keep_keys_out_of_logs() -> None:
    """See that Ray Tune writes no cloud keys into Ray's log files.

    Tune 2.60 copies ``AWS_SECRET_ACCESS_KEY`` and its like from this process into the runtime
    environment of each trial, which Ray's processes log. No setting turns that off.
    """
    from ray.tune.execution import class_cache

    for name in [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]:
        class_cache.ENV_VARS_TO_PROPAGATE.discard(name)


def make_private_token() -> None:
    """Make the token of a local cluster, if there is none, and see that only its owner reads it.

    Ray 2.60 itself writes it to ``~/.ray/auth_token`` with the usual permissions, so that everybody
    on the machine may read it. Raises OSError.
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
    mark: str = ""
    """Differs from report to report, so that one that has died can be told; empty if there is
    none."""


def scaling() -> Scaling:
    """What the autoscaler of the joined cluster says; raises whatever Ray raises.

    Ray 2.60 has a public function only for what to ask of it, none for what it answers. Version 2
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
        text = client.internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), timeout=10)
        return _scaling_v1(json.loads(text or b"{}"), waiting)
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
        mark=f"{state.autoscaler_state_version} {state.last_seen_cluster_resource_state_version}",
    )


def _scaling_v1(status: dict[str, Any], waiting: tuple[tuple[str, Bundles], ...]) -> Scaling:
    report = status.get("autoscaler_report") or {}
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
    alive = any(_NODE_OF_ITS_OWN.fullmatch(name) is None for name in types)
    return Scaling(
        alive=alive,
        coming=tuple(coming),
        failures=tuple(failures),
        waiting=waiting,
        mark=str(status.get("time", "")) if alive else "",
    )


def _group_id(gang: Any) -> str:
    return str(gang.details).partition(":")[0]  # id:strategy|state


def _bundle(request: Any) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(request.resources_bundle.items()))


def head_answers() -> bool:
    """Whether the head node of the joined cluster answers now; asks for :data:`ANSWER_SECONDS`.

    Ray 2.60 has no public function that asks it once: others wait for it, and end the process.
    """
    from ray._private.worker import global_worker

    try:
        global_worker.gcs_client.internal_kv_get(b"raygan", timeout=ANSWER_SECONDS)
    except Exception as error:  # Ray's own words for what it cannot tell now
        logger.info("the head node does not answer: %s", error)
        return False
    return True


def free_leftovers() -> None:
    """Remove placement groups of jobs that have ended, and of actors of this job that are dead.

    In Ray 2.60, the controller of a trial that is killed may ask for another group while it dies.
    What is to clean up after it does not know of that one, so that its resources would be lost to
    the trials that wait for them, and even to later jobs. One call lists the actors that live, so
    that single ones are asked for only where a group is left over. May be called on any thread.
    """
    import ray
    from ray._private.state import actors, jobs, state
    from ray._raylet import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    try:
        ended = {job["JobID"] for job in jobs() if job["IsDead"]}
        groups = state._connect_and_get_accessor().get_placement_group_table()
        own = ray.get_runtime_context().get_job_id()
        # after the groups: whoever has made one of them lives or is dead by now
        alive = actors(job_id=ray.JobID.from_hex(own), actor_state_name="ALIVE")
        for data in groups:
            group = PlacementGroupTableData.FromString(data)
            if group.state == PlacementGroupTableData.REMOVED or group.is_detached:
                continue
            job, maker = group.creator_job_id.hex(), group.creator_actor_id.hex()
            if job in ended or (job == own and maker not in alive and _is_dead(maker)):
                remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))
    except Exception as error:  # Ray's own words for what it cannot tell now; there is a next time
        logger.info("placement groups cannot be listed: %s", error)


def _is_dead(actor: str) -> bool:
    from ray._private.state import actors

    if not actor.strip("f"):  # this process
        return False
    known: dict[str, Any] = actors(actor)
    return known.get("State") == "DEAD"


def trainer_class(
    widths: Sequence[int] = (1,), lost: Callable[[], None] = lambda: None
) -> type[DataParallelTrainer]:
    """Ray Train's trainer without a process for each of its helpers; for use within a Tune trial.

    What starts a trial is mostly the start of its processes. Ray Train 2.60 gives its controller
    one, another to what frees the resources of a controller that has died, and a third to what
    watches for nodes that are drained. Here the controller runs in the thread in which Tune calls
    the trainable, :func:`free_leftovers` frees what is left, and a thread watches.

    After a node was drained, Ray Train 2.60 ends the workers that are left once others can start,
    so that an elastic trial waits for what it holds itself. Here they are ended before.

    ``widths``: how many workers it may have, if it is elastic. ``lost`` is called when the workers
    that were left are ended, and others are to start.
    """
    from ray.train import Result
    from ray.train.v2._internal.callbacks import placement_group_callback
    from ray.train.v2._internal.execution.controller import TrainController

    # the base of TorchTrainer, whose module would load PyTorch: the workers form their process
    # group themselves
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Controller(TrainController):
        def _make_and_handle_scaling_decision_for_non_running_worker_group(
            self, controller_state: Any
        ) -> Any:
            if self.get_worker_group() is not None:
                self._shutdown_worker_group()
                lost()
            return super()._make_and_handle_scaling_decision_for_non_running_worker_group(
                controller_state
            )

    class Trainer(DataParallelTrainer):
        def _initialize_and_run_controller(self, **options: Any) -> Result:
            if len(widths) > 1:
                policy = _elastic_policy(self.scaling_config, widths)
            else:
                policy = _fixed_policy(self.scaling_config)
            controller = Controller(**{**options, "scaling_policy": policy})
            try:
                asyncio.run(controller.run())
            except BaseException:  # Tune ends a trial that is stopped by SystemExit
                if (group := controller.get_worker_group()) is not None:
                    group.abort()
                policy.before_controller_abort()
                raise
            return controller.get_result()

        def _create_default_callbacks(self) -> list[Any]:
            cleaner = placement_group_callback.PlacementGroupCleanerCallback
            callbacks = super()._create_default_callbacks()
            kept = [callback for callback in callbacks if not isinstance(callback, cleaner)]
            return [*kept, _drain_watch()]

    return Trainer


def _drain_watch() -> Any:
    """Tells the workers of a trial when a node of theirs is drained, so that
    ``ray.train.get_preemption_info`` knows it."""
    from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
    from ray.train.v2._internal.execution.preemption import PreemptionWatcher

    class Watch(PreemptionCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            self._stop_watcher()
            ranks: dict[str, list[int]] = {}
            actors = {}
            for worker in worker_group.get_workers():
                rank = worker.distributed_context.world_rank
                ranks.setdefault(worker.metadata.node_id, []).append(rank)
                actors[rank] = worker.actor
            self._watcher = PreemptionWatcher(ranks, DRAIN_LOOK_SECONDS, actors)

        def _stop_watcher(self) -> None:
            if self._watcher is not None:
                self._watcher._stop_event.set()
                self._watcher = None

    return Watch()


def _fixed_policy(scaling_config: Any) -> Any:
    """Ray Train's policy for a fixed number of workers, which asks the cluster for nothing.

    That of Ray 2.60 has an actor ask the autoscaler for its workers, besides their placement group.
    What was asked for a trial that is stopped counts for 180 s more: the autoscaler adds nodes for
    trials that have ended, and keeps those of a sweep that has ended.
    """
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy

    class Policy(FixedScalingPolicy):
        def _send_resource_request(self) -> None:
            pass

        _maybe_send_resource_request = _cancel_resource_request = _send_resource_request

    return Policy(scaling_config)


def _elastic_policy(scaling_config: Any, widths: Sequence[int]) -> Any:
    """Ray Train's elastic policy with the decisions of :class:`Elastic`.

    That of Ray 2.60 takes any number of workers, also one that does not divide a batch. It asks an
    actor what is reserved for it, which knows of a lost node only after 20 s, believes for 180 s in
    trials that were stopped, and does not come back if its own node is lost: then nothing starts.
    """
    from ray._private.state import available_resources_per_node, state
    from ray.train.v2._internal.execution.scaling_policy import (
        ElasticScalingPolicy,
        NoopDecision,
        ResizeDecision,
    )

    decides = Elastic(widths)

    class Policy(ElasticScalingPolicy):
        looked = 0.0

        def _free(self) -> int:
            each = self.scaling_config._resources_per_worker_not_none
            nodes, drained = available_resources_per_node(), state.get_draining_nodes()
            return free_workers((nodes[node] for node in nodes.keys() - drained.keys()), each)

        def make_decision_for_non_running_worker_group(self) -> ResizeDecision | NoopDecision:
            self._maybe_send_resource_request()  # an autoscaler adds nodes for the most workers
            width = decides.starts(self._free())
            if width is None:
                time.sleep(1)  # Ray asks again at once
                return NoopDecision()
            return self._get_resize_decision(width)

        def make_decision_for_running_worker_group(
            self,
            worker_group_state: Any,
            worker_group_status: Any,  # noqa: ARG002
        ) -> ResizeDecision | NoopDecision:
            self._maybe_send_resource_request()
            now = time.monotonic()
            if now - self.looked < LOOK_SECONDS:
                return NoopDecision()
            self.looked = now
            try:
                free = self._free()
                others = bool(free) and bool(scaling().waiting)
            except Exception as error:  # Ray's own words for what it cannot tell now
                logger.info("free resources cannot be told: %s", error)
                return NoopDecision()
            width = decides.grows(worker_group_state.num_workers, free, others_wait=others)
            return NoopDecision() if width is None else self._get_resize_decision(width)

    return Policy(scaling_config)


def end_stalled(seconds: float) -> None:
    """End this worker, and with it all of its trial, since it made no progress for ``seconds``.

    To be called on any thread: that of the training may never return. Its stack is printed.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    with suppress(Exception):  # the log may lie on a disk that hangs
        faulthandler.dump_traceback()
    error = StalledError(f"a worker made no progress for {seconds:g} s")
    get_train_context().execution_context.training_thread_runner.get_exception_queue().put(error)


def stall(error: BaseException) -> str | None:
    """What to say of workers that were ended because one of them made no progress; None: they were
    lost for another reason."""
    for inner in [error, *getattr(error, "worker_failures", {}).values()]:
        if isinstance(inner, StalledError):
            return str(inner)
        if type(inner).__name__ == "WorkerHealthCheckTimeoutError":
            told = _HANGS.search(str(inner))
            length = f" for {told[1]} s" if told else ""
            return f"the process of a worker did not answer{length}"
    return None


@dataclass
class Relayed:
    """What :func:`relay` has passed on, and what it shall say with the next report."""

    newest: int = 0
    """Iterations at the newest evaluation."""
    notes: list[str] = field(default_factory=list)
    """Notes for the record of the trial."""
    spoke: Callable[[], None] = lambda: None
    """Called with each report."""
    holds: bool = False
    """Whether the trial has workers, as far as Tune knows."""

    def lost(self) -> None:
        """Tell Tune that the workers are gone, unless it knows; returns when it has taken it in."""
        import ray.tune

        if self.holds:
            self.holds = False
            ray.tune.report({"step": 0, "lost": True})


def relay(relayed: Relayed | None = None) -> UserCallback:
    """Reports to Tune what the first worker reports to Train; returns when Tune has taken it in.

    Ray 2.60's own ``TuneReportCallback`` does so through a queue with a process of its own, which
    a controller that runs in the trial's process does not need.
    """
    import ray.tune
    from ray.train import UserCallback

    known = relayed or Relayed()

    class Relay(UserCallback):
        def after_report(
            self,
            run_context: Any,  # noqa: ARG002
            metrics: list[dict[str, Any]],
            checkpoint: Any,  # noqa: ARG002
        ) -> None:
            known.spoke()
            known.holds = True
            report = metrics[0]
            if known.notes:
                report = {**report, "notes": [*known.notes, *report.get("notes", [])]}
                known.notes.clear()
            if "val/reconstruction_loss" in report:
                known.newest = max(known.newest, report["step"])
            ray.tune.report(report)

    return Relay()


def patience(relayed: Relayed, seconds: float) -> Any:
    """A callback of Ray Train: once all workers have reported, a process that does not answer for
    ``seconds`` is lost.

    Until then, :data:`HEALTH_TIMEOUT` holds: to load libraries may stop all threads of a process
    for long. Ray 2.60 has one limit for both.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Patience(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            def spoke() -> None:
                worker_group._worker_health_check_timeout_s = seconds

            relayed.spoke = spoke

    return Patience()


def losses(relayed: Relayed) -> Any:
    """A callback of Ray Train: when other workers are to start, Tune hears that the last ones are
    gone.

    Ray Train 2.60 starts others by itself after a node of theirs was drained, or to have more of
    them, and waits for their resources for as long as it takes. It has no public callback for that.
    """
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Losses(WorkerGroupCallback):
        def before_worker_group_start(self, worker_group_context: Any) -> None:  # noqa: ARG002
            relayed.lost()

    return Losses()


def flush_reports() -> None:
    """Let all that a worker has reported arrive; its last call.

    Ray Train 2.60 may lose a report that is followed by the end of the worker's function. Both of
    the queues on the way hold one item, so that all reports before this one have arrived when it is
    put; it says nothing.
    """
    import ray.train

    ray.train.report({"step": 0})


def errors_as_results(function: Callable[[Any], Any], row: dict[str, Any]) -> dict[str, bytes]:
    """A row of Ray Data with what ``function`` makes of the item of ``row``, or its DataError.

    Ray Data 2.60 would wrap the error, and print its trace once per task.
    """
    try:
        result: tuple[Any, DataError | None] = function(pickle.loads(row["item"])), None  # noqa: S301 - of this program's own driver
    except DataError as error:
        result = None, DataError(str(error))
    return {"made": pickle.dumps(result)}


def result_of(row: dict[str, Any]) -> Any:
    """What :func:`errors_as_results` has put into ``row``; raises the DataError."""
    made, error = pickle.loads(row["made"])  # noqa: S301 - of this program's own tasks
    if error is not None:
        raise error
    return made


def count_failures_anew(trial: Trial, allowed: int) -> None:
    """Let a trial fail ``allowed`` times from here: Tune 2.60 counts over a trial's whole life."""
    trial.max_failures = trial.num_failures + allowed


def stop_lingering(tune_controller: Any, lingers: Callable[[Trial], bool]) -> None:
    """Stop the trials that ``lingers``: trained, but they do not end.

    Seen once in some hundreds of trials with Ray 2.60: the last evaluation has come, and Train's
    controller never returns. No test can tell whether that is mended.
    """
    for trial in list(tune_controller.get_live_trials()):
        if lingers(trial):
            logger.warning("%s has been trained, but did not end: stopped", trial.config["trial"])
            tune_controller.stop_trial(trial)


def cause_of(error: BaseException | str) -> str:
    """What an error of Ray says, without the tracebacks and the ids of its layers.

    A text is what Tune has noted of a trial's failures: the last of them counts. Ray 2.60 has the
    layers as attributes where an error arrives as itself, and in the text alone where Tune has
    noted it.
    """
    if isinstance(error, BaseException) and (why := stall(error)) is not None:
        return why
    for inner in getattr(error, "worker_failures", {}).values():
        return cause_of(inner)
    inner = getattr(error, "cause", None)
    if isinstance(inner, BaseException) and inner is not error:
        return cause_of(inner)
    text = COLORS.sub("", str(error)).rpartition(_NOTED)[2].strip()
    if raised := list(_RAISED.finditer(text)):
        text = text[raised[-1].start(1) :]
    lines = [line.strip() for line in text.splitlines() if line and not line[0].isspace()]
    words = " ".join(lines) or type(error).__name__
    named = isinstance(error, str) or type(error).__module__.startswith("ray")
    return shown(words if named else f"{type(error).__name__}: {words}", 1000)
