"""The work-arounds for Ray do what they should, and Ray still needs them; without a cluster."""

import importlib
import importlib.util
import inspect
import mmap
import os
import pickle
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray.autoscaler.sdk
import ray.train
from ray._common.constants import HEAD_NODE_RESOURCE_NAME
from ray._common.utils import try_to_create_directory
from ray._private.authentication import authentication_token_setup
from ray.train.v2._internal import constants
from ray.train.v2._internal.callbacks import preemption_callback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import (
    CheckpointManagerInitializationError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution import preemption
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import RestartingState
from ray.train.v2._internal.execution.failure_handling import (
    DefaultFailurePolicy,
    FailureDecision,
)
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    FixedScalingPolicy,
    NoopDecision,
    autoscaling_coordinator_client,
)
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.worker_group import worker, worker_group
from ray.train.v2._internal.execution.worker_group.thread_runner import ThreadRunner
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import PreemptionError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from raygan.errors import DataError, StalledError
from raygan.folder import CHECKPOINT_LIST
from raygan.sweep.cluster import ray_quirks

OF_RAY = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Ray's own callbacks use what Ray has deprecated."""
HANGING = "A worker health check has been hanging for 90.12 seconds. Marking the worker as dead."
"""Ray Train's words."""
CONTROLLER = "ray.train.v2._internal.execution.controller.TrainController"


class Group:
    """Workers, and whether they have been ended."""

    aborted = 0

    def abort(self) -> None:
        self.aborted += 1


def controller(group, ends_by=None):
    """Stands for Train's: runs until it raises ``ends_by``."""

    class Controller:
        def __init__(self, **options):
            self.options = options

        async def run(self):
            if ends_by is not None:
                raise ends_by

        def get_worker_group(self):
            return group

        def get_result(self):
            return self.options["train_run_context"]

    return Controller


@pytest.fixture
def trainer(monkeypatch):
    def no_process(*_, **__):
        raise AssertionError("a process is started for the controller")

    monkeypatch.setattr("ray.remote", no_process)
    return lambda: ray_quirks.trainer_class()(lambda: None)


def test_the_controller_runs_without_a_process_of_its_own(monkeypatch, trainer):
    group = Group()
    monkeypatch.setattr(CONTROLLER, controller(group))
    assert trainer()._initialize_and_run_controller(train_run_context="result") == "result"
    assert group.aborted == 0


@pytest.mark.parametrize("ends_by", [SystemExit(0), ValueError("in the controller")])
def test_workers_end_with_a_trial_that_is_stopped(monkeypatch, trainer, ends_by):
    group = Group()
    monkeypatch.setattr(CONTROLLER, controller(group, ends_by))
    with pytest.raises(type(ends_by)):
        trainer()._initialize_and_run_controller()
    assert group.aborted == 1


def test_workers_that_are_left_are_ended_before_it_is_counted_how_many_others_fit(monkeypatch):
    """An elastic trial would wait for what they hold."""
    done = []

    class WithGroup(TrainController):
        _worker_group = "left"

        def __init__(self, **_):
            self._state = RestartingState(None)

        async def run(self):
            await self._step()

        def get_result(self):
            return None

        def _shutdown_worker_group(self):
            done.append("ended")
            self._worker_group = None

        @property
        def _scaling_policy(self):
            decide = lambda: done.append("counted") or NoopDecision()  # noqa: E731
            return SimpleNamespace(make_decision_for_non_running_worker_group=decide)

        def _get_run_attempt_id(self):
            return "a"

    monkeypatch.setattr(CONTROLLER, WithGroup)
    whole = ray_quirks.trainer_class((1, 2), lambda: done.append("lost"))(lambda: None)
    for _ in range(2):
        whole._initialize_and_run_controller()
    assert done == ["ended", "lost", "counted"] * 2


def test_a_trial_that_is_stopped_before_its_workers_start_ends_none(monkeypatch, trainer):
    monkeypatch.setattr(CONTROLLER, controller(None, SystemExit(0)))
    with pytest.raises(SystemExit):
        trainer()._initialize_and_run_controller()


def test_no_process_waits_to_free_the_resources_of_a_trial(monkeypatch, trainer):
    other = object()
    whole = [PlacementGroupCleanerCallback(), other]
    monkeypatch.setattr(DataParallelTrainer, "_create_default_callbacks", lambda _: whole)
    first, _ = trainer()._create_default_callbacks()
    assert first is other


class Worker:
    """One of a trial's, on a node of its own; hears what the watch says."""

    def __init__(self, rank, node):
        self.distributed_context = SimpleNamespace(world_rank=rank)
        self.metadata = SimpleNamespace(node_id=node)
        self.heard = queue.SimpleQueue()
        self.actor = SimpleNamespace(mark_preempt=SimpleNamespace(remote=self.heard.put))


