"""The quality of samples at the end of a sweep: what can be compared, and what is left out.

Recall and coverage depend on the numbers of samples and images, and the noise of a distance does.
So within a data set, only values that were measured in the same way are compared.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from scipy import special

from raygan.folder import final_quality
from raygan.report import words
from raygan.report.compare import LEVEL
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import GENERATORS, QUALITIES, number

KINDS = (("feature_energy_distance", "recall", "coverage"), ("sliced_wasserstein",))
"""The measures that are measured together; the first ones say more."""
SHARES = ("recall", "coverage")
"""Measures that are shares, for which higher is better; the others are distances."""


class Made(NamedTuple):
    """How a quality was measured."""

    images: int
    """Samples."""
    real_images: int
    kind: str
    weights: str
    """SHA-256 of the weights of the features; empty without."""


def _made(quality: Mapping[str, Any]) -> Made:
    images, real = (int(quality.get(key) or 0) for key in ("images", "real_images"))
    return Made(images, real, str(quality.get("kind", "")), str(quality.get("weights_sha256", "")))


def made(evidence: Evidence, name: str) -> dict[str, Made]:
    """By data set, how the compared values of the measure ``name`` were measured: as most of them
    were, whatever the generator; of equally many, with more images."""
    counts: dict[str, Counter[Made]] = {}
    for cell in evidence.cells:
        for which in GENERATORS:
            for _, quality in _qualities(evidence, cell, which):
                if number(quality, name) is not None:
                    counts.setdefault(cell.dataset, Counter())[_made(quality)] += 1
    return {
        label: max(mine.items(), key=lambda item: (item[1], item[0]))[0]
        for label, mine in counts.items()
    }


def comparable(evidence: Evidence, name: str, which: str) -> dict[str, dict[int, float]]:
    """By cell and seed, the measure ``name`` of the ``which`` generators of the runs that ended ok,
    without the values that :func:`quality_gaps` names."""
    how = made(evidence, name)
    found: dict[str, dict[int, float]] = {cell.name: {} for cell in evidence.cells}
    for cell in evidence.cells:
        for seed, quality in _qualities(evidence, cell, which):
            value = number(quality, name)
            if value is not None and _made(quality) == how.get(cell.dataset):
                found[cell.name][seed] = value
    return found


def units(cell: CellResults, values: Mapping[int, float]) -> dict[int, float]:
    """``values`` by seed or, if the search was repeated, the arithmetic mean of each repeat of
    which every run gave a result."""
    if not cell.repeats:
        return dict(values)
    groups: dict[int, list[float]] = {}
    for seed, value in cell.kept(values).items():
        groups.setdefault(cell.repeats[cell.runs[seed].id], []).append(value)
    return {repeat: statistics.fmean(mine) for repeat, mine in groups.items()}


def at_zero(evidence: Evidence, name: str) -> list[str]:
    """The runs, in words, whose compared distance ``name`` of any generator is 0 or below, so that
    it has no logarithm: its estimate has no bias, and may be below 0."""
    runs: dict[str, list[str]] = {}
    for which in GENERATORS:
        found = comparable(evidence, name, which)
        for cell in evidence.cells:
            for seed, value in found[cell.name].items():
                if value <= 0:
                    runs.setdefault(cell.runs[seed].id, []).append(which)
    return _titles(evidence, runs)


def means(evidence: Evidence, name: str, which: str) -> dict[str, float]:
    """By data set, the mean of the compared values over all runs, where its 95% interval is above
    0: a mean that is itself noise would set how much the data set counts. The interval is from the
    spread within the cells."""
    found = comparable(evidence, name, which)
    by_set: dict[str, list[list[float]]] = {}
    for cell in evidence.cells:
        by_set.setdefault(cell.dataset, []).append(list(found[cell.name].values()))
    return {
        label: mean
        for label, cells in by_set.items()
        if (mean := statistics.fmean([v for values in cells for v in values] or [0.0])) > 0
        and mean > _reach(cells)
    }


def _reach(cells: Sequence[Sequence[float]]) -> float:
    """Half the width of the 95% interval of the mean over all runs, by Student's t; infinite if no
    cell has two runs."""
    several = [values for values in cells if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return math.inf
    spread = sum(statistics.variance(values) * (len(values) - 1) for values in several) / freedom
    error = math.sqrt(spread / sum(map(len, cells)))
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2) * error)


def quality_notes(evidence: Evidence) -> list[str]:
    """A sentence on each distance that is 0 or below for some runs: which, and how it is compared;
    empty if all distances are above 0."""
    notes = []
    for name in QUALITIES:
        runs = [] if name in SHARES else at_zero(evidence, name)
        if not runs:
            continue
        notes.append(
            f"The {QUALITIES[name]} of {words.times(len(runs), 'run')} is 0 or below, as its "
            f"noise allows near 0: {words.listed(runs)}. So its means and differences are those of "
            "the values, not of their logarithms; differences are in per cent of the mean over all "
            "runs of the data set."
        )
        lacking = [
            f"{f'{label}, ' if label else ''}{which} generators"
            for which in GENERATORS
            for label in made(evidence, name)
            if label not in means(evidence, name, which)
        ]
        if lacking:
            notes.append(
                "It is not compared where the 95% CI of this mean is not above 0: "
                f"{words.listed(lacking)}."
            )
    return notes


def quality_gaps(evidence: Evidence) -> list[str]:
    """Values that some runs have and others lack, and values that are not compared with the others
    of their data set since they were measured in another way: whose, why, and what brings them.

    Empty if nothing was measured, or all alike.
    """
    measured = [quality for both in evidence.qualities.values() for quality in both.values()]
    known = [kind for kind in KINDS if any(name in one for one in measured for name in kind)]
    labels = dict.fromkeys(cell.dataset for cell in evidence.cells)
    return [
        gap
        for label in labels
        for kind in known
        for gap in _gaps(evidence, label, kind, lacking=kind == known[0])
    ]


def _gaps(evidence: Evidence, label: str, kind: tuple[str, ...], *, lacking: bool) -> list[str]:
    """The gaps of the measures ``kind`` of a data set. ``lacking``: also those of runs without."""
    how = made(evidence, kind[0]).get(label)
    tested = {which for both in evidence.qualities.values() for which in both}
    cells = [cell for cell in evidence.cells if cell.dataset == label]
    runs = [record for cell in cells for record in cell.runs.values() if record.outcome == "ok"]
    by_reason: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in runs:
        for which in (which for which in GENERATORS if which in tested):
            quality = evidence.qualities.get(record.id, {}).get(which, {})
            reason = _reason(evidence, kind, quality, how)
            if reason and (lacking or kind[0] in quality):
                by_reason.setdefault(reason, {}).setdefault(record.id, []).append(which)
    where = f" on {label}" if label else ""
    what = words.listed([QUALITIES[name] for name in kind])
    gaps = []
    for (why, cure), named in by_reason.items():
        start = f"{what} of {len(named)} of {words.times(len(runs), 'run')}{where}, {why}"
        which = words.listed(_titles(evidence, named, tested))
        # what is between backticks is shown as code
        text = f"{start}: {which}".replace("`", "'")
        gaps.append(f"{text}; {cure}" if cure else text)
    return gaps


def _reason(
    evidence: Evidence, kind: tuple[str, ...], quality: Mapping[str, Any], how: Made | None
) -> tuple[str, str] | None:
    """Why a generator has no compared values of ``kind``, and what brings them; None if it has."""
    measure = f"`raygan evaluate {evidence.name} --quality`"
    if kind == KINDS[0]:
        measure += " on a machine with `raygan[quality]`"
    if not quality:
        return "not measured", measure
    if not any(name in quality for name in kind):
        return "of which another measure was made", measure
    if number(quality, kind[0]) is None:
        return "not measured, since some samples are not finite numbers", ""
    if (mine := _made(quality)) != how:
        if how is None or mine[:2] == how[:2]:
            why = "measured with other weights than those of the others, and so left out"
        else:
            why = f"left out, since they are of {_numbers(mine)} and the others of {_numbers(how)}"
        return why, f"delete their `{final_quality('*')}`, then {measure}"
    return None


def _numbers(how: Made) -> str:
    return f"{how.images:,} samples against {how.real_images:,} images"


def described(evidence: Evidence) -> str:
    """With how many samples and images the compared values were measured, in words; by data set if
    they differ."""
    texts = {
        label: f"{how.images:,} samples against {how.real_images:,} held-out images"
        for name in reversed(QUALITIES)
        for label, how in made(evidence, name).items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return words.listed([f"{text} ({label})" for label, text in texts.items()])


def _titles(
    evidence: Evidence, runs: Mapping[str, list[str]], both: set[str] | None = None
) -> list[str]:
    """The titles of ``runs``, each with its generators unless these are ``both`` (by default, best
    and last)."""
    titles = {record.id: record.title for record in evidence.records}
    every = set(GENERATORS) if both is None else both
    return [
        titles[run] if set(which) == every else f"{titles[run]} ({words.listed(which)})"
        for run, which in runs.items()
    ]


def _qualities(
    evidence: Evidence, cell: CellResults, which: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """By seed, the quality of the ``which`` generators of the runs that ended ok and have one."""
    for seed, record in cell.runs.items():
        quality = evidence.qualities.get(record.id, {}).get(which)
        if record.outcome == "ok" and quality:
            yield seed, quality
