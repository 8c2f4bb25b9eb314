"""The table of all stop rules, and what they have in common."""

from __future__ import annotations

import math
from typing import Protocol

from raygan.errors import ConfigError
from raygan.recipe import Table, blamed, parameters
from raygan.sweep.stopping.asha import Asha
from raygan.sweep.stopping.median import Median
from raygan.sweep.stopping.never import Never
from raygan.sweep.stopping.patience import Patience
from raygan.sweep.stopping.rule import GRACE, Stopper, StopRule

RULES: Table[StopRule] = Table("stop rule", "stop.rule", StopRule, Asha, Median, Patience, Never)
EXEMPT = 5
"""One in so many search trials of a cell is never stopped."""


class Stop(Protocol):
    """The YAML's section ``stop``; it has the parameters of the rules, too."""

    @property
    def rule(self) -> str | None: ...
    @property
    def grace(self) -> int | None: ...


def rule_of(stop: Stop) -> StopRule:
    """The rule that the section names, with those of its parameters that the section gives."""
    recipe = RULES[stop.rule or "none"]
    given = {name: getattr(stop, name, None) for name in parameters(recipe)}
    return RULES.make(recipe.name, {k: value for k, value in given.items() if value is not None})


def make_stopper(stop: Stop, iterations: int) -> Stopper:
    """The rule at work on one cell, whose longest trial has so many ``iterations``."""
    return rule_of(stop).start(grace(stop, iterations))


def grace(stop: Stop, iterations: int) -> int:
    """Iterations before any trial of a cell is stopped, whose longest has ``iterations``."""
    return stop.grace or math.ceil(iterations * GRACE)


def is_exempt(index: int) -> bool:
    """Whether search trial ``index`` of a cell is never stopped, so that the rule can be checked:
    one of every :data:`EXEMPT`.

    It is the last of each five, not the first: what is tried first is often what people think
    best, which a rule would not stop in any case.
    """
    return index % EXEMPT == EXEMPT - 1


def first_stop(stop: Stop, every: int, iterations: int) -> int:
    """The first iteration after which the rule, which is not ``none``, could stop a trial that is
    evaluated ``every`` so many iterations, in a cell whose longest trial has ``iterations``."""
    first = rule_of(stop).earliest(grace(stop, iterations), every)
    return -(-first // every) * every


def try_rule(rule: StopRule) -> None:
    """See that ``rule`` can be used: on ten trials whose losses fall, at different speeds.

    Raises :class:`~raygan.errors.ConfigError` that says what is wrong.
    """
    grace_, steps = 200, range(100, 1100, 100)
    with blamed():
        stopper = rule.start(grace_)
        for trial in range(10):
            for step in steps:
                answer = stopper.stops(f"trial-{trial}", step, (1 + trial) / (10 + step))
                rung = stopper.rung(step)
                label = f"the stop rule `{rule.name}`"
                if not isinstance(answer, bool):
                    raise ConfigError(f"{label} answers {answer!r}; return True or False")
                if not isinstance(rung, int) or not 0 <= rung <= step:
                    raise ConfigError(f"{label} names the rung {rung!r} at iteration {step}")
                if answer and step < grace_:
                    raise ConfigError(
                        f"{label} stops a trial at iteration {step}, before its `grace` of {grace_}"
                    )
                if answer:
                    break
