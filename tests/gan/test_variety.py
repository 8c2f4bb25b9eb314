"""How varied samples are, and what says that a run has collapsed."""

from __future__ import annotations

import math

import pytest
import torch

from raygan.data.distances import distances, mean_distance
from raygan.data.images import ImageSet
from raygan.gan.collapse import CERTAIN, DIVERSITY, DUPLICATES, LAST, find_collapse
from raygan.gan.config import CHOICES
from raygan.gan.variety import NEAR, variety

SHAPE = (64, 3, 8, 6)


def pictures(seed: int = 1) -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


SPREAD = mean_distance(distances(pictures(2)))


def test_distances_are_those_of_every_pair():
    images = pictures()[:9].double()
    expected = [[(a - b).norm().item() for b in images] for a in images]
    torch.testing.assert_close(distances(images), torch.tensor(expected).double())
    mean = sum(map(sum, expected)) / (9 * 8)
    assert mean_distance(distances(images)) == pytest.approx(mean)


def test_distances_of_bright_images_lose_nothing():
    near = 1e-3 * pictures()
    torch.testing.assert_close(distances(near + 1), distances(near), rtol=1e-3, atol=1e-5)


def test_healthy_samples_are_as_varied_as_the_data():
    found = variety(pictures(), SPREAD)
    assert found[DIVERSITY] == pytest.approx(1, abs=0.05)
    assert found[DUPLICATES] == 0


def test_samples_that_are_all_equal():
    found = variety(pictures()[:1].expand(SHAPE), SPREAD)
    assert found[DIVERSITY] == pytest.approx(0, abs=1e-3)
    assert found[DUPLICATES] == 1


def test_samples_of_two_modes_are_far_apart_and_all_duplicates():
    a, b = pictures()[:2]
    samples = torch.stack([a if i % 2 else b for i in range(64)])
    found = variety(samples + 1e-3 * pictures(3), SPREAD)
    assert 0.4 < found[DIVERSITY] < 0.6
    assert found[DUPLICATES] == 1


def test_one_pair_of_duplicates_is_two_samples():
    samples = pictures()
    samples[7] = samples[40] + 0.5 * NEAR * SPREAD / math.sqrt(3 * 8 * 6)
    assert variety(samples, SPREAD)[DUPLICATES] == 2 / 64


def test_samples_that_are_no_numbers_have_no_diversity():
    samples = pictures()
    samples[3] = math.nan
    assert math.isnan(variety(samples, SPREAD)[DIVERSITY])


def test_data_without_any_spread_says_nothing(images):
    assert variety(pictures(), 0.0) == {}
    alone = ImageSet.of(images.shards, torch.arange(30), torch.arange(30, 59), "digest", 0.05)
    assert alone.spread == 0


def test_spread_is_that_of_training_images(images):
    of_all = distances(images.take(images.train.at(torch.arange(40))).float() / 255)
    assert images.spread == pytest.approx(mean_distance(of_all))


def history(**curves: list[float]) -> list[dict[str, float]]:
    names = {
        "diversity": DIVERSITY, "duplicates": DUPLICATES,
        "loss_g": "train/loss_g", "accuracy": "train/accuracy_fake",
    }  # fmt: skip
    length = max(map(len, curves.values()))
    return [
        {"step": 200.0 * (i + 1), **{names[name]: values[i] for name, values in curves.items()}}
        for i in range(length)
    ]


HEALTHY = {"diversity": [0.1, 0.6, 1.1, 1.0, 0.9], "duplicates": [1.0, 0.1, 0, 0, 0]}


