"""Measures two checkouts in turns, each time in a process of its own: for `resume.py` and
`large_report.py`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def compare(
    name: str,
    script: str,
    arms: Mapping[str, Path],
    rounds: int,
    parts: Sequence[str],
    given: Callable[[str], tuple[list[str], Mapping[str, str]]],
) -> None:
    """Run ``script --one`` for each of ``arms`` in turns, and print a line per arm.

    ``arms``: checkouts by name. ``parts``: keys of the JSON object that the script prints last.
    ``given``: by arm, what follows ``--one``, and the environment. A line has the median of each
    part [lowest, highest].
    """
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm in arms:
            words, environment = given(arm)
            done = subprocess.run(
                [sys.executable, script, "--one", *words],
                env=dict(environment),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[arm].append(json.loads(done.stdout.splitlines()[-1]))
    for arm, runs in found.items():
        cells = []
        for part in parts:
            values = [run[part] for run in runs]
            middle, low, high = statistics.median(values), min(values), max(values)
            cells.append(f"{middle:.3g} [{low:.3g}, {high:.3g}]")
        print(f"{name:<10} {arm:<8}" + "".join(f"{cell:<22}" for cell in cells), flush=True)
