"""Sweeps' results that are made up, for the tests of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.report.evidence import CellResults, DataSet, Evidence

STEPS = 10
"""Iterations between evaluations."""


def trial(
    norm: str,
    losses: Sequence[float],
    outcome: str | None = "ok",
    *,
    seed: int = 0,
    lr: float = 1e-4,
    kind: str = "search",
    suffix: str = "",
) -> TrialRecord:
    config = TrainConfig(norm="bn", seed=seed, lr=lr, iterations=STEPS * 6).to_dict()
    history = [{"step": float(STEPS * (i + 1)), LOSS: loss} for i, loss in enumerate(losses)]
    id = f"{norm}-lr{lr:g}-{kind}{seed}{suffix}"
    title, reason = f"{norm} lr={lr:g}", None if outcome in (None, "ok") else f"{outcome}: why"
    return TrialRecord(
        id, norm, seed, title, {"lr": lr}, config, outcome, reason, history, 36.0, kind=kind
    )


def cell(
    norm: str, ends: Sequence[float | str | None], searched: Sequence[TrialRecord] = ()
) -> CellResults:
    """A cell with a replicate per item of ``ends``: its loss, or its outcome if that is not ok."""
    replicates = [_replicate(norm, seed, end) for seed, end in enumerate(ends, start=1)]
    whole = [r for r in [*replicates, *searched] if r.outcome == "ok"]
    best = min(whole, key=lambda r: r.end_loss, default=None)
    return CellResults(norm, {"norm": norm}, [*searched, *replicates], replicates, best)


def on(
    label: str,
    norm: str,
    ends: Sequence[float | str | None],
    searched: Sequence[TrialRecord] = (),
    **values,
) -> CellResults:
    """A cell on one of several data sets, with more ``values`` of the grid."""
    made = cell("_".join(map(str, [label, norm, *values.values()])), ends, searched)
    values = {"dataset": label, "norm": norm, **values}
    return CellResults(made.name, values, made.records, made.replicates, made.best)


def _replicate(norm: str, seed: int, end: float | str | None) -> TrialRecord:
    if isinstance(end, float):
        return trial(norm, [4 * end, 2 * end, end, end, end, end], seed=seed, kind="replicate")
    return trial(norm, [0.05, 0.04], end, seed=seed, kind="replicate")


def searched_cell(norm: str, losses: Mapping[float, float | str]) -> CellResults:
    """A cell without replicates: the end loss, or the outcome, of one trial per learning rate."""
    trials = [
        trial(norm, [0.05] if isinstance(end, str) else [end] * 6,
              end if isinstance(end, str) else "ok", lr=lr)
        for lr, end in losses.items()
    ]  # fmt: skip
    whole = [record for record in trials if record.outcome == "ok"]
    best = min(whole, key=lambda r: r.end_loss, default=None)
    return CellResults(norm, {"norm": norm}, trials, [], best)


def final(loss: float, restarts: float | None = None, step: int = 50) -> dict:
    """The final test of a generator whose loss from z = 0 is ``loss``, with restarts ``restarts``."""
    return {
        "loss": loss, "step": step, "images": 2000, "steps": 2000, "restarts": 3, "audited": 200,
        "audited_loss": loss, "restarts_loss": loss if restarts is None else restarts, "asked": {},
    }  # fmt: skip


def finals(restarts: Mapping[str, float], *cells: CellResults) -> dict:
    """Final tests of all runs that ended ok: half the end loss, which restarts lower by a cell's
    factor in ``restarts``."""
    return {
        run.id: {
            which: final(factor * run.end_loss, factor * run.end_loss * restarts[cell.name])
            for which, factor in (("best", 0.5), ("last", 0.6))
        }
        for cell in cells
        for run in cell.runs.values()
        if run.outcome == "ok"
    }


def quality(distance: float, **more) -> dict:
    """The sample quality of a generator, by features, at this feature energy distance."""
    return {
        "feature_energy_distance": distance, "recall": 0.4, "coverage": 0.5, "kind": "features",
        "images": 1000, "real_images": 800, "weights_sha256": "ab", **more,
    }  # fmt: skip


def qualities(*cells: CellResults) -> dict:
    """Sample qualities of all runs that ended ok: a distance of 20 and 30 times the end loss."""
    return {
        run.id: {
            which: quality(factor * run.end_loss) for which, factor in (("best", 20), ("last", 30))
        }
        for cell in cells
        for run in cell.runs.values()
        if run.outcome == "ok"
    }


def evidence(
    *cells: CellResults, finished: bool = True, baseline: float | None = None, data=None, **more
) -> Evidence:
    """A sweep with one data set, unless ``sets`` is given."""
    sets = more.pop("sets", {"": DataSet(data or {}, baseline)})
    return Evidence("made-up", list(cells), sets, finished=finished, **more)
