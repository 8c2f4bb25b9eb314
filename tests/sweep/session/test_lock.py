import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from raygan.errors import LockedError
from raygan.storage import Storage
from raygan.sweep.session import lock
from raygan.sweep.session.lock import Holder, Lock

HOLD = """
import sys, time
from raygan.storage import Storage
from raygan.sweep.session.lock import Lock
with Lock(Storage(sys.argv[1]), stop=lambda: None, lost=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path / "norms"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.05)


@pytest.fixture
def holder(sweep):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, sweep.uri]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def hold(sweep: Storage, stop=lambda: None, lost=lambda holder: None) -> Lock:
    return Lock(sweep, stop, lost)


def elsewhere(sweep: Storage, **changes) -> Holder:
    """The lock as a process on another host has written it."""
    fields = {
        "host": "node-7", "space": "", "pid": 1, "born": 1.0, "job": "raysubmit_1",
        "since": "2026-01-02 03:04:05", "token": "other", "every": 0.02,
    }  # fmt: skip
    found = Holder(**{**fields, **changes})
    sweep.write(lock.LOCK_FILE, json.dumps(found.__dict__).encode())
    return found


def test_lock_is_held_and_given_back(sweep):
    with hold(sweep):
        mine = lock.read(sweep)
        assert (mine.host, mine.pid) == (socket.gethostname(), os.getpid())
        assert lock.is_alive(sweep, mine)
    assert lock.read(sweep) is None
    with hold(sweep):
        pass


def test_the_holder_tells_how_long_ago_trials_have_reported(sweep):
    with hold(sweep) as mine:
        assert lock.read(sweep).signs is None
        mine.signs = lambda: {"bn-000": 12.5}
        before = lock.read(sweep)
        mine.beat()
        now = lock.read(sweep)
    assert now.signs == {"bn-000": 12.5}
    assert now.beat > before.beat


def test_second_is_refused_and_the_first_is_named(sweep, holder):
    with pytest.raises(LockedError) as caught, hold(sweep):
        pass
    message = str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()}, since 20" in message
    assert "raygan stop norms --storage" in message
    assert lock.read(sweep).pid == holder.pid  # untouched


def test_lock_of_a_killed_process_is_taken_over(sweep, holder):
    holder.kill()
    holder.wait()
    assert lock.read(sweep).pid == holder.pid
    with hold(sweep):
        assert lock.read(sweep).pid == os.getpid()


def test_zombie_holds_nothing(sweep):
    with hold(sweep):
        mine = lock.read(sweep)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has reaped it
    assert not lock.is_alive(sweep, replace(mine, pid=dead.pid, born=lock._born(os.getpid())))
    dead.wait()


def test_clock_that_is_set_changes_no_identity(sweep, monkeypatch):
    with hold(sweep):
        mine = lock.read(sweep)
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 1.0)
        assert lock.is_alive(sweep, mine)


def test_process_number_that_was_given_out_again_is_no_holder(sweep):
    with hold(sweep):
        mine = lock.read(sweep)
    assert not lock.is_alive(sweep, replace(mine, born=mine.born - 1))


def test_silent_holder_on_another_host_is_taken_over(sweep):
    elsewhere(sweep)
    with hold(sweep):
        assert lock.read(sweep).pid == os.getpid()


def test_same_process_number_in_another_container_says_nothing(sweep):
    with hold(sweep):
        mine = lock.read(sweep)
    other = elsewhere(sweep, host=mine.host, pid=mine.pid, born=mine.born, space="pid:[1]")
    assert not lock.is_alive(sweep, other)  # silent, though such a process is here


def test_holder_on_another_host_that_gives_signs_of_life_is_left_alone(sweep):
    found = elsewhere(sweep, every=0.1)
    done = threading.Event()

    def beat() -> None:
        number = 0
        while not done.wait(0.02):
            number += 1
            elsewhere(sweep, every=0.1, beat=number)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with (
            pytest.raises(LockedError, match="node-7, job raysubmit_1, since 2026-01-02"),
            hold(sweep),
        ):
            pass
    finally:
        done.set()
        thread.join()
    assert found.token == lock.read(sweep).token


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"host": 1}'])
def test_half_a_lock_holds_nothing(sweep, damage):
    sweep.write(lock.LOCK_FILE, damage)
    with hold(sweep):
        assert lock.read(sweep).pid == os.getpid()


def test_holder_is_asked_to_stop_once(sweep):
    asked = threading.Semaphore(0)
    with hold(sweep, stop=asked.release):
        lock.ask_to_stop(sweep, lock.read(sweep))
        assert asked.acquire(timeout=10)
        assert not asked.acquire(timeout=0.2)


def test_stop_that_was_meant_for_another_is_not_heeded(sweep):
    asked = threading.Semaphore(0)
    with hold(sweep, stop=asked.release):
        lock.ask_to_stop(sweep, replace(lock.read(sweep), token="an earlier run"))
        assert not asked.acquire(timeout=0.3)
        assert sweep.read(lock.STOP_FILE) is None


def test_one_whose_lock_was_taken_hears_of_it_and_leaves_it(sweep):
    taken = threading.Semaphore(0)
    with hold(sweep, lost=lambda holder: taken.release()):
        elsewhere(sweep)
        assert taken.acquire(timeout=10)
    assert lock.read(sweep).token == "other"


@pytest.mark.parametrize("full", [False, True])
def test_a_process_whose_lock_was_taken_ends_even_if_it_cannot_say_so(
    sweep, monkeypatch, capsys, full
):
    def no_room(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    codes: list[int] = []
    monkeypatch.setattr(lock.os, "_exit", codes.append)
    with Lock(sweep, lambda: None, print):
        other = lock.read(sweep)
    if full:
        monkeypatch.setattr("builtins.print", no_room)
    lock.leave(other)
    assert codes == [2]
    assert ("this sweep is now run by" in capsys.readouterr().err) != full


def test_of_two_that_lock_at_once_one_gets_it(sweep, monkeypatch):
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.3)
    barrier, outcomes = threading.Barrier(2), []

    def compete() -> None:
        barrier.wait()
        try:
            with hold(sweep):
                outcomes.append("held")
                barrier.wait(timeout=5)
        except LockedError:
            outcomes.append("refused")
            barrier.wait(timeout=5)

    threads = [threading.Thread(target=compete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


@pytest.mark.parametrize(
    "changes",
    [{"pid": -1}, {"pid": 2**40}, {"pid": "1"}, {"every": 7200}, {"every": "x"}, {"born": "x"}],
    ids=str,
)
def test_lock_that_no_holder_writes_holds_nothing(sweep, changes):
    elsewhere(sweep, **changes)
    assert lock.read(sweep) is None


def test_lock_of_a_later_version_holds(sweep):
    content = {**elsewhere(sweep).__dict__, "new": 1}
    sweep.write(lock.LOCK_FILE, json.dumps(content).encode())
    assert lock.read(sweep).token == "other"


def test_holder_is_named_without_control_characters(sweep):
    assert "\x1b" not in str(elsewhere(sweep, host="a\x1b[31m"))


@pytest.mark.parametrize("request_", [b"[" * 10**5, b"[]", b'{"token": 1}'])
def test_damaged_request_to_stop_is_not_heeded(sweep, request_):
    asked = threading.Semaphore(0)
    with hold(sweep, stop=asked.release):
        sweep.write(lock.STOP_FILE, request_)
        assert not asked.acquire(timeout=0.2)
        assert sweep.read(lock.STOP_FILE) is None
