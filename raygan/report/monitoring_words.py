"""What the relation of the loss to a second measure says, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raygan.report import monitoring, words
from raygan.report.evidence import Evidence

_MOST_SETS, _MOST_CELLS = 3, 4
"""Most data sets of which an answer tells the order, and most cells that it lists."""


def orders(evidence: Evidence, name: str) -> dict[str, monitoring.Order]:
    """By data set, the order of its cells by loss and by the second measure."""
    labels = dict.fromkeys(cell.dataset for cell in evidence.cells)
    found = {s: monitoring.order(monitoring.ends(evidence, name, s)) for s in labels}
    return {label: order for label, order in found.items() if order is not None}


def within(
    within: monitoring.Correlation | None, given: monitoring.Correlation | None, what: str
) -> list[str]:
    if within is None:
        return [f"Not answered: no run has {monitoring.LEAST_WITHIN} evaluations with both."]
    together = within.interval is not None and within.interval.low > 0
    start = f"Within a run, the loss and the {what} "
    if together:
        start += "fall and rise together"
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
    sentences = []
    for label, order in list(found.items())[:_MOST_SETS]:
        on = f"On {label}, the" if label else "The"
        tau = f"Kendall's τ = {words.two_digits(order.tau)}, {len(order.by_loss)} cells"
        few = len(order.by_loss) <= _MOST_CELLS
        if order.same:
            which = f": {words.listed(order.by_loss)}, the best first" if few else ""
            sentences.append(
                f"{on} mean loss and the mean {what} order the cells alike{which} ({tau})."
            )
        elif few:
            sentences.append(
                f"{on} mean loss orders the cells {words.listed(order.by_loss)}, the best first; "
                f"the mean {what} orders them {words.listed(order.by_other)} ({tau})."
            )
        else:
            sentences.append(
                f"{on} mean loss and the mean {what} do not order the cells alike ({tau}): "
                f"{order.by_loss[0]} has the best loss, {order.by_other[0]} the best {what}."
            )
    return sentences


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
    if found.worse:
        text += f", in {found.told} of which the loss rose again, too"
    return [
        f"{text}. Of the {found.steady} others, the loss rose again in {found.false}{left_out}."
    ]


def _left_out(n: int, what: str) -> str:
    """; 2 runs whose distance is not above 0 are left out."""
    verb = "is" if n == 1 else "are"
    return f"; {words.times(n, 'run')} whose {what} is not above 0 {verb} left out" if n else ""


def ball(evidence: Evidence) -> list[str]:
    sentences = []
    balls = monitoring.balls(evidence)
    for label in dict.fromkeys(ball.dataset for ball in balls):
        means = {
            ball.cell: (ball.loss, ball.ball_loss)
            for ball in balls
            if ball.dataset == label and ball.loss is not None and ball.ball_loss is not None
        }
        order = monitoring.ordered(means)
        if order is None:
            continue
        on = f"on {label}, " if label else ""
        if order.same:
            sentences.append(
                f"With codes kept within the prior's ball, {on}the order of the cells by loss "
                "holds."
            )
        else:
            sentences.append(
                f"With codes kept within the prior's ball, {on}the order of the cells is "
                f"{words.listed(order.by_other)}; without, it is {words.listed(order.by_loss)}."
            )
    return sentences
