"""Where everything lies: the tree of a storage folder, with a name or a function for each path.

No other module spells one of these names. Functions and names are relative to the folder that they
stand in: those of a sweep to the sweep's, those of a trial to the trial's::

    STORAGE/
      data/NAME-DIGEST/            prepared images, shared by all sweeps of the storage
        manifest.json              shape, split and checksums; without it, the set is incomplete
        NUMBER.arrow               images
        NUMBER.json                how a shard was made; until the manifest is written
      mlflow.db, mlartifacts/      MLflow's embedded database (local storage without a server)
      NAME/                        one sweep
        sweep.yaml                 the resolved YAML
        plan.json                  the plan, with its time and hash, and later changes of it
        data.json                  the images of each data set: digest, shape, folder
        recipes.json               your own recipes: names, parameters, SHA-256 of files
        recipes/NAME.py            the files of your own recipes; nothing runs these copies
        rates.json                 measured speed of each cell (after --calibrate)
        results.parquet            one row per trial
        curves.parquet             one row per evaluation
        result.json                summary and exit code of the last run
        overview.png               curves and samples
        report.html, report.md     the report
        report/                    its tables and figures
        optuna.log                 the searches, for optuna-dashboard (local storage only)
        lock.json, stop.json       who runs the sweep; whom `raygan stop` has asked to stop
        clock.json                 wall-clock time so far
        unsynced.json              if MLflow lacks results, which `raygan sync` copies
        tune/                      Ray Tune's own files
        trials/ID/
          record.json              configuration, curve, outcome, reason
          history-NUMBER.json      evaluations from that number on, while the trial runs
          images/
            samples-ITERATION.webp, reconstructions-ITERATION.webp    PNG in earlier versions
          checkpoint_ITERATION_TOKEN/    the last, and the one before it
            step-ITERATION.pt, step-ITERATION.pt.sha256    training state and its checksum
          .validate_storage_marker    Ray Train's own
          final/                   final tests; WHICH is best or last
            WHICH.json             the result
            WHICH.parquet          one row per image
            WHICH-hardest.png, WHICH-easiest.png    images beside their reconstructions
            WHICH-fid.json         FID and KID (after raygan evaluate --fid)
            WHICH-quality.json     quality of samples
            WHICH-progress.json    how far the test is, while it runs
    OUT/                           one run of python -m raygan.gan.train --out OUT
      data/NAME-DIGEST/            as above
      checkpoints/
        step-ITERATION.pt, step-ITERATION.pt.sha256
      samples.png, reconstructions.png    of the last evaluation
"""

from __future__ import annotations

import re

# a storage folder
DATA = "data"
MLFLOW_DATABASE, MLFLOW_ARTIFACTS = "mlflow.db", "mlartifacts"
BESIDE_SWEEPS = (DATA, MLFLOW_ARTIFACTS, MLFLOW_DATABASE)
"""What lies beside the sweeps in a storage folder: no sweep may be named so."""

# a prepared set
MANIFEST = "manifest.json"
_SHARD = re.compile(r"[0-9]{6,12}\.arrow")

# a sweep
SPEC_FILE, PLAN_FILE, DATA_FILE, SPEEDS_FILE = "sweep.yaml", "plan.json", "data.json", "rates.json"
RESULTS, CURVES, SUMMARY = "results.parquet", "curves.parquet", "result.json"
OVERVIEW = "overview.png"
HTML, MARKDOWN, REPORT_FOLDER = "report.html", "report.md", "report"
RECIPES_FILE, _RECIPES = "recipes.json", "recipes"
JOURNAL_FILE = "optuna.log"
LOCK_FILE, STOP_FILE = "lock.json", "stop.json"
CLOCK_FILE, UNSYNCED_FILE = "clock.json", "unsynced.json"
TUNE = "tune"
TRIALS = "trials"

