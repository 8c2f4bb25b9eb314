"""What a verdict stands on: each cell's runs by seed, and the loss that they are compared by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from raygan.records import TrialRecord
from raygan.report.claims import Claim, PlanEntry
from raygan.report.compare import LEAST, Interval, Mean, geometric_mean, wilson
from raygan.report.finals import Found, positive
from raygan.report.ladder import Agreement
from raygan.report.tables import RETRY, setting


@dataclass(frozen=True, eq=False)
class Cell:
    """One recipe that is compared: a point of the sweep's grid, over all its seeds."""

    name: str
    values: dict[str, Any]
    """The grid's values but the seed."""
    records: list[TrialRecord]
    """All its trials."""
    replicates: list[TrialRecord]
    """Its best settings with several seeds, whatever their outcome, with and without a warm-up;
    empty if the sweep has none."""
    best: TrialRecord | None
    """The trial that ended lowest, of the replicates if there are some."""
    repeats: Mapping[str, int] = field(default_factory=dict)
    """Number of the search that each replicate belongs to, by trial, where the whole search was
    repeated."""

    @cached_property
    def runs(self) -> dict[int, TrialRecord]:
        """The runs that carry the verdict, by seed, all of one recipe: those with a warm-up if
        every seed has one, else those without, of which the early failures are failures.

        Of several replicated settings, those of the one that the search ranked first: whoever
        chooses by the runs that are compared makes the cell look better than it is. Without
        replicates, the best trial alone.
        """
        if not self.replicates:
            return {int(self.best.config["seed"]): self.best} if self.best else {}
        plain, warm = self._chosen
        return warm if plain.keys() <= warm.keys() else plain

    @property
    def lost_before(self) -> list[TrialRecord]:
        """The attempts without a warm-up that failed, if all of :attr:`runs` have one."""
        return [r for r in self.tried_before if r.outcome not in ("ok", "stopped")]

    @property
    def tried_before(self) -> list[TrialRecord]:
        """The ended attempts without a warm-up, if all of :attr:`runs` have one."""
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
        """By setting and seed, the replicates without and with a warm-up."""
        by_setting: dict[str, tuple[dict[int, TrialRecord], dict[int, TrialRecord]]] = {}
        for record in self.replicates:
            # where the seed is an axis of the grid, or the search was repeated, each seed or repeat
            # was searched by itself
            alike = record.kind == "replicate" and not self.repeats
            chosen = repr(record.params) if alike else ""
            both = by_setting.setdefault(chosen, ({}, {}))
            both[record.id.endswith(RETRY)][int(record.config["seed"])] = record
        return by_setting

    def _search_rank(self, chosen: str) -> tuple[bool, float]:
        """How the search ranked a setting: trials that ran to their end first, then by loss."""
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
        """The runs that have their outcome."""
        return [record for record in self.runs.values() if record.outcome is not None]

    @property
    def failed(self) -> list[TrialRecord]:
        """The runs that ended without a result."""
        return [record for record in self.ended if record.outcome not in ("ok", "stopped")]

    def units(self, values: Mapping[int, float]) -> dict[int, float]:
        """What is compared: ``values`` (positive, by seed), or, where the search was repeated, the
        geometric mean of each repeat's."""
        if not self.repeats:
            return dict(values)
        logs: dict[int, list[float]] = {}
        for seed, value in values.items():
            logs.setdefault(self.repeats[self.runs[seed].id], []).append(math.log(value))
        return {repeat: math.exp(sum(found) / len(found)) for repeat, found in logs.items()}

    @property
    def tried(self) -> int:
        """Runs that have ended, or repeats of the search of which some run has."""
        if not self.repeats:
            return len(self.ended)
        return len({self.repeats[record.id] for record in self.ended})

    @property
    def unit(self) -> str:
        """What is compared, in a word."""
        return "repeat" if self.repeats else "run"

    @property
    def lost(self) -> int:
        """Those of :attr:`tried` of which no run gave a result."""
        if not self.repeats:
            return len(self.failed)
        gave = {self.repeats[r.id] for r in self.ended if r not in self.failed}
        return self.tried - len(gave)

    @property
    def failure_rate(self) -> Interval | None:
        """Wilson's interval of the share of failed runs; None for runs of repeats of the search,
        which are not independent, and without replicates."""
        if self.repeats or not self.replicates:
            return None
        return wilson(len(self.failed), len(self.ended))

    @property
    def setting(self) -> str:
        """The searched values of its runs, in words."""
        found = list(dict.fromkeys(setting(record) for record in self.runs.values()))
        return found[0] if len(found) == 1 else "one per seed" if found else ""


