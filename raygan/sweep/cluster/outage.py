"""Whether the sweep's storage can be written, seen on a thread of its own while the sweep runs."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable

from raygan.errors import RayganError
from raygan.shown import shown
from raygan.sweep.study.study import Study

SECONDS = 5.0
"""Between two looks."""
PROBE_BYTES = 2**14
"""A full disk still takes a file of no bytes."""


class Outage:
    """Keeps :attr:`Study.storage_error` up to date, and tells the user when it begins and ends.

    To be used as a context manager. ``say`` hears one line each time.
    """

    def __init__(self, study: Study, say: Callable[[str], None]) -> None:
        self._study, self._say, self._said = study, say, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)

    def __enter__(self) -> Outage:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def look(self) -> None:
        """See how the storage is now."""
        self._study.storage_error = error = self._problem()
        if (error is not None) == self._said:
            return
        # the output may lie on the same disk: what cannot be said now is said at the next look
        with contextlib.suppress(OSError):
            self._say(self._words(error))
            self._said = error is not None

    def _words(self, error: str | None) -> str:
        if error is None:
            return "The storage can be written again; the sweep continues."
        return (
            f"The storage {self._study.storage.uri} cannot be written ({shown(error)}). Until it "
            "can be written, running trials train on, without new checkpoints, but cannot end, and "
            "no trial starts. Free some space or make the storage available again. Nothing is lost "
            "unless a worker is killed meanwhile: its trial resumes from its last checkpoint."
        )

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self.look()

    def _problem(self) -> str | None:
        storage = self._study.storage
        try:
            storage.probe(PROBE_BYTES)
            if storage.is_local:
                free = shutil.disk_usage(storage.local).free
                if free < self._study.checkpoint_bytes:
                    return f"{free / 1e6:,.1f} MB are free, and a checkpoint takes more"
        except (OSError, RayganError) as error:
            return str(error)
        return None
