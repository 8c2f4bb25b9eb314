"""What each Ray Train worker does: train its share of one trial and report.

Imports PyTorch only when it is called: the trial's driver and controller hold a reference to it
and would otherwise load PyTorch, too, before the first step.
"""

from __future__ import annotations

import math
import socket
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan.sweep.cluster import ray_quirks
from raygan.sweep.cluster.job import Job

if TYPE_CHECKING:
    from raygan.checkpoints import Saved, Shelf
    from raygan.data.images import ImageSet
    from raygan.storage import Storage


def train_worker(config: dict[str, Any]) -> None:
    """Train the trial of ``config`` (:meth:`Job.to_plain`) to its end, from its last checkpoint on.

    An exception becomes the outcome ``failed``: it would come again. What kills the process, and
    storage that does not answer, is retried by Ray Train.
    """
    import ray.train

    from raygan import liveness, recipe

    job = Job(**config)
    context = ray.train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    try:
        with liveness.Watch(job.stalled_after, lambda: ray_quirks.end_stalled(job.stalled_after)):
            if count > 1:
                _join(rank, count, gpu=job.gpus > 0)
            _train(job, rank, count)
    except Exception as error:
        # storage may answer again; and the others may wait in a collective: Ray Train ends them
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError) or count > 1:
            raise
        reason = recipe.blame(error, [recipe.RecipeFile(*file) for file in job.recipes])
        reason = reason or " ".join("".join(traceback.format_exception_only(error)).split())
        traceback.print_exc()
        ray.train.report({"step": 0, "outcome": "failed", "reason": reason})
    ray_quirks.flush_reports()


def _train(job: Job, rank: int, count: int) -> None:
    import ray.train
    import torch

    from raygan.checkpoints import Shelf
    from raygan.gan.keeping import Keeper
    from raygan.gan.state import TrainState
    from raygan.gan.train import EARLY, train
    from raygan.liveness import uncounted, waiting
    from raygan.pictures import Album
    from raygan.storage import Storage
    from raygan.sweep.cluster.last_checkpoints import Listener

    config = job.train_config()
    with waiting():
        images = load_images(job)
    device = torch.device("cpu")
    if job.gpus > 0:
        import ray.train.torch

        device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
    home = Storage(job.folder)
    shelf = Shelf(home)
    with waiting():
        saved, passed_over = _saved(shelf, home, rank, count)
    if saved is None:
        state = TrainState.create(config, images.shape, device)
    else:
        state = TrainState.restore(saved, device, config=config, shape=images.shape)
    notes = [f"{reason}; resumed after iteration {state.step}" for reason in passed_over]
    if len(job.workers) > 1:
        notes.append(f"trained by {count} of at most {job.workers[-1]} workers from iteration "
                     f"{state.step} on")  # fmt: skip
    # the first word: time counts from here; and what was evaluated before is told again, since a
    # report may have been lost with its driver
    first = {"step": state.step, "history": list(state.history), "notes": notes, "workers": count}
    with waiting():
        ray.train.report(first)

    written: list[int] = []
    listener = Listener(job.trial) if rank == 0 else None
    keeper = Keeper(
        job.checkpoint_every,
        lambda saved: written.append(shelf.save(saved)),
        at_once=lambda: ray.train.get_preemption_info() is not None,
        stops=listener.is_stopped if listener else lambda: False,
    )
    album = Album(home)
    evaluations = train(config, images, state, gpu_share=job.gpu_share, keeper=keeper)
    # what follows an evaluation waits for the storage, for the other workers and for the driver
    for evaluation in uncounted(evaluations):
        report: dict[str, Any] = {"step": evaluation.step, **evaluation.metrics}
        if evaluation.notes:
            report["notes"] = list(evaluation.notes)
        if not evaluation.finite:
            bad = [key for key, value in evaluation.metrics.items() if not math.isfinite(value)]
            report |= {
                "outcome": "early-failure" if evaluation.step <= EARLY else "diverged",
                "reason": f"{', '.join(bad)} not finite at iteration {evaluation.step}",
            }
        elif rank == 0:
            album.put(evaluation)
        if "outcome" in report or state.step >= config.iterations:
            # what a trial has when it has ended, it has before it says so
            keeper.finish(state if evaluation.finite else None)
            album.wait()
        elif keeper.stopped:
            break  # the driver may not listen any more: it is told when the trial resumes
        if written:
            report["checkpoint_bytes"] = written[-1]
        ray.train.report(report)
        if not evaluation.finite:
            return
    if keeper.stopped and state.step < config.iterations:
        with waiting():
            keeper.finish()
            album.wait()
            if listener is not None:
                listener.has_kept()
            _wait_for_the_end()


def _wait_for_the_end() -> None:
    """Ray ends this process with the driver's: to return would mean that the trial is done."""
    threading.Event().wait()


def _saved(shelf: Shelf, home: Storage, rank: int, count: int) -> tuple[Saved | None, list[str]]:
    """The checkpoint that the trial resumes from, the same one on all workers, and why the first
    one has passed over newer ones.

    The workers look at different times, and on different machines: one could find a checkpoint that
    another one does not see yet.
    """
    import ray.train.collective

    from raygan.retries import patiently

    what = f"{home.uri} cannot be reached"
    saved: Saved | None = None
    passed_over: list[str] = []
    if rank == 0:
        saved, passed_over = patiently(lambda: _newest(shelf, home), what)
    if count > 1:
        folder = ray.train.collective.broadcast_from_rank_zero(shelf.folder)
        if rank != 0 and folder is not None:
            saved = patiently(lambda: _at(shelf, home, folder), what)
    return saved, passed_over


def _at(shelf: Shelf, home: Storage, folder: str) -> Saved:
    from raygan.errors import CheckpointError

    try:
        return shelf.at(folder)
    except CheckpointError:
        home.probe()  # as for the newest one
        raise


def _newest(shelf: Shelf, home: Storage) -> tuple[Saved | None, list[str]]:
    newest = shelf.newest()
    if newest[1]:
        home.probe()  # a checkpoint that cannot be reached is not damaged: raises OSError
    return newest


def load_images(job: Job) -> ImageSet:
    """The sweep's images, which have been prepared before any trial; with the trial's own split, if
    it has one."""
    from raygan.addresses import is_address
    from raygan.data import load
    from raygan.data.shared import fetch
    from raygan.errors import DataError

    remote = is_address(job.prepared)
    folder = fetch(job.prepared) if remote else Path(job.prepared)
    images = load(folder)
    if images.digest != job.digest:
        raise DataError(f"{folder}: these are not the images that the sweep began with")
    return images if job.split_seed is None else images.resplit(job.split_seed)


def _join(rank: int, count: int, *, gpu: bool) -> None:
    """Form the process group of this trial's workers; rank 0 says where they meet."""
    import ray.train.collective
    import ray.util
    import torch.distributed as dist

    address = None
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        address = f"tcp://{ray.util.get_node_ip_address()}:{port}"
    address = ray.train.collective.broadcast_from_rank_zero(address)
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=count)
