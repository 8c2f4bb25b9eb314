from types import SimpleNamespace
from typing import ClassVar

import pytest
import ray
import ray.train
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.tune.search import Searcher

from raygan.errors import ConfigError, StalledError
from raygan.storage import Storage
from raygan.sweep.cluster import ray_quirks, tune
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.trial import _until_it_fails, run_trial
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study


class LostError(Exception):
    """As Ray raises it when workers are gone."""


def until_it_fails(fit, newest, notes=None) -> str | None:
    notes = [] if notes is None else notes
    return _until_it_fails(fit, newest, LostError, lambda: False, notes.append)


def test_a_step_that_was_reached_before_is_no_progress():
    steps = iter([100, 50, 100, 50, 100, 50])  # the checkpoint at 100 is damaged

    def fit() -> None:
        raise LostError("killed")

    assert "lost 4 times in a row after iteration 100" in until_it_fails(fit, lambda: next(steps))


def test_a_worker_that_made_no_progress_is_noted_and_counts_as_lost():
    class GroupError(LostError):
        worker_failures: ClassVar = {1: StalledError("a worker made no progress for 5 s")}

    notes: list[str] = []

    def fit() -> None:
        raise GroupError("workers failed")

    reason = until_it_fails(fit, lambda: 20, notes)
    said = "a worker made no progress for 5 s"
    assert f"lost 4 times in a row after iteration 20, the last time because: {said};" in reason
    assert "raise `scale.stalled_after`; --retry-failed" in reason
    assert notes == [f"{said}, after iteration 20; the trial was started again"] * 4


def test_failures_count_only_while_no_checkpoint_comes():
    steps = iter(range(10, 1000, 10))
    left = [LostError("killed")] * 20

    def fit() -> None:
        if left:
            raise left.pop()

    assert until_it_fails(fit, lambda: next(steps)) is None


@pytest.mark.parametrize(
    ("step", "after"), [(800, "after iteration 800"), (0, "before the first evaluation")]
)
def test_failures_without_progress_end_a_trial_with_the_reason(step, after):
    calls = []

    def fit() -> None:
        calls.append(1)
        raise LostError("a node was lost\nwith details")

    reason = until_it_fails(fit, lambda: step)
    assert len(calls) == 4
    assert f"its workers were lost 4 times in a row {after}" in reason
    assert "a node was lost with details" in reason
    assert "--retry-failed" in reason
    assert "stalled_after" not in reason


def test_other_errors_are_not_caught():
    def fit() -> None:
        raise OSError("storage")

    with pytest.raises(OSError, match="storage"):
        until_it_fails(fit, lambda: 0)


@pytest.mark.parametrize("restarts", ["fit", "within"])
def test_tune_hears_once_that_workers_are_lost_before_others_start(tmp_path, monkeypatch, restarts):
    """``within``: Ray Train starts others by itself, as after a node was drained."""
    home = Storage(str(tmp_path / "bn-000"))
    heard: list[object] = []
    monkeypatch.setattr("ray.tune.report", lambda report: heard.append(report))
    monkeypatch.setattr(ray_quirks, "set_in_environment", lambda _: None)
    monkeypatch.setattr(Storage, "probe", lambda _: heard.append("the storage is tried"))
    fits = []

    class Trainer:
        def __init__(self, *_: object, run_config: ray.train.RunConfig, **__: object) -> None:
            self.callbacks = run_config.callbacks

        def starts(self) -> None:
            """Workers, and their first report."""
            heard.append("waits")
            for callback in self.callbacks:
                if isinstance(callback, WorkerGroupCallback):
                    callback.before_worker_group_start(None)
            heard.append("has workers")
            for callback in self.callbacks:
                if isinstance(callback, UserCallback):
                    callback.after_report(None, [{"step": 1}], None)

        def fit(self) -> None:
            fits.append(1)
            if len(fits) == 1:
                heard.clear()
                self.starts()
                if restarts == "fit":
                    raise ray.train.TrainingFailedError("its workers were lost")
            self.starts()

    monkeypatch.setattr(ray_quirks, "trainer_class", lambda *_: Trainer)
    job = Job(trial="bn-000", config={}, folder=home.uri, prepared="", digest="")
    run_trial(job.to_plain())
    first, lost = ["waits", "has workers", {"step": 1}], {"step": 0, "lost": True}
    if restarts == "fit":
        assert heard == [*first, lost, "the storage is tried", *first]
    else:
        assert heard == [*first, "waits", lost, "has workers", {"step": 1}]


