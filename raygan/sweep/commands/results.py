"""Sweeps from Python: ``raygan.run`` and what it returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan.errors import ConfigError, RayganError
from raygan.folder import HTML
from raygan.sweep.spec.sweep_spec import load

if TYPE_CHECKING:
    import pandas as pd

    from raygan.report.make import Report


@dataclass(frozen=True)
class Results:
    """A sweep that has been run; in a notebook it shows the verdict and the curves."""

    folder: str
    """Folder or address of the sweep."""
    exit_code: int
    """That of the command: 0 done, 3 no verdict, 4 budget reached, 130 and 143 interrupted. If
    the cluster's head node is lost, the whole process ends, with code 5."""

    @cached_property
    def report(self) -> Report:
        """The report, made from what is stored: ``.verdict``, ``.html()``, ``.sheets``."""
        from raygan import records
        from raygan.storage import Storage
        from raygan.sweep.study import stored_sweep
        from raygan.sweep.study.gather import make_report

        sweep = Storage(self.folder)
        spec = stored_sweep.stored_spec(sweep)
        if spec is None:
            raise ConfigError(
                f"there is no sweep in {self.folder!r}; give the folder of a sweep, such as "
                "results/quickstart"
            )
        data = stored_sweep.stored_data(sweep, spec)
        return make_report(sweep, spec, records.load_all(sweep, only=spec.only_label), data)

    @property
    def verdict(self) -> str:
        """What can be claimed, in words."""
        return self.report.verdict

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per trial: configuration, outcome, losses, stability, final tests, cost."""
        return frame_of(self.folder)

    def _repr_html_(self) -> str:
        curves = next((drawing.svg for drawing in self.report.drawings), "")
        path = escape(f"{self.folder}/{HTML}")
        verdict = "".join(f"<p>{escape(line)}</p>" for line in self.verdict.splitlines() if line)
        return f"{verdict}<div>{curves}</div><p>Report: <code>{path}</code></p>"


def frame_of(sweep: str) -> pd.DataFrame:
    """A row per trial of the sweep that lies in the folder or at the address ``sweep``.

    Raises :class:`~raygan.errors.ConfigError` if there is no trial.
    """
    from raygan import own_recipes
    from raygan.records import load_all
    from raygan.report.tables import results_table
    from raygan.storage import Storage
    from raygan.sweep.study.stored_sweep import stored_spec

    storage = Storage(sweep)
    own_recipes.enter(storage)
    spec = None
    with suppress(RayganError):  # the trials can be read without it
        spec = stored_spec(storage)
    records = load_all(storage, only="" if spec is None else spec.only_label)
    if not records:
        raise ConfigError(
            f"there is no trial of a sweep in {sweep!r}; give a sweep's own folder, such as "
            "results/quickstart"
        )
    return results_table(storage, records.values()).to_pandas()


def run(
    sweep: str | Path,
    *,
    address: str | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    offline: bool = False,
    **overrides: Any,
) -> Results:
    """Run the sweep of the YAML file ``sweep``, or resume it; prints its progress.

    ``overrides`` replace keys of the YAML: ``name="other"``, ``train={"features": 16}``.
    ``address``, ``fresh``, ``retry_failed`` and ``offline`` are the command's options. Call it from
    the main thread, so that Ctrl-C can stop the sweep cleanly. Raises
    :class:`~raygan.errors.RayganError` for anything that is wrong before the first trial starts.
    """
    from rich.console import Console

    from raygan.storage import Storage
    from raygan.sweep.session import run as runner
    from raygan.sweep.study import stored_sweep

    spec = load(Path(sweep), _flat(overrides))
    storage = Storage(spec.storage)
    if fresh:
        spec = stored_sweep.beside(spec, storage)
    options = runner.Options(address=address, retry_failed=retry_failed, offline=offline)
    return Results((storage / spec.name).uri, runner.run(spec, Console(), options))


def _flat(overrides: Mapping[str, Any]) -> list[str]:
    """``overrides`` as strings that ``--set`` takes; their values are JSON, which is YAML."""
    settings = []
    for key, value in overrides.items():
        parts = {f"{key}.{name}": v for name, v in value.items()} if isinstance(
            value, Mapping) else {key: value}  # fmt: skip
        settings += [f"{name}={json.dumps(part)}" for name, part in parts.items()]
    return settings
