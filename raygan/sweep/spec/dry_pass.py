"""Users' own recipes tried on a tiny batch, before anything starts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from raygan import recipe
from raygan.gan.config import TrainConfig, recipe_tables
from raygan.records import DATASET
from raygan.sweep.spec.checks import possible
from raygan.sweep.spec.space import ends
from raygan.sweep.stopping.rules import RULES, rule_of, try_rule

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig
    from raygan.gan.nets.levels import Shape
    from raygan.sweep.spec.sweep_spec import SweepSpec

MOST = 32
"""Combinations of recipes that are tried."""


def check(spec: SweepSpec) -> None:
    """Hold the user's own recipes, if there are any, to their contract, as the sweep combines them.

    Raises :class:`~raygan.errors.ConfigError`: what is wrong, in which file and line.
    """
    if not recipe.in_use():
        return
    from raygan.gan import contract

    stop = spec.stopping()
    if recipe.file_of(RULES[stop.rule or "none"]) is not None:
        try_rule(rule_of(stop))
    for label, images in spec.datasets().items():
        for config in _combinations(spec, label)[: max(1, MOST // len(spec.labels))]:
            contract.check(config, _shape(images) or contract.SHAPE)


def _combinations(spec: SweepSpec, label: str) -> list[TrainConfig]:
    """A configuration of each combination of recipes, on the data set ``label``, that has one of
    the user's own, with the ends of what its parameters may be; all combinations, if an own metric
    is measured in each."""
    tables = recipe_tables()
    own = {
        (each.table.key, each.name) for _, recipes in recipe.in_use().values() for each in recipes
    }
    always = any(key == "recipes" for key, _ in own)
    varied = {**spec.axes(), **spec.space()}
    ours = {
        name: ends(varied[name])
        for _, recipes in recipe.in_use().values()
        for each in recipes
        for name in recipe.parameters(each)
        if name in varied
    }
    configs = []
    for point in itertools.product(*(possible(spec, name, label) for name in tables)):
        named = dict(zip(tables, point, strict=True))
        if always or own & named.items():
            for values in itertools.product(*ours.values()):
                given = dict(zip(ours, values, strict=True))
                configs.append(spec.train_config(**{DATASET: label}, **named, **given))
    return configs


def _shape(images: DatasetConfig) -> Shape | None:
    """Channels, height and width of the images, if the YAML tells them."""
    known = images.shape()
    return None if known is None else (known[2], known[0], known[1])
