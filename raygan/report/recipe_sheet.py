"""The table of the recipes that a sweep has used: what each is, and with which parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from raygan import recipe
from raygan.gan.config import recipe_tables
from raygan.records import TrialRecord
from raygan.report.evidence import Evidence
from raygan.report.tabular import Column, Sheet

_TEXT = pa.string()


def recipes(evidence: Evidence) -> Sheet:
    """A row per norm, architecture, loss, … that a trial has used."""
    rows = [
        _row(key, table[name], [r for r in evidence.records if r.config.get(key) == name])
        for key, table in recipe_tables().items()
        for name in dict.fromkeys(str(record.config.get(key)) for record in evidence.records)
        if name in table.names
    ]
    columns = [
        Column("key", _TEXT, "key"),
        Column("recipe", _TEXT, "recipe"),
        Column("what", _TEXT, "what it is"),
        Column("parameters", _TEXT, "parameters"),
        Column("file", _TEXT, "your file"),
    ]
    reading = (
        "One row per norm, architecture, loss, optimizer and augmentation that a trial has used, "
        "with the values of its own parameters: what was compared, not what is better."
    )
    return Sheet("recipes", "Recipes", columns, rows, reading)


def _row(key: str, used: type[recipe.Recipe], records: Iterable[TrialRecord]) -> dict[str, Any]:
    parameters = []
    for name in recipe.parameters(used):
        values = sorted({record.config[name] for record in records if name in record.config})
        text = str(values[0]) if len(values) == 1 else f"{values[0]} … {values[-1]}"
        parameters.append(f"{name} {text}")
    first = (inspect.getdoc(used) or "").split("\n\n")[0]
    return {
        "key": key,
        "recipe": used.name,
        "what": " ".join(first.split()),
        "parameters": ", ".join(parameters),
        "file": recipe.file_name(used),
    }
