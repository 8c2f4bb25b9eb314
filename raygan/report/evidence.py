"""What the verdict rests on: the runs of each cell, and the losses by which they are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from raygan.records import DATASET, WARMUP_SUFFIX, TrialRecord
from raygan.report.claim import Claim, PlanEntry
from raygan.report.compare import LEAST, Interval, Mean, geometric_mean, wilson
from raygan.report.finals import FinalResults, positive, protocol
from raygan.report.ladder import Agreement
from raygan.report.tables import setting

P = ParamSpec("P")
T = TypeVar("T")


def once(
    of: Callable[Concatenate[Evidence, P], T],
) -> Callable[Concatenate[Evidence, P], T]:
    """``of``, computed once for each evidence and further argument.

    Answers, tables and figures, and every cell, ask for the same. Nobody may change what it gives.
    """

    @wraps(of)
    def known(evidence: Evidence, *more: P.args, **named: P.kwargs) -> T:
        key = (of, more, *named.items())
        if key not in evidence.known:
            evidence.known[key] = of(evidence, *more, **named)
        found: T = evidence.known[key]
        return found

    return known


def dataset_of(values: Mapping[str, Any]) -> str:
    """Label of the data set of a cell with these ``values``; empty if the sweep has one."""
    return str(values.get(DATASET, ""))


@dataclass(frozen=True, eq=False)
class CellResults:
    """The results of one cell of the grid, over all its seeds."""

    name: str
    values: dict[str, Any]
    """The grid's values, without the seed."""
    records: list[TrialRecord]
    """All trials of the cell."""
    replicates: list[TrialRecord]
    """The replicates of the best settings, whatever their outcome, with and without a warm-up;
    empty if the sweep has none."""
    best: TrialRecord | None
    """The trial with the lowest end loss; a replicate if there are replicates."""
    repeats: Mapping[str, int] = field(default_factory=dict)
    """By id of a replicate, the number of the search that it belongs to, if the whole search was
    repeated; else empty."""

    @property
    def dataset(self) -> str:
        """Label of its data set; empty if the sweep has one."""
        return dataset_of(self.values)

    @cached_property
    def runs(self) -> dict[int, TrialRecord]:
        """By seed, the runs that the verdict rests on, all of one setting.

        =========================================  =============================================
        If …                                       the runs are …
        =========================================  =============================================
        the sweep has no replicates                the best trial alone
        every seed has a run with a warm-up        the runs with a warm-up
        otherwise                                  the runs without; early failures have failed
        =========================================  =============================================

        If several settings were replicated, the runs are those of the setting that the search
        ranked first. To choose by the compared runs themselves would make the cell look better than
        it is.
        """
        if not self.replicates:
            return {int(self.best.config["seed"]): self.best} if self.best else {}
        plain, warm = self._chosen
        return warm if plain.keys() <= warm.keys() else plain

    @property
    def lost_before(self) -> list[TrialRecord]:
        """The failed runs without a warm-up, if :attr:`runs` are those with a warm-up; else
        empty."""
        return [r for r in self.tried_before if r.outcome not in ("ok", "stopped")]

    @property
    def tried_before(self) -> list[TrialRecord]:
        """The ended runs without a warm-up, if :attr:`runs` are those with a warm-up; else
        empty."""
        if not self.replicates or self.runs is not self._chosen[1]:
            return []
        return [record for record in self._chosen[0].values() if record.outcome is not None]

    @property
    def _chosen(self) -> tuple[dict[int, TrialRecord], dict[int, TrialRecord]]:
        return self._by_setting[min(self._by_setting, key=self._search_rank)]

    @property
    def replicated_settings(self) -> int:
        """How many settings were replicated."""
        return len(self._by_setting)

    @cached_property
    def _by_setting(self) -> dict[str, tuple[dict[int, TrialRecord], dict[int, TrialRecord]]]:
        """By setting, the replicates without and those with a warm-up, each by seed."""
        by_setting: dict[str, tuple[dict[int, TrialRecord], dict[int, TrialRecord]]] = {}
        for record in self.replicates:
            # if the seed is an axis of the grid, or the search was repeated, each seed or repeat
            # has a search of its own, and its best setting counts
            alike = record.kind == "replicate" and not self.repeats
            chosen = repr(record.params) if alike else ""
            both = by_setting.setdefault(chosen, ({}, {}))
            both[record.id.endswith(WARMUP_SUFFIX)][int(record.config["seed"])] = record
        return by_setting

    def _search_rank(self, chosen: str) -> tuple[bool, float]:
        """Sort key by which the search ranks a setting: outcome ok first, then the end loss."""
        return min(
            (
                (record.outcome != "ok", record.end_loss or math.inf)
                for record in self.records
                if record.kind == "search" and repr(record.params) == chosen
            ),
            default=(True, math.inf),
        )

    @property
    def ended(self) -> list[TrialRecord]:
        """The runs that have ended."""
        return [record for record in self.runs.values() if record.outcome is not None]

    @property
    def failed(self) -> list[TrialRecord]:
        """The runs that ended without a result."""
        return [record for record in self.ended if record.outcome not in ("ok", "stopped")]

    def units(self, values: Mapping[int, float]) -> dict[int, float]:
        """The values that are compared: ``values`` by seed or, if the search was repeated, the
        geometric mean of each repeat. ``values``: positive, by seed.

        A repeat with a run without a result has none: the mean of its other runs would be too low.
        """
        if not self.repeats:
            return dict(values)
        logs: dict[int, list[float]] = {}
        for seed, value in self.kept(values).items():
            logs.setdefault(self.repeats[self.runs[seed].id], []).append(math.log(value))
        return {repeat: math.exp(sum(mine) / len(mine)) for repeat, mine in logs.items()}

    def kept(self, values: Mapping[int, T]) -> dict[int, T]:
        """``values`` by seed, without those of repeats that count as lost."""
        lost = {self.repeats[record.id] for record in self.failed} if self.repeats else set()
        return {
            seed: value
            for seed, value in values.items()
            if not lost or self.repeats[self.runs[seed].id] not in lost
        }

    @property
    def tried(self) -> int:
        """Number of ended runs or, if the search was repeated, of repeats with an ended run."""
        if not self.repeats:
            return len(self.ended)
        return len({self.repeats[record.id] for record in self.ended})

    @property
    def unit(self) -> str:
        """The word for one value that is compared: run or repeat."""
        return "repeat" if self.repeats else "run"

    @property
    def lost(self) -> int:
        """How many of :attr:`tried` gave no result; of repeats, those with such a run."""
        if not self.repeats:
            return len(self.failed)
        return len({self.repeats[record.id] for record in self.failed})

    @property
    def failure_rate(self) -> Interval | None:
        """Wilson's interval of the share of failed runs.

        None without replicates, and if the search was repeated, since its runs are not independent.
        """
        if self.repeats or not self.replicates:
            return None
        return wilson(len(self.failed), len(self.ended))

    @property
    def setting(self) -> str:
        """The searched values of its runs, in words."""
        settings = list(dict.fromkeys(setting(record) for record in self.runs.values()))
        return settings[0] if len(settings) == 1 else "one per seed" if settings else ""


