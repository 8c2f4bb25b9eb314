"""The reconstruction test."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raygan.gan.config import choices
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.pixels import as_float
from raygan.gan.workers import Workers

SHAPE, CODE = (1, 16, 12), 6
NORMS = pytest.mark.parametrize("norm", choices()["norm"])


@pytest.fixture
def held_out() -> torch.Tensor:
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1))


class Affine(nn.Module):
    """A generator that can represent whatever is A z + b."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(CODE, 16 * 12)
        nn.init.normal_(self.linear.weight, std=0.1)

    def forward(self, codes):
        return self.linear(codes).view(-1, *SHAPE)


def share_of(rank: int, count: int) -> Workers:
    """Worker ``rank`` of ``count`` who is not told the others' losses."""
    workers = Workers()
    workers.rank, workers.count = rank, count
    workers.sum_ = lambda *_: None
    return workers


@pytest.mark.usefixtures("float64")
@NORMS
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_independent_of_the_batch_size(fresh, held_out, norm, batch_size):
    generator = fresh(norm=norm).generator
    whole = reconstruct(generator, CODE, held_out, steps=10, batch_size=7)
    parts = reconstruct(generator, CODE, held_out, steps=10, batch_size=batch_size)
    torch.testing.assert_close(parts.losses, whole.losses)
    torch.testing.assert_close(parts.images, whole.images)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("count", [2, 3, 9])
def test_independent_of_the_shares(fresh, held_out, count):
    generator = fresh(norm="bn").generator
    whole = reconstruct(generator, CODE, held_out, steps=10)
    parts = [
        reconstruct(generator, CODE, held_out, steps=10, workers=share_of(rank, count))
        for rank in range(count)
    ]
    torch.testing.assert_close(sum(part.losses for part in parts), whole.losses)
    torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)


@pytest.mark.usefixtures("float64")
@NORMS
def test_equals_the_plain_search_image_by_image(fresh, held_out, norm):
    generator = fresh(norm=norm).generator
    got = reconstruct(generator, CODE, held_out[:2], steps=5)
    generator.eval()
    for image, loss in zip(held_out[:2], got.losses, strict=True):
        code = torch.zeros(1, CODE, requires_grad=True)
        optimizer = torch.optim.RMSprop([code], lr=0.01, alpha=0.9, eps=1e-6)
        for _ in range(5):
            optimizer.zero_grad()
            (generator(code)[0] - image).square().sum().backward()
            optimizer.step()
        expected = (generator(code)[0] - image).square().mean()
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def authors_losses(generator, images, steps):
    """The loss of each image after the search of `test` in the authors' `pytorch/main.py`, for a
    batch of 32 whole images."""
    mean = nn.MSELoss()
    codes = torch.zeros(32, CODE, requires_grad=True)
    optimizer = torch.optim.RMSprop([codes], lr=0.01, eps=1e-6, alpha=0.9)
    for _ in range(steps):
        loss = mean(generator(codes), images)
        loss.backward()
        optimizer.step()
        codes.grad.zero_()
    return (generator(codes) - images).square().mean((1, 2, 3)).detach()


