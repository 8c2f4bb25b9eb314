"""How often the report claims what is not so, how often its intervals cover, what it finds.

    python tests/bench/claims.py --sweeps 800

Sweeps whose truth is known are drawn, and the report's own code is asked what it claims. ln(loss)
of a run is normal (or Student's t with 3 degrees of freedom) with the standard deviations that
were seen in practice. g = ln(last / best loss) and the log area of the curve are drawn in the same
way, with no difference between cells and no worsening. Failing runs are a share of the last
cell's, or of all cells', taken from its worst ones or by chance. Each scenario has a seed of its
own, made of --seed and its name. In brackets: the 95% interval of the simulation itself (Wilson).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.gan.config import TrainConfig
from raygan.records import LOSS, STEP, TrialRecord
from raygan.report.claim import Claim
from raygan.report.compare import geometric_mean, wilson
from raygan.report.declared import results
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Comparison, Family, of_losses, of_speed, of_worsening
from raygan.report.multiple import Choice
from raygan.report.sections import differing_failures, worse_again

EQUAL = (0.03,)
SEEN = (0.014, 0.014, 0.049)
"""Standard deviations of ln(loss) of three cells of a sweep."""
MARGIN = 0.05
LOOKS = ((5, 0.01), (8, 0.015), (12, 0.025))
"""Runs of each cell and level at each look."""
COUNTS = (3, 4, 5, 8, 10)
_SAME = 1e-3
"""Cells whose true means of ln(loss) are nearer than this are equal."""
_CONFIGS = [{**TrainConfig().to_dict(), "seed": seed} for seed in range(LOOKS[-1][0])]


@dataclass(frozen=True)
class Scenario:
    """What is true of a sweep."""

    cells: int = 3
    """Per stratum."""
    n: int = 5
    spreads: tuple[float, ...] = EQUAL
    """Standard deviations of ln(loss); repeated so that the last cell has the last one."""
    strata: int = 1
    heavy: bool = False
    """Student's t with 3 degrees of freedom, scaled to the same standard deviation."""
    failing: float = 0.0
    """Share of failing runs."""
    related: bool = False
    """Whether the worst runs fail; otherwise each with the same chance."""
    all_fail: bool = False
    """Whether all cells have failing runs; otherwise the last one alone."""
    steps: tuple[float, ...] = ()
    """True means of ln(loss) of the cells, if they differ."""
    sets: bool = False
    """Whether the strata are data sets, each with losses three times as high as the one before."""
    looks: tuple[tuple[int, float], ...] = ()
    """Runs and level at each look; it is stopped once all comparisons are claimed."""

    @property
    def name(self) -> str:
        """All of it in words: what a row of the table is called."""
        size = f"{self.cells}×{self.strata}" if self.strata > 1 else f"{self.cells}"
        size += " sets" if self.sets else ""
        n = "until " + str(self.looks[-1][0]) if self.looks else str(self.n)
        words = [f"k={size} n={n}", "equal" if self.spreads == EQUAL else "unequal"]
        if self.heavy:
            words.append("heavy")
        if self.failing:
            words.append(f"{'all' if self.all_fail else 'one'} fail {self.failing:.0%} "
                         f"{'worst' if self.related else 'chance'}")  # fmt: skip
        if self.steps:
            words.append("steps " + "/".join(f"{math.expm1(s):.0%}" for s in self.steps))
        return " ".join(words)

    @property
    def names(self) -> list[str]:
        """The cells' names."""
        if self.strata == 1:
            return [f"c{i}" for i in range(self.cells)]
        return [f"c{i} a{s}" for s in range(self.strata) for i in range(self.cells)]

    @property
    def sds(self) -> np.ndarray:
        """The standard deviation of each cell."""
        count, kinds = len(self.names), len(self.spreads)
        return np.array([self.spreads[(i - count) % kinds] for i in range(count)])

    @property
    def means(self) -> np.ndarray:
        """True mean of ln(loss) of each cell, beyond that of the first."""
        steps = self.steps or (0.0,) * self.cells
        level = math.log(3) if self.sets else 0.0
        return np.array([step + level * s for s in range(self.strata) for step in steps])

    @property
    def fails(self) -> np.ndarray:
        """Whether each cell has failing runs."""
        last = np.arange(len(self.names)) == len(self.names) - 1
        return np.where(self.all_fail | last, self.failing, 0.0)

    @property
    def survivors(self) -> np.ndarray:
        """True mean of ln(loss) of each cell's runs that give a result."""
        if not self.related:
            return self.means
        kept = 1 - self.fails
        cut = stats.norm.ppf(kept)
        return self.means - self.sds * stats.norm.pdf(cut) / kept


