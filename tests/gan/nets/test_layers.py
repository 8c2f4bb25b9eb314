"""Weight-normalised layers and translated rectifiers."""

from __future__ import annotations

import copy
import itertools
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from raygan.gan.nets import kernels, layers
from raygan.gan.nets.layers import (
    WeightNormConv2d,
    WeightNormConvTranspose2d,
    WeightNormLinear,
    frozen,
    held_weights,
    subtract_shifts,
)
from raygan.gan.nets.rectifiers import PReLU, RectifyCPU, TPReLU, clamp_slopes, clamped_slopes

pytestmark = pytest.mark.usefixtures("float64")


def conv(affine: bool = False) -> WeightNormConv2d:
    return WeightNormConv2d(3, 5, (4, 4), stride=2, padding=(1, 1), affine=affine)


def conv_transpose(affine: bool = False, kernel: int = 4, stride: int = 2):
    return WeightNormConvTranspose2d(3, 5, (kernel, kernel), stride=stride, affine=affine)


def linear(affine: bool = False) -> WeightNormLinear:
    return WeightNormLinear(7, 5, affine=affine)


INPUTS = {linear: (4, 7), conv: (4, 3, 8, 8), conv_transpose: (4, 3, 4, 4)}
KINDS = pytest.mark.parametrize("make", INPUTS, ids=lambda make: make.__name__)


@pytest.mark.parametrize("make", [linear, conv], ids=lambda make: make.__name__)
def test_every_filter_has_unit_norm(make):
    weight = make().effective_weight()
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 1), (6, 3), (4, 1), (2, 2)])
def test_transposed_filters_have_unit_norm_as_seen_from_one_output_pixel(kernel, stride):
    layer = conv_transpose(kernel=kernel, stride=stride)
    weight, side = layer.effective_weight(), 12
    # ‖w‖² of one output pixel: the squares of the taps that reach it, counted one by one. Pixels
    # are reached by different taps, in a pattern of period `stride`: their mean is what counts.
    reached = torch.zeros(5, *[(side - 1) * stride + kernel] * 2)
    for row, column, tap_row, tap_column in itertools.product(
        range(side), range(side), range(kernel), range(kernel)
    ):
        taps = weight[:, :, tap_row, tap_column].square().sum(0)
        reached[:, row * stride + tap_row, column * stride + tap_column] += taps
    inner = reached[:, kernel : kernel + stride * 4, kernel : kernel + stride * 4]
    torch.testing.assert_close(inner.mean((1, 2)), torch.ones(5))


@KINDS
@pytest.mark.parametrize("affine", [False, True])
def test_gradient_is_orthogonal_to_the_weight_vector(make, affine):
    layer = make(affine)
    layer(torch.randn(INPUTS[make])).square().sum().backward()
    gradients, weights = (
        tensor.transpose(0, layer.filter_dim).flatten(1)
        for tensor in (layer.weight.grad, layer.weight)
    )
    assert gradients.norm(dim=1).min() > 1e-3
    cosines = F.cosine_similarity(gradients, weights)
    torch.testing.assert_close(cosines, torch.zeros(5), atol=1e-9, rtol=0)


@KINDS
def test_output_does_not_depend_on_the_length_of_the_weights(make):
    layer, x = make(), torch.randn(INPUTS[make])
    before = layer(x)
    layer.weight.data.mul_(100)
    torch.testing.assert_close(layer(x), before)


@KINDS
def test_strict_layers_have_neither_scale_nor_bias(make):
    assert [name for name, _ in make(affine=False).named_parameters()] == ["weight"]


@KINDS
def test_affine_layers_scale_and_shift_the_strict_output(make):
    affine, strict, x = make(affine=True), make(affine=False), torch.randn(INPUTS[make])
    strict.weight.data.copy_(affine.weight.data)
    assert torch.equal(affine.scale, torch.ones(5))
    affine.scale.data.copy_(torch.arange(1.0, 6.0))
    affine.bias.data.copy_(torch.arange(5.0))
    shape = (1, 5) + (1,) * (strict(x).dim() - 2)
    expected = strict(x) * affine.scale.view(shape) + affine.bias.view(shape)
    torch.testing.assert_close(affine(x), expected)


def test_an_all_zero_filter_gives_zero_and_no_nan():
    layer = linear()
    layer.weight.data.zero_()
    y = layer(torch.ones(1, 7))
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 5))
    assert layer.weight.grad.isfinite().all()


def test_a_smaller_initial_gain_changes_no_output():
    torch.manual_seed(0)
    usual = WeightNormLinear(7, 5)
    torch.manual_seed(0)
    smaller = WeightNormLinear(7, 5, gain=0.01)
    torch.testing.assert_close(smaller.weight, usual.weight * 0.01)
    torch.testing.assert_close(smaller.effective_weight(), usual.effective_weight())


