"""What a sweep has spent so far, and which cap of its budget is reached."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import TypeAdapter

from raygan import stored
from raygan.errors import RayganError
from raygan.folder import CLOCK_FILE
from raygan.storage import Storage
from raygan.sweep.spec.yaml_sections import Budget

SAVE_SECONDS = 10.0


class Clock:
    """Seconds for which a sweep has run, over all its runs, by a clock that never goes back.

    A run that is killed loses at most its last :data:`SAVE_SECONDS`. Raises
    :class:`~raygan.errors.RayganError` if the stored seconds of earlier runs are damaged.
    """

    def __init__(self, storage: Storage, now: Callable[[], float] = time.monotonic) -> None:
        self._storage, self._now = storage, now
        self._since: float | None = None
        try:
            self._before = storage.read_kept(CLOCK_FILE, _seconds, mend=True) or 0.0
        except RayganError as error:
            raise RayganError(
                f"{error}; restore it, or delete both files; `budget.wall_clock` then starts again "
                "from 0"
            ) from error

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + (0.0 if self._since is None else self._now() - self._since)

    def run(self) -> None:
        """Start counting time, unless it is counted already."""
        if self._since is None:
            self._since = self._now()

    def save(self) -> None:
        """Store the seconds; raises OSError."""
        if self._since is not None:
            self._storage.write_kept(CLOCK_FILE, json.dumps({"seconds": self.seconds}).encode())


@dataclass(frozen=True)
class _Saved:
    __pydantic_config__ = stored.STRICT

    seconds: stored.Seconds


_SAVED = TypeAdapter(_Saved)


def _seconds(data: bytes) -> float:
    return stored.parse(_SAVED, data).seconds


@dataclass(frozen=True)
class Spent:
    """What a sweep has used."""

    trials: int
    """Trials that were started, replicates and retries included."""
    trial_hours: float
    """Sum of the hours that trials have taken."""
    gpu_hours: float
    """GPUs × hours that trials have held them."""
    wall_clock: float
    """Seconds for which the sweep has run."""

    def usd(self, budget: Budget) -> float | None:
        """US dollars, if GPU-hours have a price."""
        price = budget.usd_per_gpu_hour
        return None if price is None else self.gpu_hours * price

    def reached(self, budget: Budget) -> str | None:
        """The first cap of ``budget`` that is reached, in words."""
        if budget.trials is not None and self.trials >= budget.trials:
            return f"{self.trials} of {budget.trials} trials"
        if budget.gpu_hours is not None and self.gpu_hours >= budget.gpu_hours:
            return f"{self.gpu_hours:.2f} of {budget.gpu_hours:g} GPU-hours"
        usd = self.usd(budget)
        if budget.usd is not None and usd is not None and usd >= budget.usd:
            return f"${usd:.2f} of ${budget.usd:g}"
        if budget.seconds is not None and self.wall_clock >= budget.seconds:
            return f"{self.wall_clock:.0f}s of {budget.wall_clock}"
        return None