@dataclass(frozen=True)
class Sweep:
    """What is drawn of one sweep: floats [cells, runs]."""

    scenario: Scenario
    losses: np.ndarray
    worsening: np.ndarray
    areas: np.ndarray
    failed: np.ndarray

    def evidence(self, n: int, alpha: float, cells: tuple[int, ...] | None = None,
                 shift: float = 0.0) -> Evidence:  # fmt: skip
        """The first ``n`` runs of the cells; the last one's loss higher by ``shift`` (log)."""
        names = self.scenario.names
        chosen = range(len(names)) if cells is None else cells
        finals: dict[str, dict] = {}
        made = []
        for i in chosen:
            more = shift if i == len(names) - 1 else 0.0
            stratum = "dataset" if self.scenario.sets else "size"
            axes = dict(zip(("norm", stratum), names[i].split(), strict=False))
            runs = []
            for seed in range(n):
                run = self._run(names[i], i, seed)
                if run.outcome == "ok":
                    log = math.log(0.01) + self.losses[i, seed] + more
                    ends = {"best": log, "last": log + self.worsening[i, seed]}
                    finals[run.id] = {which: {"loss": math.exp(x)} for which, x in ends.items()}
                runs.append(run)
            made.append(CellResults(names[i], axes, runs, runs, runs[0]))
        return Evidence("drawn", made, finished=True, finals=finals, alpha=alpha)

    def _run(self, name: str, cell: int, seed: int) -> TrialRecord:
        area = math.exp(self.areas[cell, seed])
        history = [{STEP: 10.0, LOSS: area}, {STEP: 20.0, LOSS: area}]
        outcome = "diverged" if self.failed[cell, seed] else "ok"
        return TrialRecord(f"{name}-{seed}", name, seed, "", {}, _CONFIGS[seed], outcome,
                           history=history, kind="replicate")  # fmt: skip


def drawn(scenario: Scenario, sweeps: int, seed: int = 0) -> Iterator[Sweep]:
    """Sweeps of a scenario."""
    generator = np.random.default_rng([seed, zlib.crc32(scenario.name.encode())])
    n = scenario.looks[-1][0] if scenario.looks else scenario.n
    sds, fails = scenario.sds[:, None], scenario.fails[:, None]
    for _ in range(sweeps):
        shape = (3, len(sds), n)
        noise = generator.standard_normal(shape)
        if scenario.heavy:
            noise = generator.standard_t(3, shape) / math.sqrt(3)
        chance = generator.random((len(sds), n))
        if scenario.related:
            # a run that is bad is so in every way
            noise = np.broadcast_to(noise[0], shape)
            chance = stats.norm.sf(noise[0])
        losses, worsening, areas = noise * sds
        yield Sweep(scenario, losses + scenario.means[:, None], worsening, areas, chance < fails)


Found = dict[str, float]
"""Of one sweep: whether each false claim was made, and the share of intervals that cover."""
FALSE = ("difference", "best", "lower", "not worse", "equivalent", "gets worse", "worsening",
         "speed", "failures")  # fmt: skip
COVER = ("contrast", "mean")
POWER = ("best against second", "all pairs", "declared")


def judge(sweep: Sweep) -> Found:
    """What the report says of a sweep, held against the truth."""
    scenario = sweep.scenario
    evidence, family = looked(sweep)
    found = {
        "runs": float(len(evidence.cells[0].records)),
        **_of_losses(scenario, evidence, family),
    }
    found["gets worse"] = any(worse_again(evidence).values())
    found["worsening"] = any(c.claimed for c in of_worsening(evidence).comparisons)
    found["speed"] = any(c.claimed for c in of_speed(evidence).comparisons)
    if scenario.failing and scenario.all_fail:
        found["failures"] = bool(differing_failures(evidence))
    return found | _of_claims(sweep, evidence, family)


def judge_losses(sweep: Sweep) -> Found:
    """The part of it that is about the comparisons of the loss, which is fast."""
    return _of_losses(sweep.scenario, *looked(sweep))


def judge_claims(sweep: Sweep) -> Found:
    """The part of it that is about declared claims."""
    return _of_claims(sweep, *looked(sweep))


def looked(sweep: Sweep) -> tuple[Evidence, Family]:
    """What there is at the last look, and the comparisons of the loss."""
    scenario = sweep.scenario
    for n, alpha in scenario.looks or ((scenario.n, 0.05),):
        evidence = sweep.evidence(n, alpha)
        family = of_losses(evidence)
        if family.comparisons and all(c.claimed for c in family.comparisons):
            break
    return evidence, family


