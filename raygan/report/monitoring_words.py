"""What the relation of the loss to a second measure says, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raygan.report import monitoring, words
from raygan.report.compare import LEAST
from raygan.report.evidence import Evidence

_MOST_SETS, _MOST_CELLS = 3, 4
"""Most data sets of which an answer tells the order, and most cells that it lists."""


def orders(evidence: Evidence, name: str) -> dict[str, monitoring.Order]:
    """By data set, the order of its cells by loss and by the second measure."""
    labels = dict.fromkeys(cell.dataset for cell in evidence.cells)
    found = {s: monitoring.order(monitoring.ends(evidence, name, s)) for s in labels}
    return {label: order for label, order in found.items() if order is not None}


def taken(evidence: Evidence, name: str, what: str) -> list[str]:
    """A sentence on the data sets of which the second measure between runs is that of the last
    evaluation; empty if there is none."""
    labels = dict.fromkeys(cell.dataset for cell in evidence.cells)
    lacking = [label for label in labels if not monitoring.of_final_tests(evidence, name, label)]
    if not lacking:
        return []
    on = f"On {words.listed(lacking)}, the" if any(lacking) else "The"
    return [
        f"{on} {what} between runs is that of the last evaluation, since it was not measured alike "
        "at the end of all runs."
    ]


def within(
    within: monitoring.Correlation | None, given: monitoring.Correlation | None, what: str
) -> list[str]:
    if within is None:
        return [f"Not answered: no run has {monitoring.LEAST_WITHIN} evaluations with both."]
    together = within.interval is not None and within.interval.low > 0
    start = f"Within a run, the loss and the {what} "
    if together:
        start += "fall and rise together"
    elif within.interval is None:
        start += "have a correlation of which nothing can be claimed from so few runs"
    elif within.interval.high < 0:
        start += "move in opposite directions"
    else:
        start += "have a correlation that cannot be told from 0"
    sentences = [f"{start} (mean ρ = {_rho(within)})."]
    if given is None:
        return [*sentences, "Whether this is more than the progress of training is not known."]
    rho = f"mean ρ = {_rho(given)}"
    if given.interval is None:
        sentences.append(f"Given the iteration, {rho}: with so few cells, nothing can be claimed.")
    elif given.interval.low > 0:
        sentences.append(f"Given the iteration, {rho}: the loss monitors this measure.")
    elif together:
        sentences.append(
            f"Given the iteration, {rho}: both follow the iteration, and that the loss says more "
            "of the samples than the iteration does cannot be claimed."
        )
    else:
        sentences.append(
            f"Given the iteration, {rho}: that the loss says anything of the samples cannot be "
            "claimed."
        )
    return sentences


def _rho(one: monitoring.Correlation) -> str:
    text = words.two_digits(one.rho)
    if one.interval is not None:
        low, high = (words.two_digits(end) for end in (one.interval.low, one.interval.high))
        text += f", 95% CI {low} to {high}"
    return f"{text}, {words.times(one.n, one.unit)}"


def ordered(found: Mapping[str, monitoring.Order], what: str) -> list[str]:
    """Whether the loss and the second measure order the cells of a data set alike."""
    return [_ordered(label, order, what) for label, order in list(found.items())[:_MOST_SETS]]


def _ordered(label: str, order: monitoring.Order, what: str) -> str:
    on = f"On {label}, the" if label else "The"
    measures = (("loss", order.by_loss), (what, order.by_other))
    if order.tau is None:
        same = words.listed([f"mean {one}" for one, groups in measures if len(groups) == 1])
        return (
            f"{on} orders of the cells by loss and by {what} cannot be compared: all {order.n} "
            f"cells have the same {same}."
        )
    tau = _tau(order.tau, order)
    if order.n > _MOST_CELLS:
        do = "order" if order.same else "do not order"
        best = "; ".join(f"by {one}, {_best(groups)}" for one, groups in measures)
        return f"{on} observed means of loss and {what} {do} the cells alike ({tau}): {best}."
    if order.same:
        return (
            f"{on} observed means of loss and {what} order the cells alike: "
            f"{_ranked(order.by_loss)}, the best first ({tau})."
        )
    return (
        f"{on} observed mean loss orders the cells {_ranked(order.by_loss)}, the best first; the "
        f"observed mean {what} orders them {_ranked(order.by_other)} ({tau})."
    )


def _tau(tau: float, order: monitoring.Order) -> str:
    text = f"Kendall's {'τ-b' if order.tied else 'τ'} = {words.two_digits(tau)}, {order.n} cells"
    if order.interval is None:
        return text
    low, high = (words.two_digits(end) for end in (order.interval.low, order.interval.high))
    return f"{text}; {low} to {high} if the runs are drawn again"


def _ranked(groups: monitoring.Groups) -> str:
    """a, b and c; with a tie: a, then b and c alike."""
    items = [_alike(group) for group in groups]
    if all(len(group) == 1 for group in groups):
        return words.listed(items)
    more = ["others"] if len(items) > words.MOST else []
    return ", then ".join([*items[: words.MOST], *more])


def _best(groups: monitoring.Groups) -> str:
    """a is the best; with ties: a and b are the best, and c and d alike."""
    ties = [_alike(group) for group in groups[1:] if len(group) > 1]
    verb = "is" if len(groups[0]) == 1 else "are"
    return words.listed([f"{words.listed(groups[0])} {verb} the best", *ties])


def _alike(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{words.listed(group)} alike"


def use(courses: Sequence[monitoring.Course], what: str) -> list[str]:
    """What choosing an evaluation by the loss does; empty without runs."""
    if not courses:
        return []
    start = "Choosing the evaluation with the lowest loss, instead of the last one, changes the "
    found = monitoring.use(courses)
    if found is None:
        return [f"{start}{what} by an unknown amount{_left_out(len(courses), what)}."]
    text = f"{start}{what} by {words.signed(found.percent)}, {words.times(found.n, 'run')}"
    if found.interval is None:
        text += ": too few for a claim"
    else:
        low, high = (words.signed(end) for end in (found.interval.low, found.interval.high))
        text += f", 95% CI {low} to {high}"
        if not found.interval.leaves_out_0:
            text += ": that this choice helps or harms cannot be claimed"
        else:
            text += f": this choice {'helps' if found.percent < 0 else 'harms'}"
    return [f"{text}{_left_out(found.left_out, what)}."]


def alarms(courses: Sequence[monitoring.Course], what: str) -> list[str]:
    """Whether the loss tells that the second measure got worse again; empty without runs that have
    enough evaluations."""
    found = monitoring.alarms(courses)
    if found is None:
        return []
    left_out = _left_out(found.left_out, what)
    if not found.worse + found.steady:
        return [f"Whether the {what} got worse again is not known{left_out}."]
    text = f"The {what} got worse again in {found.worse} of {found.worse + found.steady} runs"
    parts = [f"{found.told} of these"] if found.worse else []
    if found.steady:
        others = f" of the {found.steady} others" if found.worse else ""
        parts.append(f"{found.false}{others}")
    return [f"{text}, the loss in {words.listed(parts)}{left_out}."]


def _left_out(n: int, what: str) -> str:
    """; 2 runs whose distance is not above 0 are left out."""
    verb = "is" if n == 1 else "are"
    return f"; {words.times(n, 'run')} whose {what} is not above 0 {verb} left out" if n else ""


def ball(evidence: Evidence) -> list[str]:
    """Whether the order of the cells holds with codes within the ball, for the data sets of whose
    cells each has :data:`LEAST` runs and both losses."""
    sentences = []
    balls = {ball.cell: ball for ball in monitoring.balls(evidence)}
    for label in dict.fromkeys(cell.dataset for cell in evidence.cells):
        cells = [cell for cell in evidence.cells if cell.dataset == label]
        means = {
            cell.name: (ball.loss, ball.ball_loss)
            for cell in cells
            if (ball := balls.get(cell.name))
            and ball.loss is not None
            and ball.ball_loss is not None
        }
        enough = all(c.name in means and len(evidence.units(c)) >= LEAST for c in cells)
        order = monitoring.ordered(means) if enough else None
        if order is None:
            continue
        start = "With codes kept within the prior's ball, "
        start += f"on {label}, the order of the cells" if label else "the order of the cells"
        if order.same:
            sentences.append(f"{start} by their observed mean losses is the same as without.")
        else:
            sentences.append(
                f"{start} by their observed mean losses is {_ranked(order.by_other)}; without, it "
                f"is {_ranked(order.by_loss)}."
            )
    return sentences
