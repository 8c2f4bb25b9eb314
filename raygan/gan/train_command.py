"""``python -m raygan.gan.train``: one configuration, by hand; no Ray, no MLflow."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from raygan.data import load, prepare
from raygan.data.dataset import DatasetConfig
from raygan.data.sources.table import SOURCES
from raygan.errors import RayganError
from raygan.folder import CHECKPOINTS, DATA, RECONSTRUCTIONS, SAMPLES, last_picture
from raygan.gan import checkpoint
from raygan.gan.config import TrainConfig, choices, recipe_tables
from raygan.gan.interval import CHECKPOINT_EVERY, interval
from raygan.gan.keeping import Keeper
from raygan.gan.nets.architectures import check_size
from raygan.gan.picture_grid import grid_png
from raygan.gan.state import TrainState
from raygan.gan.train import Evaluation, train
from raygan.gan.workers import Workers
from raygan.recipe import Table
from raygan.shown import MOST_MESSAGE, shown


def main(arguments: list[str] | None = None) -> None:
    """Entry point; exits with 2 for a wrong configuration, with 1 for a run that diverged.

    On SIGINT or SIGTERM, it writes a checkpoint and exits with 130 or 143.
    """
    options = _parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    out = Path(given.pop("out"))
    data = {name[5:]: given.pop(name) for name in list(given) if name.startswith("data_")}
    distributed = "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1
    if distributed:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        every = given.pop("checkpoint_every", CHECKPOINT_EVERY)
        interval(every)
        _run(TrainConfig.of(**given), DatasetConfig.of(**data), out, every)
    except _DivergedError as error:
        print(f"diverged: {error}", file=sys.stderr)
        sys.exit(1)
    except (RayganError, OSError) as error:  # OSError: --out cannot be written
        print(f"error: {shown(error, MOST_MESSAGE, lines=True)}", file=sys.stderr)
        sys.exit(2)
    finally:
        if distributed:
            dist.destroy_process_group()


class _DivergedError(Exception):
    """Not a mistake of the caller's: an outcome."""


def _run(config: TrainConfig, dataset: DatasetConfig, out: Path, every: str) -> None:
    workers = Workers()
    workers.part(config.batch_size)
    images = load(prepare(dataset, out / DATA))
    _, height, width = images.shape
    check_size(config, height, width)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    latest = checkpoint.load_latest(out / CHECKPOINTS)
    if latest is None:
        state = TrainState.create(config, images.shape, device)
    else:
        state = TrainState.restore(latest[0], device, config=config, shape=images.shape)
    if workers.rank == 0:
        for reason in latest[1] if latest else []:
            print(f"skipped: {shown(reason)}", file=sys.stderr)
        if latest:
            print(f"resumed after iteration {state.step}", file=sys.stderr)
        print(f"mean image: reconstruction loss {images.baseline:.5f}", file=sys.stderr)
    kept = [] if latest is None else [state.step]

    def keep(saved: dict[str, Any]) -> None:
        checkpoint.save(saved, out / CHECKPOINTS, saved["step"])
        # with the one before it, should the last be damaged
        kept[:] = [*kept, saved["step"]][-2:]
        # an earlier version kept the best in a checkpoint of its own
        best = set() if "best" in saved else {saved["best_step"]}
        checkpoint.keep_only(out / CHECKPOINTS, best | set(kept))

    told: set[str] = set()
    with _stop_signals() as signals:
        keeper = Keeper(every, keep, stops=lambda: bool(signals))
        for evaluation in train(config, images, state, keeper=keeper):
            if workers.rank == 0:
                for note in set(evaluation.notes) - told:
                    print(note, file=sys.stderr)
                told.update(evaluation.notes)
                _record(evaluation, out)
            if not evaluation.finite:
                keeper.finish()
                raise _DivergedError(f"a metric was not finite at iteration {evaluation.step}")
        keeper.finish(state)
    if state.step < config.iterations:
        if workers.rank == 0:
            print(
                f"stopped after iteration {state.step}; the same command resumes", file=sys.stderr
            )
        sys.exit(128 + (signals or [signal.SIGTERM])[0])


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Within the block, the first SIGINT or SIGTERM is added to a list; a second acts as usual."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        restore()


def _record(evaluation: Evaluation, out: Path) -> None:
    print(json.dumps({"step": evaluation.step, **evaluation.metrics}), flush=True)
    (out / last_picture(SAMPLES)).write_bytes(grid_png(evaluation.samples))
    pairs = grid_png(evaluation.reconstructions, columns=8)
    (out / last_picture(RECONSTRUCTIONS)).write_bytes(pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raygan.gan.train",
        description="Train one configuration and print one JSON line per evaluation. "
        "The same command resumes from the last checkpoint in --out.",
    )
    parser.add_argument("--out", default="out", help="folder of checkpoints and pictures")
    parser.add_argument(
        "--checkpoint-every",
        default=CHECKPOINT_EVERY,
        help="time (90s, 5m, 1h) or iterations between two checkpoints; default: "
        f"{CHECKPOINT_EVERY}",
    )
    words = choices()
    for owner, prefix in ((TrainConfig, ""), (DatasetConfig, "data-")):
        for field in fields(owner):
            if field.name == "parameters":
                continue
            default = None if field.default is MISSING else field.default
            allowed = None if prefix else words.get(field.name)
            _add(parser, prefix + field.name, _type(str(field.type)), default, allowed)
    tables: list[tuple[str, Table[Any]]] = [("", table) for table in recipe_tables().values()]
    for prefix, table in (*tables, ("data-", SOURCES)):
        for name, owners in table.parameters().items():
            parameter = next(iter(owners.values()))
            kind = parameter.type if parameter.type in (bool, int, float) else str
            defaults = ", ".join(f"{p.default} of {owner}" for owner, p in owners.items())
            _add(parser, prefix + name, kind, defaults)
    return parser


def _add(
    parser: argparse.ArgumentParser,
    name: str,
    type_: type,
    default: Any,
    choices: Sequence[str] | None = None,
) -> None:
    option: dict[str, Any] = {"type": type_, "default": None, "choices": choices}
    if type_ is bool:
        option = {"action": argparse.BooleanOptionalAction, "default": None}
    parser.add_argument(f"--{name.replace('_', '-')}", help=f"default: {default}", **option)


def _type(annotation: str) -> type:
    if annotation == "bool":
        return bool
    if annotation.startswith("int"):
        return int
    return float if annotation.startswith("float") else str


if __name__ == "__main__":
    main()
