"""Batches per second of the input path against torchvision's dataset and DataLoader.

    python tests/bench/input.py --sizes 32 160

Both read the same images and end with the same batch: float32 in [0, 1], 32 images in a shuffled
order. torchvision: CIFAR10 (in memory, 32 px) or ImageFolder (JPEG files, other sizes), ToTensor,
DataLoader with two workers. Ours: memory-mapped shards, `Order`, `Feed`, `as_float`. Within a
round every contender runs for the same time, in an order drawn anew, so that a slow moment of the
machine hits all alike; ratios are taken round by round. Ours makes batches in one thread. The step that must be fed is the default
configuration's. With `--device cuda` the batches end on the GPU, from a set that it does not hold
(`streamed`) and from one that it does (`resident`); without, `gathered` is what is left to the
CPU if a GPU trains: batches of bytes.

`--millions 3` opens that many images of 160 px in shards on sparse files, and draws their order.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from raygan.data.feed import Feed
from raygan.data.images import ImageSet
from raygan.data.shards import open_shard, write_shard
from raygan.gan.config import TrainConfig
from raygan.gan.pixels import as_float
from raygan.gan.sampling import Order
from raygan.gan.state import TrainState
from raygan.gan.workers import Workers
from tests.bench.step import hardware

BATCH = TrainConfig().batch_size
WORKERS = 2
SHARD_BYTES = 64 * 2**20
HELD_OUT = torch.arange(8), torch.arange(8, 16)

Contender = Callable[[], Tensor]


def main() -> None:
    options = _parser().parse_args()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torchvision", "pyarrow")]
    print(
        ", ".join([hardware(device), *versions, f"Pillow {importlib.metadata.version('pillow')}"])
    )
    print(f"batch {BATCH}, {WORKERS} DataLoader workers, {options.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            compare(size, Path(folder), options, device)
        if options.millions:
            open_millions(int(options.millions * 1e6), Path(folder))


def compare(size: int, folder: Path, options: argparse.Namespace, device: torch.device) -> None:
    count = options.images or (20_000 if size <= 64 else 2_000)
    pixels, dataset, described = make(size, count, folder / f"{size}")
    images = write(pixels, folder / f"{size}" / "shards")
    agree(images, dataset)
    print(f"\n{size} px, {count:,} images, {len(images.shards)} shards; torchvision: {described}")
    contenders = {"torchvision": torchvision_batches(dataset, device), "ours": ours(images, device)}
    if device.type == "cpu":
        contenders["gathered"] = ours(images, device, convert=lambda batch: batch)
    else:
        contenders["streamed"] = contenders.pop("ours")
        contenders["resident"] = ours(images.resident(device), device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the DataLoader's workers; the others are the step's
    rates = measure(contenders, options.rounds, options.seconds, device)
    torch.set_num_threads(threads)
    need = statistics.median(steps(size, options.steps, device))
    for name, found in rates.items():
        low, middle, high = statistics.quantiles(found, n=4)
        line = f"{name:12} {middle:10,.0f} [{low:,.0f}, {high:,.0f}] batches/s, n = {len(found)}"
        line += f"; {middle * BATCH:,.0f} images/s; {middle / need:,.1f}× the step's {need:,.2f}/s"
        if name != "torchvision":
            pairs = zip(found, rates["torchvision"], strict=True)
            low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
            line += f"; {middle:,.1f}× [{low:,.1f}, {high:,.1f}] torchvision"
        print(line)


def make(size: int, count: int, folder: Path) -> tuple[np.ndarray, Dataset, str]:
    """Images with structure and grain, as arrays and as torchvision reads them."""
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    chunks = []
    for first in range(0, count, 500):
        n = min(500, count - first)
        coarse = torch.rand(n, 3, 6, 6, generator=rng)
        fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
        fine += 0.03 * torch.randn(fine.shape, generator=rng)
        chunks.append(fine.mul_(255).clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy())
    pixels = np.concatenate(chunks)
    transform = transforms.ToTensor()
    if size == 32:
        # CIFAR10's own __getitem__ on arrays in memory, without its download
        cifar = torchvision.datasets.CIFAR10.__new__(torchvision.datasets.CIFAR10)
        cifar.data, cifar.targets = pixels, [0] * count
        cifar.transform, cifar.target_transform = transform, None
        return pixels, cifar, "CIFAR10"
    (folder / "jpeg" / "one").mkdir(parents=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "jpeg" / "one" / f"{index:06d}.jpg", quality=90)
    dataset = torchvision.datasets.ImageFolder(str(folder / "jpeg"), transform)
    decoded = np.stack([np.asarray(Image.open(path)) for path, _ in dataset.samples])
    mean = statistics.mean(Path(path).stat().st_size for path, _ in dataset.samples)
    return decoded, dataset, f"ImageFolder, JPEGs of {mean / 1e3:.1f} kB"


def write(pixels: np.ndarray, folder: Path) -> ImageSet:
    folder.mkdir()
    per_shard = max(1, SHARD_BYTES // pixels[0].nbytes)
    shards = []
    for first in range(0, len(pixels), per_shard):
        part, path = pixels[first : first + per_shard], folder / f"{first:08d}.arrow"
        write_shard(path, part)
        shards.append(open_shard(path, len(part), part.shape[1:]))
    return ImageSet.of(shards, *HELD_OUT, "digest", 0.0)


def agree(images: ImageSet, dataset: Dataset) -> None:
    for index in range(0, len(images), len(images) // 7):
        ours = as_float(images.take(torch.tensor([index])))[0]
        torch.testing.assert_close(ours, dataset[index][0], rtol=0, atol=1e-7)


def ours(
    images: ImageSet, device: torch.device, convert: Callable[[Tensor], Tensor] = as_float
) -> Contender:
    order = Order(0, BATCH, slice(None), images.device, len(images.train))
    feed = Feed(images, lambda step: images.train.at(order(step)), device)
    step = iter(range(2**62))
    return lambda: convert(feed(next(step)))


def torchvision_batches(dataset: Dataset, device: torch.device) -> Contender:
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )

    def endless() -> Iterator[Tensor]:
        while True:
            for batch, _ in loader:
                yield batch.to(device, non_blocking=True)

    batches = endless()
    return lambda: next(batches)


def measure(
    contenders: dict[str, Contender], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Batches per second of every contender in every round; one round more, first, to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name in random.sample(list(contenders), len(contenders)):
            for _ in range(4 * WORKERS):  # what workers had made ready meanwhile
                contenders[name]()
            _wait(device)
            started, count = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                contenders[name]()
                count += 1
            _wait(device)
            if round_:
                rates[name].append(count / (time.perf_counter() - started))
    return rates


def steps(size: int, count: int, device: torch.device) -> list[float]:
    """Iterations per second of the default configuration, of each of ``count`` iterations."""
    config = TrainConfig()
    game = TrainState.create(config, (3, size, size), device).game(Workers())
    real = as_float(torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)).to(device)
    noise = torch.randn(BATCH, config.code_size, device=device)
    rates = []
    for index in range(count + 2):
        _wait(device)
        started = time.perf_counter()
        game.alternating(real, noise, noise)
        _wait(device)
        if index >= 2:
            rates.append(1 / (time.perf_counter() - started))
    return rates


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def open_millions(count: int, folder: Path, side: int = 160) -> None:
    """A set of LSUN's size: shards that are all holes but for their metadata."""
    shape = side, side, 3
    per_shard = SHARD_BYTES // (side * side * 3)
    one = folder / "one.arrow"
    write_shard(one, np.zeros((per_shard, *shape), np.uint8))
    whole, size = one.read_bytes(), one.stat().st_size
    first = next(i for i in range(size) if not any(whole[i : i + 4096]))
    last = next(i for i in range(size, 0, -1) if not any(whole[i - 4096 : i]))
    paths = [folder / f"{i:05d}.arrow" for i in range(-(-count // per_shard))]
    for path in paths:
        with path.open("wb") as file:
            file.write(whole[:first])
            file.truncate(size)
            file.seek(last)
            file.write(whole[last:])
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        shards = [open_shard(path, per_shard, shape) for path in paths]
        running, final = torch.randperm(per_shard * len(paths))[:2200].split([200, 2000])
        started_set = time.perf_counter()
        images = ImageSet.of(shards, running, final, "digest", 0.0)
        order = Order(0, BATCH, slice(None), images.device, len(images.train))
        images.take(images.train.at(order(0)))
        now = time.perf_counter()
        seconds.append((now - started, now - started_set))
    opened, sampled = (statistics.median(column) for column in zip(*seconds, strict=True))
    started = time.perf_counter()
    draw(images, 10_000)
    drawn = time.perf_counter() - started
    tracemalloc.start()
    draw(images, 2_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"\n{len(images):,} images of {side} px in {len(paths):,} shards ({images.nbytes / 1e9:,.0f} "
        f"GB, sparse): opened and the first batch taken in {opened:.2f} s (of these {sampled * 1e3:.1f} "
        f"ms for splits, order and batch; median, n = 5); order: {drawn / 10_000 * 1e6:.1f} µs a batch, "
        f"{peak / 1e6:.2f} MB at most"
    )


def draw(images: ImageSet, batches: int) -> None:
    order = Order(1, BATCH, slice(None), images.device, len(images.train))
    for step in range(batches):
        images.train.at(order(step))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", type=int, default=[32, 160], help="sides, in pixels")
    parser.add_argument("--images", type=int, help="by default 20,000 of 32 px, 2,000 of 160 px")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a contender in a round")
    parser.add_argument("--steps", type=int, default=5, help="training steps that are timed")
    parser.add_argument("--millions", type=float, default=0, help="images of the sparse set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: PyTorch's choice")
    return parser


if __name__ == "__main__":
    main()
