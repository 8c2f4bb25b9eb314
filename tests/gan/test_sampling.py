"""Noise and order are functions of (seed, step) alone."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from raygan.gan import sampling
from raygan.gan.sampling import NOISE_D, NOISE_G, Noise, Order, derive_seed
from raygan.gan.workers import Workers

CPU = torch.device("cpu")
ALL = slice(None)


def noise(seed: int = 1, part: slice = ALL) -> Noise:
    return Noise(seed, batch_size=8, code_size=3, part=part, device=CPU)


def order(seed: int = 1, count: int = 20, batch_size: int = 8, part: slice = ALL) -> Order:
    return Order(seed, count, batch_size, part, CPU)


@given(st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 10**6))
def test_noise_does_not_depend_on_what_was_drawn_before(before, step):
    used = noise()
    for earlier in before:
        used(NOISE_D, earlier)
    assert torch.equal(used(NOISE_D, step), noise()(NOISE_D, step))


@given(st.lists(st.integers(0, 50), max_size=4), st.integers(0, 50))
def test_order_does_not_depend_on_what_was_drawn_before(before, step):
    used = order()
    for earlier in sorted(before):
        used(earlier)
    assert torch.equal(used(step), order()(step))


def test_nothing_draws_from_the_global_generator():
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = noise()(NOISE_D, 4), order()(4)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(123)
    again = noise()(NOISE_D, 4), order()(4)
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


def test_streams_have_numbers_of_their_own():
    streams = [
        getattr(sampling, name) for name in ("INIT", "ORDER", "NOISE_D", "NOISE_G", "SAMPLES")
    ]
    assert len(set(streams)) == len(streams)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(0, 100))
def test_slices_of_the_workers_make_up_the_global_batch(count, step):
    workers = Workers()
    workers.count = count
    noises, orders = [], []
    for rank in range(count):
        workers.rank = rank
        part = workers.part(8)
        noises.append(noise(part=part)(NOISE_D, step))
        orders.append(order(part=part)(step))
    assert torch.equal(torch.cat(noises), noise()(NOISE_D, step))
    assert torch.equal(torch.cat(orders), order()(step))
