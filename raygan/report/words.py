"""Numbers and comparisons as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raygan.report.compare import LEAST, LEVEL, Interval, never_bound

if TYPE_CHECKING:
    from raygan.report.evidence import CellResults
    from raygan.report.family import Comparison

MOST = 8
"""Most items that a sentence lists; tables have all of them."""
_NOTHING = 0.005
"""A smaller number of per cent is 0 with two decimals."""


def loss(value: float) -> str:
    """A reconstruction loss."""
    return f"{value:.5f}"


def percent(value: float, *, signed: bool = False) -> str:
    """9.8%; above a million per cent, 3e+07%."""
    if abs(value) > 1e6:
        return f"{value:{'+' if signed else ''}.0e}%".replace("-", "−")
    if abs(value) < _NOTHING:
        return "0.0%"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 0.1 else 2
    return f"{value:{'+' if signed else ''},.{digits}f}%".replace("-", "−")


def share(count: int, n: int, interval: Interval | None) -> str:
    """2 of 5 (40%, 95% CI 12–77%)."""
    if not n:
        return "0 of 0"
    text = f"{100 * count / n:.0f}%"
    if interval is not None:
        text += f", 95% CI {100 * interval.low:.0f}–{100 * interval.high:.0f}%"
    return f"{count} of {n} ({text})"


def times(n: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def capital(text: str) -> str:
    """``text`` with a capital letter at its beginning."""
    return f"{text[:1].upper()}{text[1:]}"


def listed(items: Sequence[str], last: str = "and") -> str:
    """a, b and c; of more than :data:`MOST` items, the first ones and the number of the others."""
    if len(items) > MOST:
        items = [*items[: MOST - 1], f"{len(items) - MOST + 1} others"]
    return f" {last} ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def outcomes(every: Iterable[str | None]) -> str:
    """2 diverged, 1 failed."""
    counts = Counter(outcome or "unfinished" for outcome in every)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def runs(n: int, others: int, unit: str = "run") -> str:
    """n = 5 runs each; n = 5 and 3 runs."""
    return f"n = {times(n, unit)} each" if n == others else f"n = {n} and {times(others, unit)}"


def none_of(n: int) -> str:
    """0 of 5 (at most 45%, 95% limit): of an event that did not occur in ``n`` runs."""
    return f"0 of {n} (at most {100 * never_bound(n):.0f}%, {LEVEL:.0%} limit)"


def before_warmup(cell: CellResults) -> str:
    """How many of a cell's seeds failed without a warm-up; all of :attr:`CellResults.runs` have
    one."""
    failed, tried = len(cell.lost_before), len(cell.tried_before)
    length = next(iter(cell.runs.values())).config["warmup"]
    return (
        f"{failed} of {times(tried, 'seed')} of {cell.name} failed without a warm-up; all of its "
        f"runs shown have one of {length:,} iterations."
    )


def difference(comparison: Comparison, what: str, correction: str = "") -> str:
    """One or two sentences that compare the ``what`` of two cells, with the interval.

    If no difference can be claimed, they say so, and why.
    """
    size, interval = gap(comparison.contrast.percent), comparison.contrast.interval()
    n, where = runs(comparison.n, comparison.others, comparison.unit), ""
    if comparison.strata > 1:
        part = "" if comparison.compared == comparison.strata else f"{comparison.compared} of "
        where = f"On average over {part}{comparison.strata} {comparison.strata_are}, "
    if interval is None:
        return (
            f"No difference between {comparison.cell} and {comparison.other} can be claimed: "
            f"{comparison.cell}'s {what} is {size}, but this cannot be told from chance with {n}; "
            f"at least {LEAST} are needed{f' in each {comparison.stratum}' if where else ''}."
        )
    if comparison.claimed:
        near, far = sorted((abs(interval.low), abs(interval.high)))
        span = f"95% CI {_span(near, far)}, {n}"
        how = against(comparison.contrast.percent)
        return f"{where}{comparison.cell}'s {what} is {how} {comparison.other}'s ({span})."
    start = f"{where}no difference between {comparison.cell} and {comparison.other} can be claimed"
    start = capital(start)
    if comparison.failures_forbid:
        failed = [
            f"{count} of {ended} {comparison.unit}s of {name}"
            for name, count, ended in zip(
                (comparison.cell, comparison.other),
                comparison.failed,
                comparison.ended,
                strict=True,
            )
            if count
        ]
        return (
            f"{start}: {comparison.cell}'s {what} is {size} over the {comparison.unit}s that gave "
            f"a result, but {listed(failed)} gave none, and with these as the worst the ranks do "
            "not differ."
        )
    low, high = gap(interval.low), gap(interval.high)
    text = f"{start}: {comparison.cell}'s {what} is {size}, 95% CI from {low} to {high}, {n}"
    if interval.leaves_out_0 and comparison.claims > 1:
        text += f"; that is not enough after {correction} for {comparison.claims} comparisons"
    if interval.leaves_out_0 and comparison.alpha < 1 - LEVEL - 1e-9:
        text += f"; differences are claimed at {percent(100 * comparison.alpha)} with so many seeds"
    if comparison.detectable is not None and comparison.detectable >= _NOTHING:
        text += (
            ". With so many runs and this spread, a difference of "
            f"{percent(comparison.detectable)} would be claimed in 80% of such sweeps"
        )
    return f"{text}."


def as_percent(value: float) -> str:
    """A share as a percentage."""
    return percent(100 * value)


def ratio(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}".replace("-", "−")


def two_digits(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}".replace("-", "−")


def three_digits(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def whole(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A rate: 1e-05, 0.001."""
    return f"{value:g}"


def signed(value: float) -> str:
    """A percentage with its sign."""
    return percent(value, signed=True)


def yes_no(value: bool) -> str:
    """yes or no."""
    return "yes" if value else "no"


def _span(low: float, high: float) -> str:
    first, last = percent(low), percent(high)
    both = first.endswith("%") and last.endswith("%")
    return f"{first.removesuffix('%') if both else first}–{last}"


def against(value: float) -> str:
    """A difference in per cent, before what it is against: 3.0% lower than, the same as."""
    return f"{gap(value)} {'as' if abs(value) < _NOTHING else 'than'}"


def gap(value: float) -> str:
    """A difference in per cent: 3.0% lower, the same."""
    if abs(value) < _NOTHING:
        return "the same"
    return f"{percent(abs(value))} {'lower' if value < 0 else 'higher'}"
