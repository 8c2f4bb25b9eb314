"""Presets: values of training keys that a YAML gets if it does not give its own.

The authors of arXiv 1704.03971 have published two code bases. They differ, so there are two:

- ``authors-dcgan``: github.com/stormraiser/GAN-weight-norm, ``pytorch/`` at commit 08372cf, which
  the authors ported from the Torch code of the paper;
- ``authors-resnet``: github.com/stormraiser/gan-weightnorm-resnet at commit 18695b1, the later
  network, which is of ``wn`` alone.

docs/method/authors.md lists what they do, and what raygan does without a preset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raygan.errors import ConfigError
from raygan.gan.config import CORE, TrainConfig, recipe_tables, varied_fields
from raygan.recipe import Scalar
from raygan.shown import shown
from raygan.sweep.spec.checks import possible
from raygan.sweep.spec.plan import format_value

if TYPE_CHECKING:
    from raygan.sweep.spec.sweep_spec import SweepSpec

_BOTH: dict[str, Scalar] = {
    "features": 64,
    "code_size": 128,
    "latent": "normal",
    "loss": "log",
    "d_steps": 1,
    "optimizer": "rmsprop",
    "smoothing": 0.9,
    "batch_size": 32,
    "evaluate_every": 1000,
    "reconstruction_steps": 50,
    "initialisation": "pytorch-2017",
}
PRESETS: dict[str, dict[str, Scalar]] = {
    "authors-dcgan": {
        **_BOTH,
        "architecture": "dcgan",
        "lr": 1e-4,
        "epsilon": 1e-6,
        "norm_epsilon": 1e-6,
        "update": "alternating",
    },
    "authors-resnet": {
        **_BOTH,
        "architecture": "resnet",
        "norm": "wn",
        "blocks": 1,
        "lr": 2e-5,
        "epsilon": 1e-8,
        "update": "simultaneous",
    },
}
"""By name of the preset, values of training keys."""


_FREE = ("seed", "iterations", "compile")
"""Fields that no preset is about."""


def complete(data: Any) -> None:
    """Give ``data``, a YAML that was read, the values of the preset that it names.

    What the YAML has under ``train``, ``grid`` or ``search`` stays. A parameter of a recipe that
    no trial uses is left out. The user's own recipes must be in the tables. Raises
    :class:`~raygan.errors.ConfigError` for an unknown name.
    """
    name = data.get("preset") if isinstance(data, dict) else None
    if name is None:
        return
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(
            f"`preset` (={shown(repr(name), 100)}) is not known; there are {', '.join(PRESETS)}"
        )
    sections = [data.get(key) for key in ("train", "grid", "search")]
    if any(section is not None and not isinstance(section, dict) for section in sections):
        return  # what checks the sections says so
    train, *varied = [section or {} for section in sections]
    given = {*train, *(key for section in varied for key in section)}
    added = {key: value for key, value in PRESETS[name].items() if key not in given}
    trains = [{**train, **added, **own} for own in _own_trains(data.get("dataset"))]
    for key, table in recipe_tables().items():
        used = _used(key, trains, varied)
        for parameter in table.parameters():
            if used.isdisjoint(table.heed(parameter)):
                added.pop(parameter, None)
    data["train"] = {**train, **added}


def _own_trains(images: Any) -> list[dict[str, Any]]:
    """What each data set of a YAML changes of ``train``; what is malformed changes nothing."""
    listed = images if isinstance(images, list) and images else [None]
    found = [one.get("train") if isinstance(one, dict) else None for one in listed]
    return [own if isinstance(own, dict) else {} for own in found]


def _used(key: str, trains: list[dict[str, Any]], varied: list[dict[str, Any]]) -> set[str]:
    """The recipes that trials use under ``key``."""
    for section in varied:
        if isinstance(section.get(key), list):
            return set(map(str, section[key]))
    return {str(train.get(key, getattr(TrainConfig, key))) for train in trains}


def differences(spec: SweepSpec) -> list[str]:
    """The training keys in which ``spec`` is not as its preset, in words; empty without one.

    Keys that the preset does not name have their defaults there. A ``norm`` that it does not name
    is free: the authors' code has several.
    """
    if spec.preset is None:
        return []
    preset = PRESETS[spec.preset]
    others = (key for key in varied_fields() if key not in (*_FREE, "norm"))
    return [
        words
        for key in dict.fromkeys((*preset, *others))
        for words in _different(spec, key, preset)
    ]


def _different(spec: SweepSpec, key: str, preset: dict[str, Scalar]) -> list[str]:
    """How ``key`` differs from ``preset``: once, or for each data set that differs."""
    usual = _defaults(key)
    wanted = preset.get(key, usual[0])
    told = _word(wanted)
    if key in spec.axes() or key in spec.space():
        return [f"{key} varies (preset: {told})"]
    values = {label: spec.fixed(key, label) for label in spec.labels if _is_used(spec, key, label)}
    if key not in preset:
        values = {label: None if value in usual else value for label, value in values.items()}
    wrong = {
        label: value for label, value in values.items() if value is not None and value != wanted
    }
    if len(wrong) == len(spec.labels) and len(set(wrong.values())) == 1:
        return [f"{key} is {_word(next(iter(wrong.values())))} (preset: {told})"]
    return [
        f"{key} is {_word(value)} on the data set {label} (preset: {told})"
        for label, value in wrong.items()
    ]


def _word(value: Scalar | None) -> str:
    if value is None:
        return "not set"
    return format_value(value) if value else format_value(value).removesuffix("e0")


def _defaults(key: str) -> list[Any]:
    """The default of a field; of a parameter, that of each recipe that has it."""
    if key in CORE:
        return [getattr(TrainConfig, key)]
    return [
        parameter.default
        for table in recipe_tables().values()
        for parameter in table.parameters().get(key, {}).values()
    ]


def _is_used(spec: SweepSpec, key: str, label: str) -> bool:
    """Whether ``key`` is a field, or a parameter of a recipe that trials on this data set use."""
    return key in CORE or any(
        not set(table.heed(key)).isdisjoint(possible(spec, kind, label))
        for kind, table in recipe_tables().items()
    )
