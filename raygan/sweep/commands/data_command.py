"""``python -m raygan.data prepare | info``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raygan import storage
from raygan.addresses import is_address
from raygan.data import decoders, shared
from raygan.data.dataset import DatasetConfig
from raygan.data.manifest import load, read_manifest
from raygan.data.pace import Pace
from raygan.data.prepare import Map, prepare
from raygan.data.sources import leftout, splits
from raygan.data.sources.table import SOURCES
from raygan.errors import DataError, RayganError
from raygan.folder import DATA
from raygan.shown import shown

_SHEET = 64
"""Number of images on a contact sheet."""
_MOST = 5000
"""Most characters of a value, such as a path, that are shown."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prepare images for training, and inspect prepared images."""


@main.command("prepare")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the YAML; may be repeated.",
)
@click.option("--source", type=click.Choice(SOURCES.names), help="`dataset.name`")
@click.option("--path", help="`dataset.path`: folder, file, glob or address")
@click.option("--split", multiple=True, help="`dataset.split`: such as train; may be repeated")
@click.option("--crop", type=int, help="`dataset.crop`: side of the centre crop")
@click.option("--size", type=int, help="`dataset.size`: side of the images")
@click.option("--running", type=int, help="`dataset.running`: images of the running test")
@click.option("--final", type=int, help="`dataset.final`: images of the final test")
@click.option("--split-seed", type=int, help="`dataset.split_seed`")
@click.option("--max-corrupt", type=float, help="`dataset.max_corrupt`: share of unusable images")
@click.option("--pool", is_flag=True, default=None, help="`dataset.pool`: train and test images")
@click.option(
    "--download",
    is_flag=True,
    default=None,
    help="`dataset.download`: download the images if they are missing",
)
@click.option("--out", help="Folder or address; by default `data` in the sweep's storage.")
@click.option("--processes", type=click.IntRange(1), help="Processes; by default one per CPU.")
@click.option("--address", metavar="ADDRESS", help="Run on a Ray cluster: auto or host:port.")
def prepare_command(
    file: Path | None,
    overrides: tuple[str, ...],
    out: str | None,
    processes: int | None,
    address: str | None,
    **given: Any,
) -> None:
    """Prepare the images of a sweep (FILE.yaml), or those that the options name.

    Prints the folder of each data set. Images that are prepared already are used again. Interrupted
    preparing resumes.
    """
    given = {name: value for name, value in given.items() if value not in (None, ())}
    with _errors():
        if file is not None:
            if given:
                raise click.UsageError("FILE defines the data set; change it with --set KEY=VALUE")
            configs, folder = _of_sweep(file, overrides)
        else:
            if "source" not in given or overrides:
                raise click.UsageError(
                    "give a sweep's YAML file, or --source and --path; --set needs a YAML file"
                )
            if "split" in given:
                given["split"] = list(given["split"])
            config = DatasetConfig.of(name=given.pop("source"), **given)
            configs, folder = [(config, nullcontext())], DATA
        map_ = _map(processes, address)
        for config, place in configs:
            with place:
                click.echo(_prepare(config, out or folder, map_))


def _prepare(config: DatasetConfig, folder: str, map_: Map) -> str | Path:
    pace = Pace(_note)
    if is_address(folder):
        return prepare(config, folder.rstrip("/"), map=map_, progress=pace, say=_note)
    return prepare(config, storage.local(folder), map=map_, progress=pace, say=_note)


def _of_sweep(
    file: Path, overrides: tuple[str, ...]
) -> tuple[list[tuple[DatasetConfig, AbstractContextManager[None]]], str]:
    """The data sets of a sweep, each with what adds its place to errors, and their folder."""
    from raygan.storage import Storage
    from raygan.sweep.cluster.preparing import data_folder, placed
    from raygan.sweep.spec import sweep_spec

    spec = sweep_spec.load(file, overrides)
    configs: list[tuple[DatasetConfig, AbstractContextManager[None]]] = [
        (config, placed(spec, label)) for label, config in spec.datasets().items()
    ]
    return configs, data_folder(Storage(spec.storage))


