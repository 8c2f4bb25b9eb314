"""Data-parallel efficiency: two workers on two cores against one worker on one core.

    python tests/bench/workers.py --norm wn --rounds 15

Two processes of one thread each take turns at these, a few iterations at a time, within each
round and in an order drawn anew:

    alone     one process trains the whole batch, the other one sleeps
    two       both train it together
    apart     both train half of the batch each and tell each other nothing: what two workers
              could reach at most on these cores

The efficiency is time(alone) / (2 · time), round by round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.gan.config import TrainConfig
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers

ARMS = ("alone", "two", "apart")


class _Alone(Workers):
    """One worker, whatever processes there are."""

    def __init__(self) -> None:
        self.count, self.rank = 1, 0


class _Apart(Workers):
    """Workers that do not talk."""

    def sum_(self, *tensors: torch.Tensor) -> None:
        pass

    def summing(self, tensors: Any, like: Any) -> Any:
        return lambda: tensors


def main() -> None:
    options = _parser().parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    processes = [
        context.Process(
            target=_worker, args=(rank, port, vars(options), theirs if rank == 0 else None)
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    times: dict[str, list[float]] = json.loads(ours.recv())
    for process in processes:
        process.join()
    print(
        f"torch {torch.__version__}, {options.norm}, {options.architecture}, {options.size} px, "
        f"{options.features} features, batch {options.batch}, {options.update}; {options.rounds} rounds of {options.steps} iterations"
    )
    print(f"alone: {statistics.median(times['alone']) * 1000:.1f} ms per iteration")
    for arm in ARMS[1:]:
        ratios = [a / (2 * b) for a, b in zip(times["alone"], times[arm], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{arm:6} efficiency {middle:.3f} (quartiles {low:.3f} to {high:.3f}, n = {len(ratios)})"
        )
    ratios = [a / b for a, b in zip(times["apart"], times["two"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"two against apart {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


def _worker(rank: int, port: int, given: dict[str, Any], to: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    config = TrainConfig.of(
        norm=given["norm"], architecture=given["architecture"], features=given["features"],
        code_size=given["code_size"], batch_size=given["batch"], update=given["update"],
    )  # fmt: skip
    shape = (3, given["size"], given["size"])
    groups = {"alone": _Alone(), "two": Workers(), "apart": _Apart()}
    games = {arm: TrainState.create(config, shape).game(groups[arm]) for arm in ARMS}
    draws = torch.Generator().manual_seed(rank)
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    order = random.Random(0)
    for number in range(-1, given["rounds"]):
        for arm in order.sample(ARMS, len(ARMS)):
            workers, game = groups[arm], games[arm]
            n = config.batch_size // workers.count
            real = torch.rand((n, *shape), generator=draws)
            noise = torch.randn((2, n, config.code_size), generator=draws)
            play = game.alternating if config.update == "alternating" else game.simultaneous
            dist.barrier()
            started = time.perf_counter()
            if arm != "alone" or rank == 0:
                for _ in range(given["steps"]):
                    play(real, noise[0], noise[1])
            seconds = torch.tensor(time.perf_counter() - started)
            dist.all_reduce(seconds, dist.ReduceOp.MAX)
            if number >= 0:
                times[arm].append(float(seconds) / given["steps"])
    if to is not None:
        to.send(json.dumps(times))
    dist.destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", default="wn")
    parser.add_argument("--architecture", default="dcgan")
    parser.add_argument("--update", default="alternating")
    for name, value in (("size", 32), ("features", 64), ("code-size", 128), ("batch", 32), ("rounds", 15), ("steps", 4)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser


if __name__ == "__main__":
    main()
