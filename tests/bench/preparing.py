"""Images per second of preparing a set, against a plain loop over its files with Pillow.

    python tests/bench/preparing.py --rounds 5

The images are JPEG files of CelebA's size, 178×218, cut to 160×160; or, with `--parquet FILE`,
those of a Parquet file in the Hugging Face layout, as they are. The loop decodes, cuts and gathers
them in one array, and writes nothing; ours also checks, sums, digests and writes shards and
manifest. Several processes are started anew in every round, as for a set that is prepared once;
`without start` counts from the first shard that is ready to the last. Contenders take turns within
a round, in an order drawn anew; ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.data import decoders as parallel
from raygan.data import load, prepare
from raygan.data.dataset import DatasetConfig

WIDTH, HEIGHT, CROP = 178, 218, 160


def main() -> None:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.parquet:
            source = DatasetConfig(name="parquet", path=str(options.parquet))
            loop = partial(of_table, options.parquet)
        else:
            path = Path(folder) / "img_align_celeba"
            make(path, options.images)
            source = DatasetConfig(name="celeba", path=str(path))
            loop = partial(of_files, path)
        compare(source, loop, options, Path(folder))


def compare(
    source: DatasetConfig,
    loop: Callable[[], np.ndarray],
    options: argparse.Namespace,
    folder: Path,
) -> None:
    prepared = prepare(source, folder / "check")
    expected = loop()
    found = np.concatenate([shard.numpy() for shard in load(prepared).shards])
    np.testing.assert_array_equal(found, expected)
    count, size = len(expected), expected.nbytes
    print(f"{source.name}: {count:,} images of {expected.shape[1:]}, {size / 1e6:,.0f} MB decoded")

    def ours(processes: int) -> tuple[float, float]:
        marks: list[tuple[float, int]] = []

        def progress(done: int, total: int, shape: tuple[int, int, int]) -> None:
            marks.append((time.perf_counter(), done))

        with tempfile.TemporaryDirectory(dir=folder) as out:
            started = time.perf_counter()
            prepare(source, Path(out), map=parallel.processes(processes), progress=progress)
            took = time.perf_counter() - started
        (first, done), (last, all_) = marks[0], marks[-1]
        return count / took, (all_ - done) / (last - first) if last > first else count / took

    def plain() -> tuple[float, float]:
        started = time.perf_counter()
        loop()
        return (count / (time.perf_counter() - started),) * 2

    contenders: dict[str, Callable[[], tuple[float, float]]] = {"Pillow loop": plain}
    for processes in options.processes:
        contenders[f"ours, {processes}"] = partial(ours, processes)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name in random.sample(list(contenders), len(contenders)):
            rates[name].append(contenders[name]())
    for name, pairs in rates.items():
        whole, rate = (list(column) for column in zip(*pairs, strict=True))
        bases = [base for base, _ in rates["Pillow loop"]]
        print(
            f"{name:12} {_spread(whole, ',.0f')} images/s, {statistics.median(whole) / count * size / 1e6:,.1f}"
            f" MB/s; {_spread([a / b for a, b in zip(whole, bases, strict=True)])}× the loop; "
            f"without start {_spread([a / b for a, b in zip(rate, bases, strict=True)])}×; "
            f"n = {len(pairs)}"
        )


def make(folder: Path, count: int) -> None:
    """Files with structure and grain, of about the size of CelebA's."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        grained = smooth + rng.normal(0, 4, smooth.shape)
        image = Image.fromarray(grained.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index:06}.jpg", quality=75)


def of_files(folder: Path) -> np.ndarray:
    left, top = (WIDTH - CROP) // 2, (HEIGHT - CROP) // 2
    images = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            cut = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
            images.append(np.asarray(cut))
    return np.stack(images)


def of_table(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    name = next(name for name in ("image", "img") if name in table.column_names)
    images = [
        np.asarray(Image.open(io.BytesIO(cell["bytes"].as_py())).convert("RGB"))
        for cell in table[name]
    ]
    return np.stack(images)


def _spread(values: list[float], form: str = ".2f") -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--parquet", type=Path, help="such as cifar10/train.parquet")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    return parser


if __name__ == "__main__":
    main()
