"""How fast one GPU trains, tests and stacks GANs, against the textbook loop and the hardware.

    python tests/bench/gpu.py
    python tests/bench/gpu.py --compile --rounds 7

Prints the GPU's own limits (copies, matrix products, kernels in a graph), then, paired in rounds
within this run: iterations of `tests/gan/textbook.py` (the authors' loop, started kernel by kernel
from Python) and ours (recorded as a CUDA graph) in each precision, compiled ones with `--compile`;
several GANs at once; the reconstruction test of the final test; the cost of an evaluation. Ratios
are medians of the rounds, with the lowest and the highest round in brackets.

The floor of an iteration is what its convolutions and products need at the measured limits, each
either for arithmetic or to read inputs and weights and write outputs once; all else is free.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.data.images import ImageSet
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import TrainConfig
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.nets.layers import _WeightNormalized
from raygan.gan.pixels import as_float
from raygan.gan.state import TrainState
from raygan.gan.train import Stack
from tests.gan import textbook

GPU = torch.device("cuda")
PASSES = {"discriminator": 8, "generator": 4}
"""Passes through each network per image and iteration of `alternating`."""
CASES: list[dict[str, Any]] = [
    {"size": 32, "batch_size": 32},
    {"size": 32, "batch_size": 128},
    {"size": 32, "batch_size": 256},
    {"size": 160, "batch_size": 32},
    {"size": 160, "batch_size": 128},
    {"size": 160, "batch_size": 256},
    {"size": 160, "batch_size": 32, "architecture": "resnet"},
]
COMPILED = [0, 2, 3, 5]
"""Cases that are compiled, too."""

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, _WeightNormalized)

Contender = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--norm", default="wn")
    parser.add_argument("--compile", action="store_true", help="compiled networks, too")
    parser.add_argument("--only-compile", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_compile is not None:
        for precision in ("tf32", "bf16"):
            case = CASES[COMPILED[options.only_compile]]
            stack(case, options.norm, precision=precision, compile=True)()
        return
    print(torch.cuda.get_device_name(), f"torch {torch.__version__}", sys.version.split()[0])
    if options.compile:  # side by side, into the compiler's cache on the disk
        started = time.perf_counter()
        command = [sys.executable, __file__, "--norm", options.norm, "--only-compile"]
        workers = [subprocess.Popen([*command, str(each)]) for each in range(len(COMPILED))]
        for worker in workers:
            worker.wait()
        print(
            f"compiled {len(COMPILED)} cases side by side in {time.perf_counter() - started:.0f} s"
        )
    limits = Limits()
    print(limits)
    for place, case in enumerate(CASES):
        iterations(case, options, limits, compiles=options.compile and place in COMPILED)
        torch.cuda.empty_cache()
    for compiled in (False, True) if options.compile else (False,):
        stacks(options, compiled)
    searches(options)
    evaluation(options)


class Limits:
    """What the GPU can do at most, measured."""

    def __init__(self) -> None:
        a = torch.rand(2**28, device=GPU)
        b = torch.empty_like(a)
        self.copy = 2 * a.nbytes / seconds(lambda: b.copy_(a), 20)
        self.products = {}
        for precision in ("fp32", "tf32", "bf16"):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            x, y = torch.randn(2, 8192, 8192, device=GPU, dtype=dtype)
            with arithmetic(precision):  # type: ignore[arg-type]
                self.products[precision] = 2 * 8192**3 / seconds(lambda: x @ y, 10)  # noqa: B023
        one, graph = torch.zeros(1, device=GPU), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(500):
                one += 1
        self.replayed = seconds(graph.replay, 20) / 500
        self.started = seconds(lambda: one.add_(1), 2000)

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in self.products.items())
        return (
            f"copies {self.copy / 1e12:.2f} TB/s; products {products} TFLOP/s; smallest kernel "
            f"{self.replayed * 1e6:.2f} µs in a graph, {self.started * 1e6:.1f} µs from Python"
        )

    def floor(self, case: dict[str, Any], norm: str, precision: str) -> float:
        """Seconds that one iteration needs at least."""
        _, state = member(case, norm)
        width = 2 if precision == "bf16" else 4
        total = 0.0

        def count(layer: nn.Module, given: tuple[torch.Tensor], found: torch.Tensor) -> None:
            nonlocal total
            weight = layer.weight
            assert isinstance(weight, torch.Tensor)
            transposed = "Transpose" in type(layer).__name__
            places = (given[0] if transposed else found)[0, 0].numel() if found.dim() > 2 else 1
            flops = 2 * weight.numel() * places * case["batch_size"]
            moved = case["batch_size"] * (given[0][0].numel() + found[0].numel()) + weight.numel()
            total += max(flops / self.products[precision], moved * width / self.copy)

        found = 0.0
        for name, passes in PASSES.items():
            network, total = getattr(state, name), 0.0
            layers = [m for m in network.modules() if isinstance(m, LAYERS)]
            hooks = [layer.register_forward_hook(count) for layer in layers]
            given = {
                "discriminator": torch.rand(1, 3, case["size"], case["size"], device=GPU),
                "generator": torch.randn(1, 128, device=GPU),
            }[name]
            with torch.no_grad():
                network.eval()(given)
            for hook in hooks:
                hook.remove()
            found += passes * total
        return found


def images(size: int) -> ImageSet:
    rng = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (700, size, size, 3), generator=rng, dtype=torch.uint8)
    return ImageSet.of([pixels], torch.arange(200), torch.arange(200, 400), "", 0.1)


def member(case: dict[str, Any], norm: str, **fields: Any) -> tuple[TrainConfig, TrainState]:
    fields = {**{key: value for key, value in case.items() if key != "size"}, **fields}
    endless = 10**7
    config = TrainConfig(norm=norm, iterations=endless, evaluate_every=endless, **fields)
    return config, TrainState.create(config, (3, case["size"], case["size"]), GPU)


def stack(case: dict[str, Any], norm: str, count: int = 1, **fields: Any) -> Contender:
    """One iteration of each of ``count`` GANs, recorded already."""
    members = [member(case, norm, seed=seed, **fields) for seed in range(count)]
    runs = Stack(members, images(case["size"]))._runs

    def advance() -> None:
        for run in runs:
            run.advance()

    for run in runs:
        run.begin(0.0)
    for _ in range(6):
        advance()
    advance.runs = runs  # type: ignore[attr-defined]
    return advance


def loop(case: dict[str, Any], norm: str) -> Contender:
    """One iteration of the textbook's loop, in float32."""
    _, state = member(case, norm)
    networks = (
        copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        for network in (state.generator, state.discriminator)
    )
    game = textbook.Game(*networks, loss="log", optimizer="rmsprop", lr=1e-4)
    real = torch.rand(case["batch_size"], 3, case["size"], case["size"], device=GPU)
    noise = torch.randn(2, case["batch_size"], 128, device=GPU)

    def step() -> None:
        with arithmetic("fp32"):
            torch.backends.cudnn.deterministic = False  # as fast as it can be
            game.step(real, *noise)

    return step