def test_all_workers_are_told_of_a_node_that_is_drained_without_a_process(monkeypatch, trainer):
    monkeypatch.setattr(DataParallelTrainer, "_create_default_callbacks", lambda _: [])
    monkeypatch.setattr(preemption, "_get_draining_nodes", lambda: {"b": 1700, "elsewhere": 9})
    monkeypatch.setattr("ray.nodes", list)
    workers = [Worker(0, "a"), Worker(1, "b")]
    (watch,) = trainer()._create_default_callbacks()
    watch.after_worker_group_start(SimpleNamespace(get_workers=lambda: workers))
    try:
        for worker in workers:
            told = worker.heard.get(timeout=30)
            assert (told.preempted_node_to_ranks, told.deadline_ms) == ({"b": [1]}, 1700)
        thread = watch._watcher._monitor_thread
    finally:
        watch.after_worker_group_abort(None)
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def asked(monkeypatch):
    """For how many workers the autoscaler is asked, besides the placement group."""
    heard = []
    client = autoscaling_coordinator_client.TrainAutoscalingCoordinatorClient
    monkeypatch.setattr(client, "send_resource_request", lambda _, __, count: heard.append(count))
    return heard


def test_ray_train_itself_starts_a_trial_again_whose_node_was_drained_and_counts_no_failure():
    lost = {0: ray.exceptions.ActorDiedError(), 1: ValueError("a peer is gone")}
    lost[0]._preempted = True
    told = ray.train.PreemptionInfo(deadline_ms=1700, preempted_node_to_ranks={"a": [0]})
    policy = DefaultFailurePolicy(ray.train.FailureConfig(max_failures=0))
    for error in (PreemptionError(told), ray.train.WorkerGroupError("workers failed", lost)) * 3:
        assert policy.make_decision(error) is FailureDecision.RETRY
    lost[0]._preempted = False
    assert policy.make_decision(ray.train.WorkerGroupError("failed", lost)) is FailureDecision.RAISE


def test_no_nodes_are_asked_for_besides_those_of_the_placement_group(asked):
    policy = ray_quirks._fixed_policy(ray.train.ScalingConfig(num_workers=2))
    policy.after_controller_start(SimpleNamespace(run_id="a"))
    assert policy.make_decision_for_non_running_worker_group().num_workers == 2
    policy.make_decision_for_running_worker_group(None, None)
    policy.before_controller_abort()
    assert asked == []


@pytest.mark.parametrize("widths", [(2,), (1, 2)])
def test_a_trial_that_is_stopped_takes_back_what_it_has_asked_for(monkeypatch, widths):
    taken_back = []
    monkeypatch.setattr(CONTROLLER, controller(Group(), SystemExit(0)))
    monkeypatch.setattr(
        ElasticScalingPolicy, "before_controller_abort", lambda _: taken_back.append("request")
    )
    whole = ray_quirks.trainer_class(widths)(lambda: None)
    with pytest.raises(SystemExit):
        whole._initialize_and_run_controller(scaling_policy="of Ray")
    assert taken_back == ["request"] * (len(widths) - 1)


def test_an_elastic_trial_counts_no_workers_on_nodes_that_are_drained(monkeypatch):
    state = "ray._private.state"
    free = {"a": {"CPU": 2.0}, "drained": {"CPU": 4.0}}
    monkeypatch.setattr(f"{state}.available_resources_per_node", lambda: free)
    monkeypatch.setattr(f"{state}.state.get_draining_nodes", lambda: {"drained": 0, "gone": 9})
    scaling = ray.train.ScalingConfig(num_workers=(1, 4), resources_per_worker={"CPU": 1})
    assert ray_quirks._elastic_policy(scaling, (1, 2, 4))._free() == 2


def test_what_the_first_worker_reports_is_reported_to_tune(monkeypatch):
    heard = []
    monkeypatch.setattr("ray.tune.report", heard.append)
    ray_quirks.relay().after_report(None, [{"step": 1}, {"step": 2}], None)
    assert heard == [{"step": 1}]


def test_notes_of_the_driver_go_with_the_next_report_and_the_newest_evaluation_is_known(
    monkeypatch,
):
    heard = []
    monkeypatch.setattr("ray.tune.report", heard.append)
    relayed = ray_quirks.Relayed()
    relay = ray_quirks.relay(relayed)
    relayed.notes.append("a worker hung")
    for report in (
        {"step": 10, "notes": ["resumed"]},
        {"step": 20, "val/reconstruction_loss": 0.5},
        {"step": 10, "val/reconstruction_loss": 0.6},  # again, from the last checkpoint
    ):
        relay.after_report(None, [report], None)
    assert [report.get("notes") for report in heard] == [["a worker hung", "resumed"], None, None]
    assert relayed.newest == 20


