"""Differences between two norms in words."""

from __future__ import annotations

from collections.abc import Sequence

from raygan.report import words
from raygan.report.compare import LEAST, Interval
from raygan.report.multiple import holm
from raygan.report.norm_contrasts import FAMILIES, Difference, Interaction
from raygan.report.norm_measures import SAMPLES

_RANKS = "with runs without a result as the worst, the ranks do not differ"


def answer(pairs: Sequence[tuple[str, str]], main: Sequence[Difference]) -> str:
    """By pair of norms a sentence on the loss and the stability.

    ``main``: the differences over all strata.
    """
    sentences = [text for pair in pairs for text in _plain(pair, main)]
    return " ".join([*sentences, lacking(main)]).strip()


def details(pairs: Sequence[tuple[str, str]], main: Sequence[Difference]) -> tuple[str, ...]:
    """By pair of norms a sentence on the samples, and one on where the difference is not the same
    in all strata."""
    measured = [tested for pair in pairs if (tested := _of(pair, main, samples=True))]
    return tuple(filter(None, [*(f"{SAMPLES}: {_told(t)}" for t in measured), unequal(main)]))


def lacking(main: Sequence[Difference]) -> str:
    """That the loss is not known in all strata, for runs that gave none; empty if it is."""
    return " ".join(
        f"The losses of {one.first} and {one.second} can be compared in {one.strata} of {one.of} "
        "strata only."
        for one in main
        if one.measure.key == "loss" and one.strata < one.of
    )


def over(found: Sequence[Difference]) -> str:
    """Over how many strata the differences are; empty for one stratum, and if not all of them are
    over as many."""
    of = max((one.of for one in found), default=1)
    counts = {one.strata for one in found}
    if of < 2 or len(counts) != 1:
        return ""
    part = "" if counts == {of} else f"{max(counts)} of "
    return f"on average over {part}{of} strata"


def _of(
    pair: tuple[str, str], main: Sequence[Difference], *, samples: bool = False
) -> list[Difference]:
    """The known differences of two norms, by measures of samples or by the others."""
    return [
        one
        for one in main
        if (one.first, one.second) == pair
        and one.known
        and (one.measure.group == SAMPLES) is samples
    ]


def _plain(pair: tuple[str, str], main: Sequence[Difference]) -> list[str]:
    """What is known of two norms without their samples."""
    first, second = pair
    unit = next((one.unit for one in main if (one.first, one.second) == pair), "run")
    lacks = f"it takes {LEAST} {unit}s with a result of each"
    tested = _of(pair, main)
    if not tested and not _of(pair, main, samples=True):
        return [f"{first} cannot be told from {second}: {lacks}."]
    sentences = []
    if not any(one.measure.key == "loss" for one in tested):
        sentences.append(f"The losses of {first} and {second} are not compared: {lacks}.")
    if tested:
        text = _told(tested)
        is_name = text.startswith(first)  # of a norm: it stays as it is in the YAML
        sentences.append(text if is_name else words.capital(text))
    return sentences


def _told(tested: Sequence[Difference]) -> str:
    """A sentence on where the first norm is better or worse, and by which measures no difference
    can be claimed."""
    first, second = tested[0].first, tested[0].second
    place = over(tested)
    text = _balance(first, second, tested, told=not place)
    return f"{place}, {text}." if place else f"{text}."


def _balance(first: str, second: str, tested: Sequence[Difference], *, told: bool) -> str:
    """``told``: whether to say over how many strata each difference is."""
    better = [one for one in tested if one.claimed and one.better]
    worse = [one for one in tested if one.claimed and not one.better]
    parts = [
        f"is {word} than {second} by {words.listed([_named(one, told) for one in mine])}"
        for word, mine in (("better", better), ("worse", worse))
        if mine
    ]
    left = [one for one in tested if not one.claimed]
    unclear = words.listed([_unclear(one, told) for one in left], "or")
    if not parts:
        return f"no difference between {first} and {second} can be claimed by {unclear}"
    rest = f"; no difference can be claimed by {unclear}" if left else ""
    return f"{first} {' and '.join(parts)}{rest}"


def _unclear(one: Difference, told: bool) -> str:
    size = detectable(one)
    if one.failures_forbid:
        return (
            f"{one.measure.words} ({shown(one, told=told)} over the runs with a result; {_RANKS})"
        )
    return f"{one.measure.words} (detectable: {size})" if size else one.measure.words


def detectable(one: Difference) -> str:
    """The difference that would be claimed in 80% of such sweeps; empty if it is not known."""
    size = one.detectable
    return "" if size is None else signed(size, None, points=one.measure.points, sign=False)


