"""raygan: fair, large-scale comparison of GAN training recipes on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"


def results(sweep: str) -> pd.DataFrame:
    """A row per trial of the sweep that lies in the folder or at the address ``sweep``.

    ``raygan.results("results/quickstart")``: identity, configuration, outcome, losses,
    stability, final tests and cost of each trial, running ones included. Raises
    :class:`~raygan.errors.ConfigError` if there is no trial.
    """
    from raygan.errors import ConfigError
    from raygan.records import load_all
    from raygan.report.tables import results_table
    from raygan.storage import Storage

    storage = Storage(sweep)
    records = load_all(storage)
    if not records:
        raise ConfigError(
            f"there is no trial of a sweep in {sweep!r}; give a sweep's own folder, such as "
            "results/quickstart"
        )
    return results_table(storage, records.values()).to_pandas()
