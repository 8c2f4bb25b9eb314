"""How often the report says that the loss monitors a second measure where it does not.

    python tests/bench/monitoring.py --sweeps 200

Draws sweeps of 15 runs in which loss and measure follow a curve of the iteration, each with noise of
its own, and asks the report's own code. Prints, by curve and number of evaluations, the share of
sweeps in which the lower end of the interval given the iteration is above 0 (nominal: 2.5%), the mean
ρ given the iteration, and for comparison the mean partial rank correlation given a straight line.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from raygan.report import monitoring

RUNS = 15
CURVES = {
    "flattens": lambda at: np.exp(-at / 0.15) + 0.4,
    "flattens early": lambda at: np.exp(-at / 0.05) + 0.4,
    "falls": lambda at: 1.5 - at,
    "power": lambda at: (at + 0.02) ** -0.4,
    "rises again": lambda at: np.exp(-at / 0.15) + 0.4 + 0.15 * at,
    "rises far": lambda at: np.exp(-at / 0.07) + 0.4 + 0.5 * at,
}


def line(course: monitoring.Course) -> float:
    """Partial rank correlation given a straight line of the iteration."""
    a, b, c = (
        monitoring.spearman(first, second) or 0.0
        for first, second in (
            (course.losses, course.distances),
            (course.losses, course.steps),
            (course.distances, course.steps),
        )
    )
    left = (1 - b * b) * (1 - c * c)
    return (a - b * c) / math.sqrt(left) if left > 0 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name, curve in CURVES.items():
        for evaluations in (12, 20, 40, 100):
            for noise in (0.03, 0.1):
                generator = np.random.default_rng([options.seed, evaluations])
                said, rhos, straight = 0, [], []
                for _ in range(options.sweeps):
                    courses = [draw(generator, curve, evaluations, noise) for _ in range(RUNS)]
                    given = [monitoring.given_iteration(one) for one in courses]
                    found = monitoring.over_runs(given)
                    said += found.interval.low > 0
                    rhos.append(found.rho)
                    straight.append(line(courses[0]))
                print(
                    f"{name:15} {evaluations:4} evaluations, noise {noise:4}: said in "
                    f"{100 * said / options.sweeps:4.1f}%, mean ρ {np.mean(rhos):+.2f}; given a "
                    f"straight line {np.mean(straight):+.2f}",
                    flush=True,
                )


def draw(generator, curve, evaluations: int, noise: float) -> monitoring.Course:
    at = np.arange(1, evaluations + 1) / evaluations
    losses = curve(at) * np.exp(noise * generator.normal(size=evaluations))
    distances = curve(at) ** 1.3 * np.exp(2 * noise * generator.normal(size=evaluations))
    steps = list(range(1, evaluations + 1))
    return monitoring.Course("", "", "", steps, list(losses), list(distances))


if __name__ == "__main__":
    main()
