"""Batch norm over all workers on CPUs, as one worker sees it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from raygan.gan.nets.global_batch_norm import synchronize_batch_norm
from raygan.gan.workers import Workers


@pytest.fixture
def one_of_one(monkeypatch) -> Workers:
    """A worker that believes to be one of several, and is alone."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    workers = Workers()
    workers.count = 2
    return workers


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"affine": False},
        {"momentum": None},
        {"momentum": 0.0},
        {"momentum": 0.3, "eps": 0.1},
        {"track_running_stats": False},
        {"affine": False, "momentum": None},
    ],
    ids=str,
)
def test_it_is_the_batch_norm_that_it_replaces(one_of_one, options):
    plain = nn.BatchNorm2d(3, **options)
    for parameter in plain.parameters():
        nn.init.normal_(parameter)
    ours = synchronize_batch_norm(copy.deepcopy(plain), one_of_one, torch.device("cpu"))
    assert type(ours) is not nn.BatchNorm2d
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5).add_(2).requires_grad_()
        same = x.detach().clone().requires_grad_()
        y, expected = ours(x), plain(same)
        torch.testing.assert_close(y, expected)
        weights = torch.randn_like(y)
        (y * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(x.grad, same.grad)
        torch.testing.assert_close(dict(ours.state_dict()), dict(plain.state_dict()))
    for parameter, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("affine", [True, False])
def test_bfloat16_is_summed_in_single_precision(one_of_one, affine):
    plain = nn.BatchNorm2d(1, affine=affine)
    ours = synchronize_batch_norm(copy.deepcopy(plain), one_of_one, torch.device("cpu"))
    x = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = ours(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, plain(x.float()).bfloat16())
    torch.testing.assert_close(ours.running_var, plain.running_var)
