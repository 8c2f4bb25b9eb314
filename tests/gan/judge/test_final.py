"""The final test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from raygan.errors import ConfigError, RayganError
from raygan.gan.judge.final import FinalTest, ball_radius, final_test
from raygan.gan.judge.final_config import FinalConfig
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.pixels import as_bytes
from raygan.gan.sampling import RESTARTS, codes, latent_codes

SHAPE, CODE = (1, 4, 3), 6


class Affine(nn.Module):
    """An invertible generator: A z + b."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(CODE, 12)
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, codes):
        return self.linear(codes).view(-1, *SHAPE)


class Folded(Affine):
    """G(z) = G(−z), flat at z = 0: a search that begins there stays there."""

    def forward(self, codes):
        return super().forward(codes.square())


@pytest.fixture
def toy():
    """Make a generator, and bytes of images that it can produce."""

    def make(kind: type[nn.Module], count: int = 7):
        torch.manual_seed(0)
        generator = kind()
        with torch.no_grad():
            images = generator(torch.rand(count, CODE))
            # within what bytes hold
            low, high = images.min(), images.max()
            generator.linear.weight.div_(high - low)
            generator.linear.bias.sub_(low).div_(high - low)
            images = (images - low) / (high - low)
        return generator, images.mul(255).round().byte()

    return make


def run(generator, pixels, *, seed=3, batch_size=100, **fields) -> FinalTest:
    config = FinalConfig(**{"steps": 200, "restarts": 0, **fields})
    return final_test(generator, CODE, pixels, config, seed=seed, batch_size=batch_size)


def test_finds_the_codes_of_images_that_the_generator_can_make(toy):
    generator, images = toy(Affine)
    test = run(generator, images)
    # of what bytes leave: less than half a level
    assert test.losses.max() < (0.5 / 255) ** 2 + 1e-5
    assert run(generator, images, steps=0).loss > 100 * test.loss
    assert (test.reconstructions.int() - images.int()).abs().max() <= 3  # RMSProp goes on circling


def test_restarts_find_what_the_search_from_zero_cannot(toy):
    generator, images = toy(Folded)
    test = run(generator, images, restarts=2)
    assert test.restarts_loss < 0.1 * test.loss
    assert (test.winners > 0).all()


