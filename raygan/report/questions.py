"""The four questions of the paper (arXiv 1704.03971), and the answers of a sweep in words.

An answer claims no more than the numbers do. What an answer lacks is said with the line of YAML
that would bring it. A question whose axis is missing is not asked: one sentence says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raygan.records import DATASET
from raygan.report import declared, monitoring, monitoring_words, norm_words, words
from raygan.report.claim import Claim
from raygan.report.compare import LEAST
from raygan.report.evidence import Evidence, once
from raygan.report.family import Family, of_losses, value_names
from raygan.report.monitoring import DISTANCES
from raygan.report.norm_contrasts import (
    NORM,
    Difference,
    Interaction,
    adjusted,
    differences,
    interactions,
    norms,
    strata,
)
from raygan.report.norm_measures import loss, measures
from raygan.report.paper_numbers import NUMBERS
from raygan.report.qualities import quality_gaps, quality_notes

MARGIN = 0.05
"""Margin of the loss for “equal or higher quality” if no claim declares one."""
DEPTH = ("architecture", "blocks", "levels")
"""Axes of the grid that make networks deeper."""
_PAIRS = (("wn", "bn"), ("wn", "vanilla"))
_ONE_NETWORK = "`grid: {architecture: [dcgan, resnet]}`"
_LOST = ("early-failure", "diverged", "collapsed", "untrained", "failed")


@dataclass(frozen=True)
class Question:
    """One question of the paper, and the answer of this sweep."""

    key: str
    title: str
    text: str
    answer: str
    """A few sentences; empty if the sweep does not ask the question."""
    details: tuple[str, ...] = ()
    """What the answer says beyond its first measures."""
    notes: tuple[str, ...] = ()
    """What to know beside the answer."""
    missing: tuple[str, ...] = ()
    """What a complete answer lacks, each with the YAML that brings it."""
    sheets: tuple[str, ...] = ()
    """Keys of its tables."""


_TEXTS = {
    "rq1": "Does batch normalisation help or harm training and samples?",
    "rq2": "Is weight normalisation more stable and closer in reconstruction than batch "
    "normalisation?",
    "rq3": "Does the reconstruction loss monitor training and reflect the samples' quality?",
    "rq4": "Does weight normalisation work in deeper networks and on several data sets?",
}


def questions(evidence: Evidence) -> list[Question]:
    """The four questions; those that the sweep does not ask have no answer."""
    return [_first(evidence), _second(evidence), _third(evidence), _fourth(evidence)]


def not_asked(every: Sequence[Question]) -> str:
    """One sentence on the questions that the sweep does not ask; empty if it asks all."""
    parts = [f"{q.title} (it takes {'; '.join(q.missing)})" for q in every if not q.answer]
    return f"This sweep does not ask {words.listed(parts)}." if parts else ""


def _question(key: str, answer: str = "", **more: tuple[str, ...]) -> Question:
    return Question(key, key.upper(), _TEXTS[key], answer, **more)


def pairs(evidence: Evidence, of: Sequence[tuple[str, str]] = _PAIRS) -> list[tuple[str, str]]:
    """Those pairs of norms that the grid has in a stratum."""
    return [pair for pair in of if strata(evidence, *pair)]


@once
def first(evidence: Evidence) -> list[Difference]:
    """The differences of RQ1: bn against vanilla, by all measures."""
    return adjusted(differences(evidence, "bn", "vanilla", measures(evidence)))


@once
def second(evidence: Evidence) -> list[Difference]:
    """The differences of RQ2: wn against bn and against vanilla, all but speed."""
    chosen = [measure for measure in measures(evidence) if measure.key != "log_area"]
    found = [one for pair in pairs(evidence) for one in differences(evidence, *pair, chosen)]
    return adjusted(found)


@once
def fourth(evidence: Evidence) -> list[Difference]:
    """The differences of RQ4: the loss of wn against the other norms."""
    found = [
        one for pair in pairs(evidence) for one in differences(evidence, *pair, [loss(evidence)])
    ]
    return adjusted(found)


@once
def dependences(evidence: Evidence) -> list[Interaction]:
    """The interactions of RQ4: of wn against the others with depth and with the data set."""
    return interactions(evidence, pairs(evidence), varied(evidence))


def varied(evidence: Evidence) -> list[str]:
    """The axes of RQ4 along which cells with a norm differ: depth and data sets."""
    return [
        axis
        for axis in (*DEPTH, DATASET)
        if len({repr(c.values.get(axis)) for c in evidence.cells if NORM in c.values}) > 1
    ]


def _first(evidence: Evidence) -> Question:
    if not pairs(evidence, [("bn", "vanilla")]):
        lacks = [norm for norm in ("vanilla", "bn") if norm not in norms(evidence)]
        return _question("rq1", missing=(_cells(lacks),))
    found = first(evidence)
    main = [one for one in found if one.whole]
    return _question(
        "rq1",
        norm_words.answer([("bn", "vanilla")], main),
        details=norm_words.details([("bn", "vanilla")], main),
        notes=(
            _lost(evidence, ("bn", "vanilla")),
            *quality_notes(evidence),
            *norm_words.reading(found),
        ),
        missing=(*_few(evidence, main), *_one_set(evidence), *_unmeasured(evidence)),
        sheets=("rq1_differences",),
    )


def _second(evidence: Evidence) -> Question:
    known = pairs(evidence)
    if not known:
        return _question("rq2", missing=(_lacking(evidence),))
    found = second(evidence)
    main = [one for one in found if one.whole]
    lacks = [other for _, other in _PAIRS if ("wn", other) not in known]
    return _question(
        "rq2",
        f"{norm_words.answer(known, main)} {_claims(evidence, main)}".strip(),
        details=norm_words.details(known, main),
        notes=(
            _phases(evidence),
            _lost(evidence, ("wn", "bn", "vanilla")),
            *_paper(main),
            *quality_notes(evidence),
            *norm_words.reading(found),
        ),
        missing=(
            *([_cells(lacks)] if lacks else []),
            *_few(evidence, main),
            *_unmeasured(evidence),
        ),
        sheets=("rq2_differences", "rq2_failures", "paper_numbers"),
    )


def _fourth(evidence: Evidence) -> Question:
    axes = varied(evidence)
    if not pairs(evidence):
        return _question("rq4", missing=(_lacking(evidence),))
    if not axes:
        return _question("rq4", missing=(f"{_ONE_NETWORK}, or several data sets",))
    found = fourth(evidence)
    main = [one for one in found if one.whole]
    known = [one for one in main if one.known]
    answer = f"Not answered: fewer than {LEAST} runs of each cell gave a result."
    if known:
        more = [_where(found), norm_words.lacking(main), _changes(evidence, axes)]
        answer = " ".join(filter(None, [norm_words.losses(known), *more]))
    lacks = [] if set(axes) & set(DEPTH) else [f"one architecture only: {_ONE_NETWORK}"]
    return _question(
        "rq4",
        answer,
        notes=(_lost(evidence, ("wn", "bn", "vanilla")), *norm_words.reading(found)),
        missing=(*lacks, *_one_set(evidence), *_few(evidence, main)),
        sheets=("rq4_differences", "rq4_interactions"),
    )


def _where(found: Sequence[Difference]) -> str:
    """In which strata wn's loss can be claimed to be lower or higher; empty if in none."""
    parts = []
    for other in dict.fromkeys(one.second for one in found):
        claimed = [
            one for one in found
            if one.second == other and one.of == 1 and not one.whole and one.claimed
        ]  # fmt: skip
        for word, is_lower in (("lower", True), ("higher", False)):
            places = [
                " ".join(filter(None, [one.dataset, one.within]))
                for one in claimed
                if (one.value < 0) is is_lower
            ]
            if places:
                parts.append(f"{word} than that of {other} on {words.listed(places)}")
    return f"The loss of wn can be claimed to be {words.listed(parts)}." if parts else ""


