"""Ray Tune runs the trials of a study: it starts what the study plans and says what happens."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from raygan.addresses import check_address, first_line, is_address
from raygan.background import Looking
from raygan.errors import ResourceError
from raygan.folder import TUNE
from raygan.records import STEP
from raygan.sweep.cluster import ray_quirks
from raygan.sweep.cluster.head import HeadWatch
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.last_checkpoints import LastCheckpoints
from raygan.sweep.cluster.trial import RETRY_ADVICE, run_trial
from raygan.sweep.spec.plan import TrialPlan
from raygan.sweep.spec.yaml_sections import Scale
from raygan.sweep.study.study import Study

DRIVER_RESOURCE = "raygan_driver"
"""Custom resource of the nodes on which trial drivers may run, if a cluster has it; otherwise they
run on the head node. They take no CPU."""
FREE_SECONDS = 0.5
"""Between two looks for the resources of trials that were stopped or lost, at least."""
FREE_REST = 20
"""And this many times as long as the last look took: some milliseconds, or much more after
thousands of trials, whose placement groups Ray still lists."""
FREE_MOST = 10.0
"""But at most so many seconds: a look may have waited for a head that was silent."""
DRIVER_SHARE = 0.001
DRIVER_FAILURES = 2
"""Most losses in a row of a trial's driver, such as with its node, without a new evaluation in
between."""

Trainable = Callable[[dict[str, Any]], None]


class _Joined:
    """The cluster that this process has joined."""

    head: HeadWatch | None = None


def connect(
    address: str | None, *, verbose: bool, last: Callable[[], object] = lambda: None
) -> bool:
    """Join the cluster at ``address`` or ``$RAY_ADDRESS``, else start Ray on this machine.

    Returns whether it was started here. If its head node is lost later, this process ends, and
    ``last`` is called before (:class:`~raygan.sweep.cluster.head.HeadWatch`).
    """
    ray_quirks.set_in_environment(ray_quirks.DRIVER_SETTINGS)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    check_address(
        address if is_address(address) else f"ray://{address}", "--address or RAY_ADDRESS"
    )
    options: dict[str, Any] = {"logging_level": "INFO" if verbose else "ERROR"}
    ray_quirks.check_that_somebody_listens(address)
    ray_quirks.keep_keys_out_of_logs()
    try:
        if local:
            ray_quirks.make_private_token()
            options["include_dashboard"] = False
            options["_temp_dir"] = ray_quirks.private_folder(keep=verbose)
        ray.init(address=address, log_to_driver=verbose, **options)
    except Exception as error:  # for much that may go wrong, Ray raises no more special one
        raise ResourceError(_refusal(address, first_line(error), local=local)) from error
    if not verbose:  # the tables name each failure with its reason
        for name in ("ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    _Joined.head = HeadWatch(last)
    _Joined.head.start()
    atexit.register(disconnect)  # no thread may be within Ray when Python ends
    return local


def disconnect() -> None:
    """Leave the cluster, or end what :func:`connect` has started."""
    need_head_no_more()
    if ray.is_initialized():
        ray.shutdown()


def need_head_no_more() -> None:
    """Nothing but :func:`disconnect` is left to do: the head node may be lost from now on."""
    if _Joined.head is not None:
        _Joined.head.stop()
        _Joined.head = None


def wait_for_head() -> None:
    """Return once the head node answers, at once if none was joined; if it is lost, this process
    ends instead."""
    if _Joined.head is not None:
        _Joined.head.wait()


def concurrency(scales: Sequence[Scale], *, ours: bool) -> int:
    """How many trials run at once on the cluster; believes ``scale.autoscaling``.

    ``scales``: those of all cells; ``ours``: whether the cluster was started by :func:`connect`,
    and so will not grow. Raises :class:`~raygan.errors.ResourceError` if it can never hold a trial
    of each cell.
    """
    scale = scales[0]
    if scale.autoscaling and scale.max_concurrent != "auto" and not ours:
        return scale.max_concurrent
    return fits(scales, alive(), ours=ours)


def alive() -> list[dict[str, float]]:
    """The resources of each of the cluster's nodes."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fits(scales: Sequence[Scale], nodes: list[dict[str, float]], *, ours: bool) -> int:
    """How many trials may run at once on ``nodes``; raises ResourceError if a cell's never can.

    As many as fit of the cell that takes the least. Where a trial takes more, others wait for
    their workers: they hold nothing meanwhile, and get all of their workers at once, so that none
    keeps another from starting.
    """
    for scale in scales:
        if not holds(scale, nodes):
            hint = "" if ours else "; if the cluster scales up to it, set `scale.autoscaling: true`"
            raise ResourceError(too_small(scale, nodes, "it can never start;") + hint)
    most = max(_at_once(scale, nodes) for scale in scales)
    limit = scales[0].max_concurrent
    return most if limit == "auto" else min(most, limit)


