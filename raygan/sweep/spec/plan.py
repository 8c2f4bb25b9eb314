"""From a spec to cells and trials, before anything runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from raygan.gan.config import TrainConfig, choices
from raygan.records import DATASET, WARMUP_SUFFIX, Kind, TrialRecord
from raygan.sweep.spec.space import trials_per_cell
from raygan.sweep.spec.yaml_sections import MOST_SEEDS, MOST_TRIALS, Scalar, Warmup

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

_SEARCH_SEEDS = 1_000_000
"""From ``train.seed`` to the seed of the first search trial: beyond the seeds of all replicates."""
_SEEDS = 2**63
"""How many seeds there are."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid, or one repeat of its search; trials of different cells never
    compete."""

    name: str
    values: dict[str, Scalar]
    repeat: int = 0
    """Which repeat of the search it is, from 1 on; 0: the search is not repeated."""


def cells(spec: SweepSpec) -> list[Cell]:
    """The product of the grid's axes, the first axis slowest; repeats of a search side by side."""
    axes = spec.axes()
    points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    repeats = range(1, (spec.search.repeats or 0) + 1) or [0]
    return [
        Cell(cell_name(spec, values) + (f"_repeat={n}" if n else ""), values, n)
        for values in points
        for n in repeats
    ]


def cell_name(spec: SweepSpec, values: dict[str, Scalar]) -> str:
    """What the cell with these values of the grid's axes is called."""
    if not values:
        # a searched norm is no cell
        return "all" if "norm" in spec.space() else str(spec.fixed("norm"))
    return "_".join(_word(name, value) for name, value in values.items())


def _word(name: str, value: Scalar) -> str:
    if name == DATASET or name in choices():
        return str(value)
    # as exact as it takes: two cells never share a name
    short = format_value(value)
    exact = repr(value) if isinstance(value, float) and float(short) != value else short
    return f"{name}={exact}"


def format_value(value: Any) -> str:
    """A value as people write it: 1e-4 for 0.0001, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}" if value >= 1e-2 else _exponent(value)
    return str(value)


def _exponent(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def all_settings(spec: SweepSpec) -> str | None:
    """Says so if each cell tries all of its settings, and ``search.trials`` asks for more."""
    asked, most = spec.search.trials, trials_per_cell(spec)
    if asked is None or asked <= most:
        return None
    return f"`search.trials` (={asked}) is more than there are settings: each cell tries all {most}"


def replicates_per_cell(spec: SweepSpec, seeds: int | None = None) -> int:
    """How many replicates each cell takes, with so many ``seeds``; by default at most."""
    settings = min(spec.replicate.top, max(1, trials_per_cell(spec)))
    return settings * (spec.replicate.most if seeds is None else seeds)


@dataclass(frozen=True)
class TrialPlan:
    """One trial: an id that is the same in every run of the same sweep, and its configuration."""

    id: str
    cell: str
    index: int
    params: dict[str, Any]
    """The searched fields' values."""
    config: TrainConfig
    kind: Kind = "search"
    title: str = ""
    """What it is, for people: ``wn lr=1e-4``."""
    dataset: str = ""
    """Label of the data set; empty in sweeps of earlier versions, which have one."""

    @property
    def values(self) -> dict[str, Any]:
        """Its configuration and its data set by name, those of the grid's axes among them."""
        return {**self.config.to_dict(), DATASET: self.dataset}


def _title(cell: Cell, params: dict[str, Any]) -> str:
    return " ".join([cell.name, *(f"{k}={format_value(v)}" for k, v in params.items())])


def trial(spec: SweepSpec, cell: Cell, index: int, params: dict[str, Any]) -> TrialPlan:
    """Search trial ``index`` of ``cell`` with the searched values ``params``.

    It has a training seed of its own, the same in every cell, which no replicate has: no search
    chooses what suits one seed. A cell without a search keeps ``train.seed``.
    """
    values = {**cell.values, **params}
    if spec.space() and "seed" not in values:
        number = cell.repeat * MOST_TRIALS + index
        values["seed"] = (spec.train.seed + _SEARCH_SEEDS + number) % _SEEDS
    config = spec.train_config(**values)
    id, title = f"{cell.name}-{index:03d}", _title(cell, params)
    label = spec.label_of(cell.values)
    return TrialPlan(id, cell.name, index, params, config, title=title, dataset=label)


def replicate(
    spec: SweepSpec, cell: Cell, index: int, params: dict[str, Any], source: str
) -> TrialPlan:
    """Replicate ``index`` of the setting ``params``, which trial ``source`` has found.

    Its seed is one that no search trial and no other repeat has, and the same in every cell.
    """
    seed = _replicate_seed(spec, cell, index)
    config = spec.train_config(**cell.values, **params, seed=seed)
    title = f"{_title(cell, params)} s{seed}"
    id = replicate_id(spec, cell, index, source)
    label = spec.label_of(cell.values)
    return TrialPlan(id, cell.name, index, params, config, "replicate", title, label)


def replicate_id(spec: SweepSpec, cell: Cell, index: int, source: str) -> str:
    """Id of replicate ``index`` of the setting that trial ``source`` has found."""
    return f"{source}-seed{_replicate_seed(spec, cell, index)}"


def _replicate_seed(spec: SweepSpec, cell: Cell, index: int) -> int:
    """One that no search trial and no other repeat has, and the same in every cell."""
    return spec.train.seed + 1 + max(0, cell.repeat - 1) * MOST_SEEDS + index


def with_warmup(planned: TrialPlan, warmup: Warmup) -> TrialPlan:
    """``planned`` with its first iterations at a lower learning rate."""
    return replace(
        planned,
        id=f"{planned.id}{WARMUP_SUFFIX}",
        title=f"{planned.title} warmup",
        config=replace(planned.config, warmup=warmup.iterations, warmup_factor=warmup.factor),
    )


def is_retry(id: str) -> bool:
    """Whether a trial's id is that of one with a warm-up after an early failure."""
    return id.endswith(WARMUP_SUFFIX)


def of_record(record: TrialRecord) -> TrialPlan:
    """The plan that ``record`` came from."""
    config = TrainConfig.of(**record.config)
    return TrialPlan(
        record.id,
        record.cell,
        record.index,
        record.params,
        config,
        record.kind,
        record.title,
        record.dataset,
    )
