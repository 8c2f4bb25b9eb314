"""What replaces PyTorch's own operations where those are slow, mostly on CPUs.

No equation of the paper is here: each function computes what the operation in its name does, and
tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEW = 3
"""Channels of images, to which a CPU's transposed convolution runs at an eighth of its rate."""
_FOURTH = (0, 0, 0, 0, 0, 1)
"""As PyTorch pads: nothing on both sides of columns and rows, one channel after the last."""


def _spread(
    x: Tensor, weight: Tensor, size: Sequence[int], stride: int, padding: tuple[int, int]
) -> Tensor:
    """Transposed convolution as a matrix product whose tiles are added where they overlap.

    To three channels it takes 0.4 times as long as oneDNN's (torch 2.15, AVX-512). The stride
    must divide the kernel's sides: ``rows`` × ``columns`` tiles of stride × stride meet in each.
    """
    count, _, height, width = x.shape
    rows, columns = (side // stride for side in weight.shape[2:])
    taps = x.permute(0, 2, 3, 1).flatten(0, 2) @ weight.permute(0, 2, 3, 1).flatten(1)
    tiles = taps.view(count, height, width, rows, stride, columns, stride, -1)
    # with a tile to spare: a convolution may leave out up to stride − 1 of the last pixels
    grid = (count, height + rows, stride, width + columns, stride, weight.size(1))
    whole = taps.new_zeros(grid)
    for row in range(rows):
        for column in range(columns):
            part = whole[:, row : row + height, :, column : column + width]
            part += tiles[:, :, :, row, :, column].transpose(2, 3)
    image = whole.flatten(1, 2).flatten(2, 3).permute(0, 3, 1, 2)
    return image[:, :, padding[0] :, padding[1] :][:, :, : size[0], : size[1]]


def _spreads(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether :func:`_spread` is possible and faster."""
    divides = all(side % stride == 0 for side in weight.shape[2:])
    # autocast and compiler know PyTorch's own convolutions
    plain = not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
    return x.device.type == "cpu" and plain and weight.size(1) <= _FEW and divides


def _convolution_backward(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, transposed: bool, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The ordinary gradients with respect to the input, the weight and the bias."""
    if not any(wanted):
        return None, None, None
    channels = weight.size(1 if transposed else 0)
    gradients: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, [channels], [ctx.stride] * 2, ctx.padding, [1, 1], transposed,
        [0, 0], 1, list(wanted),
    )  # fmt: skip
    return gradients


class _ToImageCPU(torch.autograd.Function):
    """Transposed convolution to few channels; the backward is the ordinary one."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        sides = zip(x.shape[2:], weight.shape[2:], padding, strict=True)
        size = [(side - 1) * stride + kernel - 2 * pad for side, kernel, pad in sides]
        return _spread(x, weight, size, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = (*ctx.needs_input_grad[:2], False)
        to_x, to_weight, _ = _convolution_backward(ctx, grad, x, weight, True, wanted)
        return to_x, to_weight, None, None


class _FromImageCPU(torch.autograd.Function):
    """Convolution of few channels; its gradient to them is the transposed convolution above."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            wanted = ctx.needs_input_grad[:3]
            to_all = _convolution_backward(ctx, grad, x, weight, False, wanted)
            return *to_all, None, None
        needs_x, *others = ctx.needs_input_grad[:3]
        to_x = None
        if needs_x:
            to_x = _spread(grad, weight, x.shape[2:], ctx.stride, ctx.padding)
        wanted = (False, *others)
        _, to_weight, to_bias = _convolution_backward(ctx, grad, x, weight, False, wanted)
        return to_x, to_weight, to_bias, None, None


def _is_padded(x: Tensor, weight: Tensor) -> bool:
    """Whether a fourth channel of zeros beside an image's three is faster.

    It is where a GPU's matrix units do the work, which take four channels at once. Among
    deterministic convolutions cuDNN has only slow ways for three (torch 2.11, H200, 160 px, batch
    32: the gradient to the images takes 317 µs in TF32, with a fourth channel 152; in bf16 the
    forward pass takes 100 and 69).
    """
    on_matrix_units = torch.backends.cudnn.allow_tf32 or torch.is_autocast_enabled("cuda")
    return x.is_cuda and weight.size(1) == _FEW and on_matrix_units


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
) -> Tensor:
    if _spreads(x, weight, stride):
        y: Tensor = _FromImageCPU.apply(x, weight, bias, stride, padding)
        return y
    if _is_padded(x, weight):
        x, weight = F.pad(x, _FOURTH), F.pad(weight, _FOURTH)
    return F.conv2d(x, weight, bias, stride, padding)


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
) -> Tensor:
    if _spreads(x, weight, stride):
        y: Tensor = _ToImageCPU.apply(x, weight, stride, padding)
    elif _is_padded(x, weight):
        y = F.conv_transpose2d(x, F.pad(weight, _FOURTH), None, stride, padding)[:, :_FEW]
    else:
        return F.conv_transpose2d(x, weight, bias, stride, padding)
    return y if bias is None else y + bias.view(-1, 1, 1)