def test_a_worker_that_makes_no_progress_ends_its_trial_with_the_reason(monkeypatch, capfd):
    runner = ThreadRunner()
    context = SimpleNamespace(execution_context=SimpleNamespace(training_thread_runner=runner))
    monkeypatch.setattr(
        "ray.train.v2._internal.execution.context.get_train_context", lambda: context
    )
    over = threading.Event()
    runner.run(over.wait)
    try:
        ray_quirks.end_stalled(90)
        runner._monitor_thread.join()
        error = runner.get_error()
    finally:
        over.set()
    assert isinstance(pickle.loads(pickle.dumps(error)), StalledError)
    group = ray.train.WorkerGroupError("workers failed", {0: error})
    said = "a worker made no progress for 90 s"
    assert ray_quirks.stall(group) == ray_quirks.cause_of(group) == said
    assert "Thread 0x" in capfd.readouterr().err  # where it hangs


def test_a_process_that_does_not_answer_is_told_from_one_that_is_lost():
    said = "the process of a worker did not answer"
    for words, length in ((HANGING, " for 90 s"), ("A worker health check hangs", "")):
        hangs = WorkerHealthCheckTimeoutError(words)
        group = ray.train.WorkerGroupError("workers failed", {0: hangs})
        assert ray_quirks.stall(group) == ray_quirks.cause_of(group) == said + length
    assert ray_quirks.stall(ray.exceptions.RayError("The actor died.")) is None


def test_a_process_has_more_time_to_answer_until_all_workers_have_reported(monkeypatch):
    monkeypatch.setattr("ray.tune.report", lambda _: None)
    relayed = ray_quirks.Relayed()
    relay, patience = ray_quirks.relay(relayed), ray_quirks.patience(relayed, 20.0)
    for _ in range(2):  # the second time after its workers were lost
        group = SimpleNamespace(_worker_health_check_timeout_s=600.0)
        patience.after_worker_group_start(group)
        assert group._worker_health_check_timeout_s == 600.0
        relay.after_report(None, [{"step": 0}], None)
        assert group._worker_health_check_timeout_s == 20.0


@pytest.mark.parametrize("alive", [True, False])
def test_reports_of_the_old_autoscaler_are_told_apart_by_their_time(alive):
    name = "gpu" if alive else f"node_{'0' * 56}"  # Ray's own name, where no autoscaler runs
    report = {"active_nodes": {name: 1}}
    marks = {
        ray_quirks._scaling_v1({"time": time, "autoscaler_report": report}, ()).mark
        for time in (1.5, 2.5)
    }
    assert marks == ({"1.5", "2.5"} if alive else {""})


DRIVER = """
import sys
import raygan.sweep.cluster.trial, ray
ray_alone = set(sys.modules)
from raygan.sweep.cluster import ray_quirks
ray_quirks.trainer_class(), ray_quirks.relay()
assert "torch" not in sys.modules, "PyTorch is loaded by the driver of a trial"
assert "mlflow" not in sys.modules and "optuna" not in sys.modules
import ray.train.torch
assert "torch" in sys.modules, "TorchTrainer can be used: it loads no PyTorch now"
"""
FIRST = """
import sys
import raygan.sweep.cluster.trial
print(*(name for name in ("ray", "torch", "pydantic", "numpy") if name in sys.modules))
"""


