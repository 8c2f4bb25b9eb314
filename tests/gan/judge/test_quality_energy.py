"""Energy distance, recall and coverage: their formulas, and cases with known answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from raygan.gan.judge.energy import compare


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def line(*places):
    return torch.tensor(places, dtype=torch.float32)[:, None]


def test_energy_distance_is_the_mean_over_pairs_of_different_images():
    x, y = normal(7, 5, seed=0), normal(9, 5, seed=1) + 0.4

    def mean(pairs):
        found = [math.dist(a, b) for a, b in pairs]
        return sum(found) / len(found)

    a, b = x.tolist(), y.tolist()
    expected = 2 * mean(itertools.product(a, b)) - sum(
        mean(itertools.permutations(each, 2)) for each in (a, b)
    )
    assert compare(x, y)["feature_energy_distance"] == pytest.approx(expected, rel=1e-9)


def test_two_halves_of_one_distribution_have_a_distance_of_0_on_average():
    found = [
        compare(normal(50, 20, seed=i), normal(40, 20, seed=1000 + i))["feature_energy_distance"]
        for i in range(60)
    ]
    mean, error = torch.tensor(found).mean(), torch.tensor(found).std() / 60**0.5
    assert abs(mean) < 3 * error
    assert min(found) < 0 < max(found)  # with each image paired with itself, never below 0
    shifted = compare(normal(50, 20, seed=0) + 1, normal(40, 20, seed=1))
    assert shifted["feature_energy_distance"] > 10 * max(found)


def test_equal_images_far_from_zero_are_at_distance_0():
    x = normal(1, 1280, seed=0).mul(100).expand(30, -1)
    found = compare(x, x)
    assert found == {"feature_energy_distance": 0, "recall": 1, "coverage": 1}


def test_recall_counts_the_real_images_within_reach_of_the_samples():
    """Samples at 0, 1, 2, 3: their balls reach 3, 2, 2, 3, so from −3 to 6."""
    real = line(-3.1, -2.9, 0.5, 2.0, 5.9, 6.1, 50, 51)
    assert compare(line(0, 1, 2, 3), real)["recall"] == 4 / 8


def test_coverage_counts_the_real_images_with_a_sample_in_reach():
    """Real images at 0…5 and at 100…105, whose balls reach 5, 4, 3, 3, 4, 5; a sample at 8.5 is in
    that of 4 and of 5 only."""
    real = line(*range(6), *range(100, 106))
    assert compare(line(8.5, 8.5), real)["coverage"] == 1 / 12
    assert compare(line(7.5, 8.5), real)["coverage"] == 2 / 12


def test_samples_of_one_place_have_no_recall_and_little_coverage():
    real = torch.cat((normal(60, 4, seed=0), normal(60, 4, seed=1) + 100))
    one_mode = normal(60, 4, seed=2)
    found = compare(one_mode, real)
    assert 0.3 < found["recall"] <= 0.5
    assert 0.3 < found["coverage"] <= 0.5
    same = compare(one_mode[:1].expand(60, -1), real)
    assert same["recall"] == 0
    assert same["coverage"] < 0.3


def test_few_images_have_fewer_neighbours():
    assert compare(line(0, 1), line(0.5, 0.6)) == pytest.approx(
        {"feature_energy_distance": 2 * 0.5 - 1 - 0.1, "recall": 1, "coverage": 0}, abs=1e-6
    )
