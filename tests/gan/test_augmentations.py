"""Augmentations: what they change, and where D sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raygan.errors import ConfigError
from raygan.gan import sampling
from raygan.gan.augmentations import AUGMENTATIONS
from raygan.gan.augmentations.augmentation import Augmentation
from raygan.gan.augmentations.diffaugment import GREY, DiffAugment
from raygan.gan.config import TrainConfig
from raygan.gan.draws import Draws
from raygan.gan.steps import Game
from raygan.gan.workers import Workers

COLOR = DiffAugment(translation=0, cutout=0)
TRANSLATION = DiffAugment(color=False, cutout=0)
CUTOUT = DiffAugment(color=False, translation=0)
SHAPE = (3, 16, 12)


def images(count: int = 200, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def chances(count: int = 200) -> Tensor:
    return torch.rand(count, 7, generator=torch.Generator().manual_seed(2))


def only(**values: float) -> Tensor:
    """Chances of one image that change nothing, with some replaced."""
    names = ("brightness", "saturation", "contrast", "row", "column", "top", "left")
    return torch.tensor([[values.get(name, 0.5) for name in names]])


@pytest.mark.parametrize("shape", [SHAPE, (1, 16, 12)])
def test_colors_are_those_of_the_authors_for_pixels_from_minus_one_to_one(shape):
    given, drawn = images(20, shape), chances(20)
    # github.com/mit-han-lab/data-efficient-gans, DiffAugment_pytorch.py
    brightness, saturation, contrast = drawn[:, :3].view(-1, 3, 1, 1, 1).unbind(1)
    x = given * 2 - 1
    x = x + (brightness - 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (saturation * 2) + mean
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean
    torch.testing.assert_close(COLOR(given, drawn), (x + 1) / 2)


def test_colors_are_left_by_chances_in_the_middle():
    torch.testing.assert_close(COLOR(images(1), only()), images(1))


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """By hand: ``image`` [C, H, W] on a grey ground."""
    height, width = image.shape[1:]
    ground = F.pad(image, [width] * 2 + [height] * 2, value=GREY)
    top, left = height - down, width - right
    return ground[:, top : top + height, left : left + width]


def test_an_image_is_shifted_by_whole_pixels_up_to_an_eighth_of_its_sides():
    given, drawn = images(), chances()
    found = set()
    # 16 / 8 = 2 rows, and 12 / 8 = 1.5 is rounded to 2 columns
    shifts = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    for image, moved in zip(given, TRANSLATION(given, drawn), strict=True):
        (shift,) = [each for each in shifts if torch.equal(shifted(image, *each), moved)]
        found.add(shift)
    assert found == set(shifts)


def test_the_ends_of_the_chances_are_the_longest_shifts():
    (image,), most = images(1), 1 - 2**-24
    for row, column, down, right in ((0, 0, 2, 2), (most, most, -2, -2), (0.5, most, 0, -2)):
        (moved,) = TRANSLATION(image[None], only(row=row, column=column))
        assert torch.equal(moved, shifted(image, down, right))


def test_a_rectangle_of_half_the_sides_is_cut_out_around_a_pixel_of_the_image():
    given, drawn = images(400), chances(400)
    grey = (CUTOUT(given, drawn) == GREY).all(1)
    kept = torch.where(grey[:, None], given, CUTOUT(given, drawn))
    assert torch.equal(kept, given)
    sizes = set()
    for one in grey:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        assert one.sum() == len(rows) * len(columns)
        assert (rows.diff() == 1).all()
        sizes.add((len(rows), len(columns)))
    # 8×6 inside, half of it at the edges
    assert {rows for rows, _ in sizes} == set(range(4, 9))
    assert {columns for _, columns in sizes} == set(range(3, 7))


def test_all_follow_each_other_each_with_its_own_chances():
    given, drawn = images(5), chances(5)
    one_by_one = CUTOUT(TRANSLATION(COLOR(given, drawn), drawn), drawn)
    assert torch.equal(DiffAugment()(given, drawn), one_by_one)


def test_an_image_does_not_depend_on_the_others():
    given, drawn = images(6), chances(6)
    whole = DiffAugment()(given, drawn)
    parts = [DiffAugment()(given[at : at + 1], drawn[at : at + 1]) for at in range(6)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_layout_and_dtype_are_kept():
    given = images(4).double().contiguous(memory_format=torch.channels_last)
    found = DiffAugment()(given, chances(4))
    assert found.dtype == torch.float64
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_passes_through():
    given = images(2, (2, 4, 4)).double().requires_grad_()
    drawn = chances(2).double()
    assert torch.autograd.gradcheck(lambda x: DiffAugment()(x, drawn), given)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"translation": 1.0}, r"`translation` \(=1.0\) must be from 0 to below 1"),
        ({"cutout": -0.1}, r"`cutout` \(=-0.1\) must be from 0 to below 1"),
        ({"color": False, "translation": 0, "cutout": 0}, "changes nothing.*set `augment: none`"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, reason):
    with pytest.raises(ConfigError, match=reason):
        TrainConfig.of(augment="diffaugment", **fields)


class Darker(Augmentation):
    """Each image times its own chance, the images of each call noted."""

    name = "darker"
    chances = 1
    seen: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, images: Tensor, chances: Tensor) -> Tensor:
        self.seen.append((images.detach(), chances))
        return images * chances.view(-1, 1, 1, 1)


@pytest.fixture
def darker(fresh) -> Callable[..., Game]:
    """A game with an augmentation that notes what it is given."""
    Darker.seen.clear()

    def make(**fields: object) -> Game:
        game: Game = fresh(**fields).game(Workers())
        game.augmentation = Darker()
        return game

    return make


def drawn(d_steps: int = 1) -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    real = torch.rand(d_steps * 8, 1, 16, 12, generator=rng)
    codes = (torch.randn(n * 8, 6, generator=rng) for n in (d_steps, 1))
    return [real, *codes, torch.rand(8 * (2 * d_steps + 1), 1, generator=rng)]


def test_every_image_that_d_is_trained_on_is_augmented_with_chances_of_its_own(darker):
    game = darker(d_steps=2, norm="wn")
    real, noise_d, noise_g, numbers = drawn(2)
    judged = []
    game.discriminator.network.register_forward_pre_hook(lambda _, given: judged.append(given[0]))
    game.alternating(real, noise_d, noise_g, None, numbers)
    of_call = [of for _, of in Darker.seen]
    parts = numbers.chunk(5)
    expected = [parts[0], parts[2], parts[1], parts[3], parts[4]]  # real and fake, twice; G's
    assert all(torch.equal(*pair) for pair in zip(of_call, expected, strict=True))
    changed = torch.cat([given * of.view(-1, 1, 1, 1) for given, of in Darker.seen])
    assert torch.equal(torch.cat(judged), changed)
    assert torch.equal(torch.cat([Darker.seen[0][0], Darker.seen[2][0]]), real)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("update", ["alternating", "simultaneous"])
@pytest.mark.parametrize("loss", ["log", "least-squares"])
def test_g_learns_through_the_augmentation(darker, update, loss):
    """Its gradient is that of D's logits of the augmented images."""
    game = darker(norm="vanilla", loss=loss, update=update)
    game.generator.network.double()
    game.discriminator.network.double()
    real, noise_d, noise_g, numbers = (each.double() for each in drawn())
    game.discriminator.update = lambda _: None  # as D was
    found = []
    game.generator.update = found.extend
    getattr(game, update)(real, noise_d, noise_g, None, numbers)
    alternates = update == "alternating"
    of_fake = numbers[16:] if alternates else numbers[8:16]
    fake = game.generator.network(noise_g if alternates else noise_d)
    logits = game.discriminator.network(fake * of_fake.view(-1, 1, 1, 1))
    expected = torch.autograd.grad(game.loss.generator(logits).mean(), game.generator.parameters)
    torch.testing.assert_close(found, list(expected))


