"""The cells that a sweep's report compares, each with its records."""

from __future__ import annotations

from collections.abc import Mapping

from raygan.records import WARMUP_SUFFIX, TrialRecord
from raygan.report.evidence import CellResults
from raygan.sweep.spec import plan
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study.cell import attempts, best


def cells(spec: SweepSpec, known: Mapping[str, TrialRecord]) -> list[CellResults]:
    """The cells of the grid; points that differ only in ``seed`` are runs of one cell."""
    groups: dict[str, list[plan.Cell]] = {}
    for cell in plan.cells(spec):
        rest = {name: value for name, value in cell.values.items() if name != "seed"}
        groups.setdefault(repr(rest), []).append(cell)
    return [_cell(spec, group, known) for group in groups.values()]


def _cell(spec: SweepSpec, group: list[plan.Cell], known: Mapping[str, TrialRecord]) -> CellResults:
    values = {name: value for name, value in group[0].values.items() if name != "seed"}
    records: list[TrialRecord] = []
    replicates: list[TrialRecord] = []
    winners: list[TrialRecord] = []
    repeats: dict[str, int] = {}
    for cell in group:
        mine = [record for record in known.values() if record.cell == cell.name]
        records += mine
        replicates += (own := attempts(spec, cell, mine))
        repeats |= {record.id: cell.repeat for record in own if cell.repeat}
        winner = best(spec, cell, mine)
        if winner is not None:
            winners.append(winner)
        if "seed" in cell.values:
            # if no trial has a result, the last one stands for this seed
            replicates += [winner] if winner is not None else mine[-1:]
            failed = known.get(replicates[-1].id.removesuffix(WARMUP_SUFFIX)) if mine else None
            if failed is not None and failed is not replicates[-1]:
                replicates.append(failed)
    lowest = min(winners, key=lambda r: (r.outcome != "ok", r.end_loss or 0.0), default=None)
    return CellResults(plan.cell_name(spec, values), values, records, replicates, lowest, repeats)
