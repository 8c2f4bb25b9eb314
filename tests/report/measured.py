"""Made-up sweeps in which a second measure was measured beside the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from raygan.report.evidence import CellResults, Evidence
from tests.report.builders import evidence, final, trial

DISTANCE = "val/feature_energy_distance"


def measured_cell(
    values: Mapping[str, str],
    ends: Sequence[float | str],
    *,
    shared: float = 0.0,
    evaluations: int = 20,
    noise: float = 0.05,
    seed: int = 0,
) -> CellResults:
    """A cell with a replicate per item of ``ends``: its end loss, or its outcome.

    Loss and distance fall with the iteration, each with noise of its own; ``shared`` is the
    standard deviation of a noise that both have.
    """
    name = "_".join(values.values())
    generator = np.random.default_rng([seed, *name.encode(errors="replace")])
    at = np.arange(1, evaluations + 1) / evaluations
    replicates = []
    for number, end in enumerate(ends, start=1):
        lost = isinstance(end, str)
        level = 0.02 if lost else end
        both = shared * generator.normal(size=evaluations)
        curve = level * (1 + 4 * np.exp(-5 * at))
        losses = curve * np.exp(both + noise * generator.normal(size=evaluations))
        losses[-5:] = level if shared == 0 else losses[-5:]
        distances = 20 * curve * np.exp(both + noise * generator.normal(size=evaluations))
        safe = "".join(c for c in name if c.isascii() and c.isalnum())
        record = trial(safe, list(losses), end if lost else "ok", seed=number, kind="replicate")
        record.cell = name
        for point, distance in zip(record.history, distances, strict=True):
            point[DISTANCE] = float(distance)
            point["val/variety"] = 0.9 * math.exp(0.03 * generator.normal())
        replicates.append(record)
    best = min((r for r in replicates if r.outcome == "ok"), key=lambda r: r.curve[-1][1],
               default=None)  # fmt: skip
    return CellResults(name, dict(values), replicates, replicates, best)


def measured(*cells: CellResults, quality: float = 1.0, **more) -> Evidence:
    """Evidence of ``cells`` with final tests, codes and sample quality of all runs."""
    finals, qualities = {}, {}
    for cell in cells:
        for record in cell.runs.values():
            if record.outcome != "ok":
                continue
            loss = record.curve[-1][1]
            finals[record.id] = {
                which: final(loss * factor)
                | {"code_norm": 1.1, "outside": 0.4, "ball_loss": 1.05 * loss * factor}
                for which, factor in (("best", 0.9), ("last", 0.95))
            }
            quality_of = {
                "feature_energy_distance": 20 * loss * quality, "recall": 0.4, "coverage": 0.5,
                "images": 1000, "step": 200,
            }  # fmt: skip
            qualities[record.id] = {"best": quality_of, "last": quality_of}
    return evidence(*cells, finals=finals, qualities=qualities, **more)