@pytest.mark.usefixtures("float64")
@NORMS
def test_of_the_authors_protocol_equals_their_search(fresh, norm):
    generator = fresh(norm=norm).generator
    images = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(1))
    got = reconstruct(generator, CODE, images, steps=5, protocol="authors")
    expected = authors_losses(generator.eval(), images, 5)
    torch.testing.assert_close(got.losses.double(), expected, rtol=1e-6, atol=0)
    ours = reconstruct(generator, CODE, images, steps=5)
    assert not torch.allclose(ours.losses.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("count", [2, 3])
def test_the_authors_protocol_does_not_depend_on_batches_or_shares(fresh, held_out, count):
    generator = fresh(norm="bn").generator
    whole = reconstruct(generator, CODE, held_out, steps=10, protocol="authors")
    small = reconstruct(generator, CODE, held_out, steps=10, protocol="authors", batch_size=count)
    shares = [
        reconstruct(
            generator, CODE, held_out, steps=10, protocol="authors", workers=share_of(rank, count)
        )
        for rank in range(count)
    ]
    torch.testing.assert_close(small.losses, whole.losses)
    torch.testing.assert_close(sum(share.losses for share in shares), whole.losses)
    torch.testing.assert_close(torch.cat([share.codes for share in shares]), whole.codes)


def test_epsilon_shortens_the_steps_of_the_authors_protocol():
    torch.manual_seed(0)
    generator = Affine()
    with torch.no_grad():
        generator.linear.weight.mul_(1e-2)  # ε outweighs its gradients once they are averaged
        targets = generator(torch.randn(5, CODE))
    start, ours, theirs = (
        reconstruct(generator, CODE, targets, **given)
        for given in ({"steps": 0}, {"steps": 50}, {"steps": 50, "protocol": "authors"})
    )
    assert (ours.losses < 0.9 * theirs.losses).all()
    assert (theirs.losses < start.losses).all()
    assert (theirs.codes.norm(dim=1) < 0.5 * ours.codes.norm(dim=1)).all()


@pytest.mark.parametrize("protocol", ["per-image", "authors"])
def test_codes_stay_within_the_radius_after_each_step(protocol):
    torch.manual_seed(0)
    generator, seen = Affine(), []
    with torch.no_grad():
        targets = generator(3 * torch.randn(5, CODE))
    free = reconstruct(generator, CODE, targets, steps=200, protocol=protocol)
    longest = free.codes.norm(dim=1)
    radius = float(longest.median())
    generator.register_forward_pre_hook(lambda _, given: seen.append(given[0].norm(dim=1).max()))
    kept = reconstruct(generator, CODE, targets, steps=200, protocol=protocol, radius=radius)
    assert max(seen) <= radius * (1 + 1e-6)
    assert kept.codes.norm(dim=1).max() == pytest.approx(radius)
    longer = longest > radius
    assert (kept.losses[longer] > free.losses[longer]).all()


def test_a_radius_that_no_code_reaches_changes_no_bit(fresh, held_out):
    generator = fresh().generator
    free = reconstruct(generator, CODE, held_out, steps=20)
    kept = reconstruct(generator, CODE, held_out, steps=20, radius=100.0)
    assert torch.equal(kept.codes, free.codes)
    assert torch.equal(kept.losses, free.losses)


@NORMS
def test_decreases_with_the_steps(fresh, held_out, norm):
    generator = fresh(norm=norm).generator
    # of the untrained generator, made to depend on its codes
    generator.linear.weight.data.mul_(5)
    losses = [reconstruct(generator, CODE, held_out, steps=steps).loss for steps in (0, 5, 20, 80)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_no_steps_give_the_image_of_the_zero_code(fresh, held_out):
    generator = fresh().generator
    got = reconstruct(generator, CODE, held_out, steps=0)
    with torch.no_grad():
        image = generator.eval()(torch.zeros(1, CODE))
    torch.testing.assert_close(got.images, image.expand(7, -1, -1, -1))
    torch.testing.assert_close(got.losses, (held_out - image).square().mean((1, 2, 3)))


def test_a_generator_that_can_represent_the_image_reaches_near_zero():
    torch.manual_seed(0)
    generator = Affine()
    with torch.no_grad():
        targets = generator(torch.randn(5, CODE))
    start = reconstruct(generator, CODE, targets, steps=0)
    end = reconstruct(generator, CODE, targets, steps=600)
    assert start.losses.min() > 1e-3
    # RMSProp goes on circling within its learning rate
    assert end.losses.max() < 1e-4 * start.losses.min()


@pytest.mark.parametrize("training", [True, False])
@NORMS
def test_the_generator_is_left_as_it_was(fresh, held_out, norm, training):
    generator = fresh(norm=norm).generator.train(training)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    reconstruct(generator, CODE, held_out, steps=3)
    assert all(module.training is training for module in generator.modules())
    assert all(p.requires_grad and p.grad is None for p in generator.parameters())
    assert all(torch.equal(now, before[name]) for name, now in generator.state_dict().items())


def test_works_where_gradients_are_switched_off(fresh, held_out):
    generator = fresh().generator
    expected = reconstruct(generator, CODE, held_out, steps=3)
    with torch.no_grad():
        got = reconstruct(generator, CODE, held_out, steps=3)
    assert torch.equal(got.losses, expected.losses)


def test_bytes_and_floats_are_the_same_images(fresh):
    pixels = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    assert as_float(pixels).max() <= 1
    generator = fresh().generator
    one = reconstruct(generator, CODE, pixels, steps=2)
    other = reconstruct(generator, CODE, pixels.float() / 255, steps=2)
    torch.testing.assert_close(one.losses, other.losses)


def test_nothing_to_reconstruct_is_no_error(fresh):
    got = reconstruct(fresh().generator, CODE, torch.zeros(0, *SHAPE), steps=2)
    assert got.losses.shape == (0,)
    assert got.images.shape == (0, *SHAPE)
    assert got.codes.shape == (0, CODE)