@dataclass(frozen=True)
class Evidence:
    """A sweep's results, as far as there are some."""

    name: str
    cells: list[Cell]
    baseline: float | None = None
    """Loss of the mean training image."""
    expected_trials: int | None = None
    """Trials that the sweep takes in all, as far as is known."""
    finished: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    """What the images are, for people."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the code that trained."""
    spent: dict[str, float] = field(default_factory=dict)
    recipe: str = ""
    """The sweep's resolved YAML."""
    search_method: str = ""
    """How the search draws its settings: grid, random or tpe; empty if that is not known."""
    finals: Found = field(default_factory=dict)
    """Results of the final test."""
    fids: Found = field(default_factory=dict)
    """FID and KID, if they were computed."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Losses of each final image, by trial, of its best generator; only where there are so few
    images that they add to the uncertainty."""
    resplit: bool = False
    """Whether each seed drew its own held-out images."""
    claims: tuple[Claim, ...] = ()
    """What the sweep has declared, or was asked later."""
    plans: tuple[PlanEntry, ...] = ()
    """The sweep's plan, with the time before its first trial, and its later changes."""
    rule: Agreement | None = None
    """How well the first rung of early stopping told where trials ended; None without a rule."""
    alpha: float = 0.05
    """Chance that any claim of a kind is false: less where the seeds were added in several looks.
    """

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
        """Whether the verdict stands on the final test: every run that ended ok has taken it."""
        whole = [r for cell in self.cells for r in cell.runs.values() if r.outcome == "ok"]
        return bool(whole) and all(self.final_loss(r, "best") is not None for r in whole)

    @property
    def measure(self) -> str:
        """What the loss is that runs are compared by."""
        if not self.by_final_test:
            return "end loss of the running test"
        tests = [found["best"] for found in self.finals.values() if "best" in found]
        images, steps = tests[0].get("images"), tests[0].get("steps")
        size = f" ({images:,} images, {steps:,} steps)" if images and steps else ""
        return f"final test's loss of the best generator{size}"

    @property
    def counts_images(self) -> bool:
        """Whether the choice of the images is in the intervals of differences: the losses of as
        many images are known for all runs that the verdict stands on."""
        runs = [cell.runs[seed].id for cell in self.cells for seed in self.losses(cell)]
        counts = {len(self.images.get(run, ())) for run in runs}
        return self.by_final_test and len(counts) == 1 and 0 not in counts

    @property
    def final_images(self) -> int | None:
        """The fewest images of any final test; None without one."""
        counts = [t["best"].get("images") for t in self.finals.values() if "best" in t]
        return min((count for count in counts if count), default=None)

    def final_loss(self, record: TrialRecord, which: str) -> float | None:
        """The final test's loss of a trial's ``best`` or ``last`` generator, if it was taken."""
        return positive(self.finals.get(record.id, {}).get(which, {}), "loss")

    def final_losses(self, cell: Cell, which: str, key: str) -> dict[int, float]:
        """What the final tests of the cell's runs that ended ok have under ``key``, by seed."""
        tests = {
            seed: self.finals.get(record.id, {}).get(which, {})
            for seed, record in cell.runs.items()
            if record.outcome == "ok"
        }
        found = {seed: positive(test, key) for seed, test in tests.items()}
        return {seed: loss for seed, loss in found.items() if loss is not None}

    def losses(self, cell: Cell) -> dict[int, float]:
        """The loss by seed of the cell's runs that ended ok."""
        found = {}
        for seed, record in cell.runs.items():
            loss = self.final_loss(record, "best") if self.by_final_test else record.end_loss
            if record.outcome == "ok" and loss:
                found[seed] = loss
        return found

    @cached_property
    def ranked(self) -> list[Cell]:
        """The cells with a loss, that with the lowest mean first."""
        usable = [cell for cell in self.cells if self.losses(cell)]
        return sorted(usable, key=self.mean)

    @cached_property
    def comparable(self) -> list[Cell]:
        """The cells with enough runs for a claim, that with the lowest mean first."""
        return [cell for cell in self.ranked if len(self.units(cell)) >= LEAST]

    def units(self, cell: Cell) -> dict[int, float]:
        """The losses that are compared: by seed, or by repeat of the search."""
        return cell.units(self.losses(cell))

    def mean(self, cell: Cell) -> float:
        """Geometric mean of the loss over the runs of a cell that has one."""
        return self.summary(cell).value

    def summary(self, cell: Cell) -> Mean:
        """The same with its spread and interval."""
        found = geometric_mean(list(self.units(cell).values()))
        assert found is not None
        return found

    @property
    def champion(self) -> TrialRecord | None:
        """The sweep's best run: :meth:`best_run` of the cell with the lowest mean loss."""
        return self.best_run(self.ranked[0]) if self.ranked else None

    def best_run(self, cell: Cell) -> TrialRecord:
        """The run with the lowest loss of a cell that has one."""
        losses = self.losses(cell)
        return cell.runs[min(losses, key=losses.__getitem__)]

    def reference(self, cell: Cell) -> Cell | None:
        """What ``cell`` is held against: the same without a normalisation, else the first cell."""
        plain = {**cell.values, "norm": "vanilla"}
        twin = next((other for other in self.cells if other.values == plain), None)
        return twin or next(iter(self.cells), None)
