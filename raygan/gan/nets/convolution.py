"""Convolutions that are as fast to and from images as between features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
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


class Conv2d(nn.Conv2d):
    """PyTorch's convolution with square strides, faster where it reads images on a CPU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int,
        padding: tuple[int, int],
    ):  # fmt: skip
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.pads = padding

    def forward(self, input: Tensor) -> Tensor:
        return conv2d(input, self.weight, self.bias, self.stride[0], self.pads)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's transposed convolution, faster where it makes images on a CPU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int,
        padding: tuple[int, int],
    ):  # fmt: skip
        super().__init__(inputs, outputs, kernel, stride, padding)
        self.pads = padding

    def forward(self, input: Tensor, _: list[int] | None = None) -> Tensor:
        return conv_transpose2d(input, self.weight, self.bias, self.stride[0], self.pads)
