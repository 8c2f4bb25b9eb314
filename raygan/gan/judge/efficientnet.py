"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation, with ReLU6) as a fixed map
from images to 1,280 features.

Each convolution is followed by batch normalisation with fixed statistics, which is folded into its
weights here. Padding is TensorFlow's "same": where it is odd, the end gets one pixel more. Pixels
are normalised as in training: (x − 127) / 128 for x in 0…255.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raygan.gan.arithmetic import arithmetic
from raygan.gan.judge import weights

SIDE = 96
"""Pixels to which images are enlarged or reduced."""
FEATURES = 1_280
BATCH = 64
EPSILON = 1e-3
"""Of batch normalisation."""

STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
"""Blocks, kernel, stride of the first block, expansion, output channels."""


class _Convolution(nn.Module):
    """Convolution with "same" padding and folded batch normalisation, then perhaps ReLU6."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self, state: Mapping[str, Tensor], convolution: str, norm: str, *, stride: int = 1,
        depthwise: bool = False, relu: bool = True,
    ):  # fmt: skip
        super().__init__()
        weight = state[f"{convolution}.weight"].double()
        scale, shift, mean, variance = (
            state[f"{norm}.{name}"].double()
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / (variance + EPSILON).sqrt()
        folded = (weight * scale[:, None, None, None]).float()
        self.register_buffer("weight", folded.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", (shift - mean * scale).float())
        self.kernel, self.stride = weight.shape[2], stride
        self.groups = len(weight) if depthwise else 1
        self.relu = relu

    def forward(self, images: Tensor) -> Tensor:
        if self.kernel > 1:
            rows, columns = (self._pads(side) for side in images.shape[2:])
            images = F.pad(images, (*columns, *rows))
        images = F.conv2d(images, self.weight, self.bias, self.stride, groups=self.groups)
        return F.relu6(images) if self.relu else images

    def _pads(self, side: int) -> tuple[int, int]:
        """Pixels before and after, so that ⌈side / stride⌉ remain."""
        pads = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        return pads // 2, pads - pads // 2


class _Block(nn.Module):
    """Inverted residual: 1×1 expansion, depthwise convolution, 1×1 projection, and the input added
    where the shape stays."""

    def __init__(
        self, state: Mapping[str, Tensor], name: str, expansion: int, stride: int, skip: bool
    ):
        super().__init__()
        layers = [
            _Convolution(state, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride,
                         depthwise=True),
            _Convolution(state, f"{name}._project_conv", f"{name}._bn2", relu=False),
        ]  # fmt: skip
        if expansion > 1:
            layers.insert(0, _Convolution(state, f"{name}._expand_conv", f"{name}._bn0"))
        self.layers = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.layers(images)
        return made + images if self.skip else made


class EfficientNetLite0(nn.Module):
    """[N, 3, H, W] in [0, 1] → [N, 1280], the mean over the last layer's positions."""

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        blocks: list[_Block] = []
        channels = [32, *(stage[-1] for stage in STAGES)]
        for (inputs, outputs), stage in zip(pairwise(channels), STAGES, strict=True):
            count, _, stride, expansion, _ = stage
            for number in range(count):
                first = number == 0
                skip = not first or (stride == 1 and inputs == outputs)
                name = f"_blocks.{len(blocks)}"
                blocks.append(_Block(state, name, expansion, stride if first else 1, skip))
        self.layers = nn.Sequential(
            _Convolution(state, "_conv_stem", "_bn0", stride=2),
            *blocks,
            _Convolution(state, "_conv_head", "_bn1"),
        )

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images * 255 - 127) / 128
        made: Tensor = self.layers(pixels.contiguous(memory_format=torch.channels_last))
        return made.mean((2, 3))


def state() -> dict[str, Tensor]:
    """The trained weights; raises :class:`~raygan.errors.ConfigError` as ``weights.read``."""
    read: dict[str, Tensor] = torch.load(
        io.BytesIO(weights.read()), map_location="cpu", weights_only=True
    )
    return read


@lru_cache(maxsize=4)
def network(device: torch.device) -> EfficientNetLite0:
    """The trained network on ``device``, loaded once per process."""
    return EfficientNetLite0(state()).to(device).eval()


@arithmetic("fp32")
@torch.no_grad()
def features(images: Tensor, batch: int = BATCH) -> Tensor:
    """[N, C, H, W] in [0, 1], grey or of three channels → features [N, 1280], in float32."""
    net = network(images.device)
    made = [net(prepared(part)) for part in images.split(batch) if len(part)]
    return torch.cat(made) if made else images.new_zeros(0, FEATURES)


def prepared(images: Tensor) -> Tensor:
    """Images of three channels and 96×96 pixels, resized bilinearly with antialiasing."""
    images = images.expand(-1, 3, -1, -1)
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
