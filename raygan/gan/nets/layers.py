"""Layers, ordinary and weight-normalised (arXiv 1704.03971, section 3), and held weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from raygan.gan.nets.kernels import EPSILON, conv2d, conv_transpose2d, normalized
from raygan.gan.nets.rectifiers import TPReLU


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


class _WeightNormalized(nn.Module):
    """What the weight-normalised layers share: filters of unit effective norm.

    *Strict* (``affine=False``): y = wᵀx / ‖w‖, without scale or bias (equation 6 of the paper).
    *Affine*: y = γ wᵀx / ‖w‖ + β (equation 4), γ initialised to 1. ``epsilon`` is added to ‖w‖².
    """

    weight: nn.Parameter
    filter_dim: int
    """The dimension of ``weight`` that counts the filters."""
    share: int = 1
    """Outputs over which one input's taps are spread: stride_h · stride_w if transposed."""

    def _setup(self, weight: Tensor, filters: int, affine: bool, epsilon: float) -> None:
        self.weight = nn.Parameter(weight)
        self.scale = nn.Parameter(torch.ones(filters)) if affine else None
        self.bias = nn.Parameter(torch.zeros(filters)) if affine else None
        self.epsilon = epsilon
        self._held: Tensor | None = None
        # none or one TPReLU; the tuple keeps it from being a submodule
        self._rectifier: tuple[TPReLU, ...] = ()

    def offset(self) -> Tensor | None:
        """The bias that is added: β; or −α of the TPReLU after this layer, if
        :func:`subtract_shifts` has set one."""
        for rectifier in self._rectifier:
            return -rectifier.shift
        return self.bias

    def effective_weight(self) -> Tensor:
        """The weight that is applied: γ w / ‖w‖ (γ = 1 if strict), of the shape of ``weight``."""
        if self._held is not None:
            return self._held
        dims = tuple(d for d in range(self.weight.dim()) if d != self.filter_dim)
        unit = normalized(self.weight, dims, self.share, self.epsilon)
        if self.scale is None:
            return unit
        shape = [1] * self.weight.dim()
        shape[self.filter_dim] = -1
        return unit * self.scale.view(shape)


class WeightNormLinear(_WeightNormalized):
    """Weight-normalised linear layer: [N, in] → [N, out].

    ``gain`` multiplies the initial weights; it does not change the output, but the first
    steps are larger the smaller the weights are (the authors' code starts the generator's
    first layer at 1/100).
    """

    filter_dim = 0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        affine: bool = False,
        gain: float = 1.0,
        epsilon: float = EPSILON,
    ):
        super().__init__()
        self.bound = gain / math.sqrt(inputs)
        weight = torch.empty(outputs, inputs).uniform_(-self.bound, self.bound)
        self._setup(weight, outputs, affine, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective_weight(), self.bias)


class WeightNormConv2d(_WeightNormalized):
    """Weight-normalised convolution: [N, in, H, W] → [N, out, H', W']."""

    filter_dim = 0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        affine: bool = False,
        epsilon: float = EPSILON,
    ):
        super().__init__()
        # borrowed for PyTorch's default initialisation
        weight = nn.Conv2d(inputs, outputs, kernel, bias=False).weight.data
        self._setup(weight, outputs, affine, epsilon)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.effective_weight(), self.offset(), self.stride, self.padding)


class WeightNormConvTranspose2d(_WeightNormalized):
    """Weight-normalised transposed convolution: [N, in, H, W] → [N, out, H', W'].

    One output gathers kernel / stride² taps per input channel, so ‖w‖² sums over input
    channels and taps and is divided by stride² (arXiv 1704.03971, section 3).
    """

    filter_dim = 1

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: tuple[int, int] = (0, 0),
        affine: bool = False,
        epsilon: float = EPSILON,
    ):
        super().__init__()
        weight = nn.ConvTranspose2d(inputs, outputs, kernel, bias=False).weight.data
        self._setup(weight, outputs, affine, epsilon)
        self.stride, self.padding, self.share = stride, padding, stride * stride

    def forward(self, x: Tensor) -> Tensor:
        weight = self.effective_weight()
        return conv_transpose2d(x, weight, self.offset(), self.stride, self.padding)


class _Held(parametrize.ParametrizationList):
    """What PyTorch computes a parametrised tensor with, while the tensor is held."""

    held: Tensor

    def forward(self) -> Tensor:
        return self.held


@contextmanager
def held_weights(*networks: nn.Module) -> Iterator[None]:
    """Within it the normalised weights are those at its start: computed once, used often.

    Those that PyTorch parametrises, too. Under spectral norm, this is one power iteration, however
    often they are used (Miyato et al. 2018, algorithm 1). PyTorch's own ``parametrize.cached``
    would hold them until the last network is let go: D's beyond D's update, if G is held around it.
    """
    modules = [module for network in networks for module in network.modules()]
    layers = [module for module in modules if isinstance(module, _WeightNormalized)]
    parametrized = [m for m in modules if type(m) is parametrize.ParametrizationList]
    try:
        for layer in layers:
            layer._held = layer.effective_weight()
        for each in parametrized:
            vars(each)["held"] = each()  # past nn.Module, which would make a parameter of one
            each.__class__ = _Held
        yield
    finally:
        for layer in layers:
            layer._held = None
        for each in parametrized:
            each.__class__ = parametrize.ParametrizationList
            vars(each).pop("held", None)


@contextmanager
def constant(network: nn.Module) -> Iterator[None]:
    """Within it the parameters of ``network`` are constants: gradients only pass through."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within it ``network`` is in eval mode, its weights are constants and held."""
    training = network.training
    network.eval()
    try:
        with constant(network), held_weights(network):
            yield
    finally:
        network.train(training)


def subtract_shifts(layers: Sequence[nn.Module]) -> None:
    """Let each convolution without a bias subtract the α of the TPReLU that follows it.

    This saves one pass over the activations.
    """
    for layer, rectifier in pairwise(layers):
        if (
            isinstance(layer, (WeightNormConv2d, WeightNormConvTranspose2d))
            and isinstance(rectifier, TPReLU)
            and layer.bias is None
        ):
            layer._rectifier = (rectifier,)
            rectifier.translated = True
