"""Calls of one function as Ray tasks, each with the resources of one of a trial's workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray

from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.trial import WORKER_FAILURES

if TYPE_CHECKING:
    from raygan.gan.speed import Speed

POLL_SECONDS = 1.0
"""How long :meth:`Tasks.ended` waits at most."""


class Tasks:
    """Runs ``function`` on the cluster; a task is retried if it is lost with its process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def start(self, job: Job, *arguments: object) -> object:
        """Call it with ``arguments``, on the resources of a worker of ``job``; returns a handle."""
        task = ray.remote(num_cpus=job.cpus, num_gpus=job.gpus, max_retries=WORKER_FAILURES)
        return task(self._function).remote(*arguments)

    def ended(self, running: list[Any]) -> list[Any]:
        """Those of the handles ``running`` that have ended, after a short wait at the most."""
        ended, _ = ray.wait(running, timeout=POLL_SECONDS)
        return list(ended)

    def result(self, running: Any) -> Any:
        """What the function returned; raises what it raised."""
        try:
            return ray.get(running)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def stop(self, running: Any) -> None:
        """Cancel one that may be running."""
        ray.cancel(running, force=True)


def measure_speed(job: Job, seconds: float) -> Speed:
    """How fast one worker trains ``job``, measured for ``seconds``."""
    import torch

    from raygan.gan.speed import measure
    from raygan.sweep.cluster.worker import load_images

    device = torch.device("cuda" if job.gpus > 0 else "cpu")
    return measure(job.train_config(), load_images(job), device, seconds, gpu_share=job.gpu_share)


def measure_speeds(jobs: Mapping[str, Job], seconds: float) -> dict[str, Speed]:
    """:func:`measure_speed` for all ``jobs``, as many at once as the cluster holds."""
    tasks = Tasks(measure_speed)
    running = {name: tasks.start(job, job, seconds) for name, job in jobs.items()}
    return {name: tasks.result(handle) for name, handle in running.items()}
