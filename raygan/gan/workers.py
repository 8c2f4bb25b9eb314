"""What data-parallel workers tell each other, through torch.distributed; one worker: nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from raygan.errors import ConfigError


class Workers:
    """This process's place among the data-parallel workers.

    Uses the default process group if ``torch.distributed`` is initialised, else stands alone.
    """

    def __init__(self) -> None:
        alone = not (dist.is_available() and dist.is_initialized())
        self.count = 1 if alone else dist.get_world_size()
        self.rank = 0 if alone else dist.get_rank()

    def part(self, batch_size: int) -> slice:
        """This worker's slice of a global batch; raises ConfigError if it cannot be shared."""
        if batch_size % self.count:
            raise ConfigError(
                f"`batch_size` (={batch_size}) must be divisible by the number of workers "
                f"(={self.count}): it counts the images of all workers together"
            )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def share(self, count: int) -> slice:
        """This worker's share of ``count`` items, in order; shares differ by one at most."""
        return slice(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def sum_(self, *tensors: Tensor) -> None:
        """Add up ``tensors`` over the workers, in place, in one all-reduce (one dtype)."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def summing(
        self, tensors: Sequence[Tensor], like: Sequence[Tensor]
    ) -> Callable[[], Sequence[Tensor]]:
        """Begin to add up ``tensors`` over the workers, in one all-reduce (one dtype).

        What is returned waits for it and gives the sums; until then, other work may go on. Each sum
        lies in memory as its tensor in ``like`` does, so that no worker has to rearrange it.
        """
        if self.count == 1:
            return lambda: tensors
        pairs = list(zip(tensors, like, strict=True))
        flat = torch.cat([_in_memory_order(tensor, other) for tensor, other in pairs])
        exchange = dist.all_reduce(flat, async_op=True)

        def sums() -> Sequence[Tensor]:
            exchange.wait()
            parts = flat.split([other.numel() for other in like])
            return [
                part.as_strided(other.shape, other.stride())
                for part, other in zip(parts, like, strict=True)
            ]

        return sums


def _in_memory_order(tensor: Tensor, like: Tensor) -> Tensor:
    """The elements of ``tensor``, in one dimension, in the order of ``like``'s in memory."""
    if tensor.stride() != like.stride():
        tensor = torch.empty_like(like).copy_(tensor)
    return tensor.as_strided((tensor.numel(),), (1,))