def holds(scale: Scale, nodes: list[dict[str, float]]) -> int:
    """How many trials ``nodes`` hold at once with the fewest workers, however many shall run."""
    return _workers(scale, nodes) // scale.fewest


def _at_once(scale: Scale, nodes: list[dict[str, float]]) -> int:
    """How many trials ``nodes`` hold, each but the last with the most workers."""
    whole, left = divmod(_workers(scale, nodes), scale.most)
    return whole + (left >= scale.fewest)


def _workers(scale: Scale, nodes: list[dict[str, float]]) -> int:
    workers = 0
    for resources in nodes:
        room = [resources.get("CPU", 0) / scale.cpus_per_worker]
        if scale.gpus_per_worker > 0:
            room.append(_gpu_slots(resources.get("GPU", 0), scale.gpus_per_worker))
        workers += int(min(room) + 1e-9)
    return workers


def _gpu_slots(gpus: float, per_worker: float) -> float:
    # a fraction never spans two GPUs
    return int(gpus) * int(1 / per_worker + 1e-9) if per_worker < 1 else gpus / per_worker


def _refusal(address: str, reason: str, *, local: bool) -> str:
    if local:
        return (
            f"Ray could not be started on this machine: {reason}; try again, perhaps when less "
            "runs here; see that there is memory and room in the folder for temporary files; "
            "--verbose keeps Ray's own log"
        )
    return (
        f"no Ray cluster can be used at {address!r} ({reason}); check --address and RAY_ADDRESS; "
        "if the cluster asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    )


def asks(scale: Scale) -> str:
    """What one trial asks for, in words."""
    return (
        f"{scale.width} workers of {scale.cpus_per_worker:g} CPUs and "
        f"{scale.gpus_per_worker:g} GPUs"
    )


def too_small(scale: Scale, nodes: list[dict[str, float]], why: str) -> str:
    """That ``nodes`` hold no trial; ``why`` it can never start, and what else helps."""
    has = ", ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
    return (
        f"one trial asks for {asks(scale)} each, but the cluster's nodes have "
        f"{has or 'nothing'}: {why} lower `scale.workers`, `scale.cpus_per_worker` or "
        "`scale.gpus_per_worker`"
    )


def run(
    study: Study,
    job_of: Callable[[TrialPlan], Job],
    max_concurrent: int,
    last: LastCheckpoints | None = None,
    *,
    trainable: Trainable = run_trial,
) -> None:
    """Run all trials of ``study`` that have not ended; returns early on SIGUSR1.

    ``job_of`` makes the job of a trial that starts; ``trainable`` gets it as plain values. Once
    ``last`` has asked for last checkpoints, no trial starts. Raises what ``study`` raises, such as
    :class:`~raygan.errors.ConfigError` of a user's stop rule.
    """
    if last is not None:
        last.open()
    for_drivers = DRIVER_RESOURCE in ray.cluster_resources()
    resource = DRIVER_RESOURCE if for_drivers else ray_quirks.HEAD_RESOURCE
    errors = _Errors()
    callback = _Callback(study, errors)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {resource: DRIVER_SHARE}),
        tune_config=tune.TuneConfig(
            search_alg=_Search(study, job_of, last, callback.settle),
            scheduler=_Scheduler(study, errors),
            num_samples=-1,
            max_concurrent_trials=max_concurrent,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=study.storage.uri,
            failure_config=tune.FailureConfig(max_failures=DRIVER_FAILURES),
            callbacks=[callback],
            verbose=0,
        ),
    )
    with _freeing():
        tuner.fit()
    errors.raise_first()