def seconds(work: Contender, count: int) -> float:
    """Of one call of ``work``, after two more."""
    work()
    work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / count


def rounds(contenders: dict[str, Contender], count: int, budget: float) -> dict[str, list[float]]:
    """Seconds per call of each contender in each round, of which each takes ``budget`` seconds."""
    calls = {name: max(3, int(budget / seconds(work, 3))) for name, work in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count):
        for name in random.sample(list(contenders), len(contenders)):
            times[name].append(seconds(contenders[name], calls[name]))
    return times


def ratio(one: list[float], other: list[float]) -> str:
    found = [a / b for a, b in zip(one, other, strict=True)]
    low, high = min(found), max(found)
    return f"{statistics.median(found):.2f}× [{low:.2f}, {high:.2f}], n = {len(found)}"


def iterations(
    case: dict[str, Any], options: argparse.Namespace, limits: Limits, *, compiles: bool
) -> None:
    architecture = case.get("architecture", "dcgan")
    print(f"\n{architecture}, {case['size']} px, batch {case['batch_size']}: one iteration")
    contenders: dict[str, Contender] = {}
    if architecture == "dcgan":
        contenders["textbook fp32"] = loop(case, options.norm)
    for precision in ("fp32", "tf32", "bf16"):
        contenders[precision] = stack(case, options.norm, precision=precision)
        if compiles and precision != "fp32":
            name = f"{precision} compiled"
            contenders[name] = stack(case, options.norm, precision=precision, compile=True)
    times = rounds(contenders, options.rounds, 0.06)
    for name, found in times.items():
        median = statistics.median(found)
        line = f"  {name:15} {median * 1e3:8.3f} ms"
        if name != "textbook fp32":
            floor = limits.floor(case, options.norm, name.split()[0])
            line += f"  {kernels(contenders[name]):4} kernels, {floor / median:4.0%} of the floor"
            if "textbook fp32" in times:
                line += f"; textbook/this {ratio(times['textbook fp32'], found)}"
        print(line, flush=True)


