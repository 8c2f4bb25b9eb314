"""Time of one training iteration against the textbook loop, paired in one run.

    python tests/bench/step.py --norms vanilla wn
    python tests/bench/step.py --norms wn --architecture resnet --size 160 --device cuda \\
        --precisions tf32 bf16 --compile

The textbook loop is that of `tests/gan/textbook.py` (what `alternating` equals step for step):
D's loss is back-propagated into G, weights are normalised at every forward pass, TPReLU takes
three passes, D judges real and fake images in two calls, each loss is read every step. Within a
round every contender runs the same number of steps, in an order drawn anew, so that a slow
moment of the machine hits all alike; ratios are taken round by round.

Other precisions and compiled networks are compared with `alternating` in float32, not compiled;
so are the ResNet and `sn`, which have no textbook.
"""

from __future__ import annotations

import argparse
import copy
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig, choices
from raygan.gan.state import TrainState
from raygan.gan.steps import Game
from raygan.gan.workers import Workers
from tests.gan import textbook

PASSES = {"alternating": 12, "simultaneous": 9, "textbook": 15}
"""Passes through G or D per image and iteration: one forward, one backward per gradient."""

Contender = Callable[[], object]


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    print(hardware(device))
    print(
        f"{options.architecture}, {options.size} px, {options.features} features, code "
        f"{options.code_size}, batch {options.batch}, {options.rounds} rounds of {options.steps} steps, "
        f"textbook scales the {options.scaling}"
    )
    contenders = {
        name: contender
        for norm in options.norms
        for name, contender in build(norm, options, device).items()
    }
    contenders["matmul"] = matrix_product(device)
    times = measure(contenders, options.rounds, options.steps, device)
    report(times, options)


def build(norm: str, options: argparse.Namespace, device: torch.device) -> dict[str, Contender]:
    """The loops of ``norm``, each on networks of its own."""
    shape = (3, options.size, options.size)
    real = torch.rand(options.batch, *shape, device=device)
    ours = real.contiguous(memory_format=torch.channels_last)
    noise = torch.randn(2, options.batch, options.code_size, device=device)

    def game(**fields: Any) -> Game:
        config = config_of(options, norm=norm, **fields)
        return TrainState.create(config, shape, device).game(Workers())

    def loop(update: str, precision: str = "fp32", *, compiled: bool = False) -> Contender:
        playing = game(update=update, precision=precision, compile=compiled)

        def play() -> None:
            with arithmetic(precision):
                getattr(playing, update)(ours, *noise)

        return play

    contenders: dict[str, Contender] = {}
    if options.architecture == "dcgan" and norm != "sn":
        networks = game()
        plain = textbook.Game(
            *(
                _contiguous(player.network)
                for player in (networks.generator, networks.discriminator)
            ),
            loss="log",
            optimizer="rmsprop",
            lr=1e-4,
            scaling=options.scaling,
        )
        contenders[f"{norm} textbook"] = lambda: plain.step(real, *noise)
    for update in choices()["update"]:
        contenders[f"{norm} {update}"] = loop(update)
    for precision in options.precisions:
        contenders[f"{norm} alternating {precision}"] = loop("alternating", precision)
    for precision in ("fp32", *options.precisions) if options.compile else ():
        name = f"{norm} alternating {precision} compiled"
        contenders[name] = loop("alternating", precision, compiled=True)
    return contenders


def config_of(options: argparse.Namespace, **fields: Any) -> TrainConfig:
    return TrainConfig.of(
        architecture=options.architecture,
        features=options.features,
        code_size=options.code_size,
        blocks=options.blocks,
        **fields,
    )


def _contiguous(network: torch.nn.Module) -> torch.nn.Module:
    """In PyTorch's default layout: a textbook knows no other."""
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def matrix_product(device: torch.device, side: int = 2048) -> Contender:
    a, b = torch.rand(2, side, side, device=device)
    out = torch.empty(side, side, device=device)
    return lambda: torch.mm(a, b, out=out)


def measure(
    contenders: dict[str, Contender], rounds: int, steps: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds per step of every contender in every round; one round more, first, to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name in random.sample(list(contenders), len(contenders)):
            _wait(device)
            started = time.perf_counter()
            for _ in range(steps):
                contenders[name]()
            _wait(device)
            if round_:
                times[name].append((time.perf_counter() - started) / steps)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def pass_flops(options: argparse.Namespace) -> float:
    """Floating-point operations of a pass of one image: the mean of G and D, from their layers."""
    shape = (3, options.size, options.size)
    state = TrainState.create(config_of(options, norm="vanilla"), shape)
    total = 0
    for network, given in (
        (state.generator, torch.zeros(1, options.code_size)),
        (state.discriminator, torch.zeros(1, *shape)),
    ):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            network(given)
        total += counter.get_total_flops()
    return total / 2


def report(times: dict[str, list[float]], options: argparse.Namespace) -> None:
    rate = 2 * 2048**3 / statistics.median(times["matmul"])
    image = pass_flops(options)
    print(f"2048³ float32 matrix product: {rate / 1e9:.0f} GFLOP/s (median of {options.rounds})")
    print(f"a pass of one image through G or D: {image / 1e6:.1f} MFLOP\n")
    print(f"{'':34}{'ms/step':>9}{'floor ms':>10}{'of matmul':>11}   textbook or float32/this")
    for name, seconds in times.items():
        if name == "matmul":
            continue
        norm, loop, *variant = name.split()
        # the textbook's useful work is that of `alternating`; the rest is thrown away
        useful = image * options.batch * PASSES["alternating" if loop == "textbook" else loop]
        median = statistics.median(seconds)
        line = (
            f"{name:34}{median * 1e3:9.1f}{useful / rate * 1e3:10.1f}{useful / median / rate:11.0%}"
        )
        textbook_ = f"{norm} textbook"
        plain = not variant and textbook_ in times
        reference = textbook_ if plain else f"{norm} alternating"
        if reference != name:
            line += f"   {ratio(times[reference], seconds)}"
        print(line)
    if {"wn", "vanilla"} <= set(options.norms):
        print()
        for loop in ("alternating", "simultaneous"):
            print(f"wn / vanilla, {loop}: {ratio(times[f'wn {loop}'], times[f'vanilla {loop}'])}")


def ratio(one: list[float], other: list[float]) -> str:
    """Median and quartiles of one/other, round by round."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}× (n = 1)"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f}× [{low:.2f}, {high:.2f}], n = {len(ratios)}"


def hardware(device: torch.device) -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0].split(":")[1].strip() if models else name
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, {threads}, torch {torch.__version__}, Python {platform.python_version()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norms", nargs="+", default=list(choices()["norm"]), metavar="NORM")
    parser.add_argument("--size", type=int, default=32, help="side of the images, in pixels")
    parser.add_argument("--architecture", choices=choices()["architecture"], default="dcgan")
    parser.add_argument("--blocks", type=int, default=2, help="of the ResNet, per level")
    parser.add_argument(
        "--precisions", nargs="*", default=[], choices=choices()["precision"], help="besides fp32"
    )
    parser.add_argument("--compile", action="store_true", help="compiled networks, too")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--code-size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    parser.add_argument(
        "--scaling",
        choices=("weight", "output"),
        default="weight",
        help="what the textbook's weight norm scales (the authors' code scales the output)",
    )
    return parser


if __name__ == "__main__":
    main()
