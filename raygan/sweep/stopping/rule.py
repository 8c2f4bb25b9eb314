"""What a stop rule is: its parameters, and the stopper that watches one cell for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from raygan.recipe import Recipe

GRACE = 0.1
"""Share of the iterations before which no trial is stopped, unless the YAML says otherwise."""

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""By trial, iteration and reconstruction loss of each evaluation, ascending."""


class Stopper:
    """A rule at work on one cell: it sees the search trials of this cell, and no others.

    This one stops no trial. It is told of each evaluation once, in the order in which they arrive.
    """

    def stops(self, trial: str, step: int, loss: float) -> bool:  # noqa: ARG002
        """Whether ``trial`` is to stop after iteration ``step`` with this reconstruction loss."""
        return False

    def resume(self, curves: Curves) -> None:
        """Take in all evaluations of an earlier run.

        Here, :meth:`stops` is told of them in the order of their iterations, so that no trial is
        compared with losses of later ones.
        """
        points = [(point, trial) for trial, curve in curves.items() for point in curve]
        for (step, loss), trial in sorted(points, key=lambda item: item[0][0]):
            self.stops(trial, step, loss)

    def rung(self, step: int) -> int:
        """The last iteration up to ``step`` at which trials are compared; 0 before the first."""
        return step


class StopRule(Recipe):
    """When a trial is early-stopped. ``grace`` belongs to all rules that stop trials: the
    iterations of a trial before which it is not stopped."""

    reserved = ("rule", "grace")
    never: ClassVar[bool] = False
    """Whether it stops no trial at all; such a rule has no ``grace``."""

    def start(self, grace: int) -> Stopper:
        """A new stopper, for one cell; it must not stop a trial before iteration ``grace``."""
        raise NotImplementedError

    def earliest(self, grace: int, every: int) -> int:  # noqa: ARG002
        """An iteration before which no trial can be stopped that is evaluated every so many
        iterations (``every``), as far as the rule knows; ``grace`` or a later one."""
        return grace

    def limit(self, grace: int) -> str | None:  # noqa: ARG002
        """The parameter that must be lowered, rather than ``grace``, for an earlier stop."""
        return None

    def check_grace(self, grace: int, iterations: int) -> None:
        """Raise :class:`~raygan.errors.ConfigError` if the comparison of cells would be unfair
        with this ``grace``, in a cell whose longest trial has so many ``iterations``."""
