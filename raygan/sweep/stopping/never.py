"""No early stopping."""

from __future__ import annotations

from raygan.sweep.stopping.rule import Stopper, StopRule


class Never(StopRule):
    """Every trial runs to its end."""

    name = "none"
    never = True

    def start(self, grace: int) -> Stopper:  # noqa: ARG002
        return Stopper()