def _lost(evidence: Evidence, chosen: Sequence[str]) -> str:
    """How many runs of each norm gave no result, and where."""
    parts = []
    for norm in (norm for norm in chosen if norm in norms(evidence)):
        cells = [cell for cell in evidence.cells if str(cell.values.get(NORM)) == norm]
        lost = [f"{cell.name} {cell.lost} of {cell.tried}" for cell in cells if cell.lost]
        total = f"{norm} {sum(c.lost for c in cells)} of {sum(c.tried for c in cells)}"
        parts.append(f"{total} ({words.listed(lost)})" if lost and len(cells) > 1 else total)
    unit = evidence.cells[0].unit.capitalize()
    return f"{unit}s of the verdict without a result: {words.listed(parts)}."


def _changes(evidence: Evidence, axes: Sequence[str]) -> str:
    """Whether the difference depends on the network or on the data."""
    found = [one for one in dependences(evidence) if one.contrast.interval() is not None]
    claimed = [norm_words.dependence(one) for one in found if one.claimed]
    if claimed:
        return f"This depends on where: {words.listed(claimed)}."
    on = words.listed(["the data set" if axis == DATASET else axis for axis in axes], "or")
    if not all(one.whole for one in found):
        return f"Whether this depends on {on} is not tested, since runs gave no result."
    return f"That this depends on {on} cannot be claimed." if found else ""


