from types import SimpleNamespace

import pytest
import ray
import ray.train

from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig
from raygan.storage import Storage
from raygan.sweep.cluster import tune
from raygan.sweep.cluster.trial import (
    _set_aside_if_damaged,
    _until_it_fails,
    cause_of,
    dataset_of,
    job_of,
    prepare_images,
)
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.study import Study

SNAPSHOT = "checkpoint_manager_snapshot.json"


LISTED = b'{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}]}'


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (LISTED, True),
        (b'{"checkpoint_results": []}', True),
        (LISTED.replace(b"_1", b"_2"), False),  # its folder was deleted
        (LISTED[:-2], False),
        (b"", False),
        (b"[1]", False),
        (b"\xff", False),
    ],
)
def test_a_list_of_checkpoints_that_ray_train_cannot_start_with_is_set_aside(
    tmp_path, content, kept
):
    storage = Storage(str(tmp_path))
    storage.write(SNAPSHOT, content)
    storage.write("checkpoint_1/step-000000001.pt", b"")
    _set_aside_if_damaged({"folder": str(tmp_path)})
    assert (storage.read(SNAPSHOT) is not None) == kept
    assert (storage.read(f"{SNAPSHOT}.damaged") == content) != kept


def test_first_launch_has_no_snapshot(tmp_path):
    _set_aside_if_damaged({"folder": str(tmp_path / "new")})


def test_only_replicates_draw_their_own_split_and_only_if_asked():
    text = "name: a\nsearch: {{lr: [1.0e-4]}}\nreplicate: {{seeds: 2{}}}"
    asked, not_asked = (
        spec.validate(parse(text.format(more), "x")) for more in (", resplit: true", "")
    )
    cell = plan.cells(asked)[0]
    searched = plan.trial(asked, cell, 0, {"lr": 1e-4})
    replicate = plan.replicate(asked, cell, 1, {"lr": 1e-4}, searched.id)
    data, sweep = {"folder": "", "digest": ""}, Storage("s")
    seeds = [job_of(one, of, sweep, data)["split_seed"] for one, of in (
        (searched, asked), (replicate, asked), (replicate, not_asked))]  # fmt: skip
    assert seeds == [None, replicate.config.seed, None]


def test_path_of_the_images_is_absolute_for_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: images}", "x"))
    assert dataset_of(sweep)["path"] == str(tmp_path / "images")


def test_address_of_the_images_stays_as_it_is():
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: 's3://b/images'}", "x"))
    assert dataset_of(sweep)["path"] == "s3://b/images"


@pytest.mark.parametrize(("resident", "share"), [("auto", 0.25), ("never", 0.0)])
def test_share_of_the_gpu_that_images_may_look_at(tmp_path, resident, share):
    scale = f"scale: {{gpus_per_worker: 0.25, resident: {resident}}}"
    sweep = spec.validate(parse(f"name: a\nreplicate: {{seeds: 1}}\n{scale}", "x"))
    (cell,) = plan.cells(sweep)
    planned = plan.replicate(sweep, cell, 0, {}, "source")
    job = job_of(planned, sweep, Storage(str(tmp_path)), {"folder": "", "digest": ""})
    assert (job["gpus"], job["gpu_share"]) == (0.25, share)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"levels": 9}, "`levels` \\(=9\\) is too many for images of 32×32 pixels"),
        ({"norm": "bn", "levels": 5, "batch_size": 1}, "`batch_size` \\(=1\\) is too small"),
    ],
)
def test_what_cannot_be_trained_on_the_images_is_refused_once_they_are_known(
    monkeypatch, changed, says
):
    manifest = {"shape": (9, 32, 32, 1), "running": [1], "final": [2], "digest": "d", "baseline": 1}
    monkeypatch.setattr("raygan.data.prepare", lambda *_, **__: "s3://bucket/prepared")
    monkeypatch.setattr("raygan.data.manifest.read_manifest", lambda _: manifest)
    good = TrainConfig(levels=5, batch_size=1).to_dict()
    assert prepare_images({"name": "digits"}, "f", [good])["train"] == 7
    with pytest.raises(ConfigError, match=says):
        prepare_images({"name": "digits"}, "f", [good, {**good, **changed}])


