"""How far today's numbers are from those of the training core in commit ae25c85.

    python tests/bench/unchanged.py

prints the largest relative differences of what the `raygan` computes that is imported. On the
processor and the PyTorch that the stored numbers were computed with, they are 0.
`tests/gan/test_numbers.py` allows for others.

    git worktree add ../then ae25c85
    PYTHONPATH=../then python tests/bench/unchanged.py --write

stores the numbers again. That is needed only for a new game, or if PyTorch changes its random
numbers.

Left out is what changed on purpose after ae25c85: `val/diversity` and `val/duplicates` were
replaced by `val/variety`. The seeds of a sweep's trials and the final test are not part of the
training core. Accuracies are left out because they jump when a logit is rounded across the
boundary, `compile` because compiling takes seconds, and `precision` because bfloat16 rounds
differently on each kind of processor.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raygan.data.images import ImageSet
from raygan.gan.config import TrainConfig
from raygan.gan.state import TrainState
from raygan.gan.train import train

STORED = Path(__file__).resolve().parents[1] / "gan" / "numbers.json"

Fields = dict[str, Any]
Numbers = dict[str, list[float]]

DEFAULTS: Fields = {
    "features": 4,
    "code_size": 6,
    "batch_size": 8,
    "lr": 1e-3,
    "iterations": 3,
    "evaluate_every": 2,
    "reconstruction_steps": 3,
    "seed": 11,
}
NORMS = ("vanilla", "bn", "wn", "wn-affine", "sn", "ln", "gn")
OPTIMIZERS = ("rmsprop", "adam")
SHARED, PENALTY = ("log", "simultaneous"), ("wgan-gp", "alternating")
"""One backward pass for both networks, and one through a gradient: each norm has its own."""
PLAIN = (
    ("least-squares", "alternating"),
    ("least-squares", "simultaneous"),
    ("hinge", "alternating"),
    ("hinge", "simultaneous"),
)
BASIC = ("log", "alternating")
OTHERS: tuple[Fields, ...] = (
    {"lr_d": 3e-4},
    {"optimizer": "adam", "warmup": 1, "warmup_factor": 0.5},
    {"loss": "wgan-gp", "d_steps": 2},
    {"norm": "bn", "d_steps": 2, "flip": True},
    {"norm": "bn", "ema": 0.9},
    {"architecture": "resnet", "blocks": 2},
    {"levels": 1, "code_size": 9, "features": 5, "batch_size": 6, "seed": 2},
)


def games() -> Iterator[Fields]:
    """The fields of every game that differ from :data:`DEFAULTS` and from raygan's own."""
    every = (BASIC, SHARED, *PLAIN, PENALTY)
    for place, norm in enumerate(NORMS):
        dcgan = [(BASIC, 0), (SHARED, 1), (PLAIN[place % 4], 0), (PENALTY, 1)]
        for (loss, update), other in dcgan:
            if (norm, loss) != ("bn", "wgan-gp"):  # refused
                optimizer = OPTIMIZERS[(place + other) % 2]
                yield {"norm": norm, "loss": loss, "update": update, "optimizer": optimizer}
        loss, update = every[place]
        resnet = {"norm": norm, "architecture": "resnet", "blocks": 1}
        yield {**resnet, "loss": loss, "update": update, "optimizer": OPTIMIZERS[place % 2]}
    yield from OTHERS


def name(fields: Fields) -> str:
    """The name that a game's numbers are stored by."""
    return " ".join(f"{key}={value}" for key, value in fields.items())


def config(fields: Fields) -> TrainConfig:
    """The configuration of a game; the only place where one is made."""
    make = getattr(TrainConfig, "of", TrainConfig)  # ae25c85 has no `of`
    made: TrainConfig = make(**{**DEFAULTS, **fields})
    return made


def images() -> ImageSet:
    """60 random images of 16×12 pixels, the same with every version of NumPy."""
    drawn = np.random.RandomState(5)  # NumPy keeps this generator's numbers
    coarse = drawn.randint(0, 256, (60, 4, 3, 3), dtype=np.uint8)
    pixels = torch.from_numpy(coarse.repeat(4, axis=1).repeat(4, axis=2))
    running, final = torch.arange(0, 20, 2), torch.arange(1, 20, 2)
    return ImageSet.of([pixels], running, final, "digest", 0.05)


def play(fields: Fields) -> Numbers:
    """The losses at both evaluations of a game, and a sum for each network at its end."""
    chosen, pictures = config(fields), images()
    state = TrainState.create(chosen, pictures.shape)
    found = [evaluation.metrics for evaluation in train(chosen, pictures, state)]
    keys = ("train/loss_d", "train/loss_g", "val/reconstruction_loss")
    networks = {"generator": state.judged, "discriminator": state.discriminator}
    return {key: [metrics[key] for metrics in found] for key in keys} | {
        key: [sum_of_weights(network)] for key, network in networks.items()
    }


def sum_of_weights(network: torch.nn.Module) -> float:
    """Sum of the weights' absolute values, biases and other vectors left out.

    Batch norm takes the biases before it away again. Their gradients are rounding errors, which
    Adam scales up to full steps.
    """
    weights = (weight for weight in network.parameters() if weight.dim() > 1)
    return sum(float(weight.detach().double().abs().sum()) for weight in weights)


def difference(found: float, stored: float) -> float:
    """By which share ``found`` differs from ``stored``."""
    return abs(found - stored) / abs(stored)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="store the numbers")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    found = {name(fields): play(fields) for fields in games()}
    if write:
        rows = (f"{json.dumps(game)}: {json.dumps(numbers)}" for game, numbers in found.items())
        STORED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
        return
    stored: dict[str, Numbers] = json.loads(STORED.read_text())
    largest: dict[str, tuple[float, str]] = defaultdict(lambda: (0.0, "all games"))
    for game, numbers in found.items():
        for key, values in numbers.items():
            for value, other in zip(values, stored[game][key], strict=True):
                largest[key] = max(largest[key], (difference(value, other), game))
    for key in numbers:
        print(f"{key}: {largest[key][0]:.1e} ({largest[key][1]})")


if __name__ == "__main__":
    main()
