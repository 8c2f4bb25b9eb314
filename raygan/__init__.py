"""raygan: fair, large-scale comparison of GAN training recipes on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raygan.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from raygan.sweep.commands.results import Results

__all__ = ["__version__", "results", "run"]


def results(sweep: str) -> pd.DataFrame:
    """A row per trial of the sweep that lies in the folder or at the address ``sweep``.

    ``raygan.results("results/quickstart")``: identity, configuration, outcome, losses,
    stability, final tests and cost of each trial, running ones included. Raises
    :class:`~raygan.errors.ConfigError` if there is no trial.
    """
    from raygan.sweep.commands.results import frame_of

    return frame_of(sweep)


def run(sweep: str | Path, **options: Any) -> Results:
    """Run the sweep of the YAML file ``sweep``, or resume it, and return its results.

    ``raygan.run("sweep.yaml", train={"features": 16}).verdict``; see
    :func:`raygan.sweep.commands.results.run` for the options.
    """
    from raygan.sweep.commands.results import run

    return run(sweep, **options)