class LostError(Exception):
    """As Ray raises it when workers are gone."""


def test_failures_count_only_while_no_checkpoint_comes():
    steps = iter(range(10, 1000, 10))
    left = [LostError("killed")] * 20

    def fit() -> None:
        if left:
            raise left.pop()

    assert _until_it_fails(fit, lambda: next(steps), LostError, lambda: False) is None


@pytest.mark.parametrize(
    ("step", "after"), [(800, "after iteration 800"), (0, "before the first checkpoint")]
)
def test_failures_without_progress_end_a_trial_with_the_reason(step, after):
    calls = []

    def fit() -> None:
        calls.append(1)
        raise LostError("a node was lost\nwith details")

    reason = _until_it_fails(fit, lambda: step, LostError, lambda: False)
    assert len(calls) == 4
    assert f"its workers were lost 4 times in a row {after}" in reason
    assert "a node was lost with details" in reason
    assert "--retry-failed" in reason


def test_other_errors_are_not_caught():
    def fit() -> None:
        raise OSError("storage")

    with pytest.raises(OSError, match="storage"):
        _until_it_fails(fit, lambda: 0, LostError, lambda: False)


def test_the_cause_of_an_error_is_named_without_the_ids_of_its_layers():
    died = ray.exceptions.RayError("The actor died.\n\tactor_id: 12\nIts node is gone.")
    assert cause_of(died) == "The actor died. Its node is gone."
    raised = ray.exceptions.RayTaskError("train", "Traceback …", ValueError("no such norm"))
    assert cause_of(raised) == "ValueError: no such norm"
    group = ray.train.WorkerGroupError("workers failed", {1: raised})
    assert cause_of(group) == "ValueError: no such norm"
    assert cause_of(OSError()) == "OSError: OSError"


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
    assert cause_of(NOTED) == "InitializationError: A checkpoint does not exist anymore."
    first = NOTED.partition("Failure # 2")[0]
    assert cause_of(first) == "ActorDiedError: Its node is gone."
    died = ray.exceptions.RayError(NOTED.partition("run_trial\n")[2])
    assert cause_of(died) == "InitializationError: A checkpoint does not exist anymore."


def test_a_driver_that_is_lost_is_started_again_as_long_as_evaluations_come(tmp_path):
    sweep = spec.validate(parse("name: a\ntrain: {iterations: 20, evaluate_every: 10}", "x"))
    study = Study(sweep, Storage(str(tmp_path)))
    planned = study.next_trial()
    scheduler = tune._Scheduler(study)
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
def test_a_driver_that_is_given_up_is_told_with_its_last_error(tmp_path, error, why):
    def get_error() -> str:
        if error is None:
            raise OSError("the storage is away")
        return error

    sweep = spec.validate(parse("name: a\ntrain: {iterations: 20, evaluate_every: 10}", "x"))
    study = Study(sweep, Storage(str(tmp_path)))
    planned = study.next_trial()
    trial = SimpleNamespace(config={"trial": planned.id}, get_error=get_error)
    tune._Callback(study).on_trial_error(0, [], trial)
    record = study.records[planned.id]
    assert record.outcome == "failed"
    assert record.reason.startswith("its driver failed 3 times in a row")
    assert why in record.reason
    assert "--retry-failed" in record.reason


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
    scheduler = tune._Scheduler(study)
    scheduler.choose_trial_to_run(controller)
    assert stopped == []
    monkeypatch.setattr("raygan.sweep.study.study.LINGER_SECONDS", -1.0)
    scheduler.choose_trial_to_run(controller)
    assert stopped == trials[:1]