def _map(processes: int | None, address: str | None) -> Map:
    if address is not None:
        from raygan.sweep.cluster import preparing, tune

        if processes is not None:
            raise click.UsageError(
                "--processes (this machine) and --address (a cluster) cannot be combined; give one"
            )
        tune.connect(address, verbose=False)
        return preparing.on_ray
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return decoders.processes(processes or cpus or 1)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Contact sheet to write; by default PATH.png."
)
@click.option("--verify", is_flag=True, help="Read all shards and verify their checksums.")
def info(path: Path, sheet: Path | None, verify: bool) -> None:
    """Describe the prepared images in PATH, and write a contact sheet of them."""
    from raygan.gan.picture_grid import grid_png

    with _errors():
        path = storage.local(path)
        images = load(path)
        manifest = read_manifest(path)
        if verify:
            shared.verify(path)
        try:
            described = _described(path, manifest, verified=verify)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: its manifest is damaged ({type(error).__name__}: {error}); prepare it "
                "again"
            ) from error
        Console().print(described)
        for image in manifest["corrupt"]:
            click.echo(f"left out: {shown(image['where'])}: {shown(image['reason'])}")
        import torch

        # evenly spaced, since the images may be sorted
        count = min(_SHEET, len(images))
        tiles = images.take(torch.arange(count) * len(images) // count)
        sheet = sheet or path.with_name(f"{path.name}.png")
        sheet.write_bytes(grid_png(tiles))
        click.echo(f"contact sheet: {sheet}")


def _described(path: Path, manifest: dict[str, Any], *, verified: bool) -> Table:
    count, height, width, channels = manifest["shape"]
    source, shards = manifest["source"], manifest["shards"]
    size = sum((path / shard["file"]).stat().st_size for shard in shards)
    held = {part: len(manifest[part]) for part in ("running", "final")}
    defaults = {field.name: field.default for field in fields(DatasetConfig)}
    for name, owners in SOURCES.parameters().items():
        defaults[name] = next(iter(owners.values())).default
    given = {
        name: value
        for name, value in manifest["config"].items()
        if name not in defaults or value != defaults[name]
    }
    table = Table.grid(padding=(0, 2))
    for name, value in {
        "folder": path,
        "configuration": ", ".join(f"{k}: {v}" for k, v in given.items()) or "digits",
        "source": f"{source['layout']}, split {_split(source)}, digest {source['digest'][:16]}",
        "images": f"{count:,} of {source['images']:,}; {len(manifest['corrupt'])} left out",
        "files left out": leftout.described(source.get("left_out", {})) or "none",
        "shape": f"{width}×{height}, {channels} channel{'s' * (channels > 1)}",
        "split": f"train {count - sum(held.values()):,}, running {held['running']:,}, "
        f"final {held['final']:,}; seed {manifest['split_seed']}",
        "channel means": ", ".join(f"{mean:.4f}" for mean in manifest["mean"]),
        "mean image": f"reconstruction loss {manifest['baseline']:.5f}",
        "shards": f"{len(shards)}, {size / 1e6:,.1f} MB"
        + (", all checksums are correct" if verified else ""),
        "digest": manifest["digest"],
        "versions": ", ".join(f"{k} {v}" for k, v in manifest["versions"].items()),
    }.items():
        table.add_row(name, Text(shown(value, _MOST)))  # no markup in it
    return table


def _split(source: dict[str, Any]) -> str:
    every = source.get("splits", [])
    return f"{source['split']} of {splits.listed(every)}" if len(every) > 1 else source["split"]


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (RayganError, OSError) as error:
        _note(f"error: {shown(error, _MOST, lines=True)}")
        sys.exit(2)
    except KeyboardInterrupt:
        _note("interrupted: the same command resumes the preparation")
        sys.exit(130)


def _note(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
