"""What a sweep's ``claims`` mean: which cells, or which values of an axis, they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raygan.records import DATASET
from raygan.report.claim import Claim
from raygan.report.family import axes, value_names
from raygan.shown import shown
from raygan.sweep.spec import plan
from raygan.sweep.spec.yaml_sections import SECOND, margin

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec


def of_spec(spec: SweepSpec, *, known: bool = False) -> tuple[Claim, ...]:
    """The claims of a YAML; raises ValueError if one names what is not compared.

    ``known``: an earlier version accepted them; a name that it took for another one stays as it
    is, and its claim cannot be tested.
    """
    if not spec.claims:
        return ()
    cells = _cells(spec)
    claims = [_claim(one.model_dump(exclude_none=True), cells, known=known) for one in spec.claims]
    for number, claim in enumerate(claims):
        if claim in claims[:number]:
            raise ValueError(f"`claims`: {claim.text!r} stands there twice; remove one")
    return tuple(claims)


def _cells(spec: SweepSpec) -> dict[str, dict[str, Any]]:
    """The cells that the report compares, by name: those that differ in their seed are one."""
    points = [{k: v for k, v in cell.values.items() if k != "seed"} for cell in plan.cells(spec)]
    return {plan.cell_name(spec, values): values for values in points}


def _claim(given: dict[str, Any], cells: dict[str, dict[str, Any]], *, known: bool) -> Claim:
    kind = next(kind for kind in SECOND if kind in given)
    first, second = (str(given[key]) for key in (kind, SECOND[kind]))
    pairs = _pairs(cells)
    if known and (first, second) not in pairs:
        return Claim(kind, first, second, margin(given.get("margin", 0.0)))  # type: ignore[arg-type]
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
    return Claim(kind, *pairs[first, second], margin(given.get("margin", 0.0)))  # type: ignore[arg-type]


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
