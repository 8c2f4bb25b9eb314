"""One final test made, by whichever process: from a trial's checkpoint to numbers and pictures.

Imports PyTorch only when a test is made: whoever plans the tests needs none.
"""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from raygan.checkpoints import load_or_other
from raygan.errors import DataError, RayganError
from raygan.folder import EXTREMES, final_losses, final_picture, final_result
from raygan.folder import final_quality as quality_file
from raygan.retries import ATTEMPTS, patiently
from raygan.shown import shown
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.worker import load_images
from raygan.sweep.session.final_tests import FinalJob, Generator, Notes, PlannedTest

if TYPE_CHECKING:
    from torch import Tensor

    from raygan.data.images import ImageSet
    from raygan.gan.judge.final import FinalTest
    from raygan.gan.state import TrainState

SHOWN = 16
"""Images of each picture, each beside its reconstruction."""


def make_test(final_job: FinalJob) -> dict[str, Any]:
    """Make one test; returns what is written, under ``quality`` the quality of the samples. Waits
    while the storage is full or away.

    Raises :class:`~raygan.errors.RayganError` if images or checkpoint cannot be used, or if the
    quality cannot be measured; the reconstruction test is made all the same.
    """
    test = final_job.test
    trial = Storage(final_job.job.folder)
    note = Notes(trial, test.generator)
    note(0.0)
    loaded = _loaded(test.generator, final_job.job, trial, f"{trial.uri} cannot be reached")
    result: dict[str, Any] = {}
    problem: RayganError | None = None
    if test.quality != "none":
        try:
            result["quality"] = make_quality(trial, test, loaded[0], loaded[1])
        except RayganError as error:
            problem = error
    if test.config.steps:
        result |= _make_loss(trial, test, loaded, note)
    note.remove()
    if problem is not None:
        raise problem
    return result


def make_quality(
    trial: Storage, test: PlannedTest, state: TrainState, images: ImageSet
) -> dict[str, Any]:
    """Measure the quality of the samples of the generator in ``state``; returns what is written."""
    from raygan.gan.judge.sample_quality import final_quality

    measured = final_quality(state.judged, state.config, images, test.quality)
    result = {**measured, "step": state.step, "checkpoint": test.generator.checkpoint}
    written = json.dumps(result, indent=1).encode()
    for which in test.generator.which:
        patiently(
            partial(trial.write, quality_file(which), written), f"{trial.uri} cannot be reached"
        )
    return result


def _make_loss(
    trial: Storage, planned: PlannedTest, loaded: tuple[TrainState, ImageSet, str], note: Notes
) -> dict[str, Any]:
    """Make the reconstruction test; returns what is written."""
    from raygan.gan.judge.final import final_test

    generator, config = planned.generator, planned.config
    state, images, replaced = loaded
    held_out = images.take(images.final[: config.images])
    started = time.perf_counter()
    test = final_test(
        state.judged,
        state.config.code_size,
        held_out,
        config,
        seed=state.config.seed,
        latent=state.config.latent,
        progress=note,
    )
    result = {
        "loss": test.loss,
        "step": state.step,
        "images": len(test.losses),
        "steps": config.steps,
        "restarts": config.restarts if test.audited else 0,
        "restarts_loss": test.restarts_loss,
        "audited": test.audited,
        "audited_loss": test.audited_loss,
        "code_norm": test.code_norm,
        "outside": test.outside,
        "ball_radius": test.radius / math.sqrt(test.code_size),
        "ball_images": len(test.ball_losses),
        "ball_loss": test.ball_loss,
        "ball_free_loss": test.ball_free_loss,
        "seconds": time.perf_counter() - started,
        "checkpoint": generator.checkpoint,
        "replaced": shown(replaced),
        "asked": asdict(config),
    }
    for which in generator.which:
        write = partial(_write, trial, which, test, held_out, result)
        patiently(write, f"{trial.uri} cannot be reached")
    return result


def _loaded(
    generator: Generator, job: Job, trial: Storage, what: str
) -> tuple[TrainState, ImageSet, str]:
    """What :func:`load_generator` returns, once the storage answers.

    Raises :class:`~raygan.errors.DataError` if files cannot be read although it does.
    """
    for _ in range(ATTEMPTS):
        try:
            return load_generator(generator, job)
        except OSError as error:
            problem = error
            patiently(trial.probe, what)
    raise DataError(f"the checkpoint or the images cannot be read: {problem}") from problem


def load_generator(generator: Generator, job: Job) -> tuple[TrainState, ImageSet, str]:
    """The training state that ``generator`` is part of, on the device that ``job``, of its trial,
    asks for; and the trial's images.

    If its checkpoint is damaged, that of another whole one, and in words which (else "").
    """
    import torch

    from raygan.gan.state import TrainState

    images = load_images(job)
    device = torch.device("cuda" if job.gpus > 0 else "cpu")
    home = Storage(job.folder)
    saved, replaced = load_or_other(home, generator.checkpoint, generator.which)
    state = TrainState.restore(saved, device, config=job.train_config(), shape=images.shape)
    return state, images, replaced


def _write(
    trial: Storage, which: str, test: FinalTest, images: Any, result: dict[str, Any]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from raygan.gan.picture_grid import grid_png, side_by_side

    trial.delete(final_result(which))  # of another budget: nothing below is its own any more
    rows = pa.table(_columns(test))
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    trial.write(final_losses(which), sink.getvalue())
    for kind, chosen in zip(EXTREMES, (test.hardest(SHOWN), test.easiest(SHOWN)), strict=True):
        pairs = side_by_side(images[chosen], test.reconstructions[chosen])
        trial.write(final_picture(which, kind), grid_png(pairs, columns=8))
    trial.write(final_result(which), json.dumps(result, indent=1).encode())


def _columns(test: FinalTest) -> dict[str, Any]:
    """A row per image: ``index`` within the final images, ``loss`` from z = 0, of audited images
    ``restart_1`` … and ``winner`` (0: z = 0), null of others and where a loss is not finite;
    ``code_norm`` (|z|/√d) and, of audited images, ``ball_loss`` (codes kept within the ball)."""
    count = len(test.losses)
    blank = [None] * (count - test.audited)
    restarts = {
        f"restart_{number}": _finite(losses, count)
        for number, losses in enumerate(test.restarts, 1)
    }
    return {
        "index": list(range(count)),
        "loss": test.losses.tolist(),
        **restarts,
        "winner": test.winners[: test.audited].tolist() + blank,
        "code_norm": _finite(test.code_norms, count),
        "ball_loss": _finite(test.ball_losses, count),
    }


def _finite(values: Tensor, count: int) -> list[float | None]:
    """``values``, None where one is not finite, and None up to ``count``."""
    found = [x if math.isfinite(x) else None for x in values.tolist()]
    return [*found, *[None] * (count - len(found))]


class Here:
    """Makes each test in this process, when it is asked for."""

    def start(self, job: Job, final_job: FinalJob) -> FinalJob:  # noqa: ARG002
        return final_job

    def ended(self, running: list[FinalJob]) -> list[FinalJob]:
        return running[:1]

    def result(self, running: FinalJob) -> dict[str, Any]:
        return make_test(running)

    def stop(self, running: FinalJob) -> None:
        pass
