"""The search space of a sweep: which settings a search may try, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, get_type_hints

from raygan import recipe
from raygan.gan.config import TrainConfig, parameter_tables
from raygan.sweep.spec.yaml_sections import Range, Scalar

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

Space = Mapping[str, list[Scalar] | Range]


def search_method(spec: SweepSpec) -> str:
    """The search method: what the YAML says, or what fits its lists and ranges."""
    if spec.search.method is not None:
        return str(spec.search.method)
    all_lists = not any(isinstance(value, Range) for value in spec.space().values())
    return "grid" if all_lists else "tpe"


def integer_fields() -> frozenset[str]:
    """Fields of the training configuration and parameters of recipes that are whole numbers."""
    return _integer_fields(recipe.revision())


@lru_cache(maxsize=8)
def _integer_fields(_: int) -> frozenset[str]:
    hints = get_type_hints(TrainConfig)
    for table in parameter_tables():
        for name, owners in table.parameters().items():
            hints[name] = next(iter(owners.values())).type
    return frozenset(name for name, hint in hints.items() if hint in (int, int | None))


def finite(space: Space) -> dict[str, Sequence[Scalar]] | None:
    """The values of each field; None if one has a range of real numbers."""
    choices: dict[str, Sequence[Scalar]] = {}
    for name, values in space.items():
        if not isinstance(values, Range):
            choices[name] = values
        elif name in integer_fields():
            choices[name] = range(int(values.min), int(values.max) + 1)
        else:
            return None
    return choices


def size(space: Space) -> int | None:
    """How many settings there are; None if they are not finite."""
    values = finite(space)
    return None if values is None else math.prod(map(len, values.values()))


def setting(values: Mapping[str, Sequence[Scalar]], number: int) -> dict[str, Scalar]:
    """Setting ``number`` of a finite space, in the order of the product, the last field fastest."""
    chosen: dict[str, Scalar] = {}
    for name in reversed(list(values)):
        number, place = divmod(number, len(values[name]))
        chosen[name] = values[name][place]
    return {name: chosen[name] for name in values}


def ends(values: list[Scalar] | Range) -> list[Scalar]:
    """The values to check: of numbers the least and the greatest (if any is refused, so is one of
    these), of words all."""
    if isinstance(values, Range):
        return [values.min, values.max]
    numbers = [value for value in values if not isinstance(value, str)]
    return [min(numbers), max(numbers)] if numbers else values


def longest(spec: SweepSpec, values: Mapping[str, Scalar]) -> int:
    """The most iterations of a trial in the cell with these ``values`` of the grid's axes."""
    if "iterations" in values:
        return int(values["iterations"])
    searched = spec.space().get("iterations")
    if searched is None:
        return int(spec.fixed("iterations", spec.label_of(values)))
    return int(max(ends(searched)))


def is_within(value: Scalar, values: list[Scalar] | Range) -> bool:
    """Whether a search may try ``value``."""
    if not isinstance(values, Range):
        return value in values
    return not isinstance(value, str) and values.min <= value <= values.max


def trials_per_cell(spec: SweepSpec) -> int:
    """How many trials each cell's search takes; none if there are only replicates to train.

    A search never tries a setting twice: there are no more trials than settings.
    """
    space = spec.space()
    if not space:
        return 0 if spec.replicate.seeds else 1
    most, asked = size(space), spec.search.trials
    return min(count for count in (most, asked) if count is not None)
