"""Sample quality by its seam: names, workers, and the order of known disturbances."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from raygan.gan.judge import quality, wasserstein
from raygan.gan.judge.wasserstein import sliced_wasserstein
from tests.gan.judge import disturbances

CPU = torch.device("cpu")
PACKAGE = pytest.mark.skipif(
    not quality.is_available(), reason="needs raygan[quality]: the weights of EfficientNet-Lite0"
)
CIFAR10 = pytest.mark.skipif(
    not disturbances.CIFAR10.is_dir(), reason="needs CIFAR-10's Parquet files; see RAYGAN_CIFAR10"
)
KINDS = [
    pytest.param(kind, marks=PACKAGE if kind == "features" else ()) for kind in quality.MEASURES
]


class Together:
    """Stands in for ``Workers``: ``count`` threads add up their tensors."""

    def __init__(self, rank, count, barrier, box):
        self.rank, self.count, self.barrier, self.box = rank, count, barrier, box

    def share(self, count):
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def sum_(self, tensor):
        self.box[self.rank] = tensor.clone()
        self.barrier.wait(60)
        tensor.copy_(sum(self.box[rank] for rank in range(self.count)))
        self.barrier.wait(60)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pixels(*shape, seed=1):
    return (uniform(*shape, seed=seed) * 255).byte()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12)])
def test_each_kind_has_its_names_and_takes_grey_and_colour(kind, shape):
    samples, real = uniform(6, *shape), pixels(7, *shape)
    before = samples.clone(), torch.get_rng_state()
    found = quality.measure(kind, samples, real)
    assert tuple(found) == quality.MEASURES[kind]
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert quality.measure(kind, samples, quality.reference(kind, real, CPU)) == found
    assert torch.equal(samples, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_gets_the_same_values(kind, monkeypatch):
    if kind == "features":
        from raygan.gan.judge import efficientnet

        efficientnet.network(CPU)  # before the threads
    samples, real = uniform(7, 3, 16, 16), pixels(5, 3, 16, 16)
    alone = quality.measure(kind, samples, real)
    barrier, box = Barrier(3), {}
    workers = [Together(rank, 3, barrier, box) for rank in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda each: quality.measure(kind, samples, real, each), workers))
    assert found[0] == found[1] == found[2] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_no_numbers_have_values_that_are_none(kind, value):
    samples = uniform(4, 1, 8, 8)
    samples[2, 0, 3, 3] = value
    assert all(map(math.isnan, quality.measure(kind, samples, pixels(4, 1, 8, 8)).values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("samples", "real"), [(1, 4), (4, 1), (0, 4)])
def test_without_two_images_of_each_nothing_is_defined(kind, samples, real):
    found = quality.measure(kind, uniform(samples, 1, 8, 8), pixels(real, 1, 8, 8))
    assert tuple(found) == quality.MEASURES[kind]
    assert all(map(math.isnan, found.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_rounded_to_8_bits_as_real_images_are(kind):
    samples, real = uniform(5, 1, 8, 8), pixels(5, 1, 8, 8)
    stored = samples.mul(255).round().byte()
    assert quality.measure(kind, samples, real) == quality.measure(kind, stored / 255, real)


@pytest.mark.cluster
def test_whether_the_package_is_installed_is_found_out_without_pytorch():
    code = (
        "import sys; from raygan.gan.judge.quality import check, is_available; is_available(); "
        "check('wasserstein'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_sliced_wasserstein_of_the_same_images_is_0_and_of_shifted_brightness_its_size():
    images = uniform(8, 3, 40, 32)
    assert sliced_wasserstein(images, images) == 0
    assert sliced_wasserstein(images, images[:5]) == 0  # as many of both
    flat = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    brighter = sliced_wasserstein(flat + 0.5, flat)
    # each direction w moves the projections by 0.5 / sd · |Σ w|, and Σ w has variance 1
    assert brighter == pytest.approx(0.5 * (2 / math.pi) ** 0.5, rel=0.15)


def test_the_pyramid_halves_down_to_16_pixels_and_sums_to_the_image():
    images = uniform(2, 3, 67, 41)
    levels = wasserstein.pyramid(images)
    assert [tuple(level.shape[2:]) for level in levels] == [(67, 41), (33, 20)]
    raised = torch.nn.functional.interpolate(levels[1], (67, 41), mode="bilinear")
    torch.testing.assert_close(levels[0] + raised, images)
    assert len(wasserstein.pyramid(uniform(1, 3, 160, 160))) == 4
    assert len(wasserstein.pyramid(uniform(1, 1, 8, 31))) == 1


def test_patches_are_parts_of_their_image():
    images = torch.arange(2.0)[:, None, None, None] * 1000 + torch.arange(90.0).view(1, 1, 9, 10)
    images = images.expand(2, 3, 9, 10)
    places = wasserstein.patch_places(images, torch.Generator().manual_seed(0))
    taken = wasserstein.patches(images, places)
    assert taken.shape == (2 * wasserstein.PATCHES, 3, 49)
    corner = taken[:, :, :1]
    offsets = (torch.arange(7)[:, None] * 10 + torch.arange(7)).flatten()
    assert torch.equal(taken, corner + offsets)
    places = corner[: wasserstein.PATCHES, 0, 0]
    assert (places < 1000).all()
    assert set((places // 10).tolist()) == {0, 1, 2}
    assert set((places % 10).tolist()) == {0, 1, 2, 3}
    assert (corner[wasserstein.PATCHES :] >= 1000).all()


def measured(labelled, n, kind):
    """The values of all disturbances, weak to strong, by kind of disturbance and measure."""
    real, kinds = disturbances.sets(labelled, n)
    against = quality.reference(kind, real, CPU)
    values = {
        name: [quality.measure(kind, images, against) for _, images in strengths]
        for name, strengths in kinds.items()
    }
    return {m: {k: [v[m] for v in values[k]] for k in values} for m in quality.MEASURES[kind]}


def assert_in_order(found, *names):
    (clean,) = found["none"]
    for name in names:
        assert clean < found[name][0], name
        assert found[name] == sorted(found[name]), name


EACH = ("blur", "noise", "contrast", "repeated images", "dropped classes", "shuffled patches")


@PACKAGE
@pytest.mark.cluster
@pytest.mark.parametrize("data", ["digits", pytest.param("cifar10", marks=CIFAR10)])
def test_the_feature_energy_distance_grows_with_every_disturbance(data):
    n = 64 if data == "digits" else 96
    labelled = disturbances.digits() if data == "digits" else disturbances.cifar10(1_000)
    found = measured(labelled, n, "features")
    assert_in_order(found["feature_energy_distance"], *EACH)
    for measure in ("recall", "coverage"):
        (clean,) = found[measure]["none"]
        for name in ("repeated images", "dropped classes"):
            assert found[measure][name][-1] < 0.85 * clean, (measure, name)
    assert found["recall"]["repeated images"][0] < 0.1


@pytest.mark.cluster
@CIFAR10
def test_sliced_wasserstein_sees_pixels_but_hardly_classes():
    found = measured(disturbances.cifar10(1_000), 96, "wasserstein")["sliced_wasserstein"]
    assert_in_order(found, "blur", "noise", "contrast", "shuffled patches")
    fade = found["contrast"][0]
    assert (
        max(found["dropped classes"]) < fade
    )  # eight of ten dropped count less than a slight fade
    assert found["repeated images"][0] < fade
    assert found["shuffled patches"][0] < fade
