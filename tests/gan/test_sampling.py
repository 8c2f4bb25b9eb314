"""Noise and order are functions of (seed, step) alone."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raygan.gan import sampling
from raygan.gan.sampling import (
    NOISE_D,
    NOISE_G,
    Flips,
    Noise,
    Order,
    derive_seed,
    flipped,
    permuted,
)
from raygan.gan.workers import Workers

CPU = torch.device("cpu")
ALL = slice(None)


def noise(seed: int = 1, part: slice = ALL) -> Noise:
    return Noise(seed, batch_size=8, code_size=3, part=part, device=CPU)


def flips(seed: int = 1, batch_size: int = 8, part: slice = ALL) -> Flips:
    return Flips(seed, batch_size, part, CPU)


def order(seed: int = 1, count: int = 20, batch_size: int = 8, part: slice = ALL) -> Order:
    return Order(seed, batch_size, part, CPU, count)


@given(st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 10**6))
def test_noise_does_not_depend_on_what_was_drawn_before(before, step):
    used = noise()
    for earlier in before:
        used(NOISE_D, earlier)
    assert torch.equal(used(NOISE_D, step), noise()(NOISE_D, step))


@pytest.mark.parametrize("stream", [order, flips])
@given(st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 10**6))
def test_a_stream_does_not_depend_on_what_was_drawn_before(stream, before, step):
    used = stream()
    for earlier in before:
        used(earlier)
    assert torch.equal(used(step), stream()(step))


def test_steps_computed_at_once_are_those_computed_alone(monkeypatch):
    together = [(order()(step), flips()(step)) for step in range(50)]
    monkeypatch.setattr(sampling, "_AHEAD", 1)
    for step, (indices, mirrored) in enumerate(together):
        assert torch.equal(order()(step), indices)
        assert torch.equal(flips()(step), mirrored)


def test_nothing_draws_from_the_global_generator():
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = noise()(NOISE_D, 4), order()(4), flips()(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(123)
    again = noise()(NOISE_D, 4), order()(4), flips()(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**63 - 1))
def test_each_epoch_is_a_permutation(count, batch_size, seed):
    drawn = order(seed, count, batch_size)
    stream = torch.cat([drawn(step) for step in range(3 * count // batch_size + 3)])
    for epoch in stream[: 3 * count].view(3, count):
        assert epoch.sort().values.tolist() == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own():
    one, other = order(1, 100, 100), order(2, 100, 100)
    assert not torch.equal(one(0), one(1))
    assert not torch.equal(one(0), other(0))


def test_streams_steps_and_seeds_have_noise_of_their_own():
    drawn = [
        noise(seed)(stream, step)
        for seed in (1, 2)
        for stream in (NOISE_D, NOISE_G)
        for step in (0, 1)
    ]
    flat = torch.stack(drawn).view(len(drawn), -1)
    assert len(flat.unique(dim=0)) == len(drawn)


@given(st.sets(st.tuples(*[st.integers(0, 2**63 - 1)] * 3), min_size=2, max_size=20))
def test_derived_seeds_do_not_collide(keys):
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_steps_have_unrelated_seeds():
    seeds = [derive_seed(0, NOISE_D, step) for step in range(2000)]
    ones = sum((a ^ b).bit_count() for a, b in pairwise(seeds)) / 1999
    assert 30 < ones < 33  # of 63 bits


def test_noise_is_standard_normal():
    drawn = Noise(0, 4096, 16, ALL, CPU)(NOISE_G, 0)
    assert drawn.dtype == torch.float32
    assert abs(drawn.mean().item()) < 0.02
    assert abs(drawn.std().item() - 1) < 0.02


def test_a_cpu_takes_32_bits_of_a_seed_so_that_few_items_draw_the_same():
    drawn = noise(seed=31)
    assert derive_seed(31, NOISE_G, 3661) != derive_seed(31, NOISE_D, 9955)
    assert torch.equal(drawn(NOISE_G, 3661), drawn(NOISE_D, 9955))


def test_uniform_noise_is_spread_evenly_from_minus_one_to_one():
    drawn = Noise(0, 4096, 16, ALL, CPU, "uniform")(NOISE_G, 0)
    assert (drawn.dtype, drawn.shape) == (torch.float32, (4096, 16))
    assert -1 <= drawn.min() < -0.999
    assert 0.999 < drawn.max() <= 1
    assert abs(drawn.mean().item()) < 0.02
    assert abs(drawn.square().mean().item() - 1 / 3) < 0.01
    part = Noise(0, 4096, 16, slice(1024, 2048), CPU, "uniform")(NOISE_G, 0)
    assert torch.equal(part, drawn[1024:2048])


def test_streams_have_numbers_of_their_own():
    names = (
        "INIT ORDER NOISE_D NOISE_G SAMPLES FLIPS MIX RESTARTS FID METRICS "
        "AUGMENT_REAL AUGMENT_FAKE AUGMENT_G"
    )
    streams = [getattr(sampling, name) for name in names.split()]
    assert len(set(streams)) == len(streams)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 100))
def test_slices_of_the_workers_make_up_the_global_batch(count, step):
    workers = Workers()
    workers.count = count
    noises, orders, mirrored = [], [], []
    for rank in range(count):
        workers.rank = rank
        part = workers.part(8)
        noises.append(noise(part=part)(NOISE_D, step))
        orders.append(order(part=part)(step))
        mirrored.append(flips(part=part)(step))
    assert torch.equal(torch.cat(noises), noise()(NOISE_D, step))
    assert torch.equal(torch.cat(orders), order()(step))
    assert torch.equal(torch.cat(mirrored), flips()(step))


def permutations(count: int, number: int, length: int | None = None) -> np.ndarray:
    """The first ``length`` values of ``number`` permutations, each of a key of its own."""
    length = length or count
    keys = np.array([derive_seed(1, sampling.ORDER, epoch) for epoch in range(number)], np.uint64)
    places = np.tile(np.arange(length), number)
    return permuted(places, count, keys.repeat(length)).reshape(number, length)


def excess(counts: np.ndarray, freedom: int) -> float:
    """Chi-square of equally likely ``counts``, in standard deviations above its mean."""
    expected = counts.mean()
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 127, 1000, 1024, 1025, 2**17 + 1])
def test_every_size_is_permuted(count):
    drawn = permutations(count, 1)
    assert np.array_equal(np.sort(drawn[0]), np.arange(count))


@pytest.mark.parametrize("count", [2, 17, 40, 100])
def test_each_place_gets_each_image_equally_often(count):
    drawn = permutations(count, 2000)
    table = np.stack([np.bincount(place, minlength=count) for place in drawn.T])
    assert abs(excess(table, (count - 1) ** 2)) < 4


@pytest.mark.parametrize("count", [5, 33, 60])
def test_neighbours_are_unrelated(count):
    drawn = permutations(count, 20_000, length=3)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        pairs = np.bincount(drawn[:, one] * count + drawn[:, other], minlength=count**2)
        pairs = pairs.reshape(count, count)
        assert not pairs.diagonal().any()
        counts = pairs[~np.eye(count, dtype=bool)]
        assert abs(excess(counts, len(counts) - 1)) < 4


@pytest.mark.parametrize("count", [3, 4, 5])
def test_each_permutation_is_drawn_equally_often(count):
    number = 100 * math.factorial(count)
    counts = np.unique(permutations(count, number), axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(count)
    assert abs(excess(counts, len(counts) - 1)) < 4


def test_an_epoch_of_millions_is_spread_evenly():
    """Any stretch of it, as are the steps from one image to the next."""
    count, length, bins = 3_000_000, 200_000, 100
    (drawn,) = permutations(count, 1, length)
    assert len(np.unique(drawn)) == length
    for values in (drawn, np.diff(drawn) % count):
        counts = np.bincount(values * bins // count, minlength=bins)
        # drawn without replacement: a little more even than chance
        assert abs(excess(counts, bins - 1)) < 4


def test_two_epochs_of_millions_are_unrelated():
    one, other = permutations(3_000_000, 2, 100_000)
    counts = np.bincount((one - other) % 3_000_000 * 100 // 3_000_000, minlength=100)
    assert abs(excess(counts, 99)) < 4
    assert np.intersect1d(one, other).size == pytest.approx(100_000**2 / 3e6, rel=0.1)


def test_the_order_of_millions_takes_no_more_memory_than_that_of_thousands():
    def peak(count: int) -> int:
        drawn = order(count=count, batch_size=32)
        drawn(0)
        tracemalloc.start()
        for step in range(0, 3000, 100):
            drawn(step)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return taken

    few, many = peak(2**16), peak(3_000_000)
    assert many < 2 * few
    assert many < 3e6  # a permutation would be of 24 MB


def test_half_of_the_images_are_flipped_each_time_anew():
    drawn = torch.stack([flips(batch_size=100)(step) for step in range(400)])
    assert drawn.dtype == torch.bool
    assert drawn.double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (drawn[1:] == drawn[:-1]).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (drawn[:, 1:] == drawn[:, :-1]).double().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(flips(1)(0), flips(2)(0))


def test_a_flipped_image_is_mirrored_left_to_right():
    images = torch.randint(0, 256, (3, 4, 5, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    got = flipped(images, torch.tensor([True, False, True]))
    assert torch.equal(got[0], images[0].flip(2))
    assert torch.equal(got[1], images[1])
    assert torch.equal(got[2], images[2].flip(2))
    assert got.is_contiguous(memory_format=torch.channels_last)
