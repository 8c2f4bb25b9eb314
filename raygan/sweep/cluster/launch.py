"""Ray Train within the process of a Tune trial: without a process for each of its helpers.

Written for Ray 2.60. What starts a trial is mostly the start of its processes. Ray Train gives its
controller one, another to what frees the resources of a controller that has died, and a third to
the queue between Train and Tune. Here the controller runs in the thread in which Tune calls the
trainable, :func:`raygan.sweep.cluster.ray_quirks.free_leftovers` frees what is left, and reports
need no queue.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray.tune
from ray.train import Checkpoint, Result, UserCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller import TrainController

# the base of TorchTrainer, whose module would load PyTorch: the workers form their process group
# themselves
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class Trainer(DataParallelTrainer):
    """Runs Ray Train's workers from this process; :meth:`fit` is to be called in a Tune trial."""

    def _initialize_and_run_controller(self, **options: Any) -> Result:
        controller = TrainController(**options)
        try:
            asyncio.run(controller.run())
        except BaseException:  # Tune ends a trial that is stopped by SystemExit
            if (group := controller.get_worker_group()) is not None:
                group.abort()
            raise
        return controller.get_result()

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if not isinstance(c, PlacementGroupCleanerCallback)]


class Relay(UserCallback):
    """Reports to Tune what the first worker reports to Train; returns when Tune has taken it in."""

    def after_report(
        self,
        run_context: TrainRunContext,  # noqa: ARG002
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,  # noqa: ARG002
    ) -> None:
        ray.tune.report(metrics[0])
