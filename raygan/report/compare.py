"""Intervals of the mean loss of a cell, and differences between the losses of two cells.

Losses are compared as y = ln(loss), for two reasons: their spread is about the same share of the
loss in all cells, and a difference of two means is a ratio of losses. Nothing is claimed from fewer
than :data:`LEAST` runs of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special, stats

from raygan.report.exact import permutation_p

LEVEL = 0.95
"""Level of every interval that is shown."""
LEAST = 3
"""Least runs of a cell for a claim or an interval."""
_MOST_LOG = 50.0
"""Limit of ln(ratio), so that the limits of very wide intervals are finite."""


@dataclass(frozen=True)
class Interval:
    """An interval from ``low`` to ``high``; its level is :data:`LEVEL` if no other is named."""

    low: float
    high: float

    @property
    def leaves_out_0(self) -> bool:
        """Whether 0 is not in the interval."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Mean:
    """Geometric mean of the losses of a cell's runs, and its confidence interval."""

    n: int
    value: float
    sd: float | None
    """Standard deviation of ln(loss): about the spread of the losses as a share of their mean."""
    interval: Interval | None
    """exp(ȳ ± t · s / √n), Student's t with n − 1 degrees of freedom; None below :data:`LEAST`."""


def geometric_mean(values: Sequence[float]) -> Mean | None:
    """Geometric mean of positive ``values``; None if there are none."""
    if not values:
        return None
    logs = np.log(np.asarray(values, dtype=float))
    mean, sd, reach = _spread(logs)
    interval = None
    if reach is not None:
        interval = Interval(math.exp(mean - reach), math.exp(mean + reach))
    return Mean(len(logs), math.exp(mean), sd, interval)


def arithmetic_mean(values: Sequence[float]) -> tuple[float, Interval | None] | None:
    """Mean of ``values`` and its interval, x̄ ± t · s / √n, None below :data:`LEAST`; None if there
    are no values."""
    if not values:
        return None
    mean, _, reach = _spread(np.asarray(values, dtype=float))
    return mean, None if reach is None else Interval(mean - reach, mean + reach)


