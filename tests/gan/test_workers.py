"""1, 2 and 4 data-parallel workers give the same result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gan import data_parallel

COUNTS = (2, 4)
PROCESSES = pytest.mark.cluster
"""Six new processes, whichever of these tests is the first."""
SCRIPT = Path(data_parallel.__file__)
WIDTH = pytest.mark.parametrize("count", COUNTS)
GAME = pytest.mark.parametrize(
    ("count", "game"),
    [(2, game) for game in data_parallel.GAMES] + [(4, game) for game in data_parallel.SOME_GAMES],
)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one worker gets."""
    return data_parallel.everything()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """What each of 2 and each of 4 workers gets."""
    folder = tmp_path_factory.mktemp("workers")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), *map(str, COUNTS)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return {
        count: [torch.load(folder / f"{count}-{rank}.pt") for rank in range(count)]
        for count in COUNTS
    }


@PROCESSES
@GAME
def test_any_number_of_workers_plays_the_same_game(alone, together, count, game):
    torch.testing.assert_close(
        together[count][0]["games"][game], alone["games"][game], rtol=1e-6, atol=1e-9
    )


@PROCESSES
@GAME
def test_all_workers_hold_the_same_networks(together, count, game):
    first, *others = (result["games"][game] for result in together[count])
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)


@PROCESSES
@pytest.mark.parametrize("name", data_parallel.CURVES)
def test_training_has_the_same_curve_up_to_rounding(alone, together, name):
    for result in together[2]:
        for got, expected in zip(result["curves"][name], alone["curves"][name], strict=True):
            assert set(got) == set(expected)
            compared, tolerance = set(got) - {"perf/images_per_second"}, 2e-3
            if name == "bf16":  # of three digits; an image more or less is on D's right side
                compared, tolerance = {m for m in got if "loss" in m}, 1e-2
            for metric in compared:
                assert got[metric] == pytest.approx(expected[metric], rel=tolerance), metric


@PROCESSES
def test_all_workers_have_the_same_quality_of_samples(together):
    one, other = (
        [metrics["val/sliced_wasserstein"] for metrics in result["curves"]["wn"]]
        for result in together[2]
    )
    assert one == other
    assert len(set(one)) == 2


@PROCESSES
def test_workers_agree_on_when_to_keep_and_resume_with_the_same_numbers(together):
    """Their clocks differ; the sums since the last evaluation are of each of them."""
    one, other = (result["resumed"] for result in together[2])
    assert one["kept"] == other["kept"]
    assert one["asked"] == other["asked"] > 2  # Ray's answer is a barrier
    assert len({step for step in one["kept"] if step % 5}) >= 2
    for result in (one, other):
        assert set(result["got"]) == set(one["kept"])
        for step, curve in result["got"].items():
            made = sum(at <= step for at in (5, 9))
            assert curve == result["expected"][made:], step
            assert result["expected"] == one["expected"]


@PROCESSES
def test_workers_stop_after_the_same_iteration_with_one_checkpoint(together):
    one, other = (result["stopped"] for result in together[2])
    assert one == {"told": [5], "step": 6, "stopped": True, "kept": [6]}
    assert other == {**one, "kept": []}


@PROCESSES
@WIDTH
def test_a_batch_that_cannot_be_shared_is_refused(alone, together, count):
    assert alone["refusal"] == ""
    message = f"`batch_size` (=9) must be divisible by the number of workers (={count})"
    assert all(message in result["refusal"] for result in together[count])


def test_a_worker_alone_has_the_whole_batch_and_sums_nothing():
    workers = data_parallel.Workers()
    tensor = torch.ones(3)
    workers.sum_(tensor)
    assert (workers.count, workers.rank) == (1, 0)
    assert (workers.part(9), workers.share(5)) == (slice(0, 9), slice(0, 5))
    assert tensor.tolist() == [1, 1, 1]


@pytest.mark.parametrize("items", [0, 1, 7, 200])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_shares_cover_all_items_and_differ_by_one_at_most(items, count):
    workers = data_parallel.Workers()
    workers.count = count
    shares = []
    for rank in range(count):
        workers.rank = rank
        shares.append(range(items)[workers.share(items)])
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