# a trial
RECORD_FILE = "record.json"
IMAGES = "images"
SAMPLES, RECONSTRUCTIONS = "samples", "reconstructions"
PICTURES = (SAMPLES, RECONSTRUCTIONS)
"""Kinds of pictures of an evaluation."""
CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"
"""Ray Train's list of checkpoints, in the trials of earlier versions."""
OF_RAY_TRAIN = ".validate_storage_marker"
_CHECKPOINT_FOLDER = "checkpoint_"  # as Ray Train names them
_CHECKPOINT = re.compile(r"step-(\d{9,})\.pt")
FINAL = "final"
EXTREMES = ("hardest", "easiest")
"""Kinds of pictures of a final test."""

# a run without a sweep
CHECKPOINTS = "checkpoints"


def shard_file(index: int) -> str:
    """A shard of a prepared set."""
    return f"{index:06}.arrow"


def shard_note(index: int) -> str:
    """The file beside a shard that says it is whole; removed once there is a manifest."""
    return f"{index:06}.json"


def is_shard(name: str) -> bool:
    """Whether a file is named as a shard is."""
    return _SHARD.fullmatch(name) is not None


def report_file(name: str) -> str:
    """A table or figure of the report."""
    return f"{REPORT_FOLDER}/{name}"


def recipe_file(name: str) -> str:
    """The sweep's copy of a user's file of recipes."""
    return f"{_RECIPES}/{name}"


def trial_folder(trial: str) -> str:
    """The folder of a trial, in its sweep's."""
    return f"{TRIALS}/{trial}"


def history_file(first: int) -> str:
    """Evaluations of a running trial, from number ``first`` on; the first of all is 0."""
    return f"history-{first:06d}.json"


def picture_file(kind: str, step: int) -> str:
    """A picture of the evaluation after ``step`` iterations; ``kind``: one of :data:`PICTURES`."""
    return f"{IMAGES}/{kind}-{step:09d}.webp"


def earlier_picture_file(kind: str, step: int) -> str:
    """The same of a sweep that an earlier version has run."""
    return f"{IMAGES}/{kind}-{step:09d}.png"


def step_of_picture(kind: str, name: str) -> int | None:
    """The iteration of the file ``name`` in :data:`IMAGES`; None if it is of another kind."""
    match = re.fullmatch(rf"{kind}-(\d+)\.(webp|png)", name)
    return int(match[1]) if match else None


def last_picture(kind: str) -> str:
    """The picture of the last evaluation, in the folder of a run without a sweep."""
    return f"{kind}.png"


def checkpoint_folder(step: int, token: str) -> str:
    """The folder of a checkpoint, in its trial's; ``token`` tells two of one iteration apart."""
    return f"{_CHECKPOINT_FOLDER}{step:09d}_{token}"


def is_checkpoint_folder(name: str) -> bool:
    """Whether a folder of a trial is named as those of checkpoints are."""
    return name.startswith(_CHECKPOINT_FOLDER)


def checkpoint_file(step: int) -> str:
    """The training state after ``step`` iterations, in its folder; sorts by step below 10⁹."""
    return f"step-{step:09d}.pt"


def step_of_checkpoint(name: str) -> int | None:
    """The iteration of the checkpoint in the file ``name``; None if it is none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def checksum_file(checkpoint: str) -> str:
    """The file beside a checkpoint that holds its SHA-256."""
    return f"{checkpoint}.sha256"


def final_result(which: str) -> str:
    """The result of the final test of a trial's ``best`` or ``last`` generator."""
    return f"{FINAL}/{which}.json"


def final_losses(which: str) -> str:
    """The losses of the final test, a row per image."""
    return f"{FINAL}/{which}.parquet"


def final_picture(which: str, kind: str) -> str:
    """Images of the final test beside their reconstructions; ``kind``: one of :data:`EXTREMES`."""
    return f"{FINAL}/{which}-{kind}.png"


def final_fid(which: str) -> str:
    """FID and KID of a generator."""
    return f"{FINAL}/{which}-fid.json"


def final_quality(which: str) -> str:
    """Quality of a generator's samples."""
    return f"{FINAL}/{which}-quality.json"


def final_progress(which: str) -> str:
    """How far a final test is, or that it has failed."""
    return f"{FINAL}/{which}-progress.json"
