"""The training core computes the numbers that it computed in commit ae25c85.

`tests/bench/unchanged.py` says what is compared, what is left out, and how the numbers were stored.
"""

from __future__ import annotations

import json

import pytest

from tests.bench import unchanged
from tests.bench.unchanged import Fields, Numbers

STORED: dict[str, Numbers] = json.loads(unchanged.STORED.read_text())
GAMES = {unchanged.name(fields): fields for fields in unchanged.games()}

TOLERANCES = {
    "train/loss_d": 1e-5,
    "train/loss_g": 1e-5,
    "val/reconstruction_loss": 1e-5,
    "generator": 1e-6,
    "discriminator": 1e-6,
}
"""Relative. All are several times the rounding, which was measured on one machine (torch 2.15)
between AVX-512 and no vector instructions, with and without oneDNN, on one thread and on two."""
NEAR_ZERO = 5e-6
"""Absolute tolerance: losses near 0 are sums of terms of order 1. Ten times the rounding."""
WITH_BATCH_NORM = 2e-3
"""Relative tolerance of the reconstruction loss if G has batch norm; nine times the rounding.

Batch norm takes the biases before it away again. Their gradients are rounding errors, which Adam
scales up to full steps. The running statistics, which the reconstruction uses, lag behind them.
"""


def tolerance(fields: Fields, key: str) -> float:
    if key == "val/reconstruction_loss" and fields.get("norm") in ("bn", "sn"):
        return WITH_BATCH_NORM
    return TOLERANCES[key]


def differing(found: Numbers, game: str) -> list[str]:
    """The keys of the numbers that differ from the stored ones."""
    return [
        key
        for key, stored in STORED[game].items()
        if found[key] != pytest.approx(stored, rel=tolerance(GAMES[game], key), abs=NEAR_ZERO)
    ]


@pytest.mark.parametrize("game", GAMES)
def test_numbers_are_those_of_ae25c85(game: str):
    found = unchanged.play(GAMES[game])
    assert not differing(found, game), (found, STORED[game])


def test_numbers_are_stored_of_each_game_and_no_other():
    assert list(STORED) == list(GAMES)
    assert all(numbers.keys() == TOLERANCES.keys() for numbers in STORED.values())


def test_a_learning_rate_that_differs_by_one_percent_is_noticed():
    game = "norm=wn loss=log update=alternating optimizer=rmsprop"
    found = unchanged.play({**GAMES[game], "lr": 1.01e-3})
    assert differing(found, game) == list(TOLERANCES)
