"""Numbers as people read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from raygan.report.compare import LEAST, Difference, Interval

MOST = 8
"""Things that one sentence lists; tables have all."""
_NOTHING = 0.005
"""Per cent that two digits show as 0."""


def loss(value: float) -> str:
    """A reconstruction loss."""
    return f"{value:.5f}"


def percent(value: float, *, signed: bool = False) -> str:
    """9.8%; beyond 900%, which is open in practice, 12-fold."""
    if abs(value) > 900:
        return f"{value / 100:,.0f}-fold"
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 0.1 or value == 0 else 2
    return f"{value:{'+' if signed else ''}.{digits}f}%".replace("-", "−")


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


def listed(items: Sequence[str], last: str = "and") -> str:
    """a, b and c; of more than :data:`MOST` the first ones, and how many others."""
    if len(items) > MOST:
        items = [*items[: MOST - 1], f"{len(items) - MOST + 1} others"]
    return f" {last} ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def outcomes(found: Iterable[str | None]) -> str:
    """2 diverged, 1 failed."""
    counts = Counter(outcome or "unfinished" for outcome in found)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())


def difference(name: str, other: str, found: Difference | None, what: str) -> str:
    """How ``name``'s ``what`` compares with ``other``'s, with its interval: one sentence.

    It says so if no difference can be claimed.
    """
    if found is None:
        return f"{name} and {other} cannot be compared: no seed gave a result with both."
    gap = _gap(found.percent)
    n = f"n = {times(found.n, 'seed')}{' that both have' if found.partial else ''}"
    same = abs(found.percent) < _NOTHING
    if found.is_exact:
        return f"{name}'s {what} is {gap} {'as' if same else 'than'} {other}'s with each seed, {n}."
    if found.claimed and not same and found.interval is not None:
        near, far = sorted((abs(found.interval.low), abs(found.interval.high)))
        return f"{name}'s {what} is {gap} than {other}'s, 95% CI {_span(near, far)}, {n}."
    start = f"No difference between {name} and {other} can be claimed: {name}'s {what} is {gap}, "
    if found.interval is None:
        return f"{start}but this cannot be told from chance with {n}; at least {LEAST} are needed."
    low, high = _gap(found.interval.low), _gap(found.interval.high)
    span = f"{start}95% CI from {low} to {high}, {n}"
    if found.interval.leaves_out_0:
        return f"{span}; that is not enough after Bonferroni's correction for {found.pairs} pairs."
    return f"{span}."


def _span(low: float, high: float) -> str:
    first, last = percent(low), percent(high)
    both = first.endswith("%") and last.endswith("%")
    return f"{first.removesuffix('%') if both else first}–{last}"


def _gap(value: float) -> str:
    if abs(value) < _NOTHING:
        return "the same"
    return f"{percent(abs(value))} {'lower' if value < 0 else 'higher'}"