def _third(evidence: Evidence) -> Question:
    name = monitoring.distance(evidence)
    if name is None:
        return _question("rq3", missing=("a second measure: `train: {quality: features}`",))
    courses, what = monitoring.courses(evidence, name), DISTANCES[name]
    within = monitoring.over_runs([monitoring.spearman(c.losses, c.distances) for c in courses])
    given = monitoring.over_cells(courses, monitoring.given_iteration(courses))
    orders = monitoring_words.orders(evidence, name)
    lacks = []
    if within is None or within.interval is None or given is None or given.interval is None:
        lacks.append(
            f"{LEAST} cells with {LEAST} runs each of {monitoring.LEAST_GIVEN} evaluations or "
            "more: `replicate: {seeds: 5}` and a smaller `train.evaluate_every`"
        )
    if name == "sliced_wasserstein":
        lacks.append(
            "a measure that sees contrast and dropped classes: `train: {quality: features}` (the "
            "sliced Wasserstein distance is blind to them)"
        )
    return _question(
        "rq3",
        " ".join(
            [*monitoring_words.within(within, given, what), *monitoring_words.ordered(orders, what)]
        ),
        notes=(
            *monitoring_words.taken(evidence, name, what),
            *monitoring_words.use(courses, what),
            *monitoring_words.alarms(courses, what),
            *monitoring_words.ball(evidence),
        ),
        missing=tuple(lacks),
        sheets=("rq3_within", "rq3_between", "rq3_ball"),
    )


def _claims(evidence: Evidence, main: Sequence[Difference]) -> str:
    """The declared claims about the pairs of RQ2, and whether wn is not worse than vanilla."""
    named = [_names(evidence, *pair) for pair in _PAIRS]
    tested = [
        result
        for result in declared.results(evidence, of_losses(evidence))
        if any({result.claim.cell, result.claim.other} in names for names in named)
    ]
    sentences = [declared.sentence(tested)]
    ours = _names(evidence, "wn", "vanilla")
    firsts = {"wn", *(s.first.name for s in strata(evidence, "wn", "vanilla"))}
    if not any(
        one.claim.kind == "not_worse"
        and {one.claim.cell, one.claim.other} in ours
        and one.claim.cell in firsts
        for one in tested
    ):
        sentences.append(_not_worse(evidence, main))
    return " ".join(filter(None, sentences))


def _names(evidence: Evidence, first: str, second: str) -> list[set[str]]:
    """What a claim about a pair names: the norms, or the only two cells that have them."""
    every = strata(evidence, first, second)
    cells = [{s.first.name, s.second.name} for s in every] if len(every) == 1 else []
    called = value_names(NORM, {cell.name: cell.values for cell in evidence.cells})
    return [{first, second}, {called.get(first, first), called.get(second, second)}, *cells]


