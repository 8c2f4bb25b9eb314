"""Hosts with a network of their own on this machine, made of Linux namespaces.

A host has its own network, process numbers, host name and ``/dev/shm``. Hosts reach each other over
a switch, which is a namespace, too, and nothing else: there is no route out. All processes of a
host end with its first one, and that ends with the process that made the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.clusters import start

_NAMESPACES = ["--net", "--mount", "--uts", "--pid"]
_NEW = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"]
_FIRST = """
mount --bind "$1" "$2"
mount --bind "$3" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
echo "$4" > /proc/sys/kernel/hostname
ip link set lo up
echo up
exec env --ignore-signal=CHLD sleep infinity    # so nothing is left of processes without a parent
"""
"""What a host's first process does: its folder, the place of it, its /etc/hosts, its name."""


def problem() -> str | None:
    """Why no host can be made on this machine; None if they can be made."""
    try:
        done = subprocess.run([*_NEW, "true"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or "unshare fails" if done.returncode else None


class Host:
    """One host. It sees the files of ``folder`` at ``place``, as all hosts see theirs."""

    def __init__(
        self, name: str, folder: Path, place: Path, names: Path, env: Mapping[str, str]
    ) -> None:
        """``names``: what it has as /etc/hosts. ``env``: the environment of its processes."""
        self.name, self.folder = name, folder
        self._place, self._names, self._env = place, names, dict(env)
        self._processes: list[subprocess.Popen] = []
        self.boot()

    def boot(self) -> None:
        """Start it, without a network."""
        arguments = [str(self.folder), str(self._place), str(self._names), self.name]
        log = self.folder / "boot.log"
        with log.open("w") as file:
            self._first = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *_NEW, "sh", "-ec", _FIRST, "sh", *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
            )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == b"up\n", log.read_text()
        self.pid = psutil.Process(self._first.pid).children()[0].pid

    def kill(self) -> None:
        """End all of its processes at once, as if its plug were pulled. Its files stay."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        for process in [self._first, *self._processes]:
            process.wait(30)
        self._processes.clear()
        assert self._first.stdout is not None
        self._first.stdout.close()

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of its processes whose command line has ``name`` in it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                its = Path(f"/proc/{process.pid}/ns/pid").readlink()
                if its == Path(f"/proc/{self.pid}/ns/pid").readlink():
                    found += [process] * (name in " ".join(process.cmdline()))
        return found

    def ip(self, *arguments: str) -> None:
        """Change its network with ``ip``."""
        command = ["nsenter", f"--target={self.pid}", "--net", "ip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"

    def start(
        self, command: Sequence[str], log: str, env: Mapping[str, str | None] | None = None
    ) -> subprocess.Popen:
        """Start ``command`` in its folder; the output goes to the file ``log`` there.

        ``env`` changes the environment; None removes a variable.
        """
        merged = {k: v for k, v in {**self._env, **(env or {})}.items() if v is not None}
        enter = ["nsenter", f"--target={self.pid}", *_NAMESPACES, "env", "-C", str(self._place)]
        process = start([*enter, *command], self.folder / log, merged)
        self._processes.append(process)
        return process

    def run(
        self, command: Sequence[str], log: str, env: Mapping[str, str | None] | None = None
    ) -> tuple[int, str]:
        """Exit code and output of ``command``, which is ended after 4 minutes."""
        process = self.start(command, log, env)
        try:
            process.wait(240)
        finally:
            send(process, signal.SIGKILL)
        return process.returncode, (self.folder / log).read_text()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread opens while the block runs are in the host's network."""
        enter = ctypes.CDLL(None, use_errno=True).setns
        with (
            Path("/proc/thread-self/ns/net").open() as ours,
            Path(f"/proc/{self.pid}/ns/net").open() as its,
        ):
            assert enter(its.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert enter(ours.fileno(), 0) == 0, os.strerror(ctypes.get_errno())


def send(process: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal to a process that a host has started and to those that it has started; wait
    for their end."""
    if process.poll() is None:
        # nsenter, which is not of the host, reaps its child and ends by itself
        inner = psutil.Process(process.pid).children(recursive=True)
        for one in inner:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        process.wait(60)
        psutil.wait_procs(inner, 60)


class Network:
    """A switch, and the hosts that are plugged into it."""

    def __init__(self, switch: Host) -> None:
        self._switch = switch
        switch.ip("link", "add", "switch", "type", "bridge")
        switch.ip("link", "set", "switch", "up")

    def plug(self, host: Host, address: str) -> None:
        """Connect a host that has just been started; both ends of the cable are namespaces'."""
        self.unplug(host)
        pair = ["type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
        self._switch.ip("link", "add", "name", host.name, *pair)
        self._switch.ip("link", "set", "dev", host.name, "master", "switch", "up")
        host.ip("address", "add", f"{address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")

    def unplug(self, host: Host) -> None:
        """Take the cable away, if there is one."""
        links = subprocess.run(
            ["nsenter", f"--target={self._switch.pid}", "--net", "ip", "-o", "link"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        if f" {host.name}@" in links.stdout:
            self._switch.ip("link", "delete", "dev", host.name)

    def cut(self, host: Host) -> None:
        """Nothing reaches the host any more, and it reaches nothing."""
        self._switch.ip("link", "set", "dev", host.name, "down")