@dataclass(frozen=True)
class DataSet:
    """What a report says of the images of a data set."""

    described: Mapping[str, Any] = field(default_factory=dict)
    """Their description, for people."""
    baseline: float | None = None
    """Loss of the mean training image."""


@dataclass(frozen=True)
class Evidence:
    """The results of a sweep so far, or those of one of its data sets.

    Losses of different data sets are not compared: :attr:`parts` has the evidence of each.
    """

    name: str
    cells: list[CellResults]
    sets: Mapping[str, DataSet] = field(default_factory=dict)
    """The data sets by label; that of a sweep's only one is empty."""
    expected_trials: int | None = None
    """Number of trials of the whole sweep, as far as is known."""
    finished: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that the runs were trained with."""
    spent: dict[str, float] = field(default_factory=dict)
    yaml: str = ""
    """The sweep's resolved YAML."""
    search_method: str = ""
    """grid, random or tpe; empty if it is not known."""
    finals: FinalResults = field(default_factory=dict)
    """Results of the final test."""
    other_tests: Mapping[str, str] = field(default_factory=dict)
    """By trial with a final test that is not in ``finals``, since its settings are not those of the
    others: how they differ, in words."""
    fids: FinalResults = field(default_factory=dict)
    """FID and KID, if they were computed."""
    qualities: FinalResults = field(default_factory=dict)
    """Quality of the samples of each generator, where it was measured."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By trial, the loss of its best generator on each final image; only if there are so few images
    that their choice adds to the uncertainty."""
    resplit: bool = False
    """Whether each seed drew its own held-out images."""
    claims: tuple[Claim, ...] = ()
    """The declared claims, and those that were added later."""
    plans: tuple[PlanEntry, ...] = ()
    """The registered plan and its later changes."""
    rule: Agreement | None = None
    """How well losses at the first rung agree with end losses; None without early stopping."""
    alpha: float = 0.05
    """Chance that any claim of a family is false; below 0.05 if seeds were added in several looks.
    """
    whole: Evidence | None = None
    """The evidence of all data sets, if this is that of one of several."""

    @cached_property
    def families(self) -> dict[Any, Any]:
        """Comparisons that are known already, by what is compared: see
        :func:`raygan.report.family.family`."""
        return {}

    @cached_property
    def known(self) -> dict[Any, Any]:
        """What was computed of it already: see :func:`once`."""
        return {}

    @cached_property
    def parts(self) -> dict[str, Evidence]:
        """By label, the evidence of each data set. With one, it is this evidence itself."""
        labels = list(dict.fromkeys(cell.dataset for cell in self.cells)) or [""]
        if len(labels) == 1:
            return {labels[0]: self}
        return {label: self._part(label) for label in labels}

    def _part(self, label: str) -> Evidence:
        cells = [cell for cell in self.cells if cell.dataset == label]
        mine = {record.id for cell in cells for record in cell.records}
        sets = {name: one for name, one in self.sets.items() if name == label}
        finals, fids = (
            {trial: tests for trial, tests in results.items() if trial in mine}
            for results in (self.finals, self.fids)
        )
        return replace(self, cells=cells, sets=sets, finals=finals, fids=fids, whole=self)

    def part(self, label: str) -> Evidence:
        """The evidence of the data set ``label``; that of a sweep with one is the whole."""
        return self.parts.get(label, self)

    @property
    def several(self) -> bool:
        """Whether there are several data sets."""
        return len(self.parts) > 1

    @property
    def baseline(self) -> float | None:
        """Loss of the mean training image, if it is known; None with several data sets."""
        baselines = [one.baseline for one in self.sets.values()]
        return baselines[0] if len(baselines) == 1 else None

    def baseline_of(self, cell: CellResults) -> float | None:
        """Loss of the mean training image of the cell's data set, if it is known."""
        found = self.sets.get(cell.dataset)
        return None if found is None else found.baseline

    @property
    def records(self) -> list[TrialRecord]:
        """All trials."""
        return [record for cell in self.cells for record in cell.records]

    @property
    def replicated(self) -> bool:
        """Whether any cell has runs with several seeds."""
        return any(len(cell.runs) > 1 for cell in self.cells)

    @cached_property
    def by_final_test(self) -> bool:
        """Whether the verdict is based on the final test: every run that ended ok, on any data set,
        has taken it."""
        if self.whole is not None:
            return self.whole.by_final_test
        whole = [r for cell in self.cells for r in cell.runs.values() if r.outcome == "ok"]
        return bool(whole) and all(self.final_loss(r, "best") is not None for r in whole)

    @property
    def measure(self) -> str:
        """The loss by which runs are compared, in words."""
        if not self.by_final_test:
            return "end loss of the running test"
        what = "final test's loss of the best generator"
        if self.several:
            measures = {part.measure for part in self.parts.values() if part.ranked}
            return measures.pop() if len(measures) == 1 else what
        first = next((tests["best"] for tests in self.finals.values() if "best" in tests), {})
        images, steps = first.get("images"), first.get("steps")
        said = [f"{images:,} images", f"{steps:,} steps"] if images and steps else []
        if protocol(first) == "authors":
            said.append("the authors' protocol")
        return f"{what} ({', '.join(said)})" if said else what

    @property
    def counts_images(self) -> bool:
        """Whether intervals of differences include the choice of the images.

        For this, the losses of the same number of images must be known for all runs of the verdict;
        of several data sets, for those of each.
        """
        if self.several:
            return all(part.counts_images for part in self.parts.values() if part.ranked)
        runs = [cell.runs[seed].id for cell in self.cells for seed in self.losses(cell)]
        counts = {len(self.images.get(run, ())) for run in runs}
        return self.by_final_test and len(counts) == 1 and 0 not in counts

    @property
    def final_images(self) -> int | None:
        """The smallest number of images of any final test; None without a final test."""
        counts = [t["best"].get("images") for t in self.finals.values() if "best" in t]
        return min((count for count in counts if count), default=None)

    def final_loss(self, record: TrialRecord, which: str) -> float | None:
        """The loss of a trial's ``best`` or ``last`` generator in the final test; None without
        one."""
        return positive(self.finals.get(record.id, {}).get(which, {}), "loss")

    def final_losses(self, cell: CellResults, which: str, key: str) -> dict[int, float]:
        """By seed, the value ``key`` of the final tests of the cell's runs that ended ok."""
        tests = {
            seed: self.finals.get(record.id, {}).get(which, {})
            for seed, record in cell.runs.items()
            if record.outcome == "ok"
        }
        values = {seed: positive(test, key) for seed, test in tests.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    def losses(self, cell: CellResults) -> dict[int, float]:
        """By seed, the loss of the cell's runs that ended ok."""
        losses = {}
        for seed, record in cell.runs.items():
            loss = self.final_loss(record, "best") if self.by_final_test else record.end_loss
            if record.outcome == "ok" and loss:
                losses[seed] = loss
        return losses

    @cached_property
    def ranked(self) -> list[CellResults]:
        """The cells with a loss, ordered by their mean, the lowest first. Those of each data set
        stand together."""
        order = list(self.parts)
        usable = [cell for cell in self.cells if self.units(cell)]
        return sorted(usable, key=lambda cell: (order.index(cell.dataset), self.mean(cell)))

    @property
    def ordered(self) -> list[CellResults]:
        """All cells of each data set: first those with a loss, the lowest mean first."""
        order, usable = list(self.parts), self.ranked
        every = [*usable, *(cell for cell in self.cells if cell not in usable)]
        return sorted(every, key=lambda cell: order.index(cell.dataset))

    @cached_property
    def comparable(self) -> list[CellResults]:
        """The cells with enough runs for a claim, ordered as :attr:`ranked`."""
        return [cell for cell in self.ranked if len(self.units(cell)) >= LEAST]

    def units(self, cell: CellResults) -> dict[int, float]:
        """The losses that are compared, by seed or by repeat of the search."""
        return cell.units(self.losses(cell))

    def mean(self, cell: CellResults) -> float:
        """Geometric mean of the losses of a cell, which must have one."""
        return self.summary(cell).value

    def summary(self, cell: CellResults) -> Mean:
        """:meth:`mean` with its spread and its interval."""
        mean = geometric_mean(list(self.units(cell).values()))
        assert mean is not None
        return mean

    def best_run(self, cell: CellResults) -> TrialRecord:
        """The run with the lowest loss of a cell that has one."""
        losses = self.losses(cell)
        return cell.runs[min(losses, key=losses.__getitem__)]