@pytest.mark.parametrize(
    "folder", [None, "checkpoint_000000010_0a1b2c3d", "checkpoint_2026-01-01_00-00-00.000000"]
)
def test_ray_trains_list_that_an_earlier_version_has_left_is_removed(tmp_path, monkeypatch, folder):
    """Versions before 0.3 told Ray Train of checkpoints that are named as those of today."""
    home = Storage(str(tmp_path / "bn-000"))
    if folder is not None:
        home.write(f"{folder}/step-000000010.pt", b"")
        home.write("checkpoint_manager_snapshot.json", b"{}")
    fits = []

    class Trainer:
        def __init__(self, *_: object, **__: object) -> None:
            fits.append(home.files())

        def fit(self) -> None:
            pass

    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray_quirks, "set_in_environment", lambda _: None)
    monkeypatch.setattr(ray_quirks, "trainer_class", lambda *_: Trainer)
    job = Job(trial="bn-000", config={}, folder=home.uri, prepared="", digest="")
    run_trial(job.to_plain())
    assert fits == [[]]  # before it starts


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


def test_a_driver_that_is_lost_is_started_again_as_long_as_evaluations_come(tmp_path):
    sweep = spec.validate(parse("name: a\ntrain: {iterations: 20, evaluate_every: 10}", "x"))
    study = Study(sweep, Storage(str(tmp_path)))
    planned = study.next_trial()
    scheduler = tune._Scheduler(study, tune._Errors())
    trial = SimpleNamespace(
        config={"trial": planned.id}, num_failures=2, max_failures=tune.DRIVER_FAILURES
    )
    scheduler.on_trial_result(None, trial, {"step": 0})
    assert trial.max_failures == 2
    scheduler.on_trial_result(None, trial, {"step": 10, "val/reconstruction_loss": 0.5})
    assert trial.max_failures == 4
    scheduler.on_trial_result(None, trial, {"step": 10, "val/reconstruction_loss": 0.5})
    assert trial.max_failures == 4


@pytest.mark.parametrize(
    ("error", "why"),
    [(None, "an error that Ray does not name"), (NOTED, "A checkpoint does not exist anymore.")],
)
def test_a_driver_that_is_given_up_is_told_with_its_last_error(tmp_path, monkeypatch, error, why):
    monkeypatch.setattr(ray_quirks, "head_answers", lambda: True)

    def get_error() -> str:
        if error is None:
            raise OSError("the storage is away")
        return error

    sweep = spec.validate(parse("name: a\ntrain: {iterations: 20, evaluate_every: 10}", "x"))
    study = Study(sweep, Storage(str(tmp_path)))
    planned = study.next_trial()
    trial = SimpleNamespace(config={"trial": planned.id}, get_error=get_error)
    tune._Callback(study, tune._Errors()).on_trial_error(0, [], trial)
    record = study.records[planned.id]
    assert record.outcome == "failed"
    assert record.reason.startswith("its driver failed 3 times in a row")
    assert why in record.reason
    assert "--retry-failed" in record.reason


def test_a_trial_whose_driver_is_lost_waits_at_once(tmp_path):
    """Another driver may have to wait for a node, too."""
    study = Study(spec.validate(parse("name: a", "x")), Storage(str(tmp_path)))
    planned = study.next_trial()
    trial = SimpleNamespace(config={"trial": planned.id})
    callback = tune._Callback(study, tune._Errors())
    callback.on_trial_start(0, [], trial)
    study.heard(planned.id, {"step": 0})
    assert study.counted_until[planned.id] is not None
    callback.on_trial_recover(0, [], trial)
    assert study.counted_until[planned.id] is None


