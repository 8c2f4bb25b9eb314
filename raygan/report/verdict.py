"""The verdict: what the results show, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raygan.report import declared, words
from raygan.report.audit import audit
from raygan.report.compare import LEAST
from raygan.report.evidence import CellResults, Evidence
from raygan.report.family import Family, of_losses
from raygan.report.finals import FEW_IMAGES
from raygan.report.multiple import Choice
from raygan.shown import MOST_MESSAGE, shown

MOST, MOST_OF_SET = 5, 3
"""Most comparisons in the verdict, and most choices of each of several data sets; the others are in
the table."""


def verdict(evidence: Evidence) -> str:
    """How far the loss of each cell may be above the others, which differ, and what is open."""
    return shown(" ".join(_sentences(evidence)), MOST_MESSAGE)


def _sentences(evidence: Evidence) -> list[str]:
    if not evidence.ranked:
        repeated = any(cell.repeats for cell in evidence.cells)
        why = "no cell has a repeat of which every run gave a result" if repeated else (
            "no trial has ended with a result")  # fmt: skip
        return [f"There is no verdict: {why}.", *_lost(evidence),
                *_unfinished(evidence)]  # fmt: skip
    family = of_losses(evidence)
    compared = any(len(part.ranked) > 1 for part in evidence.parts.values())
    answer, by_set = choices(evidence, family)
    sentences = [answer, by_set, _lead(evidence)]
    if compared and not evidence.replicated:
        sentences.append(_single_runs(evidence))
    sentences.append(declared.sentence(declared.results(evidence, family)))
    if compared and evidence.replicated:
        sentences += _differences(evidence, family)
    changed, audited = audit(evidence)
    if changed:
        sentences.append(audited)
    sentences += [*_unfinished(evidence), *_lost(evidence)]
    return [sentence for sentence in [*sentences, *_caveats(evidence)] if sentence]


def choices(evidence: Evidence, family: Family) -> tuple[str, str]:
    """How far the mean loss of each choice may be above the others: in the whole sweep, and on each
    of several data sets. Either is empty if it is unknown."""
    if not evidence.several:
        return _choices(family.choices, family), ""
    over = f"on average over {len(evidence.parts)} data sets, "
    whole = _choices(family.overall, family, over, is_pooled=True)
    each = [
        _choices(mine, family, f"on {label}, ", MOST_OF_SET, is_part=True)
        for label, part in evidence.parts.items()
        if (mine := family.among({cell.name for cell in part.cells}).choices)
    ]
    known = any(choice.regret is not None for choice in [*family.choices, *family.overall])
    if each and known:
        each.append(f"All of these limits hold together ({_level(family)}).")
    return whole, " ".join(each)


def _choices(
    every: Sequence[Choice],
    family: Family,
    place: str = "",
    most: int = MOST,
    *,
    is_part: bool = False,
    is_pooled: bool = False,
) -> str:
    """How far the mean loss of each choice is above the others at most, the lowest limit first;
    empty if that is unknown. ``place``: the beginning of the sentence."""
    known = [(c.cell, c.regret) for c in every if c.regret is not None]
    open_ = [c.cell for c in every if c.regret is None]
    no_limit = words.capital(
        f"{place}how far the mean loss of {words.listed(open_, 'or')} may be above the others has "
        "no limit: too many runs gave no result."
    )
    if not known:
        return no_limit if open_ else ""
    (first, lowest), *rest = known
    count = most if len(rest) == most else most - 1  # one more is named, not counted
    shown = [f"of {cell} at most {words.percent(regret)}" for cell, regret in rest[:count]]
    if (left := len(rest) - len(shown)) > 0:
        highest = max(regret for _, regret in rest)
        what = "choices" if is_pooled else "cells"
        shown.append(f"of the other {left} {what} at most {words.percent(highest)}")
    limit = f"at most {words.percent(lowest)}" if lowest > 0 else "not"
    what = "choice" if is_pooled else "cell"
    text = f"{place}the mean loss of {first} is {limit} above that of any other {what}"
    if not is_part:
        where = " on each data set" if is_pooled else ""
        which = f"with {LEAST} or more results{where}" if family.too_few else "here"
        text += f" {which} ({_level(family)})"
    more = "" if lowest > 0 else " above"
    others = f"; that {words.listed(shown)}{more}" if shown else ""
    return f"{words.capital(text)}{others}.{f' {no_limit}' if open_ else ''}"


def _level(family: Family) -> str:
    some_failed = any(sum(one.failed) for one in family.comparisons)
    return "95%; runs without a result are the worst" if some_failed else "95%"


def _lead(evidence: Evidence) -> str:
    """The cell with the lowest mean loss; of each of several data sets, the first of its own."""
    if not evidence.several:
        best, *others = evidence.ranked
        start = f"By the {evidence.measure}, {best.name} has"
        mean = "mean loss" if evidence.summary(best).n > 1 else "loss"
        detail = _mean(evidence, best)
        if not others:
            return f"{start} a {mean} of {detail}; no other cell has a result to compare with."
        return f"{start} the lowest {mean}, {detail}."
    several = any(len(part.cells) > 1 for part in evidence.parts.values())
    means = [
        f"on {label} {f'{part.ranked[0].name} with ' if several else ''}"
        f"{_mean(part, part.ranked[0])}"
        for label, part in evidence.parts.items()
        if part.ranked
    ]
    said = f"mean loss, by the {evidence.measure}: {'; '.join(means)}."
    if several:
        return f"Lowest {said}"
    return (
        f"M{said[1:]} Nothing is compared: there is one cell on each data set, and losses of "
        "different data sets cannot be compared."
    )


def _mean(evidence: Evidence, best: CellResults) -> str:
    summary = evidence.summary(best)
    details = [f"n = {words.times(summary.n, best.unit)}"]
    if (interval := summary.interval) is not None:
        details.insert(0, f"95% CI {words.loss(interval.low)}–{words.loss(interval.high)}")
    if best.setting not in ("", "as given"):
        details.append(best.setting)
    return f"{words.loss(summary.value)} ({', '.join(details)})"


def _single_runs(evidence: Evidence) -> str:
    if evidence.several:
        return (
            "No difference between cells can be claimed: each cell has one run only. To tell a "
            "difference from chance, set replicate.seeds to 5 or more."
        )
    best, other = evidence.ranked[:2]
    gap = 100 * (1 - evidence.mean(best) / evidence.mean(other))
    is_best = not (best.replicates or other.replicates)
    luck = ", the best of its search, which is partly luck" if is_best else ""
    below = f"{words.percent(gap)} below" if gap >= 0.005 else "the same as"
    return (
        f"That is {below} {other.name}'s, but no difference between cells "
        f"can be claimed: each cell has one run only{luck}. To tell a difference from "
        "chance, set replicate.seeds to 5 or more."
    )


def _differences(evidence: Evidence, family: Family) -> list[str]:
    """Differences in words: those over all strata, or else of two cells, the best cell first."""
    chosen = family.pooled or family.within
    order = {cell.name: number for number, cell in enumerate(evidence.ranked)}
    if not family.pooled:
        chosen = sorted(chosen, key=lambda c: (order[c.cell], order[c.other]))
    sentences = [words.difference(c, "loss", family.correction) for c in chosen[:MOST]]
    sentences += [
        f"The difference between {c.cell} and {c.other} is not the same in all {c.strata_are} "
        f"(p = {p:.2g}{', adjusted' if len(family.heterogeneous) > 1 else ''}): see the table."
        for c, p in family.heterogeneous[:MOST]
        if p <= family.alpha
    ]
    if (left := len(family.comparisons) - len(chosen[:MOST])) > 0:
        sentences.append(
            f"{words.times(left, 'more comparison')} {'is' if left == 1 else 'are'} in the table "
            "of differences."
        )
    if evidence.claims:
        sentences.append("All differences that were not declared are exploratory.")
    return sentences


def _lost(evidence: Evidence) -> list[str]:
    """Sentences on the runs without a result, which the losses do not show."""
    sentences = []
    for cell in evidence.cells:
        if cell.lost_before:
            sentences.append(words.before_warmup(cell))
        failed, ended = cell.failed, cell.ended
        if cell.runs and failed and cell.replicates:
            rate = words.share(len(failed), len(ended), cell.failure_rate)
            how = words.outcomes(record.outcome for record in failed)
            tail = "" if len(failed) == len(ended) else "; its mean is over the other runs"
            if cell.repeats:
                units = words.times(len(evidence.units(cell)), "repeat")
                tail = (
                    f"; its mean is over the {units} of which every run gave one"
                    if evidence.units(cell)
                    else "; there is no repeat of which every run gave one, and so no mean"
                )
            sentences.append(f"{rate} of {cell.name}'s runs gave no result: {how}{tail}.")
        elif not evidence.units(cell):
            how = words.outcomes(record.outcome for record in cell.records)
            sentences.append(f"{cell.name} has no result{f': {how}' if how else ''}.")
    if (left := len(sentences) - MOST) > 1:
        sentences[MOST:] = [f"{left} more sentences like these: see the table of cells."]
    return sentences


def _useless(evidence: Evidence, label: str) -> str:
    """Which cells of one data set are no better than its mean image; ``label``: empty, if it is the
    only data set."""
    baseline = math.inf if evidence.baseline is None else evidence.baseline
    useless = [cell.name for cell in evidence.ranked if evidence.mean(cell) >= baseline]
    if not useless:
        return ""
    every = evidence.ranked[0].name in useless
    which = "Nothing" if every else f"By {words.listed(useless, 'or')}, nothing"
    of = f" on {label}" if label and every else ""
    whose = f" of {label}" if label else ""
    return (
        f"{which} has been learned{of}: the mean training image{whose} has a loss of "
        f"{words.loss(baseline)}, which is not higher."
    )


def _without_final_test(evidence: Evidence) -> str:
    """Why the final test is not counted, if runs have taken different ones; else empty."""
    runs = [r.id for cell in evidence.cells for r in cell.runs.values() if r.outcome == "ok"]
    others = [evidence.other_tests[run] for run in runs if run in evidence.other_tests]
    if evidence.by_final_test or not others:
        return ""
    return (
        f"The final test does not count: {len(others)} of {words.times(len(runs), 'run')} took it "
        f"with other settings ({words.listed(list(dict.fromkeys(others)), 'or')}). To give all "
        f"runs the sweep's, run `raygan evaluate {evidence.name}`."
    )


def _caveats(evidence: Evidence) -> list[str]:
    sentences = [_without_final_test(evidence)]
    sentences += [_useless(part, label) for label, part in evidence.parts.items()]
    searched = [c.name for c in evidence.ranked if evidence.replicated and not c.replicates]
    if searched:
        sentences.append(
            f"The loss of {words.listed(searched)} is that of the best trial of the search, which "
            "is partly luck: no replicate has started yet."
        )
    several = [c.name for c in evidence.ranked if c.replicated_settings > 1]
    if several:
        sentences.append(
            f"Several settings of {words.listed(several)} have replicates: compared are those of "
            "the one that the search ranked first."
        )
    chosen = [
        c.name
        for c in evidence.ranked
        if len(c.runs) > 1
        and len(c.records) > len(c.replicates)
        and any(record.kind == "search" for record in c.runs.values())
    ]
    if chosen:
        sentences.append(
            f"Each run of {words.listed(chosen)} is the best trial of a search of its own, which "
            "is partly luck: a cell whose losses vary more looks better than it is."
        )
    if evidence.replicated and len(evidence.comparable) > 1:
        sentences.append(over(evidence))
    if evidence.rule is not None and evidence.rule.low:
        sentences.append(
            f"Early stopping may have chosen the wrong settings: over {evidence.rule.n} trials "
            "that it could not stop, the rank correlation of early and end losses is "
            f"{evidence.rule.rho:.2f}."
        )
    few = [c.name for c in evidence.ranked if c.replicates and c not in evidence.comparable]
    if few and evidence.comparable:
        unit = evidence.cells[0].unit
        sentences.append(f"Fewer than {LEAST} {unit}s of {words.listed(few)} gave a result: "
                         "nothing is claimed of them.")  # fmt: skip
    return sentences


def _unfinished(evidence: Evidence) -> list[str]:
    if evidence.finished:
        return []
    return ["The sweep has not finished: these results may change."]


def over(evidence: Evidence) -> str:
    """Which sources of variation the intervals cover."""
    if not evidence.several:
        return _over(evidence)
    said = {label: _over(part) for label, part in evidence.parts.items() if part.ranked}
    if len(set(said.values())) < 2:
        return next(iter(said.values()), "")
    return " ".join(f"{label}: {text}" for label, text in said.items())


def _over(evidence: Evidence) -> str:
    if evidence.resplit:
        return "The intervals are over seeds and splits of the images; the data set is fixed."
    if any(cell.repeats for cell in evidence.cells):
        return (
            "The intervals are over repeats of the whole search; the images, their split and the "
            "training set are fixed."
        )
    few = evidence.final_images
    are_few = evidence.by_final_test and few is not None and few < FEW_IMAGES
    if are_few and not evidence.counts_images:
        return (
            f"The intervals are over seeds alone. They leave out the choice of the {few:,} final "
            "images, whose losses are not stored: the true ones are wider."
        )
    if evidence.counts_images:
        return (
            "The intervals of differences are over seeds and held-out images, those of a cell's "
            "mean over seeds; the split and the training set are fixed."
        )
    return "The intervals are over seeds; the images, their split and the training set are fixed."
