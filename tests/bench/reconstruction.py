"""Time of the reconstruction test against the textbook way and the arithmetic floor, in one run.

    python tests/bench/reconstruction.py --batch-sizes 16 32 64

The textbook way: one ``backward`` per step in batches of 32, weights constant but normalised
again at every step. Floor: two passes through G per image and step at the rate of a 2048³
float32 matrix product, measured in the same round.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from step import hardware, matrix_product, ratio

from raygan.gan.config import TrainConfig, choices
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.state import TrainState
from tests.gan import textbook


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    print(hardware(device))
    shape = (3, options.size, options.size)
    config = TrainConfig(norm=options.norm, features=options.features, code_size=options.code_size)
    generator = TrainState.create(config, shape, device).generator
    images = torch.randint(0, 256, (options.images, *shape), dtype=torch.uint8, device=device)
    flops = pass_flops(config, shape) * 2 * options.steps * options.images
    print(
        f"{options.norm}, {options.size} px, {options.features} features, {options.images} images "
        f"× {options.steps} steps, float32: {flops / 1e9:.0f} GFLOP, {options.rounds} rounds"
    )

    def ours(batch_size: int) -> Callable[[], object]:
        return lambda: reconstruct(
            generator, options.code_size, images, steps=options.steps, batch_size=batch_size
        )

    default_layout = copy.deepcopy(generator).to(memory_format=torch.contiguous_format)
    plain = textbook.Generator(default_layout, "weight").eval().requires_grad_(False)
    contenders = {f"ours, {size} at once": ours(size) for size in options.batch_sizes}
    contenders["textbook, 32 at once"] = lambda: search(plain, options, images)
    times: dict[str, list[float]] = {name: [] for name in [*contenders, "floor"]}
    product = matrix_product(device)
    for round_ in range(options.rounds + 1):  # the first to warm up
        rates = []
        for name in random.sample(list(contenders), len(contenders)):
            rates.append(rate(product, device))
            seconds = timed(contenders[name], device)
            rates.append(rate(product, device))
            if round_:
                times[name].append(seconds)
        if round_:
            times["floor"].append(flops / statistics.median(rates))
    floor = statistics.median(times["floor"])
    print(f"2048³ float32 matrix product: {flops / floor / 1e9:.0f} GFLOP/s; floor {floor:.2f} s\n")
    print(f"{'':24}{'seconds':>9}{'of matmul':>11}   to the floor: median [IQR]")
    for name in contenders:
        median = statistics.median(times[name])
        to_floor = ratio(times[name], times["floor"])
        print(f"{name:24}{median:9.2f}{floor / median:11.0%}   {to_floor}")


def search(generator: torch.nn.Module, options: argparse.Namespace, images: torch.Tensor) -> None:
    """The textbook way."""
    for batch in images.split(32):
        target = batch.float() / 255
        codes = torch.zeros(len(batch), options.code_size, device=target.device)
        codes.requires_grad_()
        optimizer = torch.optim.RMSprop([codes], lr=0.01, alpha=0.9, eps=1e-6)
        for _ in range(options.steps):
            optimizer.zero_grad()
            loss = (generator(codes) - target).square().sum()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            (generator(codes) - target).square().mean((1, 2, 3)).tolist()


def rate(product: Callable[[], object], device: torch.device) -> float:
    """Floating-point operations per second of the matrix product, just now."""
    return 4 * 2 * 2048**3 / timed(lambda: [product() for _ in range(4)], device)


def timed(function: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def pass_flops(config: TrainConfig, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a pass of one image through G, from its layers."""
    counter = FlopCounterMode(display=False)
    generator = TrainState.create(config, shape).generator
    with torch.no_grad(), counter:
        generator(torch.zeros(1, config.code_size))
    return counter.get_total_flops()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norm", choices=choices()["norm"], default="wn")
    parser.add_argument("--size", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--code-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 100, 200])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    main()
