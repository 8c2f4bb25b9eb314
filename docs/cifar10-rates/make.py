"""Make this folder's report again from its two tables: what is said of old results follows the
rules of today.

    python docs/cifar10-rates/make.py

The sweep's own folder is gone: what the tables do not hold (the losses of single images, the
pictures as PNG, the checkpoints) cannot be used. The JPEG files stay as they are.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from raygan.folder import MARKDOWN, REPORT_FOLDER
from raygan.gan.config import TrainConfig, fields
from raygan.records import STEP, TrialRecord
from raygan.report import tables
from raygan.report.finals import GENERATORS, LOSSES
from raygan.storage import Storage
from raygan.sweep.spec.sweep_spec import SweepSpec, load
from raygan.sweep.study.gather import make_report
from raygan.sweep.study.prepared import Prepared

HERE = Path(__file__).resolve().parent
SWEEP = HERE.parents[1] / "sweeps" / "cifar10-rates.yaml"
IMAGES = Prepared(
    id="0",
    digest="6fb6db37674364aad2ab38fbaa150d399bcb5ff58b43826f49a79a867bfcc280",
    baseline=0.05981,
    shape="3×32×32",
    train=47_800,
)
"""The images, as the sweep's own report named them."""
SUMMARY = {
    "finished": True,
    "versions": {
        "version.raygan": "0.1.0",
        "version.torch": "2.15.0",
        "version.ray": "2.60.0",
        "version.mlflow": "3.17.2",
        "git_commit": "018055e84395b772bb0dd4f7e3cd3b25e8cf9ccc",
    },
    "spent": {"gpu_hours": 0.0, "trial_hours": 1.60, "wall_clock_hours": 1.10},
}
"""The code that trained, and what it took, from there."""


def main() -> None:
    spec = load(SWEEP)
    rows = pq.read_table(HERE / "results.parquet").to_pylist()
    points = pq.read_table(HERE / "curves.parquet").to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Storage(folder)
        for row in rows:
            write_finals(sweep, row, spec)
        restore_pictures(sweep)
        records = {row["trial"]: record(row, points) for row in rows}
        sweep.write(tables.SUMMARY, json.dumps(SUMMARY).encode())
        made = make_report(sweep, spec, records, IMAGES)
        made.write(sweep)
        for old in (HERE / REPORT_FOLDER).glob("*.png"):
            old.unlink()
        for name in (MARKDOWN, *(f"{REPORT_FOLDER}/{file}" for file in sweep.files(REPORT_FOLDER))):
            if name.endswith((".md", ".png")):
                (HERE / name).write_bytes(sweep.read(name) or b"")
    print(made.verdict)


def record(row: Mapping[str, Any], points: list[dict[str, Any]]) -> TrialRecord:
    """A trial as it was, from its row and its evaluations."""
    id = row["trial"]
    config = TrainConfig.of(**{name: row[name] for name in fields() if name in row}).to_dict()
    index = int(row["seed"]) - 1 if row["kind"] == "replicate" else int(id.rpartition("-")[2])
    history = [
        {key: float(value) for key, value in point.items()
         if key not in ("trial", "cell") and value is not None and math.isfinite(value)}
        for point in points
        if point["trial"] == id
    ]  # fmt: skip
    return TrialRecord(
        id, row["cell"], index, row["title"], {"lr": row["lr"]}, config, row["outcome"],
        row["reason"], sorted(history, key=lambda point: point[STEP]), row["seconds"],
        row["gpu_seconds"], kind=row["kind"],
    )  # fmt: skip


def write_finals(sweep: Storage, row: Mapping[str, Any], spec: SweepSpec) -> None:
    """A trial's final tests, as far as its row has them."""
    final = spec.final_config()
    budget = {"images": final.images, "steps": final.steps, "restarts": final.restarts,
              "audited": final.audited}  # fmt: skip
    for which in GENERATORS:
        found = {key: row[f"final_{which}{ending}"] for ending, key in LOSSES.items()}
        if found["loss"] is not None:
            content = {**budget, **found, "asked": spec.final.model_dump()}
            sweep.write(f"trials/{row['trial']}/final/{which}.json", json.dumps(content).encode())


def restore_pictures(sweep: Storage) -> None:
    """The JPEG files, under the names that the report looks for."""
    for path in (HERE / REPORT_FOLDER).glob("*.jpg"):
        trial, _, rest = path.stem.partition("-samples-")
        folder, name = "images", f"samples-{rest}"
        if not rest:
            trial, _, rest = path.stem.partition("-reconstructions-")
            name = f"reconstructions-{rest}"
        if not rest:
            trial, which, kind = path.stem.rsplit("-", 2)
            folder, name = "final", f"{which}-{kind}"
        target = Path(sweep.uri) / "trials" / trial / folder / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target)


if __name__ == "__main__":
    main()