def test_restarts_never_raise_the_lowest_loss(toy):
    generator, images = toy(Affine)
    losses = [run(generator, images, restarts=n, steps=20).restarts_loss for n in (1, 2, 3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] <= run(generator, images, steps=20).loss


def test_only_as_many_images_as_asked_for_are_searched_and_audited(toy):
    generator, images = toy(Affine)
    test = run(generator, images, steps=5, images=5, restarts=2, audited=3)
    assert (len(test.losses), test.restarts.shape, test.audited) == (5, (2, 3), 3)
    assert len(test.winners) == 3
    assert test.audited_loss == pytest.approx(test.losses[:3].mean().item())
    fewer = run(generator, images, steps=5, images=2, restarts=2, audited=3)
    torch.testing.assert_close(fewer.restarts, test.restarts[:, :2])


def test_says_how_much_of_the_search_is_done(toy):
    generator, pixels = toy(Affine)
    config, heard = FinalConfig(steps=1, restarts=2, audited=3), []
    final_test(generator, CODE, pixels, config, seed=1, batch_size=5, progress=heard.append)
    # 7 images in batches of 5 and 2, then 3 twice, then 3 within the ball: 16 searches
    assert heard == pytest.approx([5 / 16, 7 / 16, 10 / 16, 13 / 16, 1.0])


@pytest.mark.parametrize("fields", [{"restarts": 0}, {"restarts": 2, "audited": 0}])
def test_without_an_audit_there_is_no_audited_loss(toy, fields):
    test = run(*toy(Affine), steps=2, **fields)
    assert (test.audited, test.audited_loss, test.restarts_loss) == (0, None, None)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("protocol", ["per-image", "authors"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_independent_of_the_batch_size(toy, batch_size, protocol):
    generator, images = toy(Folded)
    whole, parts = (
        run(generator, images, steps=20, restarts=2, batch_size=size, protocol=protocol)
        for size in (100, batch_size)
    )
    torch.testing.assert_close(parts.losses, whole.losses)
    torch.testing.assert_close(parts.restarts, whole.restarts)
    torch.testing.assert_close(parts.lengths, whole.lengths)
    torch.testing.assert_close(parts.ball_losses, whole.ball_losses)
    assert torch.equal(parts.reconstructions, whole.reconstructions)


def test_the_seed_decides_where_searches_begin_again(toy):
    generator, images = toy(Affine)
    one, same, other = (run(generator, images, steps=2, restarts=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(one.restarts, same.restarts)
    assert not torch.equal(one.restarts, other.restarts)
    assert torch.equal(one.losses, other.losses)


def test_codes_are_normal_and_each_has_its_own():
    drawn = codes(1, RESTARTS, 0, 400, 50)
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1) < 0.03
    assert torch.equal(codes(1, RESTARTS, 0, 3, 50), drawn[:3])
    both = torch.cat((drawn, codes(1, RESTARTS, 1, 400, 50)))
    assert len({tuple(code) for code in both.tolist()}) == 800


def test_searches_begin_again_where_codes_are_drawn(toy):
    generator, images = toy(Affine)
    starts = []
    generator.register_forward_pre_hook(lambda _, given: starts.append(given[0].detach().clone()))
    config = FinalConfig(steps=1, restarts=1, images=7, audited=7)
    final_test(generator, CODE, images, config, seed=1, latent="uniform")
    # of both searches: the start, and what one step has found
    assert not starts[0].any()
    assert torch.equal(starts[2], codes(1, RESTARTS, 0, 7, CODE, "uniform"))
    assert 0.9 < starts[2].abs().max() <= 1


def test_the_hardest_and_the_easiest_come_in_order():
    losses = torch.tensor([0.3, 0.1, 0.5, 0.2])
    test = FinalTest(losses, torch.empty(0, 0), torch.empty(0))
    assert (test.code_norm, test.outside, test.ball_loss, test.ball_free_loss) == (None,) * 4
    assert test.hardest(3).tolist() == [2, 0, 3]
    assert test.easiest(9).tolist() == [1, 3, 0, 2]


def test_the_generator_is_left_as_it_was(fresh, images):
    generator = fresh(norm="bn").generator
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    config = FinalConfig(steps=2, restarts=1)
    final_test(generator, CODE, images.take(images.final), config, seed=1)
    assert generator.training
    assert all(p.requires_grad and p.grad is None for p in generator.parameters())
    assert all(torch.equal(now, before[name]) for name, now in generator.state_dict().items())


class Fragile(Affine):
    """No number for codes longer than ``limit``; notes how convolutions are computed."""

    limit, tf32 = float("inf"), None

    def forward(self, codes):
        self.tf32 = torch.backends.cudnn.allow_tf32
        found = super().forward(codes)
        long = codes.norm(dim=1) > self.limit
        return torch.where(long[:, None, None, None], float("nan"), found)


def test_restart_that_diverges_has_no_result(toy):
    generator, images = toy(Fragile)
    generator.limit = 2.0
    test = run(generator, images, steps=2, restarts=2)
    assert test.restarts.isnan().any()
    assert test.restarts_loss <= test.loss
    assert (test.winners == 0).any()


def test_search_from_zero_that_diverges_is_no_result(toy):
    generator, images = toy(Fragile)
    generator.limit = 0.2
    with pytest.raises(RayganError, match="of 7 of 7 images diverged"):
        run(generator, images)


def test_final_test_is_in_full_precision(toy, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    generator, images = toy(Fragile)
    run(generator, images, steps=1)
    assert generator.tf32 is False
    assert torch.backends.cudnn.allow_tf32


def test_lengths_of_codes_by_hand():
    lengths = torch.tensor([3.0, 4.0, 5.0, 8.0])
    test = FinalTest(
        torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.empty(0, 2), torch.empty(0), lengths=lengths,
        ball_losses=torch.tensor([0.2, 0.4]), code_size=4, radius=4.5,
    )  # fmt: skip
    assert test.code_norms.tolist() == [1.5, 2, 2.5, 4]
    assert (test.code_norm, test.outside) == (2.5, 0.5)
    assert test.ball_loss == pytest.approx(0.3)
    assert test.ball_free_loss == pytest.approx(0.15)
    diverged = replace(test, ball_losses=torch.tensor([0.2, float("nan")]))
    assert diverged.ball_loss is None


def test_codes_are_those_that_give_the_reconstructions(toy):
    generator, images = toy(Affine)
    test = run(generator, images, steps=60)
    found = reconstruct(generator, CODE, images, steps=60).codes
    torch.testing.assert_close(test.lengths, found.norm(dim=1))
    with torch.no_grad():
        assert torch.equal(as_bytes(generator(found)), test.reconstructions)


@pytest.mark.parametrize("size", [6, 128])
@pytest.mark.parametrize("latent", ["normal", "uniform"])
def test_ball_holds_99_percent_of_the_prior(latent, size):
    drawn = latent_codes(latent, (20_000, size), torch.Generator().manual_seed(1))
    within = (drawn.norm(dim=1) <= ball_radius(size, latent)).double().mean()
    assert 0.986 < within < 0.994


def test_ball_of_a_small_uniform_code_holds_its_cube():
    assert ball_radius(1, "uniform") == 1


@pytest.mark.parametrize("latent", ["normal", "uniform"])
def test_codes_beyond_the_ball_are_counted_and_the_price_of_the_ball_is_the_audited_images(
    toy, latent
):
    generator, images = toy(Affine)
    with torch.no_grad():
        generator.linear.weight.div_(4)  # images that now need codes four times as long
    config = FinalConfig(steps=500, restarts=0, audited=4)
    test = final_test(generator, CODE, images, config, seed=1, latent=latent)
    assert test.radius == ball_radius(CODE, latent)
    assert test.outside == (test.lengths > test.radius).double().mean()
    assert test.outside > 0
    assert test.ball_losses.shape == (4,)
    assert test.ball_free_loss == pytest.approx(test.losses[:4].mean().item())
    longer = test.lengths[:4] > test.radius
    assert longer.any()
    assert (test.ball_losses[longer] > 1.1 * test.losses[:4][longer]).all()


def test_within_the_ball_by_itself_the_ball_changes_nothing(toy):
    generator, images = toy(Affine)
    test = run(generator, images, steps=30, audited=7)
    assert test.outside == 0
    assert torch.equal(test.ball_losses, test.losses)


def test_every_search_follows_the_protocol(toy, monkeypatch):
    asked = []

    def heard(*given, protocol, **options):
        asked.append(protocol)
        return reconstruct(*given, protocol=protocol, **options)

    monkeypatch.setattr("raygan.gan.judge.final.reconstruct", heard)
    run(*toy(Affine), steps=1, restarts=2, protocol="authors")
    assert asked == ["authors"] * 4


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": -1}, r"`final.steps` \(=-1\)"),
        ({"images": 0}, r"`final.images` \(=0\) must be a whole number, at least 1"),
        ({"restarts": 1.5}, "`final.restarts`"),
        ({"audited": True}, "`final.audited`"),
        ({"protocol": "paper"}, r"`final.protocol` \(='paper'\) must be one of per-image, authors"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields, says):
    with pytest.raises(ConfigError, match=says):
        FinalConfig(**fields)
