"""The stored results of final tests, beside the trials' records."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, field_validator

from raygan import stored
from raygan.folder import (
    FINAL,
    final_fid,
    final_losses,
    final_quality,
    final_result,
    trial_folder,
)
from raygan.gan.judge.final_config import PER_IMAGE
from raygan.records import TrialRecord
from raygan.storage import Storage

logger = logging.getLogger(__name__)

GENERATORS = ("best", "last")
"""The generators of a trial that are tested."""
FinalResults = dict[str, dict[str, dict[str, Any]]]
"""Results by trial, then by ``best`` or ``last`` generator."""


class Finals(NamedTuple):
    """What lies beside the trials' records, as far as it was made; damaged files are none."""

    tests: FinalResults
    """The final tests."""
    fids: FinalResults
    """The FIDs and KIDs, each with its protocol."""
    qualities: FinalResults
    """The qualities of samples, each with how it was made."""


LOSSES = {"": "loss", "_audited": "audited_loss", "_restarts": "restarts_loss"}
"""Ending of a column's name, and the name in a test: the loss of all images from z = 0, that of the
audited ones, and the lowest that these reached from z = 0 or from random codes."""
CODES = {"_code_norm": "code_norm", "_outside": "outside", "_ball": "ball_loss",
         "_ball_free": "ball_free_loss"}  # fmt: skip
"""The same for the codes: mean of |z|/√d, the share outside of the prior's ball, and the losses of
the same images with codes kept within the ball and with free ones. Tests that earlier versions made
lack them."""

QUALITIES = {
    "feature_energy_distance": "feature energy distance",
    "recall": "recall",
    "coverage": "coverage",
    "sliced_wasserstein": "sliced Wasserstein distance",
}
"""Measures of the quality of samples (:mod:`raygan.gan.judge.quality`), as people read them."""

FEW_IMAGES = 1000
"""Final images below which their choice adds to the uncertainty of a difference; with 2,000, it
adds next to nothing."""