EPSILON = 1e-12
"""Keeps the norm of an all-zero filter away from 0; below float32's resolution for any other."""


class _Normalize(torch.autograd.Function):
    """v = w / ‖w‖ per filter, with ‖w‖² = (Σ w²) / share + ε over the dimensions ``dims``.

    Written out because the composed form reads and writes the weights twice as often.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, dims: tuple[int, ...], share: int, epsilon: float
    ) -> Tensor:
        if 0 in dims:  # vector_norm is six times as slow as this where memory is not read in order
            squared = weight.square().sum(dim=dims, keepdim=True)
        else:
            squared = torch.linalg.vector_norm(weight, dim=dims, keepdim=True).square_()
        inverse = squared.div_(share).add_(epsilon).rsqrt_()
        unit: Tensor = weight * inverse
        ctx.save_for_backward(unit, inverse)
        ctx.dims, ctx.share = dims, share
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        unit, inverse = ctx.saved_tensors
        product = grad * unit
        along = product.sum(dim=ctx.dims, keepdim=True).div_(-ctx.share)
        torch.addcmul(grad, unit, along, out=product)  # there already: no fresh memory to touch
        return product.mul_(inverse), None, None, None


def normalized(
    weight: Tensor, dims: tuple[int, ...], share: int, epsilon: float = EPSILON
) -> Tensor:
    """``weight`` with filters of unit norm; the norm of a filter: over ``dims``, / √``share``;
    ``epsilon`` is added to its square."""
    if torch.compiler.is_compiling():  # a compiler writes the passes by itself
        squared = weight.square().sum(dim=dims, keepdim=True)
        return weight * squared.div(share).add(epsilon).rsqrt()
    unit: Tensor = _Normalize.apply(weight, dims, share, epsilon)
    return unit


class RectifyCPU(torch.autograd.Function):
    """PReLU_λ(t) + α on a CPU, where PyTorch's own PReLU backward is not vectorised.

    Branch-free and in few passes over the activation: 3.7 times as fast as the backward of
    ``F.prelu`` (torch 2.15, AVX-512). Where the gradient is to be differentiated once more, it is
    composed of operations for which that is known.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, slope: Tensor, shift: Tensor | None) -> Tensor:
        ctx.save_for_backward(t, slope)
        y = F.prelu(t, slope)
        return y if shift is None else y.add_(shift.view(1, -1, 1, 1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        t, slope = ctx.saved_tensors
        _, needs_slope, needs_shift = ctx.needs_input_grad
        if torch.is_grad_enabled():
            grad_t = torch.where(t > 0, grad, grad * slope.view(1, -1, 1, 1))
        else:
            passed = torch.ops.aten.threshold_backward(grad, t, 0.0)  # grad where t > 0, else 0
            grad_t = passed.lerp_(grad, slope.view(1, -1, 1, 1))
        grad_slope = t.clamp_max(0).mul_(grad).sum((0, 2, 3)) if needs_slope else None
        grad_shift = grad.sum((0, 2, 3)) if needs_shift else None
        return grad_t, grad_slope, grad_shift


def rectifies_by_hand(x: Tensor) -> bool:
    """Whether :class:`RectifyCPU` is faster; a compiler fuses the passes by itself."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