@pytest.mark.parametrize("act", ["heard", "started", "ended", "failed"])
def test_an_error_of_the_study_leaves_the_loop_of_tune_as_itself(tmp_path, monkeypatch, act):
    """Tune would wrap one of :meth:`Study.heard`, and take one of :meth:`Study.ended` for a failure
    of the trial."""
    monkeypatch.setattr(ray_quirks, "head_answers", lambda: True)
    study = Study(spec.validate(parse("name: a", "x")), Storage(str(tmp_path)))
    trial = SimpleNamespace(
        config={"trial": study.next_trial().id}, get_error=lambda: "The actor died."
    )
    error = ConfigError("mine.py:4: KeyError: 'loss'")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(study, "ended" if act == "failed" else act, fail)
    errors = tune._Errors()
    scheduler, callback = tune._Scheduler(study, errors), tune._Callback(study, errors)
    if act == "heard":
        assert scheduler.on_trial_result(None, trial, {"step": 10}) == "CONTINUE"
    elif act == "started":
        callback.on_trial_start(0, [], trial)
    elif act == "ended":
        callback.on_trial_complete(0, [], trial)
    else:
        callback.on_trial_error(0, [], trial)
    for leave in (lambda: callback.on_step_begin(0, []), errors.raise_first):
        with pytest.raises(ConfigError) as raised:
            leave()
        assert raised.value is error


@pytest.mark.parametrize("then", ["goes on", "asks", "ends"])
def test_a_trial_fails_once_the_head_node_answers(tmp_path, monkeypatch, then):
    """With a lost head node, all drivers are lost, which is no fault of a trial."""
    answers: list[bool] = []
    monkeypatch.setattr(ray_quirks, "head_answers", lambda: bool(answers))
    monkeypatch.setattr(tune, "wait_for_head", lambda: answers.append(True))
    study = Study(spec.validate(parse("name: a", "x")), Storage(str(tmp_path)))
    planned = study.next_trial()
    trial = SimpleNamespace(config={"trial": planned.id}, get_error=lambda: "The actor died.")
    callback = tune._Callback(study, tune._Errors())
    callback.on_trial_error(0, [], trial)
    search = tune._Search(study, lambda _: None, None, callback.settle)
    callback.on_step_begin(0, [])
    assert search.suggest("1") is None
    assert study.records[planned.id].outcome is None
    if then == "ends":  # Tune has nothing else to run
        callback.on_experiment_end([])
    else:
        answers.append(True)
        if then == "asks":
            assert search.suggest("2") == Searcher.FINISHED
        else:
            callback.on_step_begin(0, [])
    assert study.records[planned.id].outcome == "failed"
    assert not study.waiting


def test_a_trial_that_does_not_end_after_its_last_evaluation_is_stopped(tmp_path, monkeypatch):
    text = "name: a\ngrid: {norm: [bn, wn]}\ntrain: {iterations: 20, evaluate_every: 10}"
    study = Study(spec.validate(parse(text, "x")), Storage(str(tmp_path)))
    trials = [
        SimpleNamespace(config={"trial": study.next_trial().id}, status="RUNNING") for _ in range(2)
    ]
    for trial, steps in zip(trials, ((10, 20), (10,)), strict=True):
        for step in steps:
            study.heard(trial.config["trial"], {"step": step, "val/reconstruction_loss": 0.5})
    stopped = []
    controller = SimpleNamespace(
        get_live_trials=lambda: trials, get_trials=lambda: trials, stop_trial=stopped.append
    )
    scheduler = tune._Scheduler(study, tune._Errors())
    scheduler.choose_trial_to_run(controller)
    assert stopped == []
    monkeypatch.setattr("raygan.sweep.study.study.LINGER_SECONDS", -1.0)
    scheduler.choose_trial_to_run(controller)
    assert stopped == trials[:1]
