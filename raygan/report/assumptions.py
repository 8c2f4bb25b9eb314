"""The assumptions of the verdict, and whether the runs agree with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import stats

from raygan.report import words
from raygan.report.audit import audit
from raygan.report.compare import LEAST, LEVEL
from raygan.report.evidence import Evidence
from raygan.report.family import Comparison, of_losses
from raygan.report.ladder import LOW
from raygan.report.multiple import holm
from raygan.report.tabular import Column, Sheet
from raygan.report.verdict import over


@dataclass(frozen=True)
class Check:
    """One assumption, and what the runs show."""

    assumption: str
    seen: str
    holds: bool | None = None
    """None if it cannot be checked, or has no yes or no."""
    value: float | None = None
    """The number that the check is based on, such as a p or a ratio; None without one."""


def checks(evidence: Evidence) -> list[Check]:
    """The checks of all assumptions; empty unless a cell has several runs."""
    if not evidence.replicated:
        return []
    functions: list[Callable[[Evidence], Check | None]] = [
        _normal, _spreads, _permutation, _ranks, _images, _fixed, _restarts, _rule,
    ]  # fmt: skip
    return [check for one in functions if (check := one(evidence)) is not None]


def _logs(evidence: Evidence) -> dict[str, np.ndarray]:
    """ln(loss) of the cells with enough runs whose losses vary."""
    every = {c.name: np.log(list(evidence.units(c).values())) for c in evidence.comparable}
    return {name: logs for name, logs in every.items() if np.ptp(logs) > 1e-9}


def _normal(evidence: Evidence) -> Check | None:
    logs = _logs(evidence)
    if not logs:
        return None
    ps = dict(zip(logs, holm([float(stats.shapiro(one).pvalue) for one in logs.values()]),
                  strict=True))  # fmt: skip
    name = min(ps, key=ps.__getitem__)
    skews = [float(stats.skew(one)) for one in logs.values()]
    seen = (
        f"Shapiro and Wilk: lowest p {ps[name]:.2g} ({name}), after Holm's correction for "
        f"{words.times(len(ps), 'cell')}; mean skewness {words.two_digits(float(np.mean(skews)))}. "
        "So few runs show only large departures: see the permutation test."
    )
    return Check("ln(loss) of the runs of a cell is normal", seen, ps[name] > 1 - LEVEL, ps[name])


def _spreads(evidence: Evidence) -> Check | None:
    spreads = {name: float(one.std(ddof=1)) for name, one in _logs(evidence).items()}
    if len(spreads) < 2:
        return None
    low, high = (f(spreads, key=spreads.__getitem__) for f in (min, max))
    ratio = spreads[high] / spreads[low]
    seen = (
        f"Not assumed (Welch's test): sd of ln(loss) from {words.as_percent(spreads[low])} ({low}) "
        f"to {words.as_percent(spreads[high])} ({high}), a ratio of {words.two_digits(ratio)}."
    )
    return Check("equal spreads of the cells", seen, None, ratio)


def _permutation(evidence: Evidence) -> Check | None:
    alpha = 1 - LEVEL
    pairs = [c for c in of_losses(evidence).within if c.contrast.p_permutation is not None]
    if not pairs:
        return None
    able = [c for c in pairs if _least_p(c) <= alpha]
    differ = [
        f"{c.cell} and {c.other} ({c.contrast.p:.2g}, {c.contrast.p_permutation:.2g})"
        for c in able
        if c.contrast.p is not None
        and c.contrast.p_permutation is not None
        and (c.contrast.p <= alpha) != (c.contrast.p_permutation <= alpha)
    ]
    seen = "Welch's and the permutation test agree at 5%, before correction, in "
    seen += f"{len(able) - len(differ)} of {words.times(len(able), 'comparison')}"
    if differ:
        seen += f"; not for {words.listed(differ)}: p of Welch's test and by permutation"
    if few := len(pairs) - len(able):
        seen += f". {words.times(few, 'comparison')}: too few runs for a permutation p of 5%"
    return Check("the tests do not rest on the normal distribution", f"{seen}.",
                 not differ if able else None)  # fmt: skip


def _least_p(comparison: Comparison) -> float:
    """The lowest p that a two-sided permutation test can have with this number of runs."""
    n, m = comparison.contrast.n, comparison.contrast.others
    return (2 if n == m else 1) / math.comb(n + m, n)


def _ranks(evidence: Evidence) -> Check | None:
    lost = sum(len(cell.failed) for cell in evidence.cells)
    if not lost:
        return None
    seen = (
        f"Not assumed: {words.times(lost, 'run')} gave none. They count as the worst, and a "
        "difference is claimed only if the ranks of all runs differ, too."
    )
    return Check("runs without a result are like the others", seen)


def _images(evidence: Evidence) -> Check:
    if not evidence.by_final_test:
        return Check(
            "the loss is measured on images that chose nothing",
            "Not all runs that ended ok have taken the final test. The running test's images also "
            "chose the settings.",
            holds=False,
        )
    counts = {
        int(tests["best"]["images"]) for tests in evidence.finals.values()
        if isinstance(tests.get("best", {}).get("images"), int)
    }  # fmt: skip
    size = f" ({words.listed([f'{n:,}' for n in sorted(counts)])} images)" if counts else ""
    included = "add" if evidence.counts_images else "do not add"
    return Check(
        "the loss is measured on images that chose nothing",
        f"Final test{size}, on held-out images that were not used for training or for any choice. "
        f"These images {included} to the width of the intervals.",
        True,
        float(max(counts)) if counts else None,
    )


def _fixed(evidence: Evidence) -> Check:
    counts = [len(evidence.units(cell)) for cell in evidence.ranked]
    low, high = min(counts, default=0), max(counts, default=0)
    unit = evidence.cells[0].unit if evidence.cells else "run"
    runs = words.times(high, unit) if low == high else f"{low} to {words.times(high, unit)}"
    text = f"{runs} per cell with a result, each with a seed of its own (from {LEAST} on, a "
    return Check("the runs stand for all such runs", f"{text}difference can be claimed). "
                 f"{over(evidence)}", None, float(low))  # fmt: skip


def _restarts(evidence: Evidence) -> Check:
    changed, said = audit(evidence)
    seen = said or "Not checked: restarts were not tried for all runs, or there is one cell."
    return Check("the search finds the best code of each cell equally well", seen,
                 not changed if said else None)  # fmt: skip


def _rule(evidence: Evidence) -> Check | None:
    if evidence.rule is None:
        return None
    rho, n = evidence.rule.rho, evidence.rule.n
    if rho is None:
        seen = f"Not known: it takes two such trials in a cell, which end apart; there are {n}."
        return Check("early stopping ranks trials as their ends do", seen)
    seen = (
        f"Spearman's ρ between the loss at the first rung and the end loss: {rho:.2f}, over "
        f"{words.times(n, 'search trial')} that no rule could stop. Below {LOW:g}, the rule may "
        "have stopped the trials that would have ended best."
    )
    return Check("early stopping ranks trials as their ends do", seen, not evidence.rule.low, rho)


def assumptions(evidence: Evidence) -> Sheet:
    """The table of assumptions, one in each row."""
    rows = [
        {"assumption": c.assumption, "holds": c.holds, "value": c.value, "seen": c.seen}
        for c in checks(evidence)
    ]
    columns = [
        Column("assumption", pa.string(), "assumption"),
        Column("holds", pa.bool_(), "holds", words.yes_no),
        Column("value", pa.float64()),
        Column("seen", pa.string(), "what was seen"),
    ]
    reading = (
        "One row per assumption of the verdict. Where one does not hold, caution is better; no "
        "entry: not known, or not assumed."
    )
    return Sheet("assumptions", "What was assumed and checked", columns, rows, reading)
