"""Patience with a trial that has stopped getting better."""

from __future__ import annotations

import math

from raygan.errors import ConfigError
from raygan.sweep.stopping.rule import Stopper, StopRule


class Patience(StopRule):
    """A trial stops when its loss has reached no new low for ``patience`` iterations."""

    name = "patience"
    patience: int = 5000
    """Iterations without a new lowest loss."""

    def check_parameters(self) -> None:
        if self.patience < 1:
            raise ConfigError(f"`patience` (={self.patience}) must be at least 1")

    def start(self, grace: int) -> Stopper:
        return _Lows(grace, self.patience)

    def earliest(self, grace: int, every: int) -> int:
        return max(grace, every + self.patience)  # the first evaluation always is a new low

    def limit(self, grace: int) -> str | None:
        return "patience" if self.patience >= grace else None


class _Lows(Stopper):
    def __init__(self, grace: int, patience: int) -> None:
        self._grace, self._patience = grace, patience
        self._best: dict[str, tuple[float, int]] = {}

    def stops(self, trial: str, step: int, loss: float) -> bool:
        """Whether the last new low of ``trial`` is too long ago."""
        best, at = self._best.get(trial, (math.inf, 0))
        if loss < best:
            self._best[trial] = (loss, step)
            return False
        return step >= self._grace and step - at >= self._patience
