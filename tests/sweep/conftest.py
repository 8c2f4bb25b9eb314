"""What all tests of sweeps share: what a study knows is in its storage at once."""

from __future__ import annotations

import pytest

from raygan.sweep.study.ledger import Ledger, Write


class AtOnce(Ledger):
    """Waits until each thing is written, so that a test can look at the storage."""

    def write(self, key: str, write: Write, *, urgent: bool = False) -> None:
        super().write(key, write, urgent=urgent)
        self.flush()


@pytest.fixture(autouse=True)
def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of what is written behind gives its study a :class:`Ledger` of its own."""
    monkeypatch.setattr("raygan.sweep.study.study.Ledger", AtOnce)