def _of_losses(scenario: Scenario, evidence: Evidence, family: Family) -> Found:
    names, found = scenario.names, Found()
    means = dict(zip(names, scenario.means, strict=True))
    wrong = [c for c in family.comparisons if c.claimed and _between(c, means) > -_SAME]
    found["difference"] = bool(wrong)
    # of equal cells the first is the best by a hair: a bound that leaves it out is false
    exact = {name: mean + 1e-9 * i for i, (name, mean) in enumerate(means.items())}
    if family.heterogeneous:
        found["strata differ"] = family.heterogeneous[0][1] <= evidence.alpha
    groups = [exact]
    if scenario.sets:
        groups = [{name: mean for name, mean in exact.items() if name.endswith(f" a{s}")}
                  for s in range(scenario.strata)]  # fmt: skip
    found["best"] = any(
        _is_false(choice, group) for group in groups for choice in family.choices
        if choice.cell in group
    )  # fmt: skip
    if scenario.sets:
        over = {f"c{i}": float(np.mean([exact[f"c{i} a{s}"] for s in range(scenario.strata)]))
                for i in range(scenario.cells)}  # fmt: skip
        found["best"] |= any(_is_false(choice, over) for choice in family.overall)
    survivors = dict(zip(names, scenario.survivors, strict=True))
    covers = []
    for c in family.comparisons:
        if (interval := c.contrast.interval()) is not None:
            covers.append(interval.low <= 100 * math.expm1(_between(c, survivors)) <= interval.high)
    if covers:
        found["contrast"] = float(np.mean(covers))
    covers = []
    for cell in evidence.cells:
        mean = geometric_mean(list(evidence.losses(cell).values()))
        if mean is not None and mean.interval is not None:
            truth = 0.01 * math.exp(survivors[cell.name])
            covers.append(mean.interval.low <= truth <= mean.interval.high)
    if covers:
        found["mean"] = float(np.mean(covers))
    if scenario.steps:
        first, second = sorted(names, key=means.__getitem__)[:2]
        pair = family.of(first, second)
        found["best against second"] = bool(pair and pair.claimed and pair.cell == first)
        apart = [c for c in family.comparisons if abs(_between(c, means)) > _SAME]
        found["all pairs"] = bool(apart) and all(c.claimed for c in apart)
    return found


def _is_false(choice: Choice, means: Mapping[str, float]) -> bool:
    """Whether the best cell is out, or gives up more than its bound."""
    above = means[choice.cell] - min(means.values())
    if choice.out and above == 0:
        return True
    return choice.regret is not None and choice.regret < 100 * math.expm1(above)


def _between(found: Comparison, means: Mapping[str, float]) -> float:
    """True difference of the two sides of a comparison, of cells or of values of an axis."""
    sides = [
        np.mean([mean for name, mean in means.items() if side in (name, *name.split())])
        for side in (found.cell, found.other)
    ]
    return float(sides[0] - sides[1])


def _of_claims(sweep: Sweep, evidence: Evidence, family: Family) -> Found:
    """Declared claims: that each other cell is lower than the first, and the last one at the
    margin's edge against the first."""
    names = sweep.scenario.names
    first, last = names[0], names[-1]
    if sweep.scenario.steps:
        claim = Claim("lower", first, names[1])
        (result,) = results(replace(evidence, claims=(claim,)), family)
        return {"declared": result.holds}
    lower = tuple(Claim("lower", name, first) for name in names[1:] if family.of(name, first))
    held = results(replace(evidence, claims=lower), family)
    found: Found = {"lower": any(result.holds for result in held)}
    n = len(evidence.cells[0].records)
    start = len(names) - sweep.scenario.cells  # of the last stratum
    edge = sweep.evidence(n, evidence.alpha, (start, len(names) - 1), math.log1p(MARGIN))
    of_edge = of_losses(edge)
    for kind in ("not_worse", "equivalent"):
        claim = Claim(kind, last, names[start], MARGIN)
        (result,) = results(replace(edge, claims=(claim,)), of_edge)
        found[kind.replace("_", " ")] = result.holds
    return found


def simulate(
    scenario: Scenario, sweeps: int, seed: int = 0, judge: Callable[[Sweep], Found] = judge
) -> dict[str, tuple[float, int]]:
    """By column: the mean over the sweeps, and how many sweeps have it."""
    found: dict[str, list[float]] = {}
    for sweep in drawn(scenario, sweeps, seed):
        for name, value in judge(sweep).items():
            found.setdefault(name, []).append(float(value))
    return {name: (float(np.mean(values)), len(values)) for name, values in found.items()}