def _not_worse(evidence: Evidence, main: Sequence[Difference]) -> str:
    """Whether wn has at least vanilla's quality, up to :data:`MARGIN`; empty if untested."""
    one = next((d for d in main if d.second == "vanilla" and d.measure.key == "loss"), None)
    if one is None or one.comparison is None:
        return ""
    claim = Claim("not_worse", "wn", "vanilla", MARGIN, declared=False)
    alone = replace(evidence, claims=(claim,))
    (result,) = declared.results(alone, Family([one.comparison], alpha=evidence.alpha))
    if result.adjusted is None:
        return ""
    failed, ended = one.comparison.failed, one.comparison.ended
    why = ""
    if not result.holds and failed[0] * ended[1] > failed[1] * ended[0]:
        why = ", since more of its runs gave no result"
    return (
        f"That wn's loss is at most {100 * MARGIN:.3g}% above vanilla's "
        f"{'can' if result.holds else 'cannot'} be claimed{why} (exploratory, p = "
        f"{result.adjusted:.2g})."
    )


def _phases(evidence: Evidence) -> str:
    parts = []
    for norm, counts in failures(evidence).items():
        lost = [f"{counts[phase]} {phase}" for phase in _LOST if counts[phase]]
        total = sum(counts[phase] for phase in _LOST)
        detail = f" ({', '.join(lost)})" if lost else ""
        parts.append(f"{norm} {total} of {counts['ended']}{detail}")
    return f"Trials without a result, in all attempts: {words.listed(parts)}."


def failures(evidence: Evidence) -> dict[str, dict[str, int]]:
    """By norm of RQ2, the number of ended trials and of those lost in each phase."""
    found: dict[str, dict[str, int]] = {}
    for norm in norms(evidence):
        if norm not in ("vanilla", "bn", "wn"):
            continue
        outcomes: list[str] = [
            record.outcome
            for cell in evidence.cells
            if str(cell.values.get(NORM)) == norm
            for record in cell.records
            if record.outcome is not None
        ]
        found[norm] = {"ended": len(outcomes), **{p: outcomes.count(p) for p in _LOST}}
    return found


def _paper(main: Sequence[Difference]) -> tuple[str, ...]:
    ours = {(d.first, d.second): d for d in main if d.measure.key == "loss"}
    parts = [
        f"{theirs.words} against {theirs.second} (here "
        f"{norm_words.shown(ours[theirs.first, theirs.second])})"
        for theirs in NUMBERS
        if (theirs.first, theirs.second) in ours
    ]
    if not parts:
        return ()
    return (f"The paper's final loss of wn: {words.listed(parts)}; see the caveats in the table.",)


def _few(evidence: Evidence, main: Sequence[Difference]) -> tuple[str, ...]:
    losses = [one for one in main if one.measure.key == "loss"]
    if losses and evidence.replicated and all(one.known for one in losses):
        return ()
    most = max((cell.tried for cell in evidence.cells), default=0)
    needed = f"at least {LEAST} {evidence.cells[0].unit}s of each cell with a result"
    how = "`replicate: {seeds: 5}`" if most < 5 else f"more `replicate.seeds` than {most}"
    return (f"{needed}: {how}",)


def _one_set(evidence: Evidence) -> tuple[str, ...]:
    if len({cell.dataset for cell in evidence.cells}) > 1:
        return ()
    return (
        "one data set only: a list under `dataset`, such as `dataset: [{name: cifar10, path: …}, "
        "{name: celeba, path: …}]`",
    )


def _unmeasured(evidence: Evidence) -> tuple[str, ...]:
    lacks = []
    if not evidence.by_final_test:
        lacks.append("a final test of every run: `final: {steps: 2000}`")
    if not evidence.qualities:
        lacks.append("sample quality: `train: {quality: features}`")
    return (*lacks, *quality_gaps(evidence))


def _lacking(evidence: Evidence) -> str:
    known = norms(evidence)
    return _cells([norm for norm in ("vanilla", "bn", "wn") if norm not in known])


def _cells(lacks: Sequence[str]) -> str:
    both = words.listed(lacks)
    return f"cells with {both}: `grid: {{norm: [vanilla, bn, wn]}}`"
