"""Signals to a sweep whose cluster does not answer."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