_Loss = Annotated[float, Field(ge=0, le=stored.MOST)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Seed = Annotated[int, Field(ge=0, lt=2**63)]
_Text = Annotated[str, StringConstraints(max_length=200)]


class _Test(BaseModel):
    """``final/<which>.json``: what :func:`raygan.sweep.session.final_making.make_test` returns."""

    model_config = stored.STRICT

    loss: _Loss | None = None
    step: stored.Count = 0
    images: stored.Count = 0
    steps: stored.Count = 0
    restarts: stored.Count = 0
    restarts_loss: _Loss | None = None
    audited: stored.Count = 0
    audited_loss: _Loss | None = None
    code_norm: _Loss | None = None
    outside: Annotated[float, Field(ge=0, le=1)] | None = None
    ball_radius: _Loss | None = None
    ball_images: stored.Count = 0
    ball_loss: _Loss | None = None
    ball_free_loss: _Loss | None = None
    seconds: stored.Seconds = 0.0
    checkpoint: stored.Word = ""
    replaced: Annotated[str, StringConstraints(max_length=20_000)] = ""
    asked: dict[_Text, stored.Count | stored.Word | None] = {}

    @field_validator("asked")
    @classmethod
    def _with_protocol(cls, asked: dict[str, Any]) -> dict[str, Any]:
        """Earlier versions had one protocol, and did not write it down."""
        return {**asked, "protocol": asked.get("protocol", PER_IMAGE)} if asked else asked


class _Fid(BaseModel):
    """``<which>-fid.json``: what :func:`raygan.gan.judge.fid.fid` returns, and of what."""

    model_config = stored.STRICT

    fid: stored.Metric | None = None
    kid: stored.Metric | None = None
    kid_std: stored.Metric | None = None
    n: stored.Count = 0
    seed: _Seed = 0
    split: _Text = ""
    bits: stored.Count = 0
    resizer: _Text = ""
    weights_sha256: _Text = ""
    torch_fidelity: _Text = ""
    step: stored.Count = 0
    checkpoint: stored.Word = ""


class _Quality(BaseModel):
    """``<which>-quality.json``: what :func:`raygan.gan.judge.sample_quality.final_quality` returns,
    and of what."""

    model_config = stored.STRICT

    feature_energy_distance: stored.Metric | None = None
    recall: _Share | None = None
    coverage: _Share | None = None
    sliced_wasserstein: _Loss | None = None
    kind: Literal["", "features", "wasserstein"] = ""
    images: stored.Count = 0
    real_images: stored.Count = 0
    seed: _Seed = 0
    weights_sha256: _Text = ""
    step: stored.Count = 0
    checkpoint: stored.Word = ""


Kind = TypeVar("Kind", _Test, _Fid, _Quality)
_TEST, _FID, _QUALITY = TypeAdapter(_Test), TypeAdapter(_Fid), TypeAdapter(_Quality)
_KINDS: tuple[tuple[TypeAdapter[Any], Callable[[str], str]], ...] = (
    (_TEST, final_result),
    (_FID, final_fid),
    (_QUALITY, final_quality),
)
"""In the order of :class:`Finals`."""


def read_all(storage: Storage, records: Iterable[TrialRecord]) -> Finals:
    """All results that lie in the sweep's ``storage``, with one listing per trial."""
    trials = [record.id for record in records]
    found = storage.map(partial(_of_trial, storage), trials)
    kinds = ([results[number] for results in found] for number in range(len(_KINDS)))
    return Finals(
        *({trial: both for trial, both in zip(trials, kind, strict=True) if both} for kind in kinds)
    )


def read_quality(trial: Storage, which: str) -> dict[str, Any] | None:
    """The quality of the samples of a trial's ``which`` generator, if it has been measured; a
    damaged one is none."""
    quality = _read(trial, final_quality(which), _QUALITY)
    return None if quality is None else quality.model_dump(exclude_unset=True)


def read_final(trial: Storage, which: str) -> dict[str, Any] | None:
    """The final test of a trial's ``which`` generator, if it has been made; a damaged one is
    none."""
    test = _read(trial, final_result(which), _TEST)
    return None if test is None else test.model_dump()


def _of_trial(storage: Storage, trial: str) -> list[dict[str, dict[str, Any]]]:
    """The results of each kind of a trial, by generator."""
    folder = storage / trial_folder(trial)
    # one listing in place of a question per file: most trials have no final test
    names = {f"{FINAL}/{name}" for name in folder.files(FINAL)}
    return [
        {
            which: result.model_dump(exclude_unset=True)
            for which in GENERATORS
            if file(which) in names and (result := _read(folder, file(which), kind)) is not None
        }
        for kind, file in _KINDS
    ]


def _read(storage: Storage, name: str, kind: TypeAdapter[Kind]) -> Kind | None:
    data = storage.read(name, stored.MOST_BYTES + 1)
    if data is None:
        return None
    try:
        return stored.parse(kind, data)
    except ValueError as error:
        logger.warning("%s/%s is ignored, since it is damaged (%s)", storage.uri, name, error)
        return None


def read_image_losses(storage: Storage, tests: FinalResults) -> dict[str, np.ndarray]:
    """The loss of each final image, float64 [images], by trial, of the best generators that were
    tested on fewer than :data:`FEW_IMAGES`; damaged tables are none."""
    counts = {trial: both.get("best", {}).get("images", 0) for trial, both in tests.items()}
    few = {trial: images for trial, images in counts.items() if 1 < images < FEW_IMAGES}
    read = storage.map(lambda trial: _image_losses(storage, trial, few[trial]), few)
    return {trial: losses for trial, losses in zip(few, read, strict=True) if losses is not None}


def _image_losses(storage: Storage, trial: str, images: int) -> np.ndarray | None:
    name = f"{trial_folder(trial)}/{final_losses('best')}"
    data = storage.read(name, stored.MOST_BYTES + 1)
    if data is None:
        return None
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            if file.metadata.num_rows != images:
                raise ValueError(f"{file.metadata.num_rows} rows for {images} images")
            losses = file.read(columns=["loss"])["loss"].to_numpy().astype(float)
        if not (np.isfinite(losses).all() and losses.sum() > 0):
            raise ValueError("a loss is not a number")
    except (ValueError, KeyError, pa.ArrowException) as error:
        logger.warning("%s/%s is ignored, since it is damaged (%s)", storage.uri, name, error)
        return None
    return np.asarray(losses)


def losses_files(trial: str) -> str:
    """Where the losses of each final image of a trial are, in words."""
    best, last = (final_losses(which) for which in GENERATORS)
    return f"{trial_folder(trial)}/{best} and {last.removeprefix(f'{FINAL}/')}"


def number(result: Mapping[str, Any], key: str) -> float | None:
    """The finite number that stands under ``key``, if one does."""
    value = result.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def positive(result: Mapping[str, Any], key: str) -> float | None:
    """The value of ``key`` if it is a finite number above 0; else None."""
    value = number(result, key)
    return value if value and value > 0 else None


def protocol(test: Mapping[str, Any]) -> str | None:
    """The protocol that a final test's searches followed; None if there is no test."""
    return str((test.get("asked") or {}).get("protocol", PER_IMAGE)) if test else None


def columns(
    tests: Mapping[str, Any], fids: Mapping[str, Any], qualities: Mapping[str, Any]
) -> dict[str, float | str | None]:
    """The results of a trial's tests as columns: ``final_best``, ``final_best_restarts``,
    ``final_best_recall``, …"""
    return {
        **{
            f"final_{which}{ending}": positive(tests.get(which, {}), key)
            for which in GENERATORS
            for ending, key in LOSSES.items()
        },
        **{
            f"final_{which}{ending}": number(tests.get(which, {}), key)
            for which in GENERATORS
            for ending, key in CODES.items()
        },
        **{f"final_{which}_protocol": protocol(tests.get(which, {})) for which in GENERATORS},
        **{
            f"{key}_{which}": number(fids.get(which, {}), key)
            for which in GENERATORS
            for key in ("fid", "kid")
        },
        **{
            f"final_{which}_{name}": number(qualities.get(which, {}), name)
            for which in GENERATORS
            for name in QUALITIES
        },
    }
