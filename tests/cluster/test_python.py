"""A sweep that is run from Python: what `raygan.run` returns is what the sweep's folder holds."""

from __future__ import annotations

import json
import subprocess
import sys
from html import escape

import pandas as pd
from click.testing import CliRunner

import raygan
from raygan.cli import main
from raygan.storage import Storage
from raygan.sweep.study import stored_sweep as state
from tests.clusters import PATIENCE

RUN = """
import json, sys
import raygan

found = raygan.run(
    sys.argv[1], name="from-python", train={"features": 8}, search={"lr": [1e-3, 1e-4]}
)
print(json.dumps({
    "folder": found.folder,
    "exit_code": found.exit_code,
    "verdict": found.verdict,
    "frame": found.frame.to_json(orient="split"),
    "markdown": found.report.markdown(),
    "html": found._repr_html_(),
}))
"""


def sorted_by_trial(table: str) -> pd.DataFrame:
    """A table that has been through JSON, its rows in the order of their trials."""
    found = json.loads(table)
    rows = pd.DataFrame(found["data"], columns=found["columns"])
    return rows.sort_values("trial", ignore_index=True)


def test_what_run_returns_is_what_the_folder_holds(sweep):
    made = sweep("python", grid={"norm": ["bn", "wn"]})
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(made.file)],
        env=made.env, cwd=made.storage.parent, capture_output=True, text=True,
        timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    found = json.loads(last)
    folder = made.storage / "from-python"
    assert (found["folder"], found["exit_code"]) == (str(folder), 0)
    assert not (made.storage / "python").exists()
    assert any(f"Report:  {folder}/report.html" in line for line in printed)

    stored = state.stored_spec(Storage(str(folder)))
    assert (stored.name, stored.train.features) == ("from-python", 8)
    assert json.loads((folder / "result.json").read_text())["exit_code"] == 0

    assert found["markdown"] == (folder / "report.md").read_text()
    told = CliRunner().invoke(main, ["report", "from-python", "--storage", str(made.storage)])
    assert told.output.startswith(f"{found['verdict']}\n\nReport: ")
    for line in filter(None, found["verdict"].splitlines()):
        assert f"<p>{escape(line)}</p>" in found["html"]
    assert "<svg" in found["html"]
    assert f"{folder}/report.html" in found["html"]
    assert (folder / "report.html").is_file()

    rows = sorted_by_trial(found["frame"])
    assert list(rows["trial"]) == ["bn-000", "bn-001", "wn-000", "wn-001"]
    assert set(rows["features"]) == {8}
    assert set(rows["lr"]) == {1e-3, 1e-4}
    assert set(rows["outcome"]) == {"ok"}
    for table in (pd.read_parquet(folder / "results.parquet"), raygan.results(str(folder))):
        pd.testing.assert_frame_equal(sorted_by_trial(table.to_json(orient="split")), rows)
