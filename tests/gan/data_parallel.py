"""The workers of the data-parallel tests: any number of them plays the same games.

    python data_parallel.py FOLDER COUNTS…

For each count in turn, the first ``count`` ranks form a process group (gloo, through a file in
FOLDER) and write what they got; the others sit it out.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from raygan.data.images import ImageSet  # noqa: E402
from raygan.errors import ConfigError  # noqa: E402
from raygan.gan.config import TrainConfig, choices  # noqa: E402
from raygan.gan.judge.reconstruction import reconstruct  # noqa: E402
from raygan.gan.keeping import Keeper  # noqa: E402
from raygan.gan.state import TrainState  # noqa: E402
from raygan.gan.train import Evaluation, train  # noqa: E402
from raygan.gan.workers import Workers  # noqa: E402

SHAPE, BATCH, CODE, STEPS = (1, 16, 12), 8, 6, 3
GAMES: dict[str, dict[str, Any]] = {
    **{f"{norm} alternating": {"norm": norm} for norm in choices()["norm"]},
    **{
        f"{norm} simultaneous": {"norm": norm, "update": "simultaneous"}
        for norm in ("vanilla", "bn", "wn", "sn")
    },
    "wgan-gp": {"norm": "ln", "loss": "wgan-gp", "d_steps": 2},
    "hinge": {"norm": "sn", "loss": "hinge", "d_steps": 3},
    "r1": {"norm": "gn", "r1": 5.0, "d_steps": 2},
    "resnet": {"norm": "bn", "architecture": "resnet"},
}
SOME_GAMES = ["bn alternating", "wn simultaneous", "wgan-gp"]
CURVES: dict[str, dict[str, Any]] = {
    "bn": {"norm": "bn", "ema": 0.5},
    "wn": {"norm": "wn", "latent": "uniform", "lr_decay": "linear", "quality": "wasserstein"},
    "wgan-gp": {"norm": "wn", "loss": "wgan-gp", "d_steps": 2, "augment": "diffaugment"},
    "augment": {"norm": "bn", "update": "simultaneous", "augment": "diffaugment"},
    "sn": {"norm": "sn", "loss": "hinge", "d_steps": 2, "ema": 0.5},
    "bf16": {"norm": "bn", "precision": "bf16"},
}


def config(**fields: Any) -> TrainConfig:
    return TrainConfig(features=4, code_size=CODE, batch_size=BATCH, lr=1e-3, **fields)


def play(fields: dict[str, Any]) -> dict[str, Any]:
    """A few steps in double precision; everything that they change."""
    workers = Workers()
    part = workers.part(BATCH)
    torch.set_default_dtype(torch.float32)
    run = config(**fields)
    state = TrainState.create(run, SHAPE)
    torch.set_default_dtype(torch.float64)
    state.generator.double()
    state.discriminator.double()
    game = state.game(workers)
    statistics = []
    for step in range(STEPS):
        rng = torch.Generator().manual_seed(step)
        real = torch.rand(run.d_steps, BATCH, *SHAPE, generator=rng)[:, part].flatten(0, 1)
        noise = torch.randn(run.d_steps + 1, BATCH, CODE, generator=rng)[:, part]
        mix = torch.rand(run.d_steps, BATCH, generator=rng)[:, part].flatten()
        given = real, noise[1:].flatten(0, 1), noise[0], mix if run.loss == "wgan-gp" else None
        statistics.append(getattr(game, run.update)(*given))
    total = torch.stack(statistics)
    workers.sum_(total)
    held_out = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(9))
    losses = reconstruct(state.generator, CODE, held_out, steps=5).losses
    norms = torch.stack((game.generator.gradient_norm(), game.discriminator.gradient_norm()))
    torch.set_default_dtype(torch.float32)
    return {
        "statistics": total,
        "gradient norms": norms,
        "reconstruction losses": losses,
        "generator": dict(state.generator.state_dict()),
        "discriminator": dict(state.discriminator.state_dict()),
    }


def pictures() -> ImageSet:
    rng = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (60, *SHAPE[1:], SHAPE[0]), dtype=torch.uint8, generator=rng)
    held_out = torch.arange(36, 60).split([13, 11])
    return ImageSet.of(pixels.split([31, 29]), *held_out, "digest", 0.0)


def curve(fields: dict[str, Any]) -> list[dict[str, float]]:
    """A whole run in single precision or bfloat16; its metrics."""
    images = pictures()
    run = config(iterations=6, evaluate_every=3, reconstruction_steps=5, flip=True, **fields)
    return [e.metrics for e in train(run, images, TrainState.create(run, SHAPE))]


def resumed() -> dict[str, Any]:
    """A run with two checkpoints between its evaluations; the same, resumed from each of them."""
    images, run = pictures(), config(iterations=9, evaluate_every=5, reconstruction_steps=5)
    saved: list[Any] = []
    kept: list[int] = []
    clock = itertools.count(step=5 if Workers().rank == 0 else 100).__next__
    asked: list[bool] = []

    def at_once() -> bool:
        asked.append(False)
        return asked[-1]

    class Each(Keeper):
        def keep(self, state: TrainState) -> None:
            super().keep(state)
            self.finish()
            kept.append(state.step)

    keeper = Each("1s", saved.append, at_once=at_once, clock=clock)
    state = TrainState.create(run, SHAPE)
    expected = [_lasting(e) for e in train(run, images, state, keeper=keeper)]
    got = {}
    if dist.is_initialized():
        box = [saved]
        dist.broadcast_object_list(box)
        saved = box[0]
    for each in saved:
        again = TrainState.restore(each)
        got[each["step"]] = [_lasting(e) for e in train(run, images, again)]
    return {"kept": kept, "asked": len(asked), "expected": expected, "got": got}


def stopped() -> dict[str, Any]:
    """A run whose first worker is told to stop after the sixth iteration."""
    images, run = pictures(), config(iterations=9, evaluate_every=5, reconstruction_steps=5)
    rank, saved = Workers().rank, list[Any]()
    state = TrainState.create(run, SHAPE)
    clock = itertools.count(step=1 if rank == 0 else 100).__next__
    keeper = Keeper("1h", saved.append, stops=lambda: rank == 0 and state.step >= 6, clock=clock)
    told = [evaluation.step for evaluation in train(run, images, state, keeper=keeper)]
    keeper.finish(state)
    kept = [each["step"] for each in saved]
    return {"told": told, "step": state.step, "stopped": keeper.stopped, "kept": kept}


def _lasting(evaluation: Evaluation) -> dict[str, float]:
    return {k: v for k, v in evaluation.metrics.items() if k != "perf/images_per_second"}


def refusal() -> str:
    """What is said of a batch that the workers cannot share."""
    try:
        Workers().part(9)
    except ConfigError as error:
        return str(error)
    return ""


def everything() -> dict[str, Any]:
    """All games, or some of them where four workers have to share few processors."""
    wide = Workers().count > 2
    return {
        "games": {game: play(GAMES[game]) for game in (SOME_GAMES if wide else GAMES)},
        "curves": {} if wide else {name: curve(fields) for name, fields in CURVES.items()},
        "resumed": {} if wide else resumed(),
        "stopped": {} if wide else stopped(),
        "refusal": refusal(),
    }


def work(folder: Path, rank: int, counts: list[int]) -> None:
    torch.set_num_threads(1)
    for count in counts:
        if rank < count:
            store = f"file://{folder}/store-{count}"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
            torch.save(everything(), folder / f"{count}-{rank}.pt")
            dist.destroy_process_group()


def main() -> None:
    folder, counts = Path(sys.argv[1]), list(map(int, sys.argv[2:]))
    # forked: PyTorch is imported once, and nothing has run yet that a fork would break
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=work, args=(folder, rank, counts)) for rank in range(max(counts))
    ]
    for worker in workers:
        worker.start()
    left = set(workers)
    while left:
        wait([worker.sentinel for worker in left])
        left = {worker for worker in left if worker.is_alive()}
        if any(worker.exitcode for worker in workers):
            for worker in left:
                worker.kill()
            sys.exit(1)


if __name__ == "__main__":
    main()
