"""One Tune trial: a thin driver that launches Ray Train workers and relays their reports.

What this module imports at its top, every trial's driver imports before it starts: next to
nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan.errors import ConfigError, RayganError
from raygan.shown import COLORS, shown
from raygan.sweep.cluster.worker import train_worker

if TYPE_CHECKING:
    from raygan.gan.speed import Speed
    from raygan.storage import Storage
    from raygan.sweep.spec.plan import TrialPlan
    from raygan.sweep.spec.sweep_spec import SweepSpec

WORKER_FAILURES = 3
"""How often in a row the workers of a trial may be lost without a new checkpoint in between."""
_NOTED = "Failure # "
"""Tune begins each of a trial's failures with it."""
_RAISED = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception): )", re.MULTILINE)
_MOST_LISTED = 2**24
"""Bytes of Ray Train's list of checkpoints; one that is longer is cut, and so damaged."""
RETRY = "--retry-failed runs it again from there"


def job_of(
    plan: TrialPlan, spec: SweepSpec, sweep: Storage, data: dict[str, Any]
) -> dict[str, Any]:
    """Everything that a trial's processes need, as plain values: the trial's Tune ``config``.

    ``data`` is what :func:`prepare_images` returned.
    """
    return {
        "trial": plan.id,
        "config": plan.config.to_dict(),
        "dataset": dataset_of(spec),
        "prepared": data["folder"],
        "digest": data["digest"],
        "split_seed": plan.config.seed if _has_own_split(plan, spec) else None,
        "trials": f"{sweep.uri}/trials",
        "folder": f"{sweep.uri}/trials/{plan.id}",
        "workers": spec.scale.workers,
        "cpus": spec.scale.cpus_per_worker,
        "gpus": spec.scale.gpus_per_worker,
        # of a GPU's memory, for the images
        "gpu_share": spec.scale.gpus_per_worker if spec.scale.resident == "auto" else 0.0,
    }


def _has_own_split(plan: TrialPlan, spec: SweepSpec) -> bool:
    return bool(spec.replicate.resplit) and plan.kind == "replicate"


def dataset_of(spec: SweepSpec) -> dict[str, Any]:
    """The data set as plain values, its path absolute: workers have other working directories."""
    dataset: dict[str, Any] = spec.dataset.model_dump()
    if dataset["path"] is not None and "://" not in dataset["path"]:
        try:
            dataset["path"] = str(Path(dataset["path"]).expanduser().absolute())
        except RuntimeError as error:  # no such user
            raise ConfigError(f"`dataset.path` (={dataset['path']!r}): {error}") from error
    return dataset


def prepare_images(
    dataset: dict[str, Any], folder: str, configs: list[dict[str, Any]], **options: Any
) -> dict[str, Any]:
    """Decode the images once, before any trial, and see that all ``configs`` can train on them.

    ``folder`` may be an address. Runs as a Ray task: where the images are, and where PyTorch is
    needed anyway. ``options`` are those of :func:`raygan.data.prepare`. Raises
    :class:`~raygan.errors.RayganError`.
    """
    from raygan.data import DatasetConfig, files, load, prepare
    from raygan.data.manifest import read_manifest
    from raygan.gan.config import TrainConfig
    from raygan.gan.nets.architectures import check_size

    prepared = prepare(DatasetConfig.of(**dataset), folder, **options)
    if not files.is_address(prepared):
        load(Path(prepared))  # sees that the shards are whole
    manifest = read_manifest(prepared)
    count, height, width, channels = manifest["shape"]
    for values in configs:
        check_size(TrainConfig.of(**values), height, width)
    return {
        "folder": prepared,
        "digest": manifest["digest"],
        "baseline": manifest["baseline"],
        "shape": f"{channels}×{height}×{width}",
        "train": count - len(manifest["running"]) - len(manifest["final"]),
    }


