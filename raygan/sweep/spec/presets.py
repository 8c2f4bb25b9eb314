"""Presets: values of training keys that a YAML gets if it does not give its own.

The authors of arXiv 1704.03971 have published two code bases. They differ, so there are two:

- ``authors-dcgan``: github.com/stormraiser/GAN-weight-norm, ``pytorch/`` at commit 08372cf, which
  the authors ported from the Torch code of the paper;
- ``authors-resnet``: github.com/stormraiser/gan-weightnorm-resnet at commit 18695b1, the later
  network, which is of ``wn`` alone.

docs/method/authors.md lists what they do, and what raygan does without a preset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raygan.errors import ConfigError
from raygan.recipe import Scalar
from raygan.shown import shown

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


def complete(data: Any) -> None:
    """Give ``data``, a YAML that was read, the values of the preset that it names.

    What the YAML has under ``train``, ``grid`` or ``search`` stays. A parameter of a norm that the
    YAML does not train is left out. Raises :class:`~raygan.errors.ConfigError` for an unknown name.
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
    norms = _norms({**train, **added}, varied)
    if not any(norm.startswith("wn") for norm in norms):
        added.pop("norm_epsilon", None)
    data["train"] = {**train, **added}


def _norms(train: Mapping[str, Any], varied: list[dict[str, Any]]) -> list[str]:
    for section in varied:
        if isinstance(section.get("norm"), list):
            return list(map(str, section["norm"]))
    return [str(train.get("norm", "wn"))]


def differences(spec: SweepSpec) -> list[str]:
    """The training keys in which ``spec`` is not as its preset, in words; empty without one."""
    if spec.preset is None:
        return []
    varied: dict[str, Any] = {**spec.axes(), **spec.space()}
    words = []
    for key, wanted in PRESETS[spec.preset].items():
        if key in varied:
            words.append(f"{key} varies (preset: {wanted})")
        elif (value := getattr(spec.train, key)) is not None and value != wanted:
            words.append(f"{key} is {value} (preset: {wanted})")
    return words