def scenarios() -> list[Scenario]:
    """The rows of the table."""
    rows = []
    for spreads in (EQUAL, SEEN):
        for cells, strata in ((2, 1), (3, 1), (6, 1), (8, 1), (4, 2)):
            for n in COUNTS:
                rows.append(Scenario(cells, n, spreads, strata))
        rows += [Scenario(cells, n, spreads, heavy=True) for cells in (3, 8) for n in (3, 5, 10)]
        for all_fail in (False, True):
            for failing in (0.2, 0.5):
                for related in (True, False):
                    rows += [
                        Scenario(3, n, spreads, failing=failing, related=related, all_fail=all_fail)
                        for n in (5, 10)
                    ]
        rows += [Scenario(3, n, spreads, 3, sets=True) for n in COUNTS]
        rows.append(Scenario(4, 5, spreads, 2, failing=0.5, related=True))
        rows += [Scenario(cells, 12, spreads, looks=LOOKS) for cells in (2, 3)]
    near, far = math.log1p(0.05), math.log1p(0.10)
    rows += [Scenario(3, n, steps=(0.0, near, far)) for n in COUNTS]
    rows += [Scenario(2, 12, steps=(0.0, near), looks=LOOKS)]
    rows += [Scenario(3, 12, steps=(0.0, near, far), looks=LOOKS)]
    rows += [Scenario(3, 5, SEEN, steps=(0.0, near, far))]
    return rows


def table(rows: Mapping[str, Mapping[str, tuple[float, int]]], columns: tuple[str, ...]) -> str:
    """In Markdown, per cent."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, found in rows.items():
        shown = [_shown(*found[c]) if c in found else "–" for c in columns]
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def summary(rows: Mapping[Scenario, Mapping[str, tuple[float, int]]]) -> str:
    """The same over the numbers of runs: the mean, and in brackets the highest (of intervals, the
    lowest)."""
    groups: dict[str, list[Mapping[str, tuple[float, int]]]] = {}
    for scenario, found in rows.items():
        name = scenario.name if scenario.looks else re.sub(r" n=\S+", "", scenario.name)
        groups.setdefault(name, []).append(found)
    columns = (*FALSE, *COVER)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, found in groups.items():
        shown = []
        for column in columns:
            values = [100 * one[column][0] for one in found if column in one]
            worst = min if column in COVER else max
            shown.append(f"{np.mean(values):.1f} ({worst(values):.1f})" if values else "–")
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _shown(share: float, n: int) -> str:
    interval = wilson(round(share * n), n)
    assert interval is not None
    return f"{100 * share:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def main() -> None:
    options = _parser().parse_args()
    chosen = [s for s in scenarios() if options.only in s.name]
    print(f"{options.sweeps} sweeps per row, {options.sweeps // 4} with more than three cells, seed "
          f"{options.seed}\n", flush=True)  # fmt: skip
    started, rows = time.perf_counter(), {}
    for scenario in chosen:
        sweeps = options.sweeps // (4 if len(scenario.names) > 3 else 1)
        rows[scenario.name] = simulate(scenario, sweeps, options.seed)
        shown = ", ".join(f"{k} {100 * v:.1f}" for k, (v, _) in rows[scenario.name].items())
        print(f"{time.perf_counter() - started:5.0f} s  {scenario.name}: {shown}",
              file=sys.stderr)  # fmt: skip
    null = {s.name: rows[s.name] for s in chosen if not s.steps}
    real = {s.name: rows[s.name] for s in chosen if s.steps}
    print("False claims, % of sweeps\n")
    print(table(null, FALSE))
    print("\nIntervals that cover, %\n")
    print(table(null, COVER))
    print("\nMean over the numbers of runs, % (worst of them)\n")
    print(summary({s: rows[s.name] for s in chosen if not s.steps}))
    print("\nPower, %\n")
    print(table(real, (*POWER, "difference", "best")))
    looked = [s for s in chosen if s.looks]
    for scenario in looked:
        print(f"runs per cell, {scenario.name}: {rows[scenario.name]['runs'][0]:.1f}")
    print(f"\n{time.perf_counter() - started:.0f} s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sweeps", type=int, default=800, help="per row; a quarter of it for more than three cells"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose name contains this")
    return parser


if __name__ == "__main__":
    main()