def prepare_on_ray(
    dataset: dict[str, Any], folder: str, configs: list[dict[str, Any]]
) -> Iterator[str | dict[str, Any]]:
    """:func:`prepare_images` by Ray Data tasks: lines that say how far it is, then what it returns.

    A Ray task: a generator, so that the lines are heard while it runs.
    """
    from queue import SimpleQueue
    from threading import Thread

    from raygan.data.decoders import on_ray
    from raygan.data.pace import Pace

    heard: SimpleQueue[str | dict[str, Any] | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            told = {"progress": Pace(heard.put), "say": heard.put}
            found = prepare_images(dataset, folder, configs, map=on_ray, **told)
            heard.put(found)
        except BaseException as error:
            heard.put(error)

    Thread(target=work, daemon=True).start()
    while isinstance(said := heard.get(), str):
        yield said
    if isinstance(said, BaseException):
        raise said
    yield said


def prepare_on_cluster(
    spec: SweepSpec, storage: Storage, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """:func:`prepare_images` for all trials of ``spec``, over the nodes that see the storage."""
    import ray

    from raygan.sweep.spec.checks import extremes

    configs = [config.to_dict() for config in extremes(spec)]
    # no CPU: those are for the tasks that it waits for
    task = ray.remote(num_cpus=0, max_retries=1)(prepare_on_ray)
    folder = data_folder(storage)
    said: str | dict[str, Any] = ""
    try:
        for reference in task.remote(dataset_of(spec), folder, configs):
            said = ray.get(reference)
            if isinstance(said, str):
                say(said)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayganError):
            raise error.cause from None
        raise
    assert isinstance(said, dict)
    return said


def measure_speed(job: dict[str, Any], seconds: float) -> Speed:
    """How fast one worker trains ``job``; a Ray task with a worker's resources."""
    import torch

    from raygan.gan.config import TrainConfig
    from raygan.gan.speed import measure
    from raygan.sweep.cluster.worker import load_images

    device = torch.device("cuda" if job["gpus"] > 0 else "cpu")
    config = TrainConfig.of(**job["config"])
    return measure(config, load_images(job), device, seconds, gpu_share=job["gpu_share"])


def data_folder(storage: Storage) -> str:
    """Where the prepared images of all sweeps in ``storage`` lie."""
    return str(storage.local / "data") if storage.is_local else f"{storage.uri}/data"


def run_trial(job: dict[str, Any]) -> None:
    """The trainable that Tune runs; it holds no CPU that its workers could need.

    Its name within ``trials`` is the trial's id: launched again, the workers find the last
    checkpoint there and go on from it.
    """
    # the workers are polled once in this time, and one report is relayed per poll
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    # waiting for a free node is no failure; what could never start was refused before
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "86400")
    # gauges that nothing scrapes, set up in each controller and worker
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    import ray

    if len(ray.nodes()) == 1:  # nothing can be preempted
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

    import ray.tune
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )

    from raygan.records import checkpoint_folders
    from raygan.storage import Storage
    from raygan.sweep.cluster.checkpoints import patiently
    from raygan.sweep.cluster.launch import Relay, Trainer

    resources = {"CPU": job["cpus"]}
    if job["gpus"] > 0:
        resources["GPU"] = job["gpus"]

    def fit() -> None:
        Trainer(
            train_worker,
            train_loop_config=job,
            scaling_config=ScalingConfig(
                num_workers=job["workers"], use_gpu=job["gpus"] > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=job["trial"],
                storage_path=job["trials"],
                # Ray Train counts failures for the whole life of a run: they are counted here
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
                # the best and, always, the last; the next best because a trial that is stopped may
                # have gone on by an evaluation or two when it hears of it
                checkpoint_config=CheckpointConfig(
                    num_to_keep=3,
                    checkpoint_score_attribute="val/reconstruction_loss",
                    checkpoint_score_order="min",
                ),
                callbacks=[Relay()],
            ),
        ).fit()

    home = Storage(job["folder"])
    what = f"{home.uri} cannot be reached"
    patiently(lambda: _set_aside_if_damaged(job), what)

    def newest_step() -> int:
        steps = patiently(lambda: [step for step, _ in checkpoint_folders(home)], what)
        return max(steps, default=0)

    reason = _until_it_fails(fit, newest_step, TrainingFailedError, lambda: _wait_for(home))
    if reason is not None:
        # an outcome: started again by Tune, it would come again
        ray.tune.report({"step": 0, "outcome": "failed", "reason": reason})


def _until_it_fails(
    fit: Callable[[], None],
    newest_step: Callable[[], int],
    lost: type[Exception],
    waited: Callable[[], bool],
) -> str | None:
    """Call ``fit`` until it returns, again each time that it raises ``lost``.

    Returns why it is given up: it has raised so more than :data:`WORKER_FAILURES` times with the
    same ``newest_step()`` of a checkpoint. Times after which ``waited()`` is true do not count:
    the storage was full or away.
    """
    failures, step = 0, newest_step()
    while True:
        try:
            fit()
            return None
        except Exception as error:  # what the storage causes has many names in Ray
            if waited():
                continue
            if not isinstance(error, lost):
                raise
            before, step = step, newest_step()
            failures = failures + 1 if step == before else 1
            if failures > WORKER_FAILURES:
                after = f"after iteration {step}" if step else "before the first checkpoint"
                return (
                    f"its workers were lost {failures} times in a row {after}, the last time "
                    f"because: {cause_of(error)}; {RETRY}"
                )


def _wait_for(storage: Storage) -> bool:
    """Wait until ``storage`` can be written; returns whether it could not be at first."""
    from raygan.sweep.cluster.checkpoints import patiently

    try:
        storage.probe()
    except OSError:
        patiently(storage.probe, f"{storage.uri} cannot be written")
        return True
    return False


def cause_of(error: BaseException | str) -> str:
    """What an error of Ray says, without the tracebacks and the ids of its layers.

    A text is what Tune has noted of a trial's failures: the last of them counts.
    """
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


def _set_aside_if_damaged(job: dict[str, Any]) -> None:
    """Put Ray Train's list of checkpoints away if Ray Train could not start with it.

    It is written in place: a process that is killed meanwhile leaves half of it. And it may name a
    checkpoint that somebody has deleted. The workers look for checkpoints where they lie, and
    need no list.
    """
    from raygan.storage import Storage

    home = Storage(job["folder"])
    name = "checkpoint_manager_snapshot.json"
    content = home.read(name, _MOST_LISTED)
    if content is None:
        return
    try:
        listed = json.loads(content)
        kept = {checkpoint["checkpoint_dir_name"] for checkpoint in listed["checkpoint_results"]}
    except (ValueError, TypeError, KeyError, RecursionError):
        kept = {""}
    if not kept <= set(home.folders()):
        home.rename(name, f"{name}.damaged")
