"""A set of images in shards, and the batches that are made of it."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raygan.data.feed import AHEAD, Ahead, Feed
from raygan.data.images import ImageSet, Rest
from raygan.data.shards import open_shard, write_shard

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (60, 4, 6, 3), dtype=torch.uint8)
HELD_OUT = torch.tensor([59, 3, 17]), torch.tensor([0, 18])


def images(*sizes: int) -> ImageSet:
    return ImageSet.of(PIXELS.split(list(sizes)), *HELD_OUT, "digest", 0.1)


@given(st.integers(1, 60), st.data())
def test_the_rest_is_all_that_is_not_held_out(count, data):
    held_out = data.draw(st.lists(st.integers(0, count - 1), unique=True, max_size=count))
    rest = Rest.of(count, *torch.tensor(held_out, dtype=torch.int64).tensor_split(2))
    expected = sorted(set(range(count)) - set(held_out))
    assert len(rest) == len(expected)
    assert rest.at(torch.arange(len(rest))).tolist() == expected


def test_the_rest_of_millions_takes_no_memory_of_that_size():
    held_out = torch.randperm(3_000_000)[:2200]
    tracemalloc.start()
    rest = Rest.of(3_000_000, held_out)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken + rest.before.nbytes < 1e5
    ranks = torch.randint(0, len(rest), (5000,))
    got = rest.at(ranks)
    assert not torch.isin(got, held_out).any()
    assert torch.equal(got - torch.searchsorted(held_out.sort().values, got), ranks)


@given(
    st.lists(st.integers(0, 59), max_size=20),
    st.sampled_from([(60,), (1, 59), (20, 20, 20), (7, 0, 50, 3), (1,) * 60]),
    st.booleans(),
)
def test_images_are_those_of_the_indices_however_they_are_sharded(indices, sizes, given_out):
    chosen = torch.tensor(indices, dtype=torch.int64)
    out = torch.empty(len(indices), 4, 6, 3, dtype=torch.uint8) if given_out else None
    got = images(*sizes).take(chosen, out=out)
    assert torch.equal(got.permute(0, 2, 3, 1), PIXELS[chosen])
    assert got.shape == (len(indices), 3, 4, 6)
    assert got.is_contiguous(memory_format=torch.channels_last)
    if out is not None and len(indices):
        assert got.data_ptr() == out.data_ptr()


@pytest.mark.parametrize("sizes", [(60,), (20, 40)])
@pytest.mark.parametrize("index", [-1, 60])
def test_other_indices_are_refused(sizes, index):
    with pytest.raises(IndexError, match="of 60 images"):
        images(*sizes).take(torch.tensor([3, index]))


def test_a_set_says_what_it_is():
    some = images(20, 40)
    assert len(some) == 60
    assert len(some.train) == 55
    assert some.shape == (3, 4, 6)
    assert some.nbytes == PIXELS.nbytes
    assert some.device == CPU


def test_what_is_taken_is_a_copy(tmp_path):
    write_shard(tmp_path / "a", PIXELS.numpy())
    mapped = open_shard(tmp_path / "a", 60, (4, 6, 3))
    some = ImageSet.of([mapped], *HELD_OUT, "digest", 0.1)
    some.take(torch.tensor([1])).zero_()
    assert torch.equal(mapped, PIXELS)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux' /proc")
def test_trials_of_a_node_share_the_pages_of_a_set(tmp_path):
    """What is read stays the page cache's: no page is this process's own."""
    many = torch.randint(0, 256, (200, 64, 64, 3), dtype=torch.uint8)
    write_shard(tmp_path / "a", many.numpy())
    with (tmp_path / "a").open("rb+") as file:
        os.fdatasync(file)  # the tests' fsync does nothing, and pages to be written count as dirty
    some = ImageSet.of([open_shard(tmp_path / "a", 200, (64, 64, 3))], *HELD_OUT, "digest", 0.1)
    taken = some.take(torch.arange(200))
    assert torch.equal(taken.permute(0, 2, 3, 1), many)
    _, _, maps = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "a"))
    found = {line.split()[0]: int(line.split()[1]) for line in maps.splitlines()[1:20]
             if line.endswith(" kB")}  # fmt: skip
    assert found["Rss:"] >= many.nbytes / 1024
    assert found["Anonymous:"] == found["Private_Dirty:"] == 0


@pytest.mark.parametrize(
    ("free", "share", "fits"),
    [(100, 1.0, True), (100, 0.5, True), (100, 0.4, False), (48, 1.0, True), (47, 1.0, False),
     (100, 4.0, True), (100, 0.0, False)],
)  # fmt: skip
def test_a_set_is_resident_if_it_fits_well_into_the_share_of_the_gpu(
    monkeypatch, free, share, fits
):
    """Half of what is free and of what the trial has; 24 % of the memory are wanted here."""
    unit = PIXELS.nbytes / 24
    memory = int(free * unit), int(100 * unit)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: memory)
    empty = torch.empty  # the device is only said to be a GPU
    monkeypatch.setattr("torch.empty", lambda *a, device, **k: empty(*a, device="meta", **k))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, _: self)
    some = images(20, 40)
    resident = some.resident(torch.device("cuda"), share)
    assert (resident is not some) == fits
    assert len(resident.shards) == (1 if fits else 2)
    assert resident.shards[0].device.type == ("meta" if fits else "cpu")
    assert len(resident) == 60
    assert resident.shape == some.shape


def test_a_set_stays_where_it_is_for_the_cpu():
    some = images(60)
    assert some.resident(CPU) is some


def test_the_cpu_is_fed_what_is_asked_for():
    order = torch.randperm(60).view(10, 6)
    feed = Feed(images(25, 35), lambda step: order[step], CPU)
    for step in (0, 1, 2, 7, 3):
        assert torch.equal(feed(step).permute(0, 2, 3, 1), PIXELS[order[step]])


@given(st.lists(st.integers(0, 8), max_size=8))
def test_whatever_is_asked_for_is_made(steps):
    ahead = Ahead(lambda step: step**2, 2)
    assert [ahead(step) for step in steps] == [step**2 for step in steps]


def test_steps_are_made_in_turn_and_ahead():
    made: list[int] = []
    arrived = threading.Event()

    def make(step: int) -> int:
        made.append(step)
        if step == 5 + AHEAD:
            arrived.set()
        return step

    ahead = Ahead(make, AHEAD)
    assert ahead(5) == 5
    assert arrived.wait(30)
    for step in range(6, 30):
        assert ahead(step) == step
    assert made[:24] == list(range(5, 29))
    assert len(made) <= 24 + 1 + AHEAD


def test_an_error_ahead_is_raised_at_its_step():
    def make(step: int) -> int:
        if step == 2:
            raise OSError("the disk is gone")
        return step

    ahead = Ahead(make, 2)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        ahead(2)
    assert ahead(3) == 3


def test_the_thread_ends_with_its_feed():
    ahead = Ahead(lambda step: SimpleNamespace(step=step), 2)
    ahead(0)
    ours = [t for t in threading.enumerate() if t.name.startswith("raygan-feed")]
    assert len(ours) >= 1
    del ahead
    gc.collect()
    until = time.monotonic() + 30
    while any(thread.is_alive() for thread in ours) and time.monotonic() < until:
        ours[0].join(0.1)
    assert not any(thread.is_alive() for thread in ours)


@pytest.mark.gpu
@pytest.mark.parametrize("sizes", [(60,), (20, 40)])
def test_a_gpu_gets_the_same_images_resident_or_not(sizes):
    device = torch.device("cuda")
    some = images(*sizes)
    order = torch.stack([torch.randperm(60)[:8] for _ in range(50)])
    resident = some.resident(device)
    assert resident.device.type == "cuda"
    there, here = order.to(device), order
    one = Feed(resident, lambda step: there[step], device)
    other = Feed(some, lambda step: here[step], device)
    for step in (*range(40), 45, 46, 10):
        expected = PIXELS[order[step]].permute(0, 3, 1, 2)
        got = other(step)
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(got.cpu(), expected)
        assert torch.equal(one(step).cpu(), expected)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.gpu
def test_nothing_waits_for_a_gpu_that_is_fed():
    device = torch.device("cuda")
    order = torch.randperm(60)[:8]
    on_gpu = order.to(device)
    feeds = [
        Feed(images(20, 40), lambda _: order, device),
        Feed(images(20, 40).resident(device), lambda _: on_gpu, device),
    ]
    for feed in feeds:
        feed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 20):
            for feed in feeds:
                feed(step).float()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_each_seed_draws_its_own_split_of_the_same_sizes():
    whole = images(60)
    first, again, other = whole.resplit(1), whole.resplit(1), whole.resplit(2)
    assert torch.equal(first.final, again.final)
    assert not torch.equal(first.final, other.final)
    assert not torch.equal(first.final, whole.final)
    for some in (first, other):
        assert (len(some.train), len(some.running), len(some.final)) == (
            len(whole.train), len(whole.running), len(whole.final))  # fmt: skip
        trained = some.train.at(torch.arange(len(some.train)))
        assert torch.cat((trained, some.running, some.final)).unique().numel() == len(whole)
