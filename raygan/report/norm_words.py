"""Differences between two norms in words."""

from __future__ import annotations

from collections.abc import Sequence

from raygan.report import words
from raygan.report.compare import LEAST, Interval
from raygan.report.multiple import holm
from raygan.report.norm_contrasts import Difference, Interaction


def answer(pairs: Sequence[tuple[str, str]], main: Sequence[Difference]) -> str:
    """A sentence on each pair of norms, and on where their difference is not the same.

    ``main``: the differences over all strata.
    """
    sentences: list[str] = []
    for pair in pairs:
        text = balance(*pair, [d for d in main if (d.first, d.second) == pair])
        if not sentences and (start := over(main)):
            text = f"{start}{text}"
        elif text.startswith("no "):
            text = f"N{text[1:]}"
        sentences.append(text)
    return " ".join(filter(None, [*sentences, lacking(main), unequal(main)]))


def lacking(main: Sequence[Difference]) -> str:
    """That the loss is not known in all strata, for runs that gave none; empty if it is."""
    return " ".join(
        f"The losses of {one.first} and {one.second} can be compared in {one.strata} of {one.of} "
        "strata only."
        for one in main
        if one.measure.key == "loss" and one.strata < one.of
    )


def over(found: Sequence[Difference]) -> str:
    """The beginning of a sentence: over how many strata the differences are."""
    of = max((one.of for one in found), default=1)
    if of < 2:
        return ""
    counts = {one.strata for one in found}
    part = "" if counts == {of} else f"{max(counts)} of " if len(counts) == 1 else "up to "
    return f"On average over {part}{of} strata, "


def balance(first: str, second: str, found: Sequence[Difference]) -> str:
    """By which measures the first norm is better or worse; the others by their number."""
    tested = [one for one in found if one.known]
    if not tested:
        return f"{first} cannot be told from {second}: it takes {LEAST} runs with a result of each."
    better = [one for one in tested if one.claimed and one.better]
    worse = [one for one in tested if one.claimed and not one.better]
    parts = [
        f"is {word} than {second} by {words.listed([_named(one) for one in mine])}"
        for word, mine in (("better", better), ("worse", worse))
        if mine
    ]
    left = len(tested) - len(better) - len(worse)
    if not parts:
        by = f"any of {left} measures" if left > 1 else tested[0].measure.words
        return f"no difference between {first} and {second} can be claimed, by {by}."
    rest = (
        f"; by {words.times(left, 'other measure')}, no difference can be claimed" if left else ""
    )
    return f"{first} {' and '.join(parts)}{rest}."


def _named(one: Difference) -> str:
    return f"{one.measure.words} ({shown(one)})"


def shown(one: Difference) -> str:
    """A difference with its 95% interval: −12.1% [−15.0%, −9.1%]; and over how many strata it is,
    if not over all."""
    part = f" over {one.strata} of {one.of} strata" if one.strata < one.of else ""
    return f"{signed(one.value, one.interval, points=one.measure.points)}{part}"


def signed(value: float, interval: Interval | None, *, points: bool = False) -> str:
    """A difference in per cent or percentage points, with its interval if it is known."""

    def text(number: float) -> str:
        if points:
            return f"{number:+.1f}".replace("-", "−")
        return words.percent(number, signed=True)

    unit = " points" if points else ""
    if interval is None:
        return f"{text(value)}{unit}"
    return f"{text(value)}{unit} [{text(interval.low)}, {text(interval.high)}]"


def against(one: Difference) -> str:
    """How the loss of the first norm compares with that of the second."""
    how = "lower" if one.value < 0 else "higher"
    if one.claimed:
        return f"{how} than that of {one.second} ({shown(one)})"
    return f"not certainly different from that of {one.second} ({shown(one)})"


def dependence(one: Interaction) -> str:
    """An interaction that can be claimed."""
    return (
        f"the ratio of its loss to that of {one.second} changes by "
        f"{signed(one.contrast.percent, one.contrast.interval())} from {one.axis} {one.base} to "
        f"{one.level}"
    )


def unequal(main: Sequence[Difference]) -> str:
    """A sentence on the differences that are not the same in all strata; empty if none is known.

    Their p are adjusted by Holm.
    """
    tested = [one for one in main if one.heterogeneity is not None]
    after = holm([one.heterogeneity or 0.0 for one in tested])
    differ = [one for one, p in zip(tested, after, strict=True) if p <= one.alpha]
    if not differ:
        return ""
    by_pair: dict[str, list[str]] = {}
    for one in differ:
        by_pair.setdefault(f"{one.first} and {one.second}", []).append(one.measure.words)
    listed = [f"between {pair} in {words.listed(names)}" for pair, names in by_pair.items()]
    return f"The difference {words.listed(listed)} is not the same in all strata: see the table."


def reading(found: Sequence[Difference]) -> tuple[str, ...]:
    """How to read the differences of an answer, and how they are corrected."""
    others = sum(
        one.whole and one.p is not None and one.measure.values is not None
        and one.measure.key != "loss" for one in found
    )  # fmt: skip
    if not any(one.p is not None for one in found):
        return ()
    corrected = " The loss is corrected as in the verdict, failed runs by themselves."
    if others > 1:
        corrected += (
            f" The {others} differences of other measures are corrected together (Holm); those of "
            "single strata and data sets, in the table, among themselves."
        )
    return (f"In square brackets: 95% CI.{corrected}",)
