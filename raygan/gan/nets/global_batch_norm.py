"""Batch norm over the images of all data-parallel workers together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raygan.gan.workers import Workers


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(_: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the global batch on CPUs, where ``nn.SyncBatchNorm`` does not work."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        # sums of bfloat16 would be too rough
        given, x = x, x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.numel() // x.size(1) * dist.get_world_size()
        mean = self._sum(x.sum((0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = self._sum(centred.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                share: float | Tensor = self.momentum or 0.0
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                    if self.momentum is None:  # the mean over all batches
                        share = self.num_batches_tracked.to(mean.dtype).reciprocal()
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        scale = scale.view(1, -1, 1, 1)
        if self.bias is None:
            y = centred * scale
        else:
            y = torch.addcmul(self.bias.view(1, -1, 1, 1), centred, scale)
        return y.to(given.dtype)

    @staticmethod
    def _sum(tensor: Tensor) -> Tensor:
        total: Tensor = _SumOverWorkers.apply(tensor)
        return total


def synchronize_batch_norm(network: nn.Module, workers: Workers, device: torch.device) -> nn.Module:
    """Let every batch norm of ``network`` use the statistics of the global batch."""
    if workers.count == 1:
        return network
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d
    return network
