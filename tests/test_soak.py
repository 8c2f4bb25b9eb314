"""What the soak and the measurement of recovery are made of: `tests/bench/soak.py`, `recovery.py`."""

from __future__ import annotations

import copy
import http.client
import json
import socket
from collections import Counter
from collections.abc import Callable

import pytest

from tests.bench import recovery, soak
from tests.bench.aftermath import Copied, Results, differences, mlflow_differences, results_of
from tests.bench.rig import Note


def stored(
    token: str = "0a1b2c3d", speed: float = 9.0, **changes: bytes | None
) -> dict[str, bytes]:
    """The files of a small sweep; ``token`` and ``speed`` are other ones in each run."""
    history = [{"step": n, "val/reconstruction_loss": 1 / n, "perf/x": speed} for n in (10, 20)]
    record = {"outcome": "ok", "kind": "search", "params": {}, "config": {}, "history": history}
    files: dict[str, bytes | None] = {
        "sweep.yaml": b"",
        "tune/experiment_state-1.json": b"",
        "trials/wn-000/record.json": json.dumps(record).encode(),
        "trials/wn-000/record.json.bak": b"",
        "trials/wn-000/images/samples-10.png": b"",
        f"trials/wn-000/checkpoint_20_{token}/step-20.pt": b"",
        "trials/wn-000/final/best.json": json.dumps({"loss": 0.5, "seconds": speed}).encode(),
        **changes,
    }
    return {name: data for name, data in files.items() if data is not None}


def record(change: Callable[[dict], object]) -> dict[str, bytes]:
    """The record, changed."""
    found = json.loads(stored()["trials/wn-000/record.json"])
    change(found)
    return {"trials/wn-000/record.json": json.dumps(found).encode()}


def plan(seed: int) -> list[soak.Planned]:
    minutes = 4 * len(soak.KINDS) / 3
    return soak.plan(soak._parser().parse_args([f"--seed={seed}", f"--minutes={minutes}"]))


def test_a_seed_gives_the_same_plan_with_all_kinds_equally_often():
    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    assert Counter(fault.kind for fault in plan(3)) == dict.fromkeys(soak.KINDS, 4)


def test_each_kind_of_fault_can_be_injected():
    hits = {name.removeprefix("_hit_").replace("_", "-") for name in dir(soak.Soak)}
    assert hits >= soak.KINDS.keys()


def test_what_differs_from_run_to_run_is_no_difference():
    more = {"tune/experiment_state-2.json": b"", "sweep.yaml.bak": b""}
    more["report/wn-seed1-samples-000000040.jpg"] = b""
    more["trials/wn-000/final/"] = b""  # a mark of a folder
    other = stored(token="ffffffff", speed=1.0, **more)
    other.pop("trials/wn-000/images/samples-10.png")
    assert differences(results_of(other), results_of(stored())) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials/wn-000/record.json": None}, "trial wn-000: missing"),
        (record(lambda r: r.update(outcome="failed")), "outcome is failed, not ok"),
        (record(lambda r: r["history"][1].update({"val/reconstruction_loss": 2.0})), "at 20"),
        (record(lambda r: r["history"].pop()), "1 evaluations, not 2"),
        ({"trials/wn-000/final/best.json": b'{"loss": 0.4}'}, "final/best.json"),
        ({"trials/wn-000/record.json.tmp": b""}, "left behind: trials/wn-000/record.json.tmp"),
        ({"trials/wn-000/checkpoint_10_12345678/step-10.pt": b""}, "left behind: trials/wn-000/ch"),
        ({"lock.json": b""}, "left behind: lock.json"),
        ({"sweep.yaml": None}, "missing: sweep.yaml"),
    ],
)
def test_each_difference_is_found(changes, said):
    problems = differences(results_of(stored(**changes)), results_of(stored()))
    assert said in " ".join(problems), problems


COPIED: Copied = {"wn-000": {"val/reconstruction_loss": [(10, 0.1), (20, 0.05)], "perf/x": []}}


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ([(10, 0.1), (10, 0.1), (20, 0.05)], "twice [10]"),
        ([(10, 0.1)], "missing [20]"),
        ([(10, 0.1), (20, 0.06)], "or another value"),
    ],
)
def test_mlflow_must_have_each_step_once(curve, said):
    results = results_of(stored())
    assert mlflow_differences(results, COPIED) == []
    copied = copy.deepcopy(COPIED)
    copied["wn-000"]["val/reconstruction_loss"] = curve
    (problem,) = mlflow_differences(results, copied)
    assert said in problem


def test_mlflow_must_have_each_trial():
    assert mlflow_differences(results_of(stored()), {}) == [
        "MLflow: the run of trial wn-000 is missing"
    ]
    assert mlflow_differences(Results(), COPIED) == [
        "MLflow: the run of trial wn-000 is not expected"
    ]


def test_a_store_whose_disk_is_full_can_still_be_read(store):
    store.put("bucket/a", b"1")
    client = http.client.HTTPConnection("127.0.0.1", store.server_port)
    found = []
    for full in (True, False):
        store.full = full
        for method in ("PUT", "GET"):
            client.request(method, "/bucket/a", body=b"2" if method == "PUT" else None)
            answer = client.getresponse()
            found.append((answer.status, answer.read()))
    client.close()
    assert [status for status, _ in found] == [507, 200, 200, 200]
    assert (found[1][1], found[3][1]) == (b"1", b"2")


def test_a_store_keeps_nothing_of_a_request_that_is_cut(store, monkeypatch):
    monkeypatch.setattr(store, "handle_error", lambda *_: None)
    with socket.create_connection(("127.0.0.1", store.server_port)) as cut:
        cut.sendall(b"PUT /bucket/a HTTP/1.1\r\nContent-Length: 5\r\n\r\n12")
        cut.shutdown(socket.SHUT_WR)
        assert cut.recv(100) == b""
    assert store.objects == {}


def notes(*lines: tuple[str, int, int, float]) -> list[Note]:
    return [Note(what, "wn-000", 0, pid, step, time, born=30.0) for what, pid, step, time in lines]


def test_a_trial_has_recovered_with_its_first_new_evaluation():
    said = notes(
        ("evaluated", 1, 10, 10.0),
        ("evaluated", 1, 20, 20.0),
        ("evaluated", 1, 30, 22.0),  # its raylet was killed at 21, and it trained on
        ("loaded", 2, 0, 33.0),
        ("restored", 2, 10, 34.0),
        ("evaluated", 2, 20, 35.0),
        ("evaluated", 2, 30, 36.0),
        ("evaluated", 2, 40, 38.0),
        ("evaluated", 2, 50, 40.0),
    )
    assert recovery.until_new(said[:-2], 21.0, {1}) == []
    until = recovery.until_new(said, 21.0, {1})
    assert until == said[:-1]
    found = recovery.recovery(21.0, 25.0, until)
    assert found.seconds == 17.0
    assert found.parts == {"noticed": 4, "placed": 5, "started": 3, "restored": 1, "repeated": 4}
