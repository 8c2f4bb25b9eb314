"""What a sweep has left behind, compared with what an undisturbed sweep has: for `soak.py`."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

NO_MATTER = ("perf/",)
"""Metrics that depend on the time that something took."""
BY_CHANCE = re.compile(r"/history-\d+\.json$|/images/|^report/.*-samples-\d+\.jpg$")
"""Files that may be there or not: raygan writes a picture only if the storage takes it, and the
report shows those that there are."""
Copied = dict[str, dict[str, list[tuple[int, float]]]]
"""What MLflow has: by trial and metric, each step and value, in the order of the steps."""


@dataclass
class Results:
    """What a sweep has left behind."""

    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id: the outcome and kind, and the evaluations without what depends on time."""
    tests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By file: the losses of a final test."""
    files: list[str] = field(default_factory=list)
    """The names of its files, without what is random in them, and without backups and Tune's."""


def results_of(stored: dict[str, bytes]) -> Results:
    """From the files in the folder of a sweep."""
    # an object that ends with a slash is an empty mark of a folder, which pyarrow may set or not
    kept = [n for n in stored if not (n.startswith("tune/") or n.endswith((".bak", "/")))]
    found = Results(files=sorted(map(plain_name, kept)))
    for name, data in sorted(stored.items()):
        if match := re.fullmatch(r"trials/([^/]+)/record\.json", name):
            record = json.loads(data)
            history = [
                {key: value for key, value in point.items() if not key.startswith(NO_MATTER)}
                for point in record["history"]
            ]
            same = {key: record[key] for key in ("outcome", "kind", "params", "config")}
            found.trials[match[1]] = {**same, "history": history}
        elif re.fullmatch(r"trials/[^/]+/final/(best|last)\.json", name):
            test = json.loads(data)
            left_out = ("seconds", "checkpoint", "replaced")
            found.tests[name] = {k: v for k, v in test.items() if k not in left_out}
    return found


def plain_name(name: str) -> str:
    """The name of a file without a checkpoint's token and iteration."""
    return re.sub(r"checkpoint_\d+_[0-9a-f]+/step-\d+", "checkpoint/step", name)


def differences(found: Results, expected: Results) -> list[str]:
    """In what ``found`` is not as ``expected``."""
    problems = []
    for id in sorted(found.trials.keys() | expected.trials.keys()):
        one, other = found.trials.get(id), expected.trials.get(id)
        if one is None or other is None:
            problems.append(f"trial {id}: {'missing' if one is None else 'not expected'}")
            continue
        for key in sorted(one.keys() - {"history"}):
            if one[key] != other[key]:
                problems.append(f"trial {id}: its {key} is {one[key]}, not {other[key]}")
        for a, b in zip(one["history"], other["history"], strict=False):
            if a != b:
                keys = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
                problems.append(f"trial {id}: another evaluation at {b['step']}: {sorted(keys)}")
                break
        if len(one["history"]) != len(other["history"]):
            counts = len(one["history"]), len(other["history"])
            problems.append(f"trial {id}: {counts[0]} evaluations, not {counts[1]}")
    for name in sorted(found.tests.keys() | expected.tests.keys()):
        if found.tests.get(name) != expected.tests.get(name):
            problems.append(f"{name}: {found.tests.get(name)}, not {expected.tests.get(name)}")
    more = Counter(found.files) - Counter(expected.files)
    problems += [f"left behind: {name}" for name in sorted(more) if not BY_CHANCE.search(name)]
    less = set(expected.files) - set(found.files)
    problems += [f"missing: {name}" for name in sorted(less) if not BY_CHANCE.search(name)]
    return problems


def mlflow_differences(results: Results, copied: Copied) -> list[str]:
    """In what MLflow's metrics, by trial and name, are not those of the records."""
    problems = []
    for id in sorted(results.trials.keys() ^ copied.keys()):
        problems.append(
            f"MLflow: the run of trial {id} is {'missing' if id in results.trials else 'not expected'}"
        )
    for id in sorted(results.trials.keys() & copied.keys()):
        history = results.trials[id]["history"]
        for key in sorted({key for point in history for key in point} - {"step"}):
            expected = [(int(point["step"]), point[key]) for point in history if key in point]
            found = copied[id].get(key, [])
            if found == expected:
                continue
            twice = [step for step, n in Counter(step for step, _ in found).items() if n > 1]
            lacks = sorted({step for step, _ in expected} - {step for step, _ in found})
            problems.append(
                f"MLflow: {key} of trial {id}: twice {twice}, missing {lacks}, or another value"
            )
    return problems