@pytest.mark.parametrize("dims", [(1, 2, 3), (0, 2, 3)])
@pytest.mark.parametrize("share", [1, 4])
def test_normalisation_has_the_gradient_of_its_values(dims, share):
    weight = torch.randn(3, 4, 2, 2, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w: kernels.normalized(w, dims, share, epsilon=0.1), weight
    )


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 1), (6, 3), (3, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_convolutions_to_and_from_images_are_those_of_pytorch(kernel, stride, padding, channels):
    weight = torch.randn(6, channels, kernel, kernel + stride)
    for ours, theirs, inputs, outputs in (
        (kernels.conv_transpose2d, F.conv_transpose2d, 6, channels),
        (kernels.conv2d, F.conv2d, channels, 6),
    ):
        given = (torch.randn(2, inputs, 9, 11), weight, torch.randn(outputs))
        one, other = ([t.clone().requires_grad_() for t in given] for _ in range(2))
        y, expected = ours(*one, stride, padding), theirs(*other, stride, padding)
        torch.testing.assert_close(y, expected)
        probe = torch.randn_like(y)
        gradients = (torch.autograd.grad(a, b, probe) for a, b in ((y, one), (expected, other)))
        torch.testing.assert_close(*gradients)


def rectifier_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 4, generator=rng)
    slope, shift = torch.rand(3, generator=rng), torch.randn(3, generator=rng)
    return x.requires_grad_(), slope.requires_grad_(), shift.requires_grad_()


@pytest.mark.parametrize("shifted", [False, True])
def test_rectifier_has_the_gradient_of_its_values(shifted):
    x, slope, shift = rectifier_inputs()
    assert torch.autograd.gradcheck(RectifyCPU.apply, (x, slope, shift if shifted else None))


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_tprelu_equals_the_three_naive_passes(seed, channels_last):
    x, slope, shift = rectifier_inputs(seed)
    layer = TPReLU(3)
    layer.slope.data.copy_(slope.data)
    layer.shift.data.copy_(shift.data)
    own = x.detach()
    if channels_last:
        own = own.contiguous(memory_format=torch.channels_last)
    own.requires_grad_()
    y, column = layer(own), shift.view(1, 3, 1, 1)
    expected = F.prelu(x - column, slope) + column
    torch.testing.assert_close(y, expected)
    probe = torch.randn_like(x)
    y.backward(probe)
    expected.backward(probe)
    for ours, naive in ((own, x), (layer.slope, slope), (layer.shift, shift)):
        torch.testing.assert_close(ours.grad, naive.grad)


def test_prelu_equals_that_of_pytorch():
    x, ours, theirs = torch.randn(2, 3, 4, 4), PReLU(3), nn.PReLU(3)
    assert torch.equal(ours.slope, theirs.weight)
    torch.testing.assert_close(ours(x), theirs(x))


def test_rectifier_does_not_change_its_input():
    x, slope, shift = rectifier_inputs()
    before = x.detach().clone()
    RectifyCPU.apply(x, slope, shift).sum().backward()
    assert torch.equal(x, before)


def test_slopes_of_tprelu_are_clamped_and_those_of_prelu_are_not():
    network = nn.Sequential(TPReLU(3), PReLU(3))
    for layer in network:
        layer.slope.data.copy_(torch.tensor([-0.5, 0.5, 1.5]))
    clamp_slopes(clamped_slopes(network))
    assert network[0].slope.tolist() == [0.0, 0.5, 1.0]
    assert network[1].slope.tolist() == [-0.5, 0.5, 1.5]


