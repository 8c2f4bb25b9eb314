"""What evaluation, pictures and checkpoints cost a trial, at the sizes of `sweeps/full.yaml`.

    python tests/bench/evaluation.py
    python tests/bench/evaluation.py --against ../before --architectures resnet

Two measurements, none of which needs a GPU:

- **What holds the training up.** The worker of a sweep trains networks of full size, whose
  iteration only waits for so many milliseconds, and whose searches and samples are given. What is
  left is what a worker does beside computing: pictures, checkpoints, reports. Printed is the time
  between two iterations, beyond the usual, at an evaluation and at a checkpoint between two. The
  generator improves at every evaluation, which is the worst case. `--against` is another checkout,
  measured in turns with this one.
- **What an evaluation computes**, in iterations: floating-point operations of both, counted. Where
  iterations are in tf32, an evaluation, which is always in fp32, costs more than its share of the
  operations; `--fp32` says how much slower an iteration in fp32 is.

Shares are those of a trial with an evaluation every `--every` iterations and a checkpoint every
`--minutes` minutes; a version without `train.checkpoint_every` has a checkpoint at each evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SIZE, FEATURES, CODE, BATCH, RUNNING = 160, 64, 256, 32, 200
"""Those of `sweeps/full.yaml`; images of the running test are the default."""
STRETCH, EVALUATIONS, BETWEEN = 50, 6, 115
"""Iterations of a stretch, stretches, and iterations between two checkpoints, when measured."""
STEPS = {"dcgan": (9.3, 41.8), "resnet": (40.6, 120.0)}
"""Milliseconds of an iteration in tf32 and in fp32, as docs/performance.md has them for one GPU."""


def main() -> None:
    options = _parser().parse_args()
    if options.child:
        print(json.dumps(measure(options.child, options.step / 1000)))
        return
    folders = {"this": ROOT, **({"before": options.against} if options.against else {})}
    for architecture in options.architectures:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in folders}
        for number in range(options.rounds):
            turns = list(folders) if number % 2 else list(folders)[::-1]
            for name in turns:
                found[name].append(in_process(folders[name], architecture, options.step))
        step = (options.iteration or STEPS[architecture][0]) / 1000
        print(f"\n{architecture}, {SIZE} px, {FEATURES} features, {options.rounds} rounds of "
              f"{EVALUATIONS - 1} evaluations; iterations of {step * 1000:g} ms")  # fmt: skip
        held = {name: report(name, rounds, step, options) for name, rounds in found.items()}
        if "before" in held:
            print(f"  ratio before / this: {held['before'] / held['this']:.1f}")
        computed(architecture, options)


def report(name: str, rounds: list[dict[str, Any]], step: float, options: Any) -> float:
    """Print what holds the training up; returns its share of the time."""
    evaluations = [gap for each in rounds for gap in each["evaluations"]]
    checkpoints = [gap for each in rounds for gap in each["checkpoints"]]
    share = statistics.median(wall for wall, _ in evaluations) / (options.every * step)
    text = f"  {name}: held up {described(evaluations)} at an evaluation"
    if checkpoints:
        share += statistics.median(wall for wall, _ in checkpoints) / (60 * options.minutes)
        text += f", {described(checkpoints)} at a checkpoint between two"
    print(f"{text}; a checkpoint has {rounds[0]['bytes'] / 1e6:.0f} MB")
    print(
        f"    share of {options.every} iterations, beside what an evaluation computes: {share:.2%}"
    )
    return share


def described(gaps: list[list[float]]) -> str:
    wall, computing = ([1000 * each for each in column] for column in zip(*gaps, strict=True))
    return (
        f"{statistics.median(wall):.0f} [{min(wall):.0f}, {max(wall):.0f}] ms, of which the thread "
        f"computes {statistics.median(computing):.0f} ms (n = {len(wall)})"
    )


def computed(architecture: str, options: argparse.Namespace) -> None:
    """Print what an evaluation computes, in iterations."""
    iteration, evaluation = operations(architecture)
    share = evaluation / iteration / options.every
    tf32, fp32 = STEPS[architecture]
    ratio = options.fp32 or fp32 / tf32
    print(f"  an evaluation computes as much as {evaluation / iteration:.1f} iterations "
          f"({evaluation / 1e12:.1f} of {iteration / 1e12:.2f} TFLOP each)")  # fmt: skip
    print(f"    share of {options.every} iterations: {share:.1%} in the same arithmetic, about "
          f"{share * ratio:.1%} in fp32 beside iterations in tf32 ({ratio:.1f} times as fast)")  # fmt: skip


def in_process(folder: Path, architecture: str, step: float) -> dict[str, Any]:
    """:func:`measure` with the ``raygan`` in ``folder``."""
    command = [sys.executable, __file__, "--child", architecture, "--step", str(step)]
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def measure(architecture: str, seconds: float) -> dict[str, Any]:
    """How long the training is held up, in seconds."""
    import ray.train
    import torch

    from raygan.gan import train
    from raygan.gan.judge.reconstruction import Reconstruction
    from raygan.gan.steps import STATISTICS, Game, Player
    from raygan.sweep.cluster import worker
    from raygan.sweep.cluster.job import Job

    began: list[tuple[float, float]] = []
    ended: list[tuple[float, float]] = []

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()

    reports: list[dict[str, Any]] = []
    losses = iter(range(10**6, 0, -1))
    pictures = smooth(RUNNING)

    def iterate(*_: object) -> Any:
        began.append(now())
        time.sleep(seconds)
        ended.append(now())
        return torch.zeros(len(STATISTICS))

    def reconstruct(*_: object, **__: object) -> Reconstruction:
        found = torch.full((RUNNING,), next(losses) / 1e6)
        return Reconstruction(found, pictures, torch.zeros(RUNNING, 1))

    Game.alternating = iterate  # type: ignore[method-assign]
    Player.gradient_norm = lambda _: torch.ones(())  # type: ignore[method-assign]
    train.reconstruct = reconstruct  # type: ignore[attr-defined]
    train._sample = lambda _, __, count: pictures[:count]
    worker.load_images = lambda _: image_set()
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    ray.train.get_context = lambda: context  # type: ignore[assignment,return-value]
    ray.train.get_preemption_info = lambda: None
    ray.train.report = lambda metrics, **_: reports.append(metrics)
    with tempfile.TemporaryDirectory() as folder:
        job: dict[str, Any] = {
            "trial": "trial", "folder": f"{folder}/trial", "prepared": "", "digest": "digest",
            "config": config(architecture).to_dict(),
        }  # fmt: skip
        if between := "checkpoint_every" in Job.__dataclass_fields__:
            job["checkpoint_every"] = BETWEEN
        with full_optimizers():
            worker.train_worker(Job(**job).to_plain())
    gaps = [
        [start - end for end, start in zip(done, next_, strict=True)]
        for done, next_ in zip(ended[:-1], began[1:], strict=True)
    ]
    usual = [statistics.median(each) for each in zip(*gaps, strict=True)]
    last = STRETCH * EVALUATIONS
    at = [[gap - often for gap, often in zip(each, usual, strict=True)] for each in gaps]
    return {
        "evaluations": [at[n - 1] for n in range(STRETCH, last, STRETCH)],
        "checkpoints": [at[n - 1] for n in range(BETWEEN, last, BETWEEN)] if between else [],
        "bytes": max(report.get("checkpoint_bytes", 0) for report in reports),
    }


def config(architecture: str) -> Any:
    from raygan.gan.config import TrainConfig

    return TrainConfig(
        architecture=architecture, features=FEATURES, code_size=CODE, batch_size=BATCH,
        iterations=STRETCH * EVALUATIONS, evaluate_every=STRETCH,
    )  # fmt: skip


class full_optimizers:
    """Within the block, new states have optimizers as after an iteration."""

    def __enter__(self) -> None:
        import torch

        from raygan.gan.state import TrainState

        create = self._create = TrainState.create

        def created(*given: Any, **options: Any) -> TrainState:
            state = create(*given, **options)
            for network, optimizer in (
                (state.generator, state.optimizer_g), (state.discriminator, state.optimizer_d)
            ):  # fmt: skip
                for parameter in network.parameters():
                    parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
            return state

        TrainState.create = created  # type: ignore[method-assign,assignment]

    def __exit__(self, *_: object) -> None:
        from raygan.gan.state import TrainState

        TrainState.create = self._create  # type: ignore[method-assign]


def smooth(count: int) -> Any:
    """Images that look more like photographs than noise does, to whoever compresses them."""
    import torch

    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, SIZE // 16, SIZE // 16, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic")
    return (fine + torch.randn(fine.shape, generator=rng) * 0.01).clamp_(0, 1)


def image_set() -> Any:
    import torch

    from raygan.data.images import ImageSet

    pixels = smooth(RUNNING + 100).mul(255).byte().permute(0, 2, 3, 1).contiguous()
    held_out = torch.arange(RUNNING), torch.arange(RUNNING, RUNNING + 10)
    return ImageSet.of([pixels], *held_out, "digest", 0.1)


def operations(architecture: str) -> tuple[float, float]:
    """Floating-point operations of one iteration and of one evaluation, counted for few images."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from raygan.data.images import REFERENCE
    from raygan.gan.state import TrainState
    from raygan.gan.workers import Workers

    made, shape = config(architecture), (3, SIZE, SIZE)
    state = TrainState.create(made, shape)
    game, few = state.game(Workers()), 2

    def counted(work: Any) -> float:
        with FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops())

    real = torch.rand(few, *shape).contiguous(memory_format=torch.channels_last)
    noise = torch.randn(2, few, CODE)
    iteration = counted(lambda: game.alternating(real, *noise)) / few * BATCH
    with torch.no_grad():
        once = counted(lambda: state.judged(noise[0, :1]))
    steps = made.reconstruction_steps
    # the backward pass of a search computes gradients of codes alone, as much as a forward pass
    return iteration, (RUNNING * (1 + 2 * steps) + REFERENCE) * once


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--architectures", nargs="+", default=["dcgan", "resnet"])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", type=float, default=40.0, help="ms of an iteration, as measured")
    parser.add_argument("--iteration", type=float, help="ms of an iteration, for the shares")
    parser.add_argument("--fp32", type=float, help="time of an iteration in fp32 / in tf32")
    parser.add_argument("--every", type=int, default=1000, help="iterations between evaluations")
    parser.add_argument("--minutes", type=float, default=5.0, help="between checkpoints")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
