"""From a spec to cells and trials, before anything runs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from raygan.gan.config import CHOICES, TrainConfig
from raygan.sweep.sections import Range, Scalar
from raygan.sweep.spec import SweepSpec, search_method


@dataclass(frozen=True)
class Cell:
    """One point of the grid; trials of different cells never compete."""

    name: str
    values: dict[str, Scalar]


def cells(spec: SweepSpec) -> list[Cell]:
    """The product of the grid's axes, the first axis slowest."""
    axes = spec.axes()
    if not axes:
        # a searched norm is no cell
        return [Cell("all" if "norm" in spec.space() else spec.train.norm, {})]
    return [
        Cell("_".join(_word(name, value) for name, value in zip(axes, point, strict=True)),
             dict(zip(axes, point, strict=True)))
        for point in itertools.product(*axes.values())
    ]  # fmt: skip


def _word(name: str, value: Scalar) -> str:
    if name in CHOICES:
        return str(value)
    # as exact as it takes: two cells never share a name
    exact = format_value(value) if float(format_value(value)) == value else repr(value)
    return f"{name}={exact}"


def format_value(value: Any) -> str:
    """A value as people write it: 1e-4 for 0.0001."""
    if isinstance(value, float):
        return f"{value:.3g}" if value >= 1e-2 else _exponent(value)
    return str(value)


def _exponent(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def trials_per_cell(spec: SweepSpec) -> int:
    """How many trials each cell's search takes."""
    space = spec.space()
    if not space:
        return 1
    if search_method(spec) == "grid":
        product = math.prod(len(v) for v in space.values() if not isinstance(v, Range))
        return min(product, spec.search.trials or product)
    return int(spec.search.trials or 1)


@dataclass(frozen=True)
class TrialPlan:
    """One trial: an id that is the same in every run of the same sweep, and its configuration."""

    id: str
    cell: str
    index: int
    params: dict[str, Any]
    """The searched fields' values."""
    config: TrainConfig

    @property
    def title(self) -> str:
        """What it is, for people: ``wn lr=1e-4``."""
        return " ".join([self.cell, *(f"{k}={format_value(v)}" for k, v in self.params.items())])


def trial(spec: SweepSpec, cell: Cell, index: int, params: dict[str, Any]) -> TrialPlan:
    """Trial ``index`` of ``cell`` with the searched values ``params``."""
    config = spec.train_config(**cell.values, **params)
    return TrialPlan(f"{cell.name}-{index:03d}", cell.name, index, params, config)