def _spread(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean, standard deviation, and half the width of the mean's interval."""
    n, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else None
    if n < LEAST or sd is None:
        return mean, sd, None
    return mean, sd, _quantile(1 - (1 - LEVEL) / 2, n - 1) * sd / math.sqrt(n)


@dataclass(frozen=True)
class Contrast:
    """The difference between the losses of two cells, by Welch (1947).

    d = ȳ − ȳ′, se² = s²/n + s′²/n′, degrees of freedom after Satterthwaite (1946). d is positive if
    the first cell has the higher losses.
    """

    log: float
    """d: difference of the means of ln(loss)."""
    error: float
    """Standard error of ``log``."""
    freedom: float
    """Degrees of freedom of ``error``."""
    n: int
    """Runs of the first cell."""
    others: int
    """Runs of the second cell."""
    values: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    """ln(loss) of the runs of both cells; empty for a pooled contrast."""
    image_error: float = 0.0
    """Part of ``error`` that comes from the choice of the held-out images; 0 if not counted."""

    @property
    def percent(self) -> float:
        """100 · (ratio of the geometric means − 1)."""
        return percent(self.log)

    @property
    def testable(self) -> bool:
        """Whether both cells have at least :data:`LEAST` runs."""
        return min(self.n, self.others) >= LEAST

    @property
    def turned(self) -> Contrast:
        """The contrast of the second cell against the first."""
        return Contrast(-self.log, self.error, self.freedom, self.others, self.n,
                        self.values[::-1], self.image_error)  # fmt: skip

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Interval of :attr:`percent`; None below :data:`LEAST` runs."""
        if not self.testable:
            return None
        reach = self._reach((1 + level) / 2)
        return Interval(percent(self.log - reach), percent(self.log + reach))

    def highest(self, level: float) -> float:
        """One-sided upper limit of the true difference, on the log scale."""
        return self.log + self._reach(level)

    def p_below(self, log: float = 0.0) -> float | None:
        """One-sided p for the claim that the true difference is below ``log``."""
        if not self.testable:
            return None
        if self.error <= _rounding(self.log - log):
            return 0.0 if self.log < log - 1e-12 else 1.0
        return float(special.stdtr(self.freedom, (self.log - log) / self.error))

    def p_above(self, log: float = 0.0) -> float | None:
        """One-sided p for the claim that the true difference is above ``log``."""
        return self.turned.p_below(-log)

    def detectable(self, level: float, power: float = 0.8) -> float | None:
        """The difference, in per cent, that a test at ``level`` detects with the probability
        ``power``, given the spread of these runs; None below :data:`LEAST` runs."""
        if not self.testable:
            return None
        return percent(self.error * noncentrality(level, self.freedom, power))

    @property
    def p(self) -> float | None:
        """Two-sided p of no difference; None below :data:`LEAST` runs."""
        below, above = self.p_below(), self.p_above()
        return None if below is None or above is None else min(1.0, 2 * min(below, above))

    @cached_property
    def p_permutation(self) -> float | None:
        """Two-sided p of the permutation test of the difference of means.

        It assumes no distribution, only that runs of equal cells could be exchanged. None for a
        pooled contrast and below :data:`LEAST` runs. See
        :func:`~raygan.report.exact.permutation_p`.
        """
        first, second = self.values
        return permutation_p(first, second) if self.testable and first and second else None

    def _reach(self, quantile: float) -> float:
        return _quantile(quantile, self.freedom) * self.error if self.error else 0.0


def contrast(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    image_variance: float = 0.0,
) -> Contrast | None:
    """Compare ln(loss) of the runs of two cells; None if either has none.

    ``image_variance``: variance of the difference over the choice of the images
    (:func:`image_variance`), which is added to that over the runs.
    """
    if not len(first) or not len(second):
        return None
    means, parts, freedoms = [], [], []
    logs = (tuple(map(float, first)), tuple(map(float, second)))
    for side in logs:
        n = len(side)
        means.append(math.fsum(side) / n)
        squares = math.fsum((x - means[-1]) ** 2 for x in side)
        parts.append(squares / (n - 1) / n if n > 1 else 0.0)
        freedoms.append(n - 1)
    over_runs = sum(parts)
    used = sum(part**2 / df for part, df in zip(parts, freedoms, strict=True) if df)
    freedom = over_runs**2 / used if used else float(sum(freedoms)) or 1.0
    variance = over_runs + image_variance
    if over_runs and image_variance:
        # the variance over hundreds of images is known much better than that over the runs
        freedom *= (variance / over_runs) ** 2
    log, (n, others) = means[0] - means[1], map(len, logs)
    return Contrast(log, math.sqrt(variance), freedom, n, others, logs, math.sqrt(image_variance))


def image_variance(runs: np.ndarray, others: np.ndarray) -> float:
    """Variance of d over the choice of the images, for fixed runs (delta method).

    ``runs`` and ``others``: the losses of each run on the same images, floats [runs, images]. With
    Lᵣᵢ the loss of run r on image i and Lᵣ the mean of run r over the images, image i contributes
    uᵢ = mean over r of Lᵣᵢ / Lᵣ to the first cell's mean of ln Lᵣ. The result is the variance of
    uᵢ − u′ᵢ, divided by the number of images.
    """
    first, second = (
        (losses / losses.mean(axis=1, keepdims=True)).mean(axis=0) for losses in (runs, others)
    )
    images = len(first)
    return float((first - second).var(ddof=1) / images) if images > 1 else 0.0


def pooled(parts: Sequence[Contrast], images: Sequence[str] = ()) -> Contrast:
    """Mean of the contrasts of K strata with equal weights: d̄ = Σ d / K.

    ``images``: by stratum, the label of its images; empty if all strata have the same images. The
    runs of the strata are independent. So are the images of different data sets, but the strata of
    one data set have the same images: their image errors add up and do not shrink with K.
    """
    strata = len(parts)
    variances = [part.error**2 for part in parts]
    by_images: dict[str, float] = {}
    for label, part in zip(images or [""] * strata, parts, strict=True):
        by_images[label] = by_images.get(label, 0.0) + part.image_error
    over_images = math.hypot(*by_images.values())
    total = sum(v - part.image_error**2 for v, part in zip(variances, parts, strict=True))
    total += over_images**2
    used = sum(v**2 / part.freedom for v, part in zip(variances, parts, strict=True))
    return Contrast(
        sum(part.log for part in parts) / strata,
        math.sqrt(total) / strata,
        total**2 / used if used else sum(part.freedom for part in parts),
        min(part.n for part in parts),
        min(part.others for part in parts),
        image_error=over_images / strata,
    )


def heterogeneity_p(parts: Sequence[Contrast]) -> float | None:
    """p of equal contrasts in all strata; None for one stratum, or if a standard error is 0.

    Cochran's Q (1954) = Σ w · (d − d_w)², with w = 1 / se² and d_w the mean weighted by w. The form
    of Welch (1951) takes into account that each se is an estimate from few runs:
    F = Q / (K − 1) / (1 + 2 · (K − 2) / (K² − 1) · Λ), with K − 1 and (K² − 1) / (3 · Λ) degrees of
    freedom, and Λ = Σ (1 − w / Σ w)² / ν.
    """
    strata = len(parts)
    if strata < 2 or not all(part.testable and part.error for part in parts):
        return None
    weights = np.array([1 / part.error**2 for part in parts])
    logs = np.array([part.log for part in parts])
    middle = (weights * logs).sum() / weights.sum()
    q = float((weights * (logs - middle) ** 2).sum())
    freedoms = np.array([part.freedom for part in parts])
    unsure = float(((1 - weights / weights.sum()) ** 2 / freedoms).sum())
    f = q / (strata - 1) / (1 + 2 * (strata - 2) / (strata**2 - 1) * unsure)
    return float(stats.f.sf(f, strata - 1, (strata**2 - 1) / (3 * unsure)))


def wilson(count: int, n: int) -> Interval | None:
    """Wilson's interval (1927) of the probability of what occurred ``count`` of ``n`` times."""
    if not n:
        return None
    interval = stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def never_bound(n: int) -> float:
    """Upper limit, at the level :data:`LEVEL`, of the probability of an event that did not occur in
    ``n`` runs: 1 − 0.05^(1/n)."""
    return float(1 - (1 - LEVEL) ** (1 / n))


def worsening_p(worsening: Sequence[float]) -> float | None:
    """One-sided p (Student's t) for the claim that the mean of ln(last / best loss) is above 0;
    None below :data:`LEAST` runs."""
    if len(worsening) < LEAST:
        return None
    if np.ptp(worsening) <= 1e-12:
        return 0.0 if worsening[0] > 1e-12 else 1.0
    error = float(np.std(worsening, ddof=1)) / math.sqrt(len(worsening))
    return float(special.stdtr(len(worsening) - 1, -float(np.mean(worsening)) / error))


def noncentrality(level: float, freedom: float, power: float) -> float:
    """The difference, in standard errors, that Student's two-sided test detects with the
    probability ``power``, at ``level`` and with ``freedom`` degrees of freedom."""
    critical = _quantile((1 + level) / 2, freedom)
    # the other tail adds less than 0.1% to a power of 80%
    return float(special.nctdtrinc(freedom, 1 - power, critical))


def percent(log_ratio: float) -> float:
    """100 · (ratio − 1)."""
    return 100 * math.expm1(min(log_ratio, _MOST_LOG))


def _quantile(level: float, freedom: float) -> float:
    return float(special.stdtrit(freedom, level))


def _rounding(value: float) -> float:
    return 1e-9 * max(1e-3, abs(value))