def _trial_id(trial: Trial) -> str:
    return str(trial.config["trial"])


class _Adapter:
    """Tune pickles what it is given; a study stays where it is."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Search(_Adapter, Searcher):
    def __init__(
        self,
        study: Study,
        job_of: Callable[[TrialPlan], Job],
        last: LastCheckpoints | None = None,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(metric=STEP, mode="max")  # Tune insists on one
        self._study, self._job_of, self._last, self._settle = study, job_of, last, settle

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # noqa: ARG002
        self._settle()  # while no trial runs, Tune does nothing but ask, for up to 10 minutes
        if self._last is not None and self._last.asked:
            return None
        if (plan := self._study.next_trial()) is not None:
            return self._job_of(plan).to_plain()
        # asked again soon: the trials that run may call for others
        return None if self._study.waiting else Searcher.FINISHED

    def set_search_properties(self, *_: Any, **__: Any) -> bool:
        return True

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        pass


def _freeing() -> Looking:
    """Frees what trials that were stopped or lost still hold, on a thread of its own: the looks
    take their time, and Tune's loop has none."""
    return Looking(
        ray_quirks.free_leftovers,
        lambda took: min(FREE_MOST, max(FREE_SECONDS, FREE_REST * took)),
        "leftovers",
    )


class _Errors:
    """Keeps the study's first error until it may be raised.

    What is raised while Tune handles a result arrives as the text of a TuneError; and what is
    raised while Tune ends a trial counts as a failure of that trial, which is then run again.
    """

    def __init__(self) -> None:
        self._first: Exception | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block, an error is kept instead of raised."""
        try:
            yield
        except Exception as error:
            self._first = self._first or error

    def raise_first(self) -> None:
        """Raise the error that was kept, if there is one."""
        if self._first is not None:
            raise self._first


class _Scheduler(_Adapter, FIFOScheduler):
    def __init__(self, study: Study, errors: _Errors) -> None:
        super().__init__()
        self._study, self._errors = study, errors

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:  # noqa: ARG002
        stop = False
        with self._errors.kept():
            before = self._study.records[_trial_id(trial)].step
            stop = self._study.heard(_trial_id(trial), result)
            if self._study.records[_trial_id(trial)].step > before:
                ray_quirks.count_failures_anew(trial, DRIVER_FAILURES)
        return FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        ray_quirks.stop_lingering(tune_controller, lambda t: self._study.lingers(_trial_id(t)))
        return super().choose_trial_to_run(tune_controller)


class _Callback(_Adapter, tune.Callback):
    def __init__(self, study: Study, errors: _Errors) -> None:
        self._study, self._errors = study, errors
        self._failed: list[Trial] = []

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:  # noqa: ARG002
        self._errors.raise_first()
        self._study.tick()
        self.settle()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        with self._errors.kept():
            self._study.started(_trial_id(trial))

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any  # noqa: ARG002
    ) -> None:  # fmt: skip
        with self._errors.kept():
            self._study.lost(_trial_id(trial))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any  # noqa: ARG002
    ) -> None:  # fmt: skip
        with self._errors.kept():
            self._study.ended(_trial_id(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        self._failed.append(trial)
        with self._errors.kept():
            self.settle()

    def on_experiment_end(self, trials: list[Trial], **_: Any) -> None:  # noqa: ARG002
        if self._failed:
            wait_for_head()
            with self._errors.kept():
                self.settle()

    def settle(self) -> None:
        """Tell the study of trials that have failed, once the head node answers: with a lost one,
        all drivers are lost, which is no fault of a trial."""
        if self._failed and ray_quirks.head_answers():
            while self._failed:
                self._tell(self._failed.pop(0))

    def _tell(self, trial: Trial) -> None:
        try:
            error = trial.get_error()
        except OSError:  # it lies in the storage, which may be away; to raise would end the sweep
            error = None
        why = "an error that Ray does not name" if error is None else ray_quirks.cause_of(error)
        reason = (
            f"its driver failed {DRIVER_FAILURES + 1} times in a row, the last time because: "
            f"{why}; {RETRY_ADVICE}"
        )
        self._study.ended(_trial_id(trial), reason)
