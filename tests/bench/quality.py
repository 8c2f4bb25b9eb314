"""Sample quality: what it costs, what known disturbances score, and how its noise falls with n.

    python tests/bench/quality.py cost --device cuda
    python tests/bench/quality.py disturbances --data cifar10
    python tests/bench/quality.py noise

- `cost`: seconds of one evaluation of both kinds, and its ratio to `--every` iterations; a few
  iterations are timed in each round, and scaled; operations are counted. The real images' features,
  which a process computes once, are left out.
- `disturbances`: the measures of disturbed real images against other real images.
- `noise`: the feature energy distance between two sets of real images, over random splits.

`disturbances` of cifar10, and `noise`, need CIFAR-10's Parquet files (`RAYGAN_CIFAR10`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from step import hardware

from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig
from raygan.gan.judge import energy, quality
from raygan.gan.judge.efficientnet import features
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers
from tests.gan.judge import disturbances


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    print(hardware(device))
    {"cost": cost, "disturbances": disturbed, "noise": noise}[options.what](options, device)


def cost(options: argparse.Namespace, device: torch.device) -> None:
    shape = (3, options.size, options.size)
    config = TrainConfig(features=options.features, code_size=256, precision=options.precision)
    game = TrainState.create(config, shape, device).game(Workers())
    images = torch.rand(options.batch, *shape, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    codes = torch.randn(2, options.batch, 256, device=device)
    samples = torch.rand(options.n, *shape, device=device)
    real = torch.randint(0, 256, (options.n, *shape), dtype=torch.uint8)
    against = {kind: quality.reference(kind, real, device) for kind in quality.MEASURES}

    def iterations() -> None:
        with arithmetic(options.precision):
            for _ in range(options.iterations):
                game.alternating(images, *codes)

    def evaluation(kind: str) -> Callable[[], object]:
        return lambda: quality.measure(kind, samples, against[kind])

    contenders = {kind: evaluation(kind) for kind in quality.MEASURES}
    times: dict[str, list[float]] = {name: [] for name in [*contenders, "iteration"]}
    for round_ in range(options.rounds + 1):  # the first to warm up
        took = {name: timed(work, device) for name, work in contenders.items()}
        took["iteration"] = timed(iterations, device) / options.iterations
        if round_:
            for name, seconds in took.items():
                times[name].append(seconds)
    print(f"{options.size} px, batch {options.batch}, {options.features} features, "
          f"{options.precision}: an iteration takes {shown(times['iteration'], 1e3)} ms")  # fmt: skip
    for kind in contenders:
        pairs = zip(times[kind], times["iteration"], strict=True)
        shares = [a / (b * options.every) for a, b in pairs]
        print(f"{kind}, n = {options.n}: {shown(times[kind])} s, "
              f"{shown(shares, 100)}% of {options.every} iterations")  # fmt: skip
    computed = operations(contenders["features"]), operations(iterations) / options.iterations
    print(f"features compute {computed[0] / 1e9:.0f} GFLOP, an iteration {computed[1] / 1e9:.0f}: "
          f"{computed[0] / computed[1] / options.every:.2%}")  # fmt: skip


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def disturbed(options: argparse.Namespace, device: torch.device) -> None:
    n = options.n
    labelled = disturbances.digits() if options.data == "digits" else disturbances.cifar10(8 * n)
    real, kinds = disturbances.sets(labelled, n)
    against = {kind: quality.reference(kind, real, device) for kind in quality.MEASURES}
    names = [name for kind in against for name in quality.MEASURES[kind]]
    print(f"{options.data}, n = {n}\n\n| disturbance | strength | {' | '.join(names)} |")
    print("|---" * (2 + len(names)) + "|")
    for disturbance, strengths in kinds.items():
        for strength, images in strengths:
            values: dict[str, float] = {}
            for kind, reference in against.items():
                values |= quality.measure(kind, images.to(device), reference)
            cells = " | ".join(f"{values[name]:.3g}" for name in names)
            print(f"| {disturbance} | {strength} | {cells} |", flush=True)


def noise(options: argparse.Namespace, device: torch.device) -> None:
    images = disturbances.cifar10(options.pool)[0].to(device).float() / 255
    table = features(images)
    rng = torch.Generator().manual_seed(0)
    for n in options.counts:
        found = []
        for _ in range(options.splits):
            a, b = table[torch.randperm(len(table), generator=rng)[: 2 * n]].split(n)
            found.append(energy.compare(a, b)["feature_energy_distance"])
        print(f"n = {n}: mean {statistics.mean(found):.4f}, sd {statistics.stdev(found):.4f} over "
              f"{len(found)} random splits of {len(table)} images")  # fmt: skip


def shown(values: list[float], scale: float = 1) -> str:
    """Median, least and most."""
    scaled = [value * scale for value in values]
    return (
        f"{statistics.median(scaled):.3g} [{min(scaled):.3g}, {max(scaled):.3g}] "
        f"(n = {len(scaled)})"
    )


def timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["cost", "disturbances", "noise"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=256, help="images of an evaluation")
    parser.add_argument("--size", type=int, default=160, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--every", type=int, default=1_000, help="iterations per evaluation")
    parser.add_argument("--iterations", type=int, default=2, help="timed per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", choices=["digits", "cifar10"], default="cifar10")
    parser.add_argument("--pool", type=int, default=3_000, help="images that are split")
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 128, 256, 512, 1_000])
    parser.add_argument("--splits", type=int, default=30)
    return parser


if __name__ == "__main__":
    main()
