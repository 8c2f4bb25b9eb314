"""One run of a sweep: what it holds from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from raygan.shown import say
from raygan.storage import Storage
from raygan.sweep.session.lock import Lock
from raygan.sweep.session.signals import StopSignals
from raygan.sweep.spec.sweep_spec import SweepSpec


@dataclass(frozen=True)
class Options:
    """How a sweep is run this time."""

    address: str | None = None
    """Ray cluster; by default ``$RAY_ADDRESS``, else this machine."""
    verbose: bool = False
    fresh: bool = False
    """Start anew beside a sweep of this name."""
    retry_failed: bool = False
    offline: bool = False
    """Copy nothing to MLflow."""


@dataclass(frozen=True)
class Session:
    """One run of a sweep, which is locked meanwhile."""

    spec: SweepSpec
    storage: Storage
    """In which all sweeps lie."""
    sweep: Storage
    """The sweep's own folder."""
    options: Options
    console: Console
    signals: StopSignals
    lock: Lock

    def say(self, text: object, style: str = "") -> None:
        """Tell the user."""
        say(self.console, text, style)

    def warn(self, text: object) -> None:
        """The same in yellow."""
        self.say(text, "yellow")

    @property
    def again(self) -> str:
        """What resumes the sweep, in words."""
        if self.options.fresh:
            return f"the same command, with `--set name={self.spec.name}` for --fresh,"
        return "the same command"
