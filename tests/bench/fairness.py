"""How often a sweep finds the norm that is best in the end: shared ladder against one per cell.

    python tests/bench/fairness.py --seeds 200

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

from raygan.sweep.study import Study
from tests.sweep import simulated
from tests.sweep.simulated import EVERY, FULL, FULL_ITERATIONS, ITERATIONS, NORMS, TRIALS

RULES = {
    "asha 3, grace 1000": simulated.ASHA,
    "asha 4, grace 1000": "{rule: asha, grace: 1000, reduction: 4}",
    "asha 3, grace 2000": "{rule: asha, grace: 2000, reduction: 3}",
    "median, grace 1000": "{rule: median, grace: 1000}",
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
