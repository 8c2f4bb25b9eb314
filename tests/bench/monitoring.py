"""How often the report says that the loss monitors a second measure where it does not.

    python tests/bench/monitoring.py --sweeps 200

Draws sweeps of 6 cells of 3 or 5 runs in which loss and measure follow a curve of the iteration, each
with noise of its own, and asks the report's own code. Prints, by curve and number of evaluations, the
share of sweeps in which the lower end of the interval given the iteration is above 0 (nominal: 2.5%)
and the mean ρ given the iteration. Last, the same with a noise that both share: there it should.
"""

from __future__ import annotations

import argparse

import numpy as np

from raygan.report import monitoring

CELLS = 6
CURVES = {
    "flattens": lambda at: np.exp(-at / 0.15) + 0.4,
    "power": lambda at: (at + 0.02) ** -0.4,
    "rises far": lambda at: np.exp(-at / 0.07) + 0.4 + 0.5 * at,
    "plateau": lambda at: np.where(at < 0.6, 1.0, 1.6 - at),
    "step": lambda at: np.where(at < 0.5, 1.0, 0.5),
    "waves": lambda at: 1 + 0.3 * np.sin(20 * at),
    "collapses": lambda at: np.where(at < 0.6, np.exp(-2 * at), 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cases = [(name, curve, 0.0) for name, curve in CURVES.items()]
    for name, curve, shared in [*cases, ("flattens, shared", CURVES["flattens"], 0.03)]:
        for evaluations in (15, 50):
            for runs in (3, 5):
                generator = np.random.default_rng([options.seed, evaluations, runs])
                said, rhos = 0, []
                for _ in range(options.sweeps):
                    courses = [
                        draw(generator, f"cell {cell}", curve, evaluations, shared)
                        for cell in range(CELLS)
                        for _ in range(runs)
                    ]
                    found = monitoring.over_cells(courses, monitoring.given_iteration(courses))
                    said += found.interval.low > 0
                    rhos.append(found.rho)
                print(
                    f"{name:16} {evaluations:3} evaluations, {runs} runs: said in "
                    f"{100 * said / options.sweeps:5.1f}%, mean ρ {np.mean(rhos):+.2f}",
                    flush=True,
                )


def draw(generator, cell: str, curve, evaluations: int, shared: float) -> monitoring.Course:
    at = np.arange(1, evaluations + 1) / evaluations
    both = shared * generator.normal(size=evaluations)
    losses = curve(at) * np.exp(both + 0.03 * generator.normal(size=evaluations))
    distances = curve(at) ** 1.3 * np.exp(both + 0.06 * generator.normal(size=evaluations))
    steps = list(range(1, evaluations + 1))
    return monitoring.Course(cell, "", "", steps, list(losses), list(distances))


if __name__ == "__main__":
    main()
