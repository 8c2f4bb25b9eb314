"""A running mean of a network over its updates."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average:
    """The mean of a network's states θ₁ … θₜ with weights d^(t − k), d being the ``decay``.

    ``network`` holds it: θ̄ₜ = θ̄ₜ₋₁ + (1 − d) / (1 − dᵗ) · (θₜ − θ̄ₜ₋₁), the exponential moving
    average without its bias to the start (as in Kingma & Ba 2015, section 3). Parameters and
    floating-point buffers (the running statistics of batch norm) are averaged, others copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._decay = decay
        self._pairs = _tensors(self.network), _tensors(network)
        self._counts = list(zip(*map(_counts, (self.network, network)), strict=True))

    @torch.no_grad()
    def update(self, count: int) -> None:
        """Take in the network's state after its update number ``count`` (from 1)."""
        share = (1 - self._decay) / (1 - self._decay**count)
        torch._foreach_lerp_(*self._pairs, share)
        for own, other in self._counts:
            own.copy_(other)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    every = [*network.parameters(), *network.buffers()]
    return [tensor for tensor in every if tensor.is_floating_point()]


def _counts(network: nn.Module) -> list[torch.Tensor]:
    return [buffer for buffer in network.buffers() if not buffer.is_floating_point()]
