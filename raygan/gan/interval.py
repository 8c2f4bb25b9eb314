"""Durations, such as 90s or 5m, and the interval between two checkpoints."""

from __future__ import annotations

import re

from raygan.errors import ConfigError
from raygan.shown import shown

CHECKPOINT_EVERY = "5m"
"""The default."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(?=.*[1-9])([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 30 * 24 * 3600.0
_MOST_ITERATIONS = 2**40


def in_seconds(duration: str | float) -> float | None:
    """The seconds of a duration: a number above 0 and ``s``, ``m``, ``h`` or ``d``; None of
    anything else."""
    match = _DURATION.fullmatch(str(duration))
    return float(match[1]) * _UNITS[match[2]] if match else None


def interval(every: str | int, name: str = "checkpoint_every") -> tuple[float | None, int | None]:
    """Seconds or iterations between two checkpoints; the other one is None.

    ``every``: a number of iterations, or a duration: a number and ``s``, ``m``, ``h`` or ``d``.
    Raises :class:`~raygan.errors.ConfigError` for anything else, which it calls ``name``.
    """
    text = str(every)
    if re.fullmatch(r"[0-9]{1,13}", text) and 1 <= int(text) <= _MOST_ITERATIONS:
        return None, int(text)
    seconds = in_seconds(text)
    if seconds is None or not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        raise ConfigError(
            f"`{name}` (={shown(repr(every), 100)}) must be a number of iterations, such as 1000, "
            "or a duration from 1s to 30d, such as 90s, 5m or 1h"
        )
    return seconds, None
