"""The losses, their formulas, and the gradient penalty."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raygan.gan.losses import LOSSES
from raygan.gan.nets import kernels, layers
from raygan.gan.nets.kernels import RectifyCPU
from raygan.gan.penalties import gradient_penalty, r1_penalty

pytestmark = pytest.mark.usefixtures("float64")
LOGITS = [-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0]


@pytest.mark.parametrize(
    ("loss", "real", "fake", "generator"),
    [
        ("hinge", lambda d: max(0, 1 - d), lambda d: max(0, 1 + d), lambda d: -d),
        ("wgan-gp", lambda d: -d, lambda d: d, lambda d: -d),
        ("least-squares", lambda d: (d - 1) ** 2 / 2, lambda d: d**2 / 2, lambda d: (d - 1) ** 2 / 2),
    ],
)  # fmt: skip
def test_losses_are_those_of_their_papers(loss, real, fake, generator):
    ours = LOSSES[loss]()
    for function, formula in ((ours.real, real), (ours.fake, fake), (ours.generator, generator)):
        assert function(torch.tensor(LOGITS)).tolist() == [formula(d) for d in LOGITS]


def test_only_a_wasserstein_critic_has_no_boundary_and_a_penalty():
    for name, expected in {
        "log": (0.0, 0.0),
        "least-squares": (0.5, 0.0),
        "hinge": (0.0, 0.0),
        "wgan-gp": (None, 10.0),
    }.items():
        assert (LOSSES[name].boundary, LOSSES[name]().gradient_penalty) == expected


def test_the_penalty_is_that_of_a_critic_whose_slope_is_known():
    """D(x) = a · Σ x² has the slope 2 a x."""
    a = torch.tensor(0.3, requires_grad=True)
    real, fake = torch.rand(2, 4, 1, 3, 5)
    mix = torch.rand(4)
    penalty = gradient_penalty(lambda x: a * x.square().sum((1, 2, 3)), real, fake, mix)
    between = mix.view(4, 1, 1, 1) * real + (1 - mix.view(4, 1, 1, 1)) * fake
    lengths = between.flatten(1).norm(dim=1)
    expected = (2 * a.detach() * lengths - 1) ** 2
    torch.testing.assert_close(penalty.detach(), expected)
    penalty.sum().backward()
    slope = (2 * (2 * a.detach() * lengths - 1) * 2 * lengths).sum()
    torch.testing.assert_close(a.grad, slope)


def test_the_r1_penalty_is_half_the_squared_slope():
    """D(x) = a · Σ x² has the slope 2 a x."""
    a = torch.tensor(0.3, requires_grad=True)
    real = torch.rand(4, 1, 3, 5).requires_grad_()
    penalty = r1_penalty(a * real.square().sum((1, 2, 3)), real)
    squares = real.detach().square().sum((1, 2, 3))
    torch.testing.assert_close(penalty.detach(), 2 * 0.3**2 * squares)
    penalty.sum().backward()
    torch.testing.assert_close(a.grad, 4 * 0.3 * squares.sum())


def test_a_flat_critic_has_a_finite_gradient():
    weight = torch.zeros(15, requires_grad=True)
    x = torch.rand(4, 1, 3, 5)
    gradient_penalty(lambda x: x.flatten(1) @ weight, x, x, torch.rand(4)).sum().backward()
    assert weight.grad.isfinite().all()


def apart(*shape: int) -> Tensor:
    """Away from 0, where a rectifier has no slope."""
    x = torch.randn(shape)
    return (x + 0.2 * x.sign()).requires_grad_()


@pytest.mark.parametrize("shifted", [False, True])
def test_the_rectifier_can_be_differentiated_twice(shifted):
    shift = torch.randn(2, requires_grad=True) if shifted else None
    given = (apart(1, 2, 2, 2), torch.rand(2, requires_grad=True), shift)
    assert torch.autograd.gradgradcheck(RectifyCPU.apply, given)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (1, 1)])
def test_the_convolution_of_an_image_can_be_differentiated_twice(kernel, stride):
    given = apart(1, 1, 4, 4), apart(2, 1, kernel, kernel), apart(2)
    assert kernels._spreads(given[0], given[1], stride)
    pads = (kernel // 4, kernel // 4)
    assert torch.autograd.gradgradcheck(
        lambda x, w, b: kernels.conv2d(x, w, b, stride, pads), given
    )


def test_the_gradient_to_an_image_is_the_same_whether_or_not_it_is_differentiated_again():
    layer, slope = layers.Conv2d(1, 3, (4, 4), 2, (1, 1)), torch.rand(3)
    x, probe = torch.randn(2, 1, 6, 6, requires_grad=True), torch.randn(2, 3, 3, 3)
    y = RectifyCPU.apply(layer(x), slope, None)
    (once,) = torch.autograd.grad(y, x, probe, retain_graph=True)
    (again,) = torch.autograd.grad(y, x, probe, create_graph=True)
    torch.testing.assert_close(once, again.detach())


def test_a_loss_that_inherits_the_log_loss_is_not_taken_for_it() -> None:
    class Smooth(LOSSES["log"]):
        """Label smoothing."""

        def real(self, logits: Tensor) -> Tensor:
            return 0.9 * super().real(logits)

    assert LOSSES["log"]().shares_backward
    assert not Smooth().shares_backward
