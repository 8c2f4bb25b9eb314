"""Row 19: the same sweep is submitted while it runs."""

from __future__ import annotations

import signal
import socket

import pytest

from raygan.storage import Storage
from raygan.sweep.session import lock
from tests.clusters import PATIENCE, wait_until

JOINED = "trials at once"
"""Said when Ray is there, just before the first trial."""


@pytest.mark.soak
def test_second_is_refused_until_the_first_is_dead(sweep):
    made = sweep("twice", train={"iterations": 100_000})
    folder = Storage(str(made.storage / made.name))
    with made.running() as first:
        wait_until(lambda: made.log.exists() and JOINED in made.log.read_text(), "it runs", first)
        output = made.run(code=2)
        assert f"is being run by process {first.pid} on {socket.gethostname()}, since 20" in output
        assert "raygan stop twice" in output
        assert "--set name=" in output
        assert output.count(JOINED) == 1
        assert (first.poll(), lock.read(folder).pid) == (None, first.pid)
        first.kill()
        first.wait(30)
    with made.running() as third:
        wait_until(lambda: made.log.read_text().count(JOINED) == 2, "it is taken over", third)
        assert lock.read(folder).pid == third.pid
        third.send_signal(signal.SIGTERM)
        assert third.wait(PATIENCE) == 143
    assert lock.read(folder) is None
