"""What of a sweep's results goes to MLflow: each trial's summary, the parent run's end, the
champions' generators."""

from __future__ import annotations

import logging
from pathlib import Path

from raygan import checkpoints
from raygan.folder import HTML, trial_folder
from raygan.records import DATASET, WHOLE, TrialRecord
from raygan.report import stability
from raygan.report.evidence import Evidence
from raygan.report.finals import GENERATORS, QUALITIES, number
from raygan.report.make import markdown
from raygan.report.sections import target
from raygan.report.words import loss
from raygan.storage import Storage
from raygan.tracking.model import ALIAS, Model
from raygan.tracking.problems import in_short
from raygan.tracking.runs import cut, model_name

logger = logging.getLogger(__name__)

_STABILITY = ("best", "worsening", "worsening_flat_95", "roughness", "log_area")
"""Measures of a curve that MLflow's table shows; results.parquet has all."""


def summary(record: TrialRecord, evidence: Evidence | None = None) -> dict[str, float]:
    """A trial as a whole, in the metrics by which MLflow's table is sorted and filtered.

    ``stability/*`` from its curve, ``final/*`` from its final tests. What needs other trials, or
    tests made later, is there once the sweep's ``evidence`` is. Empty for a trial that gave no
    result: its lowest loss must not lead a table.
    """
    if record.outcome not in (*WHOLE, "stopped"):
        return {}
    measures = stability.summary(record.curve)
    metrics = {f"stability/{key}": measures[key] for key in _STABILITY if key in measures}
    if evidence is None:
        return metrics
    if (aim := target(evidence.part(record.dataset))) is not None:
        steps = stability.iterations_to(record.curve, aim)
        if steps is not None:
            metrics["stability/iterations_to_target"] = float(steps)
    for which in ("best", "last"):
        if (value := evidence.final_loss(record, which)) is not None:
            metrics[f"final/{which}"] = value
    metrics |= _qualities(record, evidence)
    fresh = stability.fresh_of(metrics.get("final/best"), metrics.get("final/last"))
    if fresh is not None:
        metrics["stability/worsening_fresh"] = fresh
    return metrics


def champions(evidence: Evidence) -> dict[str, TrialRecord]:
    """By data set, the best run of the cell with the lowest mean loss: losses on different images
    are not compared. A sweep's only data set has the label ''."""
    best: dict[str, TrialRecord] = {}
    for cell in evidence.ranked:
        best.setdefault(cell.dataset, evidence.best_run(cell))
    return best


def _qualities(record: TrialRecord, evidence: Evidence) -> dict[str, float]:
    """``final/WHICH_NAME`` of each measure of the quality of a trial's samples."""
    measured = evidence.qualities.get(record.id, {})
    return {
        f"final/{which}_{name}": value
        for which in GENERATORS
        for name in QUALITIES
        if (value := number(measured.get(which, {}), name)) is not None
    }


def aggregates(evidence: Evidence) -> dict[str, float]:
    """Metrics of the parent run: per cell the loss that the verdict compares, and how many of its
    runs gave none."""
    metrics = {f"loss/{cell.name}": evidence.mean(cell) for cell in evidence.ranked}
    for cell in evidence.cells:
        if cell.ended:
            metrics[f"failed/{cell.name}"] = len(cell.failed) / len(cell.ended)
    return metrics


def note(verdict: str, evidence: Evidence, *, has_model: bool) -> str:
    """The description of the parent run, in Markdown; ``has_model``: whether the champions'
    generators are registered."""
    best = champions(evidence)
    rows = [
        f"| {markdown(cell.name)} | {markdown(cell.setting)} | {loss(evidence.mean(cell))} | "
        f"{len(evidence.losses(cell))} | {len(cell.failed)} of {len(cell.ended)} |"
        for label in best
        for cell in evidence.ranked
        if cell.dataset == label
    ]
    table = ["| cell | setting | mean loss | seeds | without result |", "|---|---|---|---|---|"]
    more = f"More: artifact `{HTML}`."
    for label in (best or [""]) if has_model else ():
        address = f"models:/{model_name(evidence.name, label)}@{ALIAS}"
        of = f" of {label}" if label else ""
        more += f' The best generator{of}: `mlflow.pytorch.load_model("{address}")`.'
    return cut("\n".join([markdown(verdict), "", more, "", *(table + rows if rows else [])]))


def models_of(sweep: Storage, evidence: Evidence, folder: Path) -> tuple[Model, ...]:
    """The champions' best generators, saved as models in the empty ``folder``.

    One is left out if nothing is kept of it, or, with a line in the log, if it cannot be saved.
    """
    made = []
    for place, (label, record) in enumerate(champions(evidence).items()):
        try:
            made.append(_model_of(sweep, label, record, folder / f"model-{place}"))
        except Exception as error:  # whatever it is, the sweep has its results
            reason = in_short(error)
            logger.warning("the best generator cannot be registered as a model: %s", reason)
    return tuple(model for model in made if model is not None)


def _model_of(sweep: Storage, label: str, record: TrialRecord, home: Path) -> Model | None:
    from raygan.gan.config import TrainConfig
    from raygan.gan.state import TrainState
    from raygan.tracking.model import save_model

    kept = checkpoints.best_and_last(sweep, record).get("best")
    if kept is None:
        return None
    saved, replaced = checkpoints.load_or_other(sweep / trial_folder(record.id), kept, ["best"])
    if replaced:
        logger.warning("%s: %s", record.title, replaced)
    state = TrainState.restore(saved, config=TrainConfig.of(**record.config))
    distribution = {"normal": "N(0, 1)", "uniform": "U(−1, 1)"}[state.config.latent]
    save_model(state.judged, state.config.code_size, state.shape, home)
    words = (
        f"Generator of {record.title} after {state.step:,} iterations, the best of its run and "
        f"that the best of the cell {record.cell}. Codes z ~ {distribution}, float32 (N, "
        f"{state.config.code_size}), to images, float32 (N, {', '.join(map(str, state.shape))}) in "
        "[0, 1]."
    )
    params = {"trial": record.id, "cell": record.cell}
    if label:
        params[DATASET] = label
    return Model(f"{record.id}/{kept}", home, words, label, params)