@pytest.mark.parametrize(
    ("curves", "says"),
    [
        ({**HEALTHY, "loss_g": [0.7, 1.0, 2.0, 4.0, 5.0]}, None),
        ({**HEALTHY, "loss_g": [0.7, 1.0, 2.0, 12.0, 18.0]}, "D is saturated: G's loss is 12"),
        ({**HEALTHY, "loss_g": [0.7, 90.0, 2.0, 4.0, 50.0]}, None),  # spikes
        # lost, for good or for a moment
        ({"diversity": [0.1, 1.0, 0.9, 0.1, 0.05], "duplicates": [1, 0, 0, 0, 0]}, "samples are 10% as far apart"),
        ({"diversity": [0.1, 1.0, 0.9, 0.1, 1.0], "duplicates": [1, 0, 0, 0, 0]}, None),
        # two modes
        ({"diversity": [0.9] * 4, "duplicates": [0, 1, 1, 0.8]}, "100% of the samples have a near"),
        ({"diversity": [0.9] * 4, "duplicates": [1, 1, 0, 0]}, None),
        ({"diversity": [0.5] * 3, "duplicates": [1] * 3, "accuracy": [0.9, 0.4, 0.3]}, "few different"),
        # a fresh generator that is slow: D tells its images from real ones
        ({"diversity": [0.08, 0.09, 0.13], "duplicates": [1] * 3, "accuracy": [0.3, 1, 1]}, None),
        ({"diversity": [0.08, 0.12, 0.15], "duplicates": [0.1, 0, 0], "accuracy": [1] * 3}, None),
        ({"diversity": [0.1, 0.13, 0.16], "duplicates": [1, 0.8, 0.25], "accuracy": [1] * 3}, None),
        ({"diversity": [0.1, 0.2, 0.3, 0.4], "duplicates": [1, 0.9, 0.8, 0.6], "accuracy": [0.7] * 4}, None),
        ({"diversity": [0.13, 0.11, 0.16], "duplicates": [1] * 3, "accuracy": [0.6, 0.2, 0.1]}, "few different"),
        # never varied, and ever less so
        ({"diversity": [0.07, 0.22, 0.2, 0.15, 0.14, 0.12], "duplicates": [1, 0.8, 0.8, 0.9, 1, 1], "accuracy": [0.8] * 6}, "samples are 14% as far apart"),
        ({"diversity": [0.07, 0.18, 0.15, 0.15, 0.14], "duplicates": [1, 0.8, 0.8, 0.9, 1], "accuracy": [0.8] * 5}, None),
        ({"diversity": [1.0, 0.0], "duplicates": [0, 1]}, None),  # too short to say
    ],
)  # fmt: skip
def test_collapse_is_told_from_samples_and_from_d(curves, says):
    found = find_collapse(history(**curves))
    assert (found is None) == (says is None)
    assert says is None or says in found


def test_what_has_hardly_begun_has_not_collapsed():
    lost = history(diversity=[1.0, 0.0, 0.0, 0.0], duplicates=[0, 1, 1, 1])
    assert find_collapse(lost)
    assert find_collapse([{**point, "step": point["step"] / 10} for point in lost]) is None


def test_reconstruction_loss_decides_nothing():
    bad = [{**point, "val/reconstruction_loss": 1e6} for point in history(**HEALTHY)]
    assert find_collapse(bad) is None


def test_saturation_is_the_same_logit_for_every_loss():
    curve = history(loss_g=[(CERTAIN + 2) ** 2 / 2] * LAST)
    assert find_collapse(curve, "least-squares")
    assert not find_collapse(history(loss_g=[CERTAIN + 2] * LAST), "least-squares")
    assert find_collapse(history(loss_g=[CERTAIN + 2] * LAST), "log")
    assert not find_collapse(curve, "a critic without a scale")
    assert find_collapse([], CHOICES["loss"][0]) is None


# tests/bench/collapse.py: digits at 16 px, medians of the last evaluations
RECORDED = [
    ("vanilla, lr 2e-3", 0.907, 0.0, 1.10, 0.768, False),
    ("vanilla, lr 2e-5", 0.119, 0.953, 1.15, 1.0, False),
    ("vanilla, lr 5e-2", 0.460, 0.05, 25.7, 1.0, True),
    ("vanilla, lr 0.2", 1.636, 0.0, 1.25e5, 0.997, True),
    ("vanilla, G frozen", 0.082, 1.0, 19.1, 1.0, True),
    ("vanilla, G 100x as fast", 0.162, 0.781, 0.69, 0.339, True),
    ("bn, lr 1e-4", 0.641, 0.0, 4.07, 0.996, False),
    ("bn, lr 0.2", 1.577, 0.0, 309.0, 0.996, True),
    ("bn, G 100x as fast", 0.17, 0.703, 0.656, 0.293, True),
    ("wn, lr 0.2", 1.160, 0.0, 0.708, 0.499, False),
    ("wn, G frozen", 0.396, 0.0, 18.8, 1.0, True),
]


@pytest.mark.parametrize(
    ("what", "diversity", "duplicates", "loss_g", "accuracy", "collapsed"), RECORDED
)
def test_recorded_runs(what, diversity, duplicates, loss_g, accuracy, collapsed):
    curves = {
        "diversity": diversity, "duplicates": duplicates, "loss_g": loss_g, "accuracy": accuracy
    }  # fmt: skip
    recorded = history(**{name: [value] * LAST for name, value in curves.items()})
    assert bool(find_collapse(recorded)) == collapsed
