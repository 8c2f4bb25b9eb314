"""The table of the final test: best and last generators, the audit by restarts, FID."""

from __future__ import annotations

import statistics
from typing import Any

import pyarrow as pa

from raygan.report import words
from raygan.report.audit import gain
from raygan.report.compare import geometric_mean
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import GENERATORS, losses_files, number, protocol
from raygan.report.tabular import Column, Sheet

_PROTOCOL = ("n", "split", "bits", "resizer", "weights_sha256", "torch_fidelity")
"""Keys that must be equal for two FIDs to be comparable."""

AUDIT = ("audited_loss", "restarts_loss")
CODES = ("code_norm", "outside")
BALL = ("ball_loss", "ball_free_loss")
"""Values of a test that stand together: a mean is shown if all tests of its row have them."""


def final_test(evidence: Evidence) -> Sheet:
    """The table of final tests, by cell and generator: loss, audit, and FID and KID if computed."""
    rows = [
        row
        for cell in evidence.ordered
        for which in GENERATORS
        if (row := _row(evidence, cell, which)) is not None
    ]
    columns = [
        Column("cell", pa.string(), "cell"),
        Column("generator", pa.string(), "generator"),
        Column("seeds", pa.int64(), "seeds"),
        Column("loss", pa.float64(), "loss", words.loss),
        Column("audited_loss", pa.float64(), "audited, from z = 0", words.loss),
        Column("restarts_loss", pa.float64(), "audited, with restarts", words.loss),
        Column("gain", pa.float64(), "gain by restarts", words.percent),
        Column("code_norm", pa.float64(), "|z|/√d", words.ratio),
        Column("outside", pa.float64(), "outside the ball", words.as_percent),
        Column("ball_loss", pa.float64(), "within the ball", words.loss),
        Column("ball_free_loss", pa.float64(), "same images, free", words.loss),
        Column("fid", pa.float64(), "FID", "{:.2f}".format),
        Column("kid", pa.float64(), "KID", "{:.5f}".format),
        Column("fid_images", pa.int64(), "images of FID", "{:,}".format),
        Column("fid_seeds", pa.int64(), "seeds of FID"),
    ]
    reading = (
        "One row per cell and generator: the best one by the running test, and the last one. Lower "
        "is better."
    )
    return Sheet("final_test", "Final test", columns, rows, reading, _note(evidence))


def _row(evidence: Evidence, cell: CellResults, which: str) -> dict[str, Any] | None:
    losses, audited, restarts = (
        cell.kept(evidence.final_losses(cell, which, key))
        for key in ("loss", "audited_loss", "restarts_loss")
    )
    fids = _fids(evidence, cell, which)
    if not losses and not fids:
        return None
    if not _same_runs(evidence, cell, which, AUDIT):
        audited, restarts = {}, {}
    code_norm, outside = (
        _mean(_numbers(evidence, cell, which, key))
        if _same_runs(evidence, cell, which, CODES)
        else None
        for key in CODES
    )
    within, free = (
        _level(cell, evidence.final_losses(cell, which, key))
        if _same_runs(evidence, cell, which, BALL)
        else None
        for key in BALL
    )
    one_protocol = len({_protocol(fid) for fid in fids}) == 1
    return {
        "cell": cell.name,
        "generator": which,
        "seeds": len(losses),
        "loss": _level(cell, losses),
        "audited_loss": _level(cell, audited),
        "restarts_loss": _level(cell, restarts),
        "gain": gain(audited, restarts),
        "code_norm": code_norm,
        "outside": outside,
        "ball_loss": within,
        "ball_free_loss": free,
        "fid": _mean([fid["fid"] for fid in fids]) if one_protocol else None,
        "kid": _mean([fid["kid"] for fid in fids if number(fid, "kid") is not None])
        if one_protocol
        else None,
        "fid_images": _count(fids[0], "n") if one_protocol else None,
        "fid_seeds": len(fids) or None,
    }


def _tests(evidence: Evidence, cell: CellResults, which: str) -> list[dict[str, Any]]:
    """The tests of the cell's runs that ended ok."""
    found = (evidence.finals.get(r.id, {}).get(which, {}) for r in cell.runs.values()
             if r.outcome == "ok")  # fmt: skip
    return [test for test in found if test]


def _numbers(evidence: Evidence, cell: CellResults, which: str, key: str) -> list[float]:
    """The values of ``key``, which may be 0, of the tests that have one."""
    values = (number(test, key) for test in _tests(evidence, cell, which))
    return [value for value in values if value is not None]


