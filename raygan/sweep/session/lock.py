"""One sweep, one driver: a lock in the sweep's storage, and the way to ask its holder to stop.

Works wherever the storage is, on any number of hosts, and orders nothing by the wall clock: a
holder writes a counter every few seconds, and one whose counter stands still is dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated

import psutil
from pydantic import Field, StringConstraints, TypeAdapter

from raygan import stored
from raygan.errors import LockedError, RayganError
from raygan.folder import LOCK_FILE, STOP_FILE
from raygan.shown import shown
from raygan.storage import Storage, usable

BEAT_SECONDS, BEAT_SECONDS_REMOTE = 2.0, 10.0
"""Time between two signs of life on a file system, and on object storage."""
SILENCE_BEATS = 8
"""A holder elsewhere that was silent for so many beats is dead."""
SETTLE_SECONDS = 0.5
"""How long it takes until two that lock at the same moment see each other."""
_MOST_SECONDS = 60.0
"""Between two beats of a holder that is to be believed: nobody waits for longer."""

_Text = Annotated[str, StringConstraints(max_length=1000)]


@dataclass(frozen=True)
class Holder:
    """Who runs a sweep, or copies one that does not run to MLflow."""

    __pydantic_config__ = stored.STRICT

    host: _Text
    space: _Text
    """The process numbers that ``pid`` is one of: each boot, and each container, has its own."""
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    born: stored.Metric
    """When the process was started, in the clock ticks of its kernel: numbers are given out again.
    """
    job: _Text | None
    """Ray job, if it was submitted as one."""
    since: _Text
    """UTC, for people."""
    token: _Text
    every: Annotated[float, Field(gt=0, le=_MOST_SECONDS)]
    """Seconds between two beats."""
    beat: stored.Count = 0
    signs: dict[stored.Word, stored.Seconds] | None = None
    """By trial whose workers have reported, seconds from its last report to this beat, by the
    holder's own clock: that of whoever reads it may differ. None before the first beat."""
    copies: bool = False
    """Whether it only copies what is stored to MLflow: nothing of the sweep runs."""

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return shown(f"process {self.pid} on {self.host}{job}, since {self.since} UTC")


@dataclass(frozen=True)
class _Request:
    """The contents of :data:`STOP_FILE`."""

    __pydantic_config__ = stored.STRICT

    token: _Text


_HOLDER, _REQUEST = TypeAdapter(Holder), TypeAdapter(_Request)


def read(sweep: Storage) -> Holder | None:
    """Who holds the lock, dead or alive; nobody does if it is damaged."""
    data = sweep.read(LOCK_FILE, stored.MOST_BYTES + 1)
    try:
        return stored.parse(_HOLDER, data) if data else None
    except ValueError:
        return None


def is_alive(sweep: Storage, holder: Holder) -> bool:
    """Whether ``holder`` still runs; on another host, waits for a sign of life."""
    if is_of_this_host(holder):
        return _born(holder.pid) == holder.born
    deadline = time.monotonic() + SILENCE_BEATS * min(holder.every, BEAT_SECONDS_REMOTE)
    while time.monotonic() < deadline:
        time.sleep(holder.every / 2)
        now = read(sweep)
        if now is None:
            return False
        if now != holder:
            return True
    return False


def is_of_this_host(holder: Holder) -> bool:
    """Whether ``holder``'s process number means something here."""
    return (holder.host, holder.space) == (socket.gethostname(), _space())


def ask_to_stop(sweep: Storage, holder: Holder) -> None:
    """Let ``holder`` stop in order, as on SIGTERM, wherever it runs."""
    sweep.write(STOP_FILE, json.dumps(asdict(_Request(holder.token))).encode())


def leave(holder: Holder) -> None:
    """End this process at once: ``holder`` has taken its lock."""
    # whatever this process would write now, the other one may have written, too
    with contextlib.suppress(OSError):  # a log on a full disk
        print(f"error: this sweep is now run by {shown(holder)}", file=sys.stderr, flush=True)
    os._exit(2)


