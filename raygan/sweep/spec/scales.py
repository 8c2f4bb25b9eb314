"""What the trials of each cell take: ``scale``, with ``scale.by``."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from raygan.records import DATASET
from raygan.sweep.spec import plan
from raygan.sweep.spec.space import ends
from raygan.sweep.spec.yaml_sections import Range, Scalar, Scale, names

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec


def of(spec: SweepSpec) -> list[Scale]:
    """The scales of all cells, each once."""
    found: list[Scale] = []
    for values in _points(spec, spec.scale.by):
        if (scale := spec.scale.of(values)) not in found:
            found.append(scale)
    return found


def weight(scale: Scale, among: list[Scale]) -> float:
    """How much more a trial takes than one of the least ``among`` them: of GPUs if all have some,
    else of CPUs."""
    if all(each.gpus for each in among):
        return scale.gpus / min(each.gpus for each in among)
    return scale.cpus / min(each.cpus for each in among)


def described(spec: SweepSpec) -> list[str]:
    """What a trial takes, a line for all cells that take the same."""
    named: dict[str, list[str]] = {}
    for cell in plan.cells(spec):
        scale = spec.scale.of(cell.values)
        words = (
            f"{scale.width} workers × ({scale.cpus_per_worker:g} CPUs, "
            f"{scale.gpus_per_worker:g} GPUs)"
        )
        named.setdefault(words, []).append(cell.name)
    if len(named) == 1:
        return [f"each trial: {words}" for words in named]
    return [f"each trial of {', '.join(names)}: {words}" for words, names in named.items()]


def _points(spec: SweepSpec, fields: Iterable[str]) -> Iterator[dict[str, Scalar]]:
    """All combinations of the grid's values of ``fields``."""
    axes = {name: values for name, values in spec.axes().items() if name in fields}
    for point in itertools.product(*axes.values()):
        yield dict(zip(axes, point, strict=True))


def check(spec: SweepSpec) -> None:
    """``scale.by`` names axes and values of the grid, and workers share each batch evenly.

    Raises ValueError.
    """
    axes = spec.axes()
    for axis, weights in spec.scale.by.items():
        if axis not in axes:
            have = f"`grid` has {', '.join(axes)}" if axes else "there is no `grid`"
            if axis == DATASET:
                have = f"`{DATASET}` is not a list of several data sets"
            raise ValueError(
                f"`scale.by.{axis}` is no axis of `grid`: {have}{_nearest(axis, axes)}"
            )
        for word in weights:
            if not any(names(word, value) for value in axes[axis]):
                words = [str(value) for value in axes[axis]]
                place = DATASET if axis == DATASET else f"grid.{axis}"
                raise ValueError(
                    f"`scale.by.{axis}.{word}` is no value of `{place}`: it has "
                    f"{', '.join(words)}{_nearest(word, words)}"
                )
    for values in _points(spec, (*spec.scale.by, "batch_size", DATASET)):
        scale = spec.scale.of(values)
        where, sizes = _batch_sizes(spec, values)
        for size in sizes:
            if not scale.widths(size):
                raise ValueError(f"`{where}` (={size}) must be divisible by {_workers(scale)}: it "
                                 "counts the images of all workers")  # fmt: skip


def check_new(spec: SweepSpec) -> None:
    """What is asked of a YAML that people write; raises ValueError."""
    batch = spec.space().get("batch_size")
    for scale in of(spec):
        if isinstance(batch, Range) and scale.fewest > 1:
            doublings = [int(batch.min) << k for k in range(25)]
            such = [value for value in doublings if value <= batch.max]
            raise ValueError(
                f"`search.batch_size` ({batch.min} … {batch.max}) holds values that are not "
                f"divisible by {_workers(scale)}; list the values to try, such as {such}"
            )


def _batch_sizes(spec: SweepSpec, values: dict[str, Scalar]) -> tuple[str, list[int]]:
    if "batch_size" in values:
        return "grid.batch_size", [int(values["batch_size"])]
    if (searched := spec.space().get("batch_size")) is not None:
        sizes = searched if isinstance(searched, list) else ends(searched)
        return "search.batch_size", [int(size) for size in sizes]
    label = spec.label_of(values)
    number = spec.labels.index(label)
    where = f"{DATASET}.{number}.train" if "batch_size" in spec.own_train(label) else "train"
    return f"{where}.batch_size", [int(spec.fixed("batch_size", label))]


def _workers(scale: Scale) -> str:
    one_of = "" if scale.fewest == scale.most else "one of "
    return f"{one_of}`scale.workers` (={scale.width})"


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:100], list(words), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
