"""The power of a sweep, in words for ``--dry-run``: which differences it is likely to find."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from raygan.errors import ConfigError
from raygan.records import TrialRecord
from raygan.report.compare import LEAST, geometric_mean
from raygan.report.family import Comparison, Values, compare
from raygan.report.planning import detectable, seeds_needed
from raygan.report.words import percent, times
from raygan.shown import shown
from raygan.sweep.spec import claims
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks
from raygan.sweep.study.compared import cells

USUAL_SD = 0.03
"""Standard deviation of ln(loss) that is assumed if none is known; an early study on CIFAR-10 had
1.4% to 4.9%."""
ASKED = (2.0, 5.0, 10.0)
"""Differences, in per cent, for which the number of seeds is printed."""


def parse_sd(text: str) -> float:
    """A share such as ``3%`` or ``0.03``; raises :class:`~raygan.errors.ConfigError`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(%?)", text.strip())
    sd = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < sd <= 1:
        raise ConfigError(
            f"--sd (={shown(text)}) must be the spread of the loss between seeds as a share of it, "
            "above 0 and at most 100%, such as 3%"
        )
    return sd


def say_power(
    spec: SweepSpec, known: Iterable[TrialRecord], sd: float | None, tell: Callable[[str], None]
) -> None:
    """Print which difference the sweep is likely to find, and how many seeds others take.

    Prints nothing without replicates.
    """
    seeds, level = looks.looks(spec)[-1]
    most = "at most " if spec.replicate.until and not spec.search.repeats else ""
    unit = "repeat" if spec.search.repeats else "seed"
    seeds = spec.search.repeats or seeds or len(spec.axes().get("seed", []))
    made = comparisons_of(spec)
    comparisons = len(made)
    if not seeds or not comparisons:
        return
    where = "--sd"
    if sd is None:
        sd, where = _seen(spec, known), "seen in this sweep"
    if sd is None:
        sd, where = USUAL_SD, "assumed; --sd sets it"
    for number, (strata, between) in enumerate(dict.fromkeys(map(_between, made))):
        difference = detectable(sd, seeds, comparisons, level=level, strata=strata)
        with_seeds = f"with {most}{times(seeds, unit)}"
        text = (
            f"{with_seeds}, a difference of {percent(difference)} between two {between} would be "
            "found in 80% of sweeps"
            if difference is not None
            else f"{with_seeds}, nothing can be claimed; at least {LEAST} are needed"
        )
        needed = [
            (asked, seeds_needed(sd, asked, comparisons, level=level, strata=strata))
            for asked in ASKED
        ]
        takes = [f"{asked:g}% takes {times(n, unit)}" for asked, n in needed if n is not None]
        tell(f"{' ' * 12 if number else 'power:      '}{text}; {', '.join(takes)}")
    tell(
        f"            ({times(comparisons, 'comparison')}; spread of the loss between seeds "
        f"{percent(100 * sd)}, {where})"
    )


def comparisons_of(spec: SweepSpec) -> list[Comparison]:
    """The comparisons that the report makes: the declared claims, or else all; with no runs."""
    points = {cell.name: cell.values for cell in cells(spec, {})}
    dummies = [Values(name, [0.0] * LEAST) for name in points]
    found = compare(points, dummies, 0.05).comparisons
    if not spec.claims:
        return list(found)
    by_pair = {frozenset((c.cell, c.other)): c for c in found}
    return [by_pair[frozenset((claim.cell, claim.other))] for claim in claims.of_spec(spec)]


def _between(comparison: Comparison) -> tuple[int, str]:
    """Over how many strata the comparison is pooled, and what it compares, in words."""
    if comparison.strata == 1:
        return 1, "cells"
    over = f"{comparison.strata} {comparison.strata_are}"
    return comparison.strata, f"values of an axis, on average over {over},"


def _seen(spec: SweepSpec, known: Iterable[TrialRecord]) -> float | None:
    """Standard deviation of ln(end loss) of the ended replicates, pooled over the cells."""
    variances = []
    for cell in cells(spec, {record.id: record for record in known}):
        ends = [r.end_loss for r in cell.runs.values() if r.outcome == "ok" and r.end_loss]
        mean = geometric_mean(ends)
        if mean is not None and mean.sd:
            variances.append(mean.sd**2)
    return math.sqrt(sum(variances) / len(variances)) if variances else None