def test_clamping_follows_the_parameters_through_updates():
    layer = TPReLU(1)
    slopes = clamped_slopes(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    layer(torch.full((1, 1, 2, 2), -1.0)).sum().backward()
    optimizer.step()
    assert layer.slope.item() > 1
    clamp_slopes(slopes)
    assert layer.slope.item() == 1


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(conv(), TPReLU(5), WeightNormConv2d(5, 2, (4, 4), affine=True))


def test_held_weights_are_computed_once_and_have_the_same_gradients():
    held, plain = network(), network()
    batches = torch.randn(3, 2, 3, 8, 8)
    with mock.patch.object(
        kernels._Normalize, "apply", side_effect=kernels._Normalize.apply
    ) as normalise:
        with held_weights(held):
            sum(held(batch).square().sum() for batch in batches).backward()
        assert normalise.call_count == 2  # one per layer
        sum(plain(batch).square().sum() for batch in batches).backward()
        assert normalise.call_count == 2 + 3 * 2
    for ours, expected in zip(held.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_held_weights_are_let_go_even_after_an_error():
    net, x = network(), torch.randn(1, 3, 8, 8)
    with pytest.raises(KeyError), held_weights(net):
        raise KeyError
    before = net(x)
    net[0].weight.data.copy_(torch.randn_like(net[0].weight))
    assert not torch.equal(net(x), before)


def parametrized() -> nn.Sequential:
    """Two layers under the weight norm of PyTorch, the second a copy of the first at its start."""
    torch.manual_seed(3)
    first = weight_norm(nn.Linear(4, 4))
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.parametrizations.weight.original1.normal_()
    return nn.Sequential(first, second)


def test_held_weights_of_pytorch_have_the_same_gradients():
    held, plain = parametrized(), parametrized()
    batches = torch.randn(3, 2, 4)
    with held_weights(held):
        assert held[0].weight is held[0].weight
        sum(held(batch).square().sum() for batch in batches).backward()
    assert held[0].weight is not held[0].weight
    sum(plain(batch).square().sum() for batch in batches).backward()
    assert held.state_dict().keys() == plain.state_dict().keys()
    for ours, expected in zip(held.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_weights_of_pytorch_are_let_go_while_another_network_is_held():
    net, x = parametrized(), torch.randn(2, 4)
    with held_weights(parametrized()):
        with held_weights(net):
            before = net(x)
        with torch.no_grad():
            net[0].parametrizations.weight.original1.normal_()
        with held_weights(net):
            after = net(x)
    assert not torch.allclose(after, before)
    assert torch.equal(after, net(x))


def test_every_tensor_that_pytorch_parametrizes_is_held_with_its_gradient():
    net, x = weight_norm(weight_norm(nn.Linear(4, 4)), "bias"), torch.randn(2, 4)
    with held_weights(net):
        with torch.no_grad():
            net(x)
        net(x).sum().backward()
    assert net.parametrizations.bias.original1.grad is not None


def test_a_constant_network_passes_gradients_on_and_gets_none():
    net, x = network(), torch.randn(1, 3, 8, 8, requires_grad=True)
    net[0].weight.requires_grad_(False)
    net(x).sum().backward()
    expected, x.grad = x.grad, None
    net.zero_grad()
    with layers.constant(net):
        y = net(x)
    y.sum().backward()
    assert torch.equal(x.grad, expected)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [False, *[True] * 5]


def test_a_convolution_subtracts_the_shift_of_the_rectifier_after_it():
    plain, ours = network(), network()
    ours.load_state_dict(plain.state_dict())
    subtract_shifts(ours)
    for net in (plain, ours):
        net[1].shift.data.copy_(torch.arange(-2.0, 3.0))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(x), plain(x))
    for net in (plain, ours):
        net(x).square().sum().backward()
    for one, other in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert one[0] == other[0]
        torch.testing.assert_close(one[1].grad, other[1].grad)


def test_a_copy_subtracts_its_own_shifts():
    ours = network()
    subtract_shifts(ours)
    copied, x = copy.deepcopy(ours), torch.randn(2, 3, 8, 8)
    before = copied(x)
    ours[1].shift.data.add_(1)
    assert torch.equal(copied(x), before)
    assert not torch.equal(ours(x), before)


@pytest.mark.parametrize("training", [True, False])
def test_frozen_restores_what_it_changed(training):
    net = nn.Sequential(*network(), nn.BatchNorm2d(2)).train(training)
    net[0].weight.requires_grad_(False)
    with frozen(net):
        assert not net.training
        assert not any(parameter.requires_grad for parameter in net.parameters())
        assert net[0].effective_weight() is net[0].effective_weight()
    assert all(module.training is training for module in net.modules())
    wanted = {name for name, p in net.named_parameters() if p.requires_grad}
    assert wanted == {name for name, _ in net.named_parameters()} - {"0.weight"}
    assert net[0].effective_weight() is not net[0].effective_weight()


def test_frozen_restores_after_an_error():
    net = network()
    with pytest.raises(KeyError), frozen(net):
        raise KeyError
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("transposed", [False, True])
def test_a_fourth_channel_of_zeros_changes_nothing(monkeypatch, float64, transposed: bool):
    """As on a GPU with matrix units, in values and gradients."""
    rng = torch.Generator().manual_seed(3)
    weight = torch.randn(5, 3, 4, 4, generator=rng, requires_grad=True)
    bias = torch.randn(3 if transposed else 5, generator=rng)
    x = torch.randn(2, 5 if transposed else 3, 8, 6, generator=rng, requires_grad=True)
    layer = kernels.conv_transpose2d if transposed else kernels.conv2d
    monkeypatch.setattr(kernels, "_spreads", lambda *_: False)
    expected = layer(x, weight, bias, 2, (1, 1))
    monkeypatch.setattr(kernels, "_is_padded", lambda *_: True)
    found = layer(x, weight, bias, 2, (1, 1))
    torch.testing.assert_close(found, expected)
    given = torch.randn(expected.shape, generator=rng)
    for ours, theirs in zip(
        torch.autograd.grad(found, (x, weight), given),
        torch.autograd.grad(expected, (x, weight), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
