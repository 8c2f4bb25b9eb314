"""How varied samples are, and what says that a run has collapsed or has learned nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raygan.data.distances import distances, effective_number, mean_distance
from raygan.data.images import REFERENCE, ImageSet
from raygan.gan.config import TrainConfig, choices
from raygan.gan.judge.collapse import CERTAIN_LOGIT, JUDGED, VARIETY, find_collapse, find_untrained
from raygan.gan.judge.variety import Variety
from raygan.recipe import RecipeFile

SIZE = 12
variety = Variety().measure


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(count: int, seed: int) -> Tensor:
    """Images that differ as photographs do: smooth, with strong and weak parts."""
    coarse = torch.rand(count, 3, 4, 4, generator=rng(seed))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear").clamp(0, 1)


def image_set(pictures: Tensor) -> ImageSet:
    pixels = (pictures * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    none = torch.zeros(0, dtype=torch.int64)
    return ImageSet.of([pixels], none, none, "digest", 0.05)


PHOTOGRAPHS = image_set(scenes(600, 1))
ICONS = scenes(10, 2)


def copies(images: Tensor, noise: float = 0.0) -> Tensor:
    places = torch.arange(REFERENCE) % len(images)
    noisy = images[places] + noise * torch.randn(REFERENCE, 3, SIZE, SIZE, generator=rng(3))
    return noisy.clamp(0, 1)


def shifted(image: Tensor) -> Tensor:
    """One image at places up to one pixel apart."""
    moves = [(i % 2, i // 2 % 2) for i in range(REFERENCE)]
    return torch.stack([image.roll(move, (1, 2)) for move in moves])


def test_distances_are_those_of_every_pair():
    images = scenes(9, 1).double()
    expected = [[(a - b).norm().item() for b in images] for a in images]
    torch.testing.assert_close(distances(images), torch.tensor(expected).double())
    mean = sum(map(sum, expected)) / (9 * 8)
    assert mean_distance(distances(images)) == pytest.approx(mean)


def test_distances_of_bright_images_lose_nothing():
    near = 1e-3 * scenes(64, 1)
    torch.testing.assert_close(distances(near + 1), distances(near), rtol=1e-3, atol=1e-5)


def test_the_effective_number_counts_images_that_differ():
    far = 100 * (1 - torch.eye(8))
    assert effective_number(far, 1.0) == pytest.approx(8)
    assert effective_number(0 * far, 1.0) == pytest.approx(1)
    pairs = distances(torch.arange(8).div(2, rounding_mode="floor")[:, None] * 100.0)
    assert effective_number(pairs, 1.0) == pytest.approx(4)
    # two images at distance d: λ = (1 ± exp(−d² / 2)) / 2
    part = (1 + math.exp(-0.5)) / 2
    entropy = -part * math.log(part) - (1 - part) * math.log(1 - part)
    two = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert effective_number(two, 1.0) == pytest.approx(math.exp(entropy))


LOG = {"loss": "log"}


def history(**curves: list[float]) -> list[dict[str, float]]:
    names = {
        "variety": VARIETY, "loss_g": "train/loss_g", "loss": "val/reconstruction_loss",
        "diversity": "val/diversity", "duplicates": "val/duplicates",
    }  # fmt: skip
    length = max(map(len, curves.values()))
    return [
        {"step": 200.0 * (i + 1), **{names[name]: values[i] for name, values in curves.items()}}
        for i in range(length)
    ]


def verdict(samples: Tensor, images: ImageSet = PHOTOGRAPHS) -> str | None:
    """What is said of a run whose samples are such from the first evaluation on."""
    return find_collapse(history(variety=[variety(samples, images)] * 5), LOG)


@pytest.mark.parametrize(
    ("samples", "images"),
    [
        (copies(scenes(1, 4)), PHOTOGRAPHS),
        (copies(scenes(8, 4)), PHOTOGRAPHS),
        (copies(scenes(20, 4)), PHOTOGRAPHS),
        (copies(scenes(2, 4), noise=0.02), PHOTOGRAPHS),
        (shifted(scenes(1, 4)[0]), PHOTOGRAPHS),
        (copies(ICONS[:1]), image_set(copies(ICONS))),
    ],
    ids=["one image", "8 copied", "20 copied", "2 images and noise", "one shifted", "one icon"],
)
def test_few_different_images_are_a_collapse_from_the_first_evaluation_on(samples, images):
    found = verdict(samples, images)
    assert found is not None
    assert found.startswith("few different images")


@pytest.mark.parametrize(
    ("samples", "images"),
    [
        (scenes(REFERENCE, 5), PHOTOGRAPHS),
        (copies(scenes(200, 5), noise=0.02), PHOTOGRAPHS),
        (copies(ICONS), image_set(copies(ICONS))),
        (torch.rand(REFERENCE, 3, SIZE, SIZE, generator=rng(6)), PHOTOGRAPHS),
    ],
    ids=["other photographs", "200 of 256", "ten icons, all of the data", "pure noise"],
)
def test_as_many_different_images_as_the_data_has_are_no_collapse(samples, images):
    assert verdict(samples, images) is None


def test_variety_is_against_as_many_training_images():
    assert PHOTOGRAPHS.reference.count == REFERENCE
    assert variety(scenes(REFERENCE, 5), PHOTOGRAPHS) == pytest.approx(1, abs=0.1)
    few = image_set(scenes(40, 1))
    assert few.reference.count == 40
    assert variety(scenes(REFERENCE, 5), few) == pytest.approx(1, abs=0.1)


def test_samples_that_are_no_numbers_have_no_variety():
    samples = scenes(REFERENCE, 5)
    samples[3] = math.nan
    assert math.isnan(variety(samples, PHOTOGRAPHS))


def test_data_without_any_spread_says_nothing():
    assert variety(scenes(REFERENCE, 5), image_set(scenes(1, 1))) is None
    assert variety(scenes(REFERENCE, 5), image_set(copies(scenes(1, 1)))) is None


def test_the_reference_is_that_of_training_images(images):
    between = distances(images.take(images.train.at(torch.arange(40))).float() / 255)
    reference = images.reference
    assert reference.width == pytest.approx(0.3 * mean_distance(between))
    assert reference.effective == pytest.approx(effective_number(between, reference.width))


@pytest.mark.parametrize(
    ("curves", "says"),
    [
        ({"variety": [0.1, 0.6, 1.1, 1.0, 0.9], "loss_g": [0.7, 1.0, 2.0, 4.0, 5.0]}, None),
        ({"variety": [1.0] * 5, "loss_g": [0.7, 1.0, 2.0, 12.0, 18.0]}, "D is saturated: G's loss is 12"),
        ({"variety": [1.0] * 5, "loss_g": [0.7, 90.0, 2.0, 4.0, 50.0]}, None),  # spikes
        # lost, for good or for a moment
        ({"variety": [0.1, 1.0, 0.9, 0.1, 0.05]}, "is 10.0% of that of training images, below 20%"),
        ({"variety": [0.1, 1.0, 0.9, 0.1, 1.0]}, None),
        ({"variety": [1.0, 0.0]}, None),  # too short to say
        # records of earlier versions: whether images are few cannot be known
        ({"diversity": [0.05] * 4, "duplicates": [1.0] * 4}, None),
        ({"diversity": [0.05] * 4, "duplicates": [1.0] * 4, "loss_g": [20.0] * 4}, "D is saturated"),
    ],
)  # fmt: skip
def test_collapse_is_told_from_samples_and_from_d(curves, says):
    found = find_collapse(history(**curves), LOG)
    assert (found is None) == (says is None)
    assert says is None or says in found


def test_what_has_hardly_begun_is_not_judged():
    lost = history(variety=[1.0, 0.0, 0.0, 0.0], loss=[0.2] * 4)
    early = [{**point, "step": point["step"] / 10} for point in lost]
    assert find_collapse(lost, LOG)
    assert find_untrained(lost, 0.1)
    assert find_collapse(early, LOG) is None
    assert find_untrained(early, 0.1) is None


def test_reconstruction_loss_tells_no_collapse():
    assert find_collapse(history(variety=[1.0] * 4, loss=[1e6] * 4), LOG) is None


def test_a_run_that_never_beats_the_mean_image_has_learned_nothing():
    noise = history(loss=[0.12, 0.096, 0.11, 0.1])  # G makes pure noise, say
    assert "0.09600, is above 95% of the mean training image's, 0.10000" in find_untrained(
        noise, 0.1
    )
    lost_again = history(loss=[0.12, 0.094, 0.11, 0.2])
    assert find_untrained(lost_again, 0.1) is None
    assert find_untrained([], 0.1) is None


def test_saturation_is_the_same_logit_for_every_loss():
    curve = history(loss_g=[(CERTAIN_LOGIT + 2) ** 2 / 2] * JUDGED)
    least_squares = {"loss": "least-squares"}
    assert find_collapse(curve, least_squares)
    assert not find_collapse(history(loss_g=[CERTAIN_LOGIT + 2] * JUDGED), least_squares)
    assert find_collapse(history(loss_g=[CERTAIN_LOGIT + 2] * JUDGED), LOG)
    assert not find_collapse(curve, {"loss": "wgan-gp"})
    assert find_collapse([], {"loss": choices()["loss"][0]}) is None


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_saturation_heeds_the_parameters_of_the_loss(own_recipes, scale):
    own_recipes([RecipeFile("scaled.py", SCALED)])
    config = TrainConfig.of(loss="scaled", scale=scale).to_dict()
    certain, undecided = ([scale * loss] * JUDGED for loss in (CERTAIN_LOGIT + 2, 0.7))
    assert find_collapse(history(loss_g=certain), config)
    assert not find_collapse(history(loss_g=undecided), config)


SCALED = '''
import torch.nn.functional as F
from raygan.recipes import Loss


class Scaled(Loss):
    """The log loss, times a factor."""

    name = "scaled"
    scale: float = 1.0
    """The factor."""

    def real(self, logits):
        return self.scale * F.softplus(-logits)

    def fake(self, logits):
        return self.scale * F.softplus(logits)

    def generator(self, logits):
        return self.scale * F.softplus(-logits)
'''
