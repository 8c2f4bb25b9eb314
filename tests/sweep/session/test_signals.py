"""Signals to a sweep, also to one whose cluster does not answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from raygan.sweep.session import conclude, signals
from raygan.sweep.session import run as running_sweep
from raygan.sweep.session.signals import StopSignals

STUCK = """
import signal, sys, time
from raygan.sweep.session import signals

signals.PATIENCE = float(sys.argv[1])
with signals.StopSignals() as stop:
    signal.signal(signal.SIGUSR1, lambda *_: None)  # as Tune does
    stop.at_once = lambda: print("closed", flush=True)
    print("ready", flush=True)
    for _ in range(int(sys.argv[2])):
        time.sleep(0.1)
    stop.wait()
print("in order", flush=True)
sys.exit(stop.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("patience", "busy", "said"), [(0.2, 600, "closed"), (60, 5, "closed in order")]
)
def test_the_process_ends_whether_ray_does_or_not(number, code, patience, busy, said):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(patience), str(busy)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=50)
    assert process.returncode == code, err
    assert " ".join(out.split()) == said
    assert ("the same command resumes the sweep" in err) == (busy == 600)


@pytest.fixture
def stop(monkeypatch) -> Iterator[StopSignals]:
    """Within Tune; what happens is in ``stop.events``."""
    monkeypatch.setattr(signals, "PATIENCE", 60.0)
    with StopSignals() as found:
        signal.signal(signal.SIGUSR1, lambda *_: None)  # as Tune does
        found.events = []
        found.at_once = lambda: found.events.append("records and MLflow")
        found.last_checkpoints = lambda seconds: found.events.append(seconds)
        monkeypatch.setattr(
            os, "kill", lambda _, number: found.events.append(signal.Signals(number).name)
        )
        yield found
    assert found._thread is not None
    found._thread.join(60)
    assert not found._thread.is_alive()


@pytest.mark.parametrize("asked", [False, True])
def test_workers_have_time_for_a_last_checkpoint_before_all_else(stop, asked):
    if asked:  # `raygan stop`
        stop.stop()
        assert stop.events.pop() == "SIGTERM"
    stop._stop(signal.SIGTERM if asked else signal.SIGINT, None)
    stop.wait()
    assert stop.events == [30.0, "SIGUSR1", "records and MLflow"]


def test_where_time_is_short_nothing_waits_for_the_last_checkpoints(stop):
    """`ray job stop` kills 3 seconds after SIGTERM."""
    written = threading.Event()

    def keep(seconds: float) -> None:
        assert written.wait(60)
        stop.events.append(seconds)

    stop.last_checkpoints = keep
    stop._stop(signal.SIGTERM, None)
    stop.wait()
    assert stop.events == ["records and MLflow"]
    written.set()
    stop._ended.set()  # no signal is sent once Tune is left
    stop._thread.join(60)
    assert stop.events == ["records and MLflow", 2.0]


def test_a_second_signal_ends_the_waiting(stop):
    stop.last_checkpoints = lambda _: stop.events.append(stop.again.wait(60))
    stop._stop(signal.SIGINT, None)
    assert stop.events == []
    with pytest.raises(SystemExit) as caught:
        stop._stop(signal.SIGINT, None)
    stop.wait()
    assert caught.value.code == 130
    assert stop.events == [True, "SIGUSR1", "records and MLflow"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_workers_that_cannot_be_asked_hold_nothing_up(stop):
    def fail(_: float) -> None:
        raise RuntimeError("the cluster is gone")

    stop.last_checkpoints = fail
    stop._stop(signal.SIGINT, None)
    stop.wait()
    assert stop.events == ["SIGUSR1", "records and MLflow"]


def test_mlflow_does_not_wait_for_the_records_when_time_is_short():
    done, record = [], SimpleNamespace(outcome=None)
    study = SimpleNamespace(records={"a": record}, flush=lambda _: done.append("records"))
    tracker = SimpleNamespace(
        update=lambda *_, **__: done.append("told"), close=lambda _: done.append("closed")
    )
    conclude.close_interrupted(study, tracker)
    assert done == ["told", "records", "closed"]


def test_only_trials_whose_workers_train_are_asked_for_a_last_checkpoint():
    said, asked = [], []
    session = SimpleNamespace(
        say=said.append, warn=said.append, signals=SimpleNamespace(again=object())
    )
    study = SimpleNamespace(counted_until={"a": 1.0, "waits": None, "b": 2.0})

    def ask(running, seconds, again):
        asked.append((running(), seconds, again))
        return {"b"}

    running_sweep._keep_last(session, study, SimpleNamespace(ask=ask), 2.0)
    assert asked == [(["a", "b"], 2.0, session.signals.again)]
    assert said[0].startswith("Stopping: 2 trials write a last checkpoint, for at most 2 s.")
    assert said[1].startswith("1 trials have not written a last checkpoint in time.")
    said.clear()
    study.counted_until = {}
    running_sweep._keep_last(session, study, SimpleNamespace(ask=lambda *_: set()), 2.0)
    assert said == []
