"""The table of all metrics, and measuring them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from raygan import liveness
from raygan.data.images import ImageSet
from raygan.errors import ConfigError
from raygan.gan.judge.metric import Metric
from raygan.gan.judge.variety import Variety
from raygan.recipe import Scalar, Table, blamed, file_of
from raygan.shown import shown

METRICS: Table[Metric] = Table("metric", "recipes", Metric, Variety)


def measure(
    parameters: Mapping[str, Scalar], samples: Tensor, images: ImageSet, seed: int
) -> tuple[dict[str, float], list[str]]:
    """``val/NAME`` of every metric in the table, and notes about those that are left out.

    ``parameters``: those of the configuration; ``seed``: of PyTorch's global generators meanwhile.
    A built-in metric that is not finite stays: it says that G's images are no numbers. A user's own
    may be undefined for other reasons; it is left out, with a note. Raises
    :class:`~raygan.errors.ConfigError` that names file and line for an error in a user's own.
    """
    values: dict[str, float] = {}
    notes: list[str] = []
    for recipe in METRICS:
        metric: Metric = METRICS.make(recipe.name, parameters)
        own = file_of(recipe) is not None
        value = _own(metric, samples, images, seed) if own else metric.measure(samples, images)
        liveness.progress()
        if value is None:
            continue
        if own and not math.isfinite(value):
            notes.append(
                f"val/{recipe.name} is left out of evaluations at which it is no finite number"
            )
            continue
        values[f"val/{recipe.name}"] = value
    return values, notes


def _own(metric: Metric, samples: Tensor, images: ImageSet, seed: int) -> float | None:
    """A user's own metric, which can change neither the samples nor the random numbers that other
    code draws."""
    devices = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), blamed():
        torch.manual_seed(seed)
        value: object = metric.measure(samples.clone(), images)
    if value is None:
        return None
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(
            f"the metric `{metric.name}` returned {shown(repr(value), 100)}; return a number"
        ) from None
