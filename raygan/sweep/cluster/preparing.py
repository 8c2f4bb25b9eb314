"""The images of a sweep, prepared by Ray tasks before any trial."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from raygan.addresses import is_address
from raygan.errors import RayganError, RunError
from raygan.folder import DATA
from raygan.sweep.cluster import ray_quirks
from raygan.sweep.cluster.job import own_files

if TYPE_CHECKING:
    from raygan.data.dataset import DatasetConfig
    from raygan.storage import Storage
    from raygan.sweep.spec.sweep_spec import SweepSpec
    from raygan.sweep.study.prepared import PreparedSet

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The order to prepare one data set: plain values, for a task on another machine."""

    dataset: dict[str, Any]
    """The fields of the :class:`~raygan.data.DatasetConfig`."""
    folder: str
    """Folder or address in which the prepared images of all sweeps of a storage lie."""
    recipes: tuple[tuple[str, str], ...] = ()
    """The user's own files of recipes: name and text."""
    configs: tuple[dict[str, Any], ...] = ()
    """The fields of the training configurations that must be able to train on the images."""


def preparations_of(spec: SweepSpec, storage: Storage) -> dict[str, Preparation]:
    """By label, the orders to prepare the images of ``spec``, a sweep in ``storage``."""
    from raygan.sweep.spec.checks import extremes

    return {
        label: Preparation(
            dataset=plain(config),
            recipes=own_files(),
            folder=data_folder(storage),
            configs=tuple(config.to_dict() for config in extremes(spec, label)),
        )
        for label, config in spec.datasets().items()
    }


def plain(config: DatasetConfig) -> dict[str, Any]:
    """The data set as plain values, its path absolute: workers have other working directories."""
    from raygan.storage import local

    dataset = config.to_dict()
    if dataset["path"] is not None and not is_address(dataset["path"]):
        dataset["path"] = str(local(dataset["path"]))
    return dataset


def data_folder(storage: Storage) -> str:
    """Where the prepared images of all sweeps in ``storage`` lie."""
    return str(storage.local / DATA) if storage.is_local else f"{storage.uri}/{DATA}"


def prepare_images(preparation: Preparation, **options: Any) -> PreparedSet:
    """Decode the images, and check that every training configuration can train on them.

    Runs as a Ray task: where the images are, and where PyTorch is needed anyway. ``options`` are
    those of :func:`raygan.data.prepare`. Raises :class:`~raygan.errors.RayganError`.
    """
    from raygan import recipe
    from raygan.data import DatasetConfig, load, prepare
    from raygan.data.manifest import read_manifest
    from raygan.gan.config import TrainConfig
    from raygan.gan.nets.architectures import check_size
    from raygan.sweep.study.prepared import PreparedSet

    recipe.use(recipe.RecipeFile(*file) for file in preparation.recipes)
    folder = prepare(DatasetConfig.of(**preparation.dataset), preparation.folder, **options)
    if not is_address(folder):
        load(Path(folder))  # sees that the shards are whole
    manifest = read_manifest(folder)
    count, height, width, channels = manifest["shape"]
    for values in preparation.configs:
        check_size(TrainConfig.of(**values), height, width)
    return PreparedSet(
        folder=str(folder),
        digest=manifest["digest"],
        baseline=manifest["baseline"],
        shape=f"{channels}×{height}×{width}",
        train=count - len(manifest["running"]) - len(manifest["final"]),
    )


def prepare_on_ray(preparation: Preparation) -> Iterator[str | PreparedSet]:
    """:func:`prepare_images` by Ray Data tasks: lines on its progress, then its result.

    A Ray task: a generator, so that the lines arrive while it runs.
    """
    from queue import SimpleQueue
    from threading import Thread

    from raygan.data.pace import Pace

    heard: SimpleQueue[str | PreparedSet | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            told = {"progress": Pace(heard.put), "say": heard.put}
            heard.put(prepare_images(preparation, map=on_ray, **told))
        except BaseException as error:
            heard.put(error)

    Thread(target=work, daemon=True).start()
    while isinstance(said := heard.get(), str):
        yield said
    if isinstance(said, BaseException):
        raise said
    yield said


def prepare_on_cluster(
    spec: SweepSpec, storage: Storage, say: Callable[[str], None] = print
) -> dict[str, PreparedSet]:
    """:func:`prepare_images` for each data set of ``spec``, a sweep in ``storage``, over the nodes
    that see it; by label."""
    orders = preparations_of(spec, storage)
    prepared = {}
    for label, order in orders.items():
        with placed(spec, label):
            prepared[label] = _prepared(
                order, say if len(orders) == 1 else partial(_say_of, say, label)
            )
    return prepared


@contextmanager
def placed(spec: SweepSpec, label: str) -> Iterator[None]:
    """Within the block, an error about the data set ``label`` of a list says which one it is."""
    try:
        yield
    except RayganError as error:
        if not spec.listed:
            raise
        place = f"dataset.{spec.labels.index(label)}"
        text = str(error).replace("`dataset.", f"`{place}.")
        raise type(error)(f"data set {label} (`{place}`): {text}") from error


def _say_of(say: Callable[[str], None], label: str, line: str) -> None:
    say(f"{label}: {line}")


def _prepared(preparation: Preparation, say: Callable[[str], None]) -> PreparedSet:
    import ray

    # no CPU: those are for the tasks that it waits for
    task = ray.remote(num_cpus=0, max_retries=1)(prepare_on_ray)
    said: str | PreparedSet = ""
    try:
        for reference in task.remote(preparation):
            said = ray.get(reference)
            if isinstance(said, str):
                say(said)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayganError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:  # its process was killed, perhaps for its memory
        raise RunError(
            f"the images could not be prepared: {ray_quirks.cause_of(error)}; the same command "
            "tries again"
        ) from error
    assert not isinstance(said, str)
    return said


def on_ray(function: Callable[[T], R], items: list[T]) -> Generator[R, None, None]:
    """A ``map`` of Ray Data tasks over the cluster, for :func:`raygan.data.prepare`.

    Ray must have been initialised, and all nodes must see the same files.
    """
    if len(items) < 2:
        yield from map(function, items)
        return
    ray_quirks.set_in_environment(ray_quirks.PREPARING)
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"item": pickle.dumps(item)} for item in items]
    # a block, and so a task, per item
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    make = partial(ray_quirks.errors_as_results, function)
    for row in data.map(make, num_cpus=1).iter_rows():
        yield ray_quirks.result_of(row)
