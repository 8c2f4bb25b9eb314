"""What is saved when the cluster is lost, before the process ends."""

import json
from types import SimpleNamespace

import pytest

from raygan.storage import Storage
from raygan.sweep.cluster.head import EXIT_LOST
from raygan.sweep.session import conclude, lock
from raygan.sweep.session.lock import Lock
from raygan.sweep.study import stored_sweep
from raygan.sweep.study.study import FLUSH_SECONDS


@pytest.mark.parametrize("opened", [True, False])  # whether MLflow's run was open by then
def test_records_and_runs_are_closed_and_the_lock_is_free(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    sweep = Storage(str(tmp_path / "norms"))
    sweep.write("sweep.yaml", b"name: norms")
    sweep.write("result.json", b'{"finished": false, "versions": {"version.torch": "1"}}')
    closed = []
    at_once = (lambda seconds: closed.append(seconds)) if opened else None
    with Lock(sweep, lambda: None, print) as held:
        session = SimpleNamespace(sweep=sweep, lock=held, signals=SimpleNamespace(at_once=at_once))
        conclude.cluster_lost(session)
        assert lock.read(sweep) is None
    # the records have more time than after a signal: nothing kills this process
    assert closed == [FLUSH_SECONDS] * opened
    versions = {"version.torch": "1"}
    told = json.loads(sweep.read("result.json"))
    assert told == {"exit_code": EXIT_LOST, "finished": False, "versions": versions}


def test_a_sweep_that_has_not_begun_stays_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.0)
    sweep = Storage(str(tmp_path / "norms"))
    with Lock(sweep, lambda: None, print) as held:  # its images are being prepared
        session = SimpleNamespace(sweep=sweep, lock=held, signals=SimpleNamespace(at_once=None))
        conclude.cluster_lost(session)
    assert sweep.files() == []
    assert stored_sweep.stored_spec(sweep) is None  # nothing is missing