@pytest.mark.cluster
def test_the_driver_of_a_trial_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.cluster
def test_what_the_driver_of_a_trial_imports_first_is_next_to_nothing():
    done = subprocess.run([sys.executable, "-c", FIRST], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


LISTED = b'{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}]}'


def test_the_cause_of_an_error_is_named_without_the_ids_of_its_layers():
    died = ray.exceptions.RayError("The actor died.\n\tactor_id: 12\nIts node is gone.")
    assert ray_quirks.cause_of(died) == "The actor died. Its node is gone."
    raised = ray.exceptions.RayTaskError("train", "Traceback …", ValueError("no such norm"))
    assert ray_quirks.cause_of(raised) == "ValueError: no such norm"
    group = ray.train.WorkerGroupError("workers failed", {1: raised})
    assert ray_quirks.cause_of(group) == "ValueError: no such norm"
    assert ray_quirks.cause_of(OSError()) == "OSError: OSError"


NOTED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
ray.exceptions.ActorDiedError: Its node is gone.
Failure # 2 (occurred at 2026-01-01_00-01-00)
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=1, ip=192.0.2.2, actor_id=ab, repr=run_trial)
  File "trial.py", line 3, in run_trial
ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation task, \
\x1b[36mray::TrainController.__init__()\x1b[39m (pid=2, ip=192.0.2.2, actor_id=cd)
  File "controller.py", line 3, in __init__
ray.train.v2.InitializationError: A checkpoint does not exist anymore.
"""


def test_of_what_tune_has_noted_the_last_failure_is_told():
    assert ray_quirks.cause_of(NOTED) == "InitializationError: A checkpoint does not exist anymore."
    first = NOTED.partition("Failure # 2")[0]
    assert ray_quirks.cause_of(first) == "ActorDiedError: Its node is gone."
    died = ray.exceptions.RayError(NOTED.partition("run_trial\n")[2])
    assert ray_quirks.cause_of(died) == "InitializationError: A checkpoint does not exist anymore."


def test_a_setting_of_the_user_is_kept(monkeypatch):
    monkeypatch.setattr(os, "environ", {"RAY_A": "9"})
    ray_quirks.set_in_environment({"RAY_A": "0", "RAY_B": "1"})
    assert os.environ == {"RAY_A": "9", "RAY_B": "1"}


def test_an_error_of_the_images_goes_through_a_table_as_itself():
    def fail(item):
        raise DataError(f"{item} cannot be decoded")

    item = {"item": pickle.dumps(3)}
    assert ray_quirks.result_of(ray_quirks.errors_as_results(str, item)) == "3"
    row = ray_quirks.errors_as_results(fail, item)
    with pytest.raises(DataError, match="3 cannot be decoded"):
        ray_quirks.result_of(row)


# From here on: Ray still needs it. Where one of these fails with a newer Ray, remove what it names.


@OF_RAY
def test_needed_a_process_that_is_stopped_is_noticed_after_minutes():
    assert ray_quirks.HEALTH_TIMEOUT == constants.WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR
    assert constants.DEFAULT_WORKER_HEALTH_CHECK_TIMEOUT_S > 300
    source = inspect.getsource(worker_group)
    assert "elapsed_time_s > self._worker_health_check_timeout_s" in source
    assert "A worker health check has been hanging for {elapsed_time_s:.2f} " in source


def test_needed_an_elastic_trial_takes_any_number_of_workers():
    policy = ElasticScalingPolicy(ray.train.ScalingConfig(num_workers=(1, 4)))
    assert policy._count_possible_workers({"node": {"CPU": 3.0}}) == 3


@OF_RAY
def test_needed_the_settings_of_a_trial_are_not_the_defaults():
    ours = ray_quirks.TRIAL_SETTINGS
    assert set(ours) == {
        constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR,
        constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR,
        constants.METRICS_ENABLED_ENV_VAR,
        constants.ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    }
    interval = float(ours[constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR])
    assert interval < constants.DEFAULT_HEALTH_CHECK_INTERVAL_S
    timeout = float(ours[constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR])
    assert timeout > constants.DEFAULT_WORKER_GROUP_START_TIMEOUT_S
    assert constants.DEFAULT_ENABLE_PREEMPTION_WATCHER
    names = {type(one).__name__ for one in DataParallelTrainer(print)._create_default_callbacks()}
    assert "ControllerMetricsCallback" in names


def test_needed_nodes_are_kept_for_minutes_for_a_task_of_ray_data_that_was_killed():
    from ray.data._internal.cluster_autoscaler import RateBasedClusterAutoscaler as Autoscaler

    ((name, seconds),) = ray_quirks.PREPARING.items()
    assert name in inspect.getsource(inspect.getmodule(Autoscaler))
    gap = Autoscaler.MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS_S
    assert 2 * gap < float(seconds) < Autoscaler.AUTOSCALING_REQUEST_EXPIRE_TIME_S


@pytest.mark.parametrize("name", sorted(ray_quirks.DRIVER_SETTINGS | ray_quirks.FIRST_SETTINGS))
def test_needed_the_settings_of_a_driver_are_still_read_by_ray(name):
    places = (
        "ray.tune.tune",
        "ray.tune.utils.callback",
        "ray.tune.experimental.output",
        "ray.train.constants",
        "ray._common.usage.usage_constants",
        "ray._private.accelerators.accelerator",
    )
    in_python = any(name in inspect.getsource(importlib.import_module(place)) for place in places)
    assert in_python or in_compiled_code(name)


def in_compiled_code(name: str) -> bool:
    with (
        Path(ray._raylet.__file__).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code,
    ):
        return code.find(name.encode()) >= 0


def test_needed_ray_marks_the_head_node_by_a_private_name():
    assert ray_quirks.HEAD_RESOURCE == HEAD_NODE_RESOURCE_NAME


def test_needed_tune_copies_keys_of_a_cloud():
    found = importlib.util.spec_from_file_location("whole", class_cache.__file__)
    whole = importlib.util.module_from_spec(found)
    found.loader.exec_module(whole)  # as it is before anything is taken out of it
    assert "AWS_SECRET_ACCESS_KEY" in whole.ENV_VARS_TO_PROPAGATE


def test_needed_ray_writes_a_token_that_everybody_may_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    before = os.umask(0o022)
    try:
        authentication_token_setup.generate_and_save_token()
    finally:
        os.umask(before)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o004


def test_needed_ray_opens_its_folder_to_everybody(tmp_path):
    try_to_create_directory(str(tmp_path / "r"))
    assert (tmp_path / "r").stat().st_mode & 0o007 == 0o007


def test_needed_no_public_function_tells_what_the_autoscaler_says():
    assert "request_resources" in ray.autoscaler.sdk.__all__
    assert not [name for name in ray.autoscaler.sdk.__all__ if "status" in name]


def test_needed_train_starts_a_process_for_its_controller(monkeypatch):
    def started(**_):
        raise LookupError("a process is started for the controller")

    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr("ray.remote", started)
    with pytest.raises(LookupError, match="a process is started"):
        DataParallelTrainer(print)._initialize_and_run_controller()


def test_needed_train_ends_the_workers_that_are_left_only_when_others_start():
    name = "_make_and_handle_scaling_decision_for_non_running_worker_group"
    source = inspect.getsource(getattr(TrainController, name))
    assert "_shutdown_worker_group(" not in source
    assert "_shutdown_worker_group()" in inspect.getsource(TrainController._execute_resize_decision)


@OF_RAY
def test_needed_train_starts_a_process_that_frees_resources():
    found = DataParallelTrainer(print)._create_default_callbacks()
    assert any(isinstance(callback, PlacementGroupCleanerCallback) for callback in found)


def test_needed_train_starts_a_process_that_watches_for_drained_nodes(monkeypatch):
    def started(**_):
        raise LookupError("a process is started for the watch")

    monkeypatch.setattr("ray.remote", started)
    with pytest.raises(LookupError, match="a process is started"):
        preemption_callback.PreemptionCallback().after_worker_group_start(
            SimpleNamespace(get_workers=list)
        )
    assert constants.DEFAULT_PREEMPTION_POLL_INTERVAL_S > ray_quirks.DRAIN_LOOK_SECONDS


def test_needed_train_asks_the_autoscaler_for_what_a_placement_group_asks_for(asked):
    policy = FixedScalingPolicy(ray.train.ScalingConfig(num_workers=2))
    policy.after_controller_start(SimpleNamespace(run_id="a"))
    assert asked == [2]
    assert autoscaling_coordinator_client.AUTOSCALING_REQUESTS_EXPIRE_TIME_S >= 180


def test_needed_trains_own_reports_to_tune_go_through_a_queue():
    assert "queue.put(" in inspect.getsource(TuneReportCallback)


def test_needed_a_report_waits_in_a_queue_of_one_until_the_controller_asks_for_it():
    assert "result_queue=queue.Queue(maxsize=1)" in inspect.getsource(worker)


@pytest.mark.parametrize("content", [LISTED[:-2], b"", LISTED])
def test_needed_train_does_not_start_with_a_damaged_list_of_checkpoints(tmp_path, content):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / CHECKPOINT_LIST).write_bytes(content)
    place = StorageContext(storage_path=str(tmp_path), experiment_dir_name="a")
    with pytest.raises(CheckpointManagerInitializationError):
        CheckpointManager(ray.train.CheckpointConfig(), place)


def test_needed_tune_counts_the_failures_of_a_trials_whole_life(monkeypatch):
    monkeypatch.setattr(Trial, "local_path", None)
    trial = Trial("raygan", stub=True, max_failures=1)
    trial.handle_error(ValueError())
    assert trial.should_recover()
    trial.update_last_result({"step": 10, "training_iteration": 1})
    trial.handle_error(ValueError())
    assert not trial.should_recover()
    ray_quirks.count_failures_anew(trial, 1)
    trial.handle_error(ValueError())
    assert trial.should_recover()


def test_needed_rays_errors_hold_the_ids_of_their_layers():
    raised = ray.exceptions.RayTaskError("train", "Traceback …", ValueError("no such norm"))
    assert "pid=" in str(raised)
