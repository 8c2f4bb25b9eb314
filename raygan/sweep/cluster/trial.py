"""One Tune trial: a thin driver that launches Ray Train workers and relays their reports.

What this module imports at its top, every trial's driver imports before it starts: next to
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raygan.liveness import FIRST_SECONDS
from raygan.sweep.cluster import ray_quirks
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.worker import train_worker

if TYPE_CHECKING:
    from raygan.storage import Storage

WORKER_FAILURES = 3
"""How often in a row the workers of a trial may be lost without a new checkpoint, and without a new
evaluation, in between."""
RETRY_ADVICE = "--retry-failed runs it again from there"
STALL_ADVICE = "if one iteration or one metric takes as long, raise `scale.stalled_after`"


def run_trial(config: dict[str, Any]) -> None:
    """The trainable that Tune runs; it holds no CPU that its workers could need.

    ``config`` is :meth:`Job.to_plain`. Launched again, the workers find the last checkpoint in the
    trial's folder and resume from it.
    """
    job = Job(**config)
    elastic = len(job.workers) > 1
    if elastic:
        ray_quirks.set_in_environment(ray_quirks.ELASTIC)
    ray_quirks.set_in_environment(ray_quirks.TRIAL_SETTINGS)
    at_first = max(FIRST_SECONDS, job.stalled_after)
    ray_quirks.set_in_environment({ray_quirks.HEALTH_TIMEOUT: str(at_first)})
    import ray.tune
    from ray.train import (
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )

    from raygan.checkpoints import find_checkpoints
    from raygan.folder import CHECKPOINT_LIST
    from raygan.retries import patiently
    from raygan.storage import Storage

    home = Storage(job.folder)
    resources = {"CPU": job.cpus}
    if job.gpus > 0:
        resources["GPU"] = job.gpus
    relayed = ray_quirks.Relayed()
    trainer = ray_quirks.trainer_class(job.workers, relayed.lost)
    width = (job.workers[0], job.workers[-1]) if elastic else job.workers[0]

    def fit() -> None:
        trainer(
            train_worker,
            train_loop_config=config,
            scaling_config=ScalingConfig(
                num_workers=width, use_gpu=job.gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=job.trial,
                storage_path=home.parent,
                # Ray Train counts failures for the whole life of a run: they are counted here
                failure_config=FailureConfig(
                    max_failures=0, controller_failure_limit=100 if elastic else 3
                ),
                callbacks=[
                    ray_quirks.relay(relayed),
                    ray_quirks.patience(relayed, job.stalled_after),
                    ray_quirks.losses(relayed),
                ],
            ),
        ).fit()

    what = f"{home.uri} cannot be reached"
    # Ray Train knows of no checkpoint. An earlier version told it of some, and it could not start
    # once they are removed
    patiently(lambda: home.delete(CHECKPOINT_LIST), what)

    def newest_step() -> int:
        steps = patiently(lambda: [step for step, _ in find_checkpoints(home)], what)
        return max([*steps, relayed.newest])

    def waited() -> bool:
        relayed.lost()
        return _wait_for(home)

    reason = _until_it_fails(fit, newest_step, TrainingFailedError, waited, relayed.notes.append)
    if reason is not None:
        # an outcome: started again by Tune, it would come again
        ray.tune.report({"step": 0, "outcome": "failed", "reason": reason})


def _until_it_fails(
    fit: Callable[[], None],
    newest_step: Callable[[], int],
    lost: type[Exception],
    waited: Callable[[], bool],
    note: Callable[[str], None],
) -> str | None:
    """Call ``fit`` until it returns, again each time that it raises ``lost``.

    Returns why it is given up: it has raised so more than :data:`WORKER_FAILURES` times with the
    same ``newest_step()``, the newest checkpoint or evaluation that there has been. Times after
    which ``waited()`` is true do not count: the storage was full or away. ``note``: takes what is
    to be said of a worker that made no progress.
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
            before, step = step, max(step, newest_step())
            failures = failures + 1 if step == before else 1
            if (stall := ray_quirks.stall(error)) is not None:
                note(f"{stall}, after iteration {step}; the trial was started again")
            if failures > WORKER_FAILURES:
                advice = RETRY_ADVICE if stall is None else f"{STALL_ADVICE}; {RETRY_ADVICE}"
                after = f"after iteration {step}" if step else "before the first evaluation"
                return (
                    f"its workers were lost {failures} times in a row {after}, the last time "
                    f"because: {ray_quirks.cause_of(error)}; {advice}"
                )


def _wait_for(storage: Storage) -> bool:
    """Wait until ``storage`` can be written; returns whether it could not be at first."""
    from raygan.retries import patiently

    try:
        storage.probe()
    except OSError:
        patiently(storage.probe, f"{storage.uri} cannot be written")
        return True
    return False