def _same_runs(evidence: Evidence, cell: CellResults, which: str, keys: tuple[str, ...]) -> bool:
    """Whether all tests of the row have these values, so that its means are over the same runs."""
    tests = _tests(evidence, cell, which)
    return all(number(test, key) is not None for test in tests for key in keys)


def _left_out(evidence: Evidence) -> bool:
    """Whether a value is not shown, since some runs of its row lack it."""
    return any(
        not _same_runs(evidence, cell, which, (key,)) and _numbers(evidence, cell, which, key)
        for cell in evidence.cells
        for which in GENERATORS
        for key in (*AUDIT, *CODES, *BALL)
    )


def _fids(evidence: Evidence, cell: CellResults, which: str) -> list[dict[str, Any]]:
    fids = (evidence.fids.get(r.id, {}).get(which, {}) for r in cell.runs.values()
             if r.outcome == "ok")  # fmt: skip
    return [fid for fid in fids if number(fid, "fid") is not None]


def _protocol(fid: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(fid.get(key)) for key in _PROTOCOL)


def _count(result: dict[str, Any], key: str) -> int:
    return int(number(result, key) or 0)


def _level(cell: CellResults, losses: dict[int, float]) -> float | None:
    """The geometric mean, of repeats of the search if there are any, as in the verdict."""
    mean = geometric_mean(list(cell.units(losses).values()))
    return None if mean is None else mean.value


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _replaced(evidence: Evidence) -> list[str]:
    """The tests of another generator than the listed one, since a checkpoint was damaged."""
    return [
        f"{record.title} ({which}: iteration {_count(test, 'step'):,})"
        for record in evidence.records
        for which, test in evidence.finals.get(record.id, {}).items()
        if test.get("replaced")
    ]


def _note(evidence: Evidence) -> str:
    tests = [test for both in evidence.finals.values() for test in both.values()]
    budgets = sorted({(_count(test, "audited"), _count(test, "restarts")) for test in tests})
    audits = [
        f"the first {images:,} images, searched from z = 0 alone; with restarts: the lowest loss "
        f"of that search and of {words.times(restarts, 'restart')} from random codes"
        for images, restarts in budgets
        if images
    ]
    parts = [
        "Means over the runs that ended ok (of losses geometric), on held-out images that "
        "were not used for training or for any choice."
    ]
    if audits:
        parts.append(f"Audited: {words.listed(audits)}.")
    if any(protocol(test) == "authors" for test in tests):
        parts.append("The searches follow the authors' protocol: the mean over 32 images and their "
                     "pixels.")  # fmt: skip
    if ball := sorted({_count(test, "ball_images") for test in tests} - {0}):
        sizes = words.listed([f"{images:,}" for images in ball], "or")
        parts.append("Codes: |z|/√d of the codes found; outside: share of images whose code is "
                     "longer than 99% of the prior's own; within the ball: loss of the first "
                     f"{sizes} images with codes kept that short.")  # fmt: skip
    fids = {_protocol(one): one for cell in evidence.cells for which in GENERATORS
            for one in _fids(evidence, cell, which)}  # fmt: skip
    if fids:
        protocols = [
            f"{_count(one, 'n'):,} samples against as many images of the split {one.get('split')}, "
            f"{one.get('bits')} bits, {one.get('resizer')}, torch-fidelity "
            f"{one.get('torch_fidelity')}, weights {str(one.get('weights_sha256'))[:8]}"
            for one in fids.values()
        ]
        which = "protocols or data sets" if evidence.several else "protocols"
        parts.append(f"FID, KID: {'; '.join(protocols)}. Values of different {which} cannot be "
                     "compared.")  # fmt: skip
    if _left_out(evidence):
        parts.append("A value that some of a row's runs lack, as tests of earlier versions do, is "
                     "not shown.")  # fmt: skip
    titles = {record.id: record.title for record in evidence.records}
    if others := [f"{titles.get(trial, trial)} ({how})"
                  for trial, how in evidence.other_tests.items()]:  # fmt: skip
        parts.append(f"Left out, since their settings are others: {words.listed(others)}.")
    if replaced := _replaced(evidence):
        parts.append(f"Tested instead of damaged checkpoints: {words.listed(replaced)}.")
    parts.append(f"The losses of each image are in {losses_files('TRIAL')}.")
    return " ".join(parts)