class Lock:
    """Held while a sweep runs or is copied; to be used as a context manager.

    Raises :class:`~raygan.errors.LockedError` if another process, which is alive, holds it. A
    dead one's lock is taken over. On a thread of the lock's, ``stop`` is called when somebody
    asks for it, and ``lost`` when somebody has taken the lock all the same: this process, having
    been silent for long, was thought dead. ``advice``: what the error tells the user to do
    while the sweep runs; by default, to one who wants to run it. ``copies``: that of
    :class:`Holder`. :attr:`signs` may be set to what returns
    :attr:`Holder.signs`; it is called on that thread.
    """

    signs: Callable[[], dict[str, float]] | None = None

    def __init__(
        self,
        sweep: Storage,
        stop: Callable[[], None],
        lost: Callable[[Holder], None],
        advice: str | None = None,
        *,
        copies: bool = False,
    ) -> None:
        self._sweep, self._stop, self._lost = sweep, stop, lost
        self._stopping = f"stop it (raygan stop {sweep.name} --storage {sweep.parent})"
        self._advice = advice or (
            f"wait for it, {self._stopping}, or give this one another name (--set name=…)"
        )
        self._every = BEAT_SECONDS if sweep.is_local else BEAT_SECONDS_REMOTE
        self._mine = Holder(
            host=socket.gethostname(),
            space=_space(),
            pid=os.getpid(),
            born=_born(os.getpid()) or 0.0,
            job=_submission(),
            since=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            token=uuid.uuid4().hex,
            every=self._every,
            copies=copies,
        )
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> Lock:
        with usable(self._sweep):
            before = read(self._sweep)
            if before is not None and is_alive(self._sweep, before):
                raise self._refusal(read(self._sweep) or before)
            self._write()
            time.sleep(SETTLE_SECONDS)
            self.confirm()
        self._thread.start()
        return self

    def confirm(self) -> None:
        """See that nobody else has written the lock since; raises LockedError."""
        now = read(self._sweep)
        if now is None or now.token != self._mine.token:
            raise self._refusal(now or self._mine)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._thread.join(2 * BEAT_SECONDS)
        with contextlib.suppress(
            OSError, RayganError
        ):  # it will be taken for what it is: a dead one's
            now = read(self._sweep)
            if now is not None and now.token == self._mine.token:
                self._sweep.delete(LOCK_FILE)

    def _refusal(self, holder: Holder) -> LockedError:
        does = "run"
        advice = self._advice
        if holder.copies:
            does, advice = "copied to MLflow", f"wait until it ends, or {self._stopping}"
        return LockedError(f"the sweep in {self._sweep.uri} is being {does} by {holder}: {advice}")

    def beat(self) -> None:
        """Write a sign of life."""
        signs = None if self.signs is None else self.signs()
        self._mine = replace(self._mine, beat=self._mine.beat + 1, signs=signs)
        self._write()

    def _write(self) -> None:
        self._sweep.write(LOCK_FILE, json.dumps(asdict(self._mine)).encode())

    def _beat(self) -> None:
        while not self._released.wait(self._every):
            try:
                now = read(self._sweep)
                if now is not None and now.token != self._mine.token:
                    self._lost(now)
                    return
                if self._released.is_set():
                    return
                self.beat()
                if self._is_asked_to_stop():
                    self._stop()
            except (OSError, RayganError):
                continue  # storage may be away for a while

    def _is_asked_to_stop(self) -> bool:
        data = self._sweep.read(STOP_FILE, stored.MOST_BYTES + 1)
        if data is None:
            return False
        self._sweep.delete(STOP_FILE)
        try:
            return stored.parse(_REQUEST, data).token == self._mine.token
        except ValueError:
            return False


def _space() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _born(pid: int) -> float | None:
    """When process ``pid`` was started, by no clock that is ever set; None if it does not run."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        try:
            # field 22: ticks since the boot (proc_pid_stat(5)); create_time follows the wall clock
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        except FileNotFoundError:  # no Linux
            return float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _submission() -> str | None:
    """The id under which this process was submitted to Ray, if it was."""
    try:
        config = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
        return str(config["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return None
