"""What a sweep's ``claims`` mean: which cells, or which values of an axis, they are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raygan.records import DATASET
from raygan.report.claim import Claim
from raygan.report.family import axes, value_names
from raygan.shown import shown
from raygan.sweep.spec import plan
from raygan.sweep.spec.yaml_sections import SECOND, margin

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec


def of_spec(spec: SweepSpec) -> tuple[Claim, ...]:
    """The claims of a YAML.

    A name that is not compared stays as it is, and its claim cannot be tested: an earlier version
    may have taken it for another one.
    """
    pairs = _pairs(_cells(spec)) if spec.claims else {}
    return tuple(
        Claim(kind, *pairs.get(names, names), most)  # type: ignore[arg-type]
        for kind, names, most in _given(spec)
    )


def check(spec: SweepSpec) -> None:
    """Raise ValueError if a claim names what is not compared, or stands there twice."""
    cells = _cells(spec) if spec.claims else {}
    for _, names, _ in _given(spec):
        _check_names(*names, cells)
    claims = of_spec(spec)
    for number, claim in enumerate(claims):
        if claim in claims[:number]:
            raise ValueError(f"`claims`: {claim.text!r} stands there twice; remove one")


def _given(spec: SweepSpec) -> Iterator[tuple[str, tuple[str, str], float]]:
    """Kind, names and margin of each claim."""
    for one in spec.claims:
        given = one.model_dump(exclude_none=True)
        kind = next(kind for kind in SECOND if kind in given)
        names = str(given[kind]), str(given[SECOND[kind]])
        yield kind, names, margin(given.get("margin", 0.0))


def _cells(spec: SweepSpec) -> dict[str, dict[str, Any]]:
    """The cells that the report compares, by name: those that differ in their seed are one."""
    points = [{k: v for k, v in cell.values.items() if k != "seed"} for cell in plan.cells(spec)]
    return {plan.cell_name(spec, values): values for values in points}


def _check_names(first: str, second: str, cells: dict[str, dict[str, Any]]) -> None:
    pairs = _pairs(cells)
    names = sorted({name for pair in pairs for name in pair})
    _refuse_datasets(first, second, cells)
    for name in (first, second):
        if name not in names:
            raise ValueError(
                f"`claims`: there is no cell {shown(name)!r}; known are "
                f"{shown(', '.join(names)) or 'none: there is one cell'}"
            )
    if (first, second) not in pairs:
        raise ValueError(
            f"`claims`: {shown(first)!r} and {shown(second)!r} are not compared; name two "
            "different cells that differ in one key, or two values of one key"
        )


def _refuse_datasets(first: str, second: str, cells: dict[str, dict[str, Any]]) -> None:
    """Raise ValueError if two data sets are named, or cells of two of them."""
    sets = {
        name: values[DATASET]
        for cell, values in cells.items()
        if DATASET in values
        for name in (cell, values[DATASET])
    }
    if first in sets and second in sets and sets[first] != sets[second]:
        raise ValueError(
            f"`claims`: {shown(first)!r} and {shown(second)!r} are not compared, since losses on "
            "different data sets have no common scale; name two cells of one data set, or two "
            "values of another key, which are compared within each data set and over all of them"
        )


def _pairs(cells: dict[str, dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """The pairs of names that a claim may have, with what the report calls them.

    These are cells that differ in one axis, and two values of an axis: over all strata of the other
    axes or, if there is no other, the two cells. Data sets are only strata.
    """
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    for axis in axes(cells):
        if axis == DATASET:
            continue
        called = value_names(axis, cells)
        for name, values in cells.items():
            for other, others in cells.items():
                if name == other or {**values, axis: None} != {**others, axis: None}:
                    continue
                by_value = called[values[axis]], called[others[axis]]
                alone = set(values) == {axis}
                pairs[by_value] = (name, other) if alone else by_value
                pairs[name, other] = name, other
    return pairs
