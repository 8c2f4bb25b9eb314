"""Ray Train within a trial's own process, without Ray."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from raygan.sweep.cluster import launch


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
    return launch.Trainer(lambda: None)


def test_the_controller_runs_without_a_process_of_its_own(monkeypatch, trainer):
    group = Group()
    monkeypatch.setattr(launch, "TrainController", controller(group))
    assert trainer._initialize_and_run_controller(train_run_context="result") == "result"
    assert group.aborted == 0


@pytest.mark.parametrize("ends_by", [SystemExit(0), ValueError("in the controller")])
def test_workers_end_with_a_trial_that_is_stopped(monkeypatch, trainer, ends_by):
    group = Group()
    monkeypatch.setattr(launch, "TrainController", controller(group, ends_by))
    with pytest.raises(type(ends_by)):
        trainer._initialize_and_run_controller()
    assert group.aborted == 1


def test_a_trial_that_is_stopped_before_its_workers_start_ends_none(monkeypatch, trainer):
    monkeypatch.setattr(launch, "TrainController", controller(None, SystemExit(0)))
    with pytest.raises(SystemExit):
        trainer._initialize_and_run_controller()


def test_no_process_waits_to_free_the_resources_of_a_trial(monkeypatch, trainer):
    other = object()
    whole = [PlacementGroupCleanerCallback(), other]
    monkeypatch.setattr(launch.DataParallelTrainer, "_create_default_callbacks", lambda _: whole)
    assert trainer._create_default_callbacks() == [other]


def test_what_the_first_worker_reports_is_reported_to_tune(monkeypatch):
    heard = []
    monkeypatch.setattr(launch.ray, "tune", SimpleNamespace(report=heard.append))
    launch.Relay().after_report(None, [{"step": 1}, {"step": 2}], None)
    assert heard == [{"step": 1}]


@pytest.mark.cluster
def test_the_driver_of_a_trial_needs_no_torch():
    code = "import sys, raygan.sweep.cluster.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
