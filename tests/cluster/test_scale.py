"""Cells of different weight on one cluster."""

from __future__ import annotations


def test_cells_of_different_weight_share_a_cluster(sweep):
    made = sweep(
        "weights",
        grid={"norm": ["bn", "wn"]},
        search={"method": "grid", "lr": [1e-4, 2e-4]},
        stop={"rule": "none"},
        scale={"by": {"norm": {"wn": {"workers": 2}}}},
    )
    said = made.run()
    for index in range(2):
        assert f" started (trial bn-00{index};" in said
        assert f" started with 2 workers (trial wn-00{index};" in said
        for trial in (f"bn-00{index}", f"wn-00{index}"):
            assert made.record(trial)["outcome"] == "ok", said
            assert [step for step, _ in made.curve(trial)] == [10, 20, 30, 40]
    # they wait for each other, as they should
    assert "wait for resources" not in said
