"""What the final tests of a sweep have found, as it lies beside the trials' records."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from raygan.records import TrialRecord
from raygan.storage import Storage

WHICH = ("best", "last")
"""The generators of a trial that are tested."""
Found = dict[str, dict[str, dict[str, Any]]]
"""What was found, by trial and by ``best`` or ``last`` generator."""
LOSSES = {"": "loss", "_audited": "audited_loss", "_restarts": "restarts_loss"}
"""Ending of a column's name, and the name in a test: the loss of all images from z = 0, that of the
audited ones, and the lowest that these reached from z = 0 or from random codes."""


def read_finals(storage: Storage, records: Iterable[TrialRecord]) -> Found:
    """The final tests that were made; damaged ones are none."""
    return _read(storage, records, ".json")


def read_fids(storage: Storage, records: Iterable[TrialRecord]) -> Found:
    """The FIDs and KIDs that were computed, each with its protocol."""
    return _read(storage, records, "-fid.json")


def _read(storage: Storage, records: Iterable[TrialRecord], ending: str) -> Found:
    read: Found = {}
    for record in records:
        folder = f"trials/{record.id}/final"
        names = storage.files(folder)
        for which in WHICH:
            if f"{which}{ending}" not in names:
                continue
            try:
                found = json.loads(storage.read(f"{folder}/{which}{ending}") or b"")
            except ValueError:
                continue
            if isinstance(found, dict):
                read.setdefault(record.id, {})[which] = found
    return read


def number(found: Mapping[str, Any], key: str) -> float | None:
    """The finite number that stands under ``key``, if one does."""
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def positive(found: Mapping[str, Any], key: str) -> float | None:
    """The same of a loss, which is above 0."""
    value = number(found, key)
    return value if value and value > 0 else None


def columns(tests: Mapping[str, Any], fids: Mapping[str, Any]) -> dict[str, float | None]:
    """What a trial's tests found, flat: ``final_best``, ``final_best_restarts``, …"""
    return {
        **{
            f"final_{which}{ending}": positive(tests.get(which, {}), key)
            for which in WHICH
            for ending, key in LOSSES.items()
        },
        **{
            f"{key}_{which}": number(fids.get(which, {}), key)
            for which in WHICH
            for key in ("fid", "kid")
        },
    }