def _named(one: Difference, told: bool) -> str:
    return f"{one.measure.words} ({shown(one, told=told)})"


def shown(one: Difference, *, told: bool = True) -> str:
    """A difference with its 95% interval: −12.1% [−15.0%, −9.1%]; and over how many strata it is,
    if not over all and ``told``."""
    part = f" over {one.strata} of {one.of} strata" if told and one.strata < one.of else ""
    return f"{signed(one.value, one.interval, points=one.measure.points)}{part}"


def signed(
    value: float, interval: Interval | None, *, points: bool = False, sign: bool = True
) -> str:
    """A difference in per cent or percentage points, with its interval if it is known."""

    def text(number: float) -> str:
        if points:
            plus = "+" if sign and round(number, 1) else ""
            return f"{number:{plus}z.1f}".replace("-", "−")
        return words.percent(number, signed=sign)

    unit = " points" if points else ""
    if interval is None:
        return f"{text(value)}{unit}"
    return f"{text(value)}{unit} [{text(interval.low)}, {text(interval.high)}]"


def losses(known: Sequence[Difference]) -> str:
    """A sentence on how the loss of the first norm compares with that of each other."""
    place = over(known)
    first = known[0].first
    claimed = [
        f"{'lower' if one.value < 0 else 'higher'} than that of {one.second} "
        f"({shown(one, told=not place)})"
        for one in known
        if one.claimed
    ]
    unclear = words.listed(
        [f"{one.second} ({_unclaimed(one, told=not place)})" for one in known if not one.claimed],
        "or",
    )
    text = f"the loss of {first} is {words.listed(claimed)}"
    if not claimed:
        text = f"no difference between the loss of {first} and that of {unclear} can be claimed"
    elif unclear:
        text += f"; no difference from that of {unclear} can be claimed"
    return f"{words.capital(f'{place}, {text}' if place else text)}."


def _unclaimed(one: Difference, *, told: bool) -> str:
    size = detectable(one)
    more = f"; {_RANKS}" if one.failures_forbid else f"; detectable: {size}" if size else ""
    return f"{shown(one, told=told)}{more}"


def dependence(one: Interaction) -> str:
    """An interaction that can be claimed."""
    return (
        f"the ratio of its loss to that of {one.second} changes by "
        f"{signed(one.contrast.percent, one.contrast.interval())} from {one.axis} {one.base} to "
        f"{one.level}"
    )


def unequal(main: Sequence[Difference]) -> str:
    """A sentence on the differences that are not the same in all strata; empty if none is known.

    Their p are adjusted as in the verdict or its section, and those of other measures by Holm.
    """
    others = [one for one in main if one.heterogeneity is not None and one.unequal is None]
    after = holm([one.heterogeneity or 0.0 for one in others])
    adjusted = dict(zip(map(id, others), after, strict=True))
    known = [(one, adjusted.get(id(one), one.unequal)) for one in main]
    differ = [one for one, p in known if p is not None and p <= one.alpha]
    if not differ:
        return ""
    by_pair: dict[str, list[str]] = {}
    for one in differ:
        by_pair.setdefault(f"{one.first} and {one.second}", []).append(one.measure.words)
    listed = [f"between {pair} in {words.listed(names)}" for pair, names in by_pair.items()]
    return (
        f"The difference {words.listed(listed)} is not the same in all strata: see the figure, and "
        "the CSV of the table."
    )


def reading(found: Sequence[Difference]) -> tuple[str, ...]:
    """How to read the differences of an answer, and how they are corrected."""
    tested = [one for one in found if one.p is not None]
    if not tested:
        return ()
    whole = [one for one in tested if one.whole]
    primary = [one.measure.words for one in whole if one.measure.key in FAMILIES]
    failures = sum(one.measure.values is None for one in whole)
    parts = []
    if names := list(dict.fromkeys(primary)):
        sections = " and its sections" if len(names) > 1 else ""
        parts.append(f"{words.listed(names)} as in the verdict{sections}")
    others = len(whole) - len(primary) - failures
    if failures:
        parts.append("shares of runs without a result by themselves")
    if others > 1:
        parts.append(f"the {others} differences of other measures together (Holm)")
    if any(not one.whole for one in tested):
        parts.append("those of single strata and data sets among themselves")
    corrected = f" How p is corrected: {'; '.join(parts)}." if parts else ""
    size = ""
    if any(one.whole and not one.claimed and one.detectable is not None for one in found):
        size = (
            " Detectable: with so many runs and this spread, a difference of that size would be "
            "claimed in 80% of such sweeps."
        )
    return (f"In square brackets: 95% CI.{size}{corrected}",)
