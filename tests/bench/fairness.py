"""What early stopping does to the choice of a learning rate, and to the winner.

    python tests/bench/fairness.py --seeds 100             # regret of the chosen rate, per cell
    python tests/bench/fairness.py --winners --seeds 200   # the winner, shared ladder or per cell

Regret: by how much more than the least possible the loss ends, without noise, at the learning rate
that a cell chooses, in %, its mean over seeds with its standard error. `apart`: the largest
difference of two cells' regrets, which is the bias of their contrast; `by the rule`: the same of
what each cell's regret is above that of the full grid. Each cell searches at random, with the same
rates in every cell; the rule is the real one, one of five trials is exempt.

Winners: how often a sweep finds the norm that is best in the end.

The real study, with its searches and stopping rules, in virtual time over the known curves of
`tests/sweep/simulated.py`. `full grid`: every norm a cell, all trials to their end. `cells`: the
same, with early stopping. `shared`: the same number of trials in one cell, the norm searched
like the learning rate. Winners are read off in two ways: the trial that ended lowest (median of
its last evaluations, only trials that ran to their end), and the trial with the lowest loss of
any evaluation (what `Study.best` says), which rewards rough curves. In brackets: 95 % intervals
(Wilson) of percentages, quartiles of iterations. Minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.sweep.spec.yaml_sections import recipe_sections
from raygan.sweep.study.study import Study
from tests.sweep import simulated
from tests.sweep.simulated import EVERY, FULL, FULL_ITERATIONS, ITERATIONS, NORMS, TRIALS

Stop = recipe_sections()["stop"]

RULES = {
    "asha 3, grace 2%": simulated.EARLY_ASHA,
    "asha 3, grace 10%": simulated.ASHA,
    "median, grace 10%": "{rule: median}",
}
REGRETS = {
    "full grid": Stop(rule="none"),
    **{
        f"asha {reduction}, grace {share}%": Stop(
            rule="asha", grace=ITERATIONS * share // 100, reduction=reduction
        )
        for reduction, share in ((3, 2), (3, 5), (3, 10), (4, 10), (2, 10), (2, 20), (2, 30))
    },
    **{
        f"median, grace {share}%": Stop(rule="median", grace=ITERATIONS * share // 100)
        for share in (10, 20)
    },
}
QUARTER = FULL_ITERATIONS / 4
READOUTS: dict[str, Callable[[Study], str]] = {
    "ended lowest": simulated.winner_at_end,
    "lowest loss of any evaluation": simulated.winner_by_lowest,
}

Results = list[tuple[dict[str, str], int]]
"""Per seed: the winner by each readout, and the iterations of all trials."""


def main() -> None:
    options = _parser().parse_args()
    if not options.winners:
        report_regrets(options.seeds, options.noise)
        return
    truth = min(NORMS, key=simulated.at_end)
    print(
        f"{len(NORMS)} norms × {TRIALS} trials of {ITERATIONS} iterations, evaluated every "
        f"{EVERY}; {simulated.AT_ONCE} at once\nsearch: {options.method}, "
        f"{'nothing' if options.first is None else f'rate {options.first:g}'} tried first; "
        f"noise × {options.noise:g}; n = {options.seeds} seeds"
    )
    print("noise-free loss at the best rate, in the end (lowest):", end=" ")
    print(
        ", ".join(f"{n} {simulated.at_end(n):.5f} ({simulated.at_best(n):.5f})" for n in NORMS),
        f"→ {truth} is right",
    )
    started = time.perf_counter()
    full = play(FULL, shared=False, options=options)
    rows: dict[str, Results] = {"full grid": full}
    for layout in ("cells", "shared"):
        for name, stop in RULES.items():
            rows[f"{layout}, {name}"] = play(stop, shared=layout == "shared", options=options)
    for readout in READOUTS:
        report(rows, readout, truth)
    print(f"\n{time.perf_counter() - started:.0f} s")


def report_regrets(seeds: int, noise: float) -> None:
    """Regret of the chosen rate per cell, and the iterations of the search."""
    print(f"{TRIALS} trials per cell, noise × {noise:g}; n = {seeds} seeds")
    for family in simulated.FAMILIES:
        print(f"\n{family:18}" + "".join(f"{norm:>16}" for norm in NORMS) + f"{'apart':>9}"
              f"{'by the rule':>13}{'iterations':>12}")  # fmt: skip
        full: list[float] = []
        for name, stop in REGRETS.items():
            played = [[simulated.play(norm, stop, seed, family, noise) for seed in range(seeds)]
                      for norm in NORMS]  # fmt: skip
            regrets = [[100 * regret for regret, _ in cell] for cell in played]
            means = [statistics.fmean(cell) for cell in regrets]
            full = full or means
            added = [mean - base for mean, base in zip(means, full, strict=True)]
            used = sum(used for cell in played for _, used in cell) / seeds / FULL_ITERATIONS
            errors = [statistics.stdev(cell) / math.sqrt(seeds) for cell in regrets]
            cells = [f"{m:.1f} ± {e:.1f}" for m, e in zip(means, errors, strict=True)]
            print(f"{name:18}" + "".join(f"{cell:>16}" for cell in cells)
                  + f"{max(means) - min(means):9.1f}{max(added) - min(added):13.1f}{used:12.0%}",
                  flush=True)  # fmt: skip


def play(stop: str, *, shared: bool, options: argparse.Namespace) -> Results:
    """One sweep per seed."""
    results = []
    for seed in range(options.seeds):
        sweep = simulated.make_sweep(
            seed, stop, shared=shared, method=options.method, first_rate=options.first
        )
        study = simulated.run(sweep, seed, options.noise)
        winners = {name: winner(study) for name, winner in READOUTS.items()}
        results.append((winners, simulated.iterations(study)))
    return results


def report(rows: dict[str, Results], readout: str, truth: str) -> None:
    print(f"\nwinner: {readout}")
    print(
        f"{'':28}{'right, %':21}{'as the full grid, %':21}{'… for ≤ 1/4, %':21}"
        "iterations of the full grid's: median [quartiles], most"
    )
    reference = [winners[readout] for winners, _ in rows["full grid"]]
    for name, results in rows.items():
        winners = [winners[readout] for winners, _ in results]
        same = [a == b for a, b in zip(winners, reference, strict=True)]
        cheap = [used <= QUARTER for _, used in results]
        columns = [share([winner == truth for winner in winners])]
        if name != "full grid":
            columns += [share(same), share([a and b for a, b in zip(same, cheap, strict=True)])]
        used = spread([used / FULL_ITERATIONS for _, used in results])
        print(f"{name:28}" + "".join(f"{column:21}" for column in columns).ljust(63) + used)


def share(hits: list[bool]) -> str:
    """Share of hits in percent, with its 95 % interval (Wilson 1927)."""
    n, p, z = len(hits), sum(hits) / len(hits), statistics.NormalDist().inv_cdf(0.975)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return f"{100 * p:5.1f} [{100 * (centre - half):.1f}, {100 * (centre + half):.1f}]"


def spread(values: list[float]) -> str:
    """Median, quartiles and maximum, in percent."""
    if len(values) < 2:
        return f"{values[0]:.1%}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1%} [{low:.1%}, {high:.1%}], {max(values):.1%}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--winners", action="store_true", help="ask for the winner instead")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--method", choices=("random", "tpe"), default="tpe")
    parser.add_argument("--first", type=float, default=simulated.FIRST_RATE, metavar="RATE")
    parser.add_argument("--no-first", dest="first", action="store_const", const=None)
    parser.add_argument(
        "--noise", type=float, default=1.0, help="factor of the seeds' and evaluations' noise"
    )
    return parser


if __name__ == "__main__":
    main()
