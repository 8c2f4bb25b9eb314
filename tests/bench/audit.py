"""What the final test's budget and its restarts are worth, on generators trained for a short time.

    python tests/bench/audit.py

Digits at 16 pixels. Loss from z = 0 against the steps; then, of the first images, the mean of the
lowest loss over z = 0 and so many restarts, and how many images each search has won. Then the lengths
of the codes, the loss with codes kept within the prior's ball, and the loss by the authors' protocol.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.data import DatasetConfig, load, prepare
from raygan.gan.config import TrainConfig
from raygan.gan.judge.final import FinalTest, final_test
from raygan.gan.judge.final_config import FinalConfig, SearchProtocol
from raygan.gan.state import TrainState
from raygan.gan.train import train


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    images = load(prepare(DatasetConfig(name="digits", size=16), options.out / "data"))
    held_out = images.take(images.final)
    print(
        f"{len(held_out)} final images, {options.audited} audited; lr {options.lr:g}, "
        f"{options.iterations} iterations; the mean image scores {images.baseline:.5f}"
    )
    for norm in options.norms:
        config = TrainConfig(
            norm=norm, lr=options.lr, features=8, code_size=32, iterations=options.iterations,
            evaluate_every=options.iterations, reconstruction_steps=25,
        )  # fmt: skip
        state = TrainState.create(config, images.shape)
        list(train(config, images, state))

        def test(
            steps: int,
            pixels: torch.Tensor,
            restarts: int,
            state: TrainState = state,
            protocol: SearchProtocol = "per-image",
        ) -> FinalTest:
            audited = options.audited if restarts else 0
            budget = FinalConfig(steps=steps, restarts=restarts, audited=audited, protocol=protocol)
            return final_test(state.generator, 32, pixels, budget, seed=1)

        for steps in options.steps:
            started = time.perf_counter()
            loss = test(steps, held_out, 0).loss
            print(f"{norm:9}{steps:6} steps   {loss:.5f}   {time.perf_counter() - started:.1f} s")
        audit = test(options.steps[-1], held_out[: options.audited], options.restarts)
        for count in range(options.restarts + 1):
            searches = torch.cat((audit.losses[None], audit.restarts[:count]))
            print(f"{norm:9}{count:6} restarts {searches.amin(0).mean():.5f}")
        won = audit.winners.bincount(minlength=options.restarts + 1).tolist()
        print(f"{norm:9}won by z = 0 and each restart: {won}")
        theirs = test(options.steps[-1], held_out[: options.audited], 0, protocol="authors")
        print(
            f"{norm:9}|z|/√d {audit.code_norm:.3f}, {audit.outside:.1%} outside the ball; loss "
            f"{audit.ball_free_loss:.5f}, within the ball {audit.ball_loss:.5f}"
        )
        print(
            f"{norm:9}by the authors' protocol: loss {theirs.loss:.5f}, |z|/√d "
            f"{theirs.code_norm:.3f}, {theirs.outside:.1%} outside the ball",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("curves"), help="folder of the images")
    parser.add_argument("--norms", nargs="+", default=["vanilla", "bn", "wn"])
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 200, 500, 1000, 2000])
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--audited", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
