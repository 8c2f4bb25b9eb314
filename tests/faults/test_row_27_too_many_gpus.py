"""Row 27: a trial asks for more than the cluster can ever have.

With an autoscaler, or where one is expected: tests/cluster/test_autoscaling.py.
"""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("scale", "asked"),
    [
        ({"gpus_per_worker": 1.0}, "1 workers of 1 CPUs and 1 GPUs each"),
        ({"workers": 8}, "8 workers of 1 CPUs and 0 GPUs each"),
    ],
)
def test_it_is_refused_before_any_trial(sweep, scale, asked):
    made = sweep(f"greedy{len(asked)}", scale=scale)
    output = made.run(code=2)
    assert f"one trial asks for {asked}" in output
    assert "the cluster's nodes have 2 CPUs and 0 GPUs: it can never start" in output
    assert "lower `scale.workers`, `scale.cpus_per_worker` or `scale.gpus_per_worker`" in output
    assert not (made.storage / made.name / "trials").exists()