def kernels(work: Contender) -> int:
    """How many kernels one call starts."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if event.self_device_time_total)


def stacks(options: argparse.Namespace, compiled: bool) -> None:
    print(f"\nseveral GANs at once, 32 px, batch 32{', compiled' if compiled else ''}")
    for precision in ("fp32", "tf32", "bf16"):
        if compiled and precision == "fp32":
            continue
        fields = {"precision": precision, "compile": compiled}
        counts = (1, 2, 4, 8)
        work = {str(n): stack(CASES[0], options.norm, n, **fields) for n in counts}
        times = rounds(work, options.rounds, 0.06)
        for n in counts:
            per_second = n / statistics.median(times[str(n)])
            each = [value / n for value in times[str(n)]]
            print(
                f"  {precision} {n}: {per_second:6.0f} iterations/s together, "
                f"{ratio(times['1'], each)}",
                flush=True,
            )


def searches(options: argparse.Namespace) -> None:
    """Of 1,000 images, 200 steps; the textbook's: of 100 images at once, as the authors do."""
    print("\nfinal test, 32 px: 200 steps for 1,000 images")
    _, state = member(CASES[0], options.norm)
    held_out = torch.randint(0, 256, (1000, 3, 32, 32), dtype=torch.uint8, device=GPU)
    plain = textbook.Generator(copy.deepcopy(state.generator), "weight").eval()

    def search() -> None:
        for part in held_out.split(100):
            target = as_float(part)
            codes = torch.zeros(len(part), 128, device=GPU, requires_grad=True)
            optimizer = torch.optim.RMSprop([codes], lr=0.01, alpha=0.9, eps=1e-6)
            for _ in range(20):  # a tenth of the steps
                optimizer.zero_grad()
                (plain(codes) - target).square().sum().backward()
                optimizer.step()

    def ours(precision: str) -> Contender:
        def test() -> None:
            with arithmetic(precision):  # type: ignore[arg-type]
                reconstruct(state.generator, 128, held_out, steps=200, batch_size=1000)

        return test

    def textbook_search() -> None:
        with arithmetic("fp32"):
            search()

    contenders = {"textbook": textbook_search, "fp32": ours("fp32"), "tf32": ours("tf32")}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, work in contenders.items():
            factor = 10 if name == "textbook" else 1
            times[name].append(seconds(work, 1) * factor)
    for name, found in times.items():
        print(
            f"  {name:9} {statistics.median(found):7.3f} s; textbook/this "
            f"{ratio(times['textbook'], found)}"
        )


def evaluation(options: argparse.Namespace) -> None:
    advance = stack(CASES[0], options.norm, precision="tf32")
    (run,) = advance.runs  # type: ignore[attr-defined]
    run._until = run._state.step
    found = [seconds(lambda: run.evaluate([0.0] * 4, 1.0), 2) for _ in range(options.rounds)]
    print(f"\none evaluation, 32 px, 200 images, 50 steps: {statistics.median(found) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
