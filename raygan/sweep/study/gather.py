"""Collects what a sweep's report needs from its plan and records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from raygan.records import TrialRecord
from raygan.report.evidence import CellResults, DataSet, Evidence
from raygan.report.finals import FinalResults, read_all, read_image_losses
from raygan.report.ladder import Agreement, agreement
from raygan.report.make import Report
from raygan.storage import Storage
from raygan.sweep.spec import plan
from raygan.sweep.spec.space import longest, search_method
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.stopping.rules import grace, is_exempt, rule_of
from raygan.sweep.study import looks, registered, stored_sweep
from raygan.sweep.study.compared import cells
from raygan.sweep.study.prepared import Prepared, PreparedSet


def make_report(
    sweep: Storage,
    spec: SweepSpec,
    known: Mapping[str, TrialRecord],
    prepared: Prepared | None,
) -> Report:
    """The report of the sweep in ``sweep``, running or done.

    ``prepared``: its images, or None if none of them has been looked at.
    """
    summary = stored_sweep.summary(sweep)
    compared = cells(spec, known)
    tests, fids, qualities = read_all(sweep, known.values())
    finals = _of_one_budget(tests, compared, spec)
    seeds, level = looks.reached(spec, known)
    evidence = Evidence(
        name=spec.name,
        cells=compared,
        sets=_sets(spec, prepared),
        expected_trials=looks.expected(spec, known.values(), seeds),
        finished=bool(summary.get("finished")) and all(r.outcome for r in known.values()),
        versions=summary.get(stored_sweep.VERSIONS, {}),
        spent=summary.get("spent", {}),
        yaml=stored_sweep.dump(spec),
        finals=finals,
        other_tests=_other_tests(tests, _budget(tests, compared, spec) or {}),
        images=_image_losses(sweep, spec, finals),
        resplit=spec.replicate.resplit,
        alpha=level,
        search_method=search_method(spec),
        claims=registered.claims_of(sweep, spec),
        plans=registered.history(sweep),
        rule=check_of_rule(spec, known),
        fids=fids,
        qualities=qualities,
    )
    return Report.of(sweep, evidence)


def _image_losses(sweep: Storage, spec: SweepSpec, finals: FinalResults) -> dict[str, np.ndarray]:
    """The loss of each final image; empty if each seed has a split of its own."""
    return {} if spec.replicate.resplit else read_image_losses(sweep, finals)


def _of_one_budget(
    finals: FinalResults, compared: list[CellResults], spec: SweepSpec
) -> FinalResults:
    """Those of ``finals`` that were made with one budget, so that they can be compared."""
    budget = _budget(finals, compared, spec)
    return {
        trial: {which: test for which, test in tests.items() if test.get("asked") == budget}
        for trial, tests in finals.items()
    }


def _budget(
    finals: FinalResults, compared: list[CellResults], spec: SweepSpec
) -> dict[str, Any] | None:
    """The budget that the tests of all best generators share, or else that of the sweep."""
    runs = [run.id for cell in compared for run in cell.runs.values()]
    asked = [finals[run]["best"].get("asked") for run in runs if "best" in finals.get(run, {})]
    shared = bool(asked) and all(budget == asked[0] for budget in asked)
    return asked[0] if shared else asdict(spec.final_config())


def _other_tests(finals: FinalResults, budget: dict[str, Any]) -> dict[str, str]:
    """By trial with a test of another budget, how it differs, in words."""
    found = {}
    for trial, tests in finals.items():
        for asked in (test.get("asked") or {} for test in tests.values()):
            if asked != budget:
                differ = [f"{key}: {'all' if asked.get(key) is None else asked[key]}"
                          for key in budget if asked and asked.get(key) != budget[key]]  # fmt: skip
                found[trial] = ", ".join(differ) or "not recorded"
    return found


def check_of_rule(spec: SweepSpec, known: Mapping[str, TrialRecord]) -> Agreement | None:
    """How well the losses at the first rung of early stopping agree with the end losses.

    Only trials that are exempt from early stopping count; a retry replaces the trial that it
    retries. None without a stop rule.
    """
    stop = spec.stopping()
    if rule_of(stop).never:
        return None
    groups: list[list[TrialRecord]] = []
    for cell in plan.cells(spec):
        mine = [r for r in known.values() if r.cell == cell.name and r.kind == "search"]
        mine.sort(key=lambda record: plan.is_retry(record.id))
        groups.append(list({r.index: r for r in mine if is_exempt(r.index)}.values()))
    longest_of = {cell.name: longest(spec, cell.values) for cell in plan.cells(spec)}
    return agreement(groups, lambda record: grace(stop, longest_of[record.cell]))


def _sets(spec: SweepSpec, prepared: Prepared | None) -> dict[str, DataSet]:
    """The sweep's data sets, by label; "" if there is one."""
    several = len(spec.labels) > 1
    return {
        label if several else "": _described(given, prepared.get(label) if prepared else None)
        for label, given in zip(spec.labels, spec.listed or [spec.dataset], strict=True)
    }


def _described(given: Any, prepared: PreparedSet | None) -> DataSet:
    described: dict[str, Any] = {"images": given.name}
    if given.path:
        described["path"] = given.path
    if prepared is None:
        return DataSet(described)
    if prepared.shape:
        described |= {"shape": prepared.shape, "training images": prepared.train}
    return DataSet({**described, "digest": prepared.digest}, prepared.baseline)