def test_chances_are_functions_of_seed_step_and_place_alone(small, images):
    def draws(part: slice | None = None, **fields: object) -> Draws:
        config = small(augment="diffaugment", **fields)
        made = Draws(config, images, Workers(), torch.device("cpu"))
        if part is not None:
            made._noise._part = part
        return made

    whole = draws(d_steps=2)(3).chances
    assert whole.shape == (5 * 8, 7)
    assert 0 <= whole.min() < whole.max() < 1
    assert len(whole.flatten().unique()) > 0.99 * whole.numel()
    used = draws(d_steps=2)
    used(9)
    assert torch.equal(used(3).chances, whole)
    # D's updates have the places 6 and 7; G's has the place 3
    ones = draws()
    alone = [ones(place).chances.chunk(3) for place in (6, 7, 3)]
    expected = [alone[0][0], alone[1][0], alone[0][1], alone[1][1], alone[2][2]]
    assert torch.equal(whole, torch.cat(expected))
    halves = [draws(slice(*ends), d_steps=2)(3).chances.chunk(5) for ends in ((0, 4), (4, 8))]
    assert torch.equal(torch.cat([torch.cat(pair) for pair in zip(*halves, strict=True)]), whole)
    assert not torch.equal(draws(d_steps=2, seed=1)(3).chances, whole)


def test_without_an_augmentation_nothing_is_drawn(small, images, monkeypatch):
    streams = []
    whole = sampling.Noise._seeded
    monkeypatch.setattr(
        sampling.Noise, "_seeded", lambda self, *of: (streams.append(of[0]), whole(self, *of))[1]
    )
    assert Draws(small(), images, Workers(), torch.device("cpu"))(0).chances is None
    assert streams == [sampling.NOISE_D, sampling.NOISE_G]
    assert [each.chances for each in AUGMENTATIONS] == [0, 7]
