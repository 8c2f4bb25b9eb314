"""Where MLflow's store is, how outcomes map to its statuses, and the origin of code and data."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from raygan.addresses import check_address
from raygan.errors import TrackingError
from raygan.folder import HTML, MLFLOW_DATABASE
from raygan.storage import Storage
from raygan.tracking.database import address_of
from raygan.version import __version__

Status = Literal["FINISHED", "FAILED", "KILLED"]

STATUS_OF: dict[str | None, Status] = {
    "ok": "FINISHED", "stopped": "KILLED", "collapsed": "FINISHED",
    "untrained": "FINISHED", "diverged": "FAILED",
    "early-failure": "FAILED", "failed": "FAILED", None: "KILLED",
}  # fmt: skip
PARAMS = ("norm", "architecture", "features", "iterations", "lr", "seed")
"""Fields of the training configuration that are always logged as parameters; the others are logged
only if they are not the default."""
NO_PARAMS = ("evaluate_every", "reconstruction_steps", "quality")
"""Fields that are never logged: they say how a trial is measured, not what is trained."""
DIGEST = "data_digest"
EXPERIMENT_NOTE = (
    "GANs trained by raygan. A run per sweep, whose description is its verdict and whose artifacts "
    f"hold {HTML}; its children are the trials. Compare trials by `final/*` and `stability/*`, "
    "group them by the parameters `cell` and `outcome`."
)
"""Description of an experiment that raygan creates."""


def default_uri(storage: Storage) -> str:
    """The address of MLflow's store if the YAML names none: MLFLOW_TRACKING_URI, or else an SQLite
    database in the storage folder.

    Raises :class:`~raygan.errors.TrackingError` for object storage, which cannot hold it, and
    :class:`~raygan.errors.ConfigError` if MLFLOW_TRACKING_URI holds a password.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        check_address(uri, "MLFLOW_TRACKING_URI")
        return uri
    if not storage.is_local:
        raise TrackingError(
            f"storage is {storage.uri}, where MLflow's embedded database cannot be kept: set "
            "`tracking.uri` or MLFLOW_TRACKING_URI to an MLflow server"
        )
    return address_of(storage.local / MLFLOW_DATABASE)


def is_file(uri: str) -> bool:
    """Whether ``uri`` is a database file on this node, not a server."""
    return uri.startswith(("sqlite:", "sqlite+"))


def set_defaults() -> None:
    """Set those of MLflow's environment variables that are not set, before MLflow is imported."""
    # by default, MLflow retries for minutes per call
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault(
        "MLFLOW_DISABLE_TELEMETRY", "true"
    )  # telemetry writes to the home folder, too
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def run_tags(digest: str) -> dict[str, str]:
    """Tags of a run that say which code and which data it used."""
    from importlib.metadata import version

    # in a Ray job, raygan is a folder, not an installed package
    tags = {DIGEST: digest, "version.raygan": __version__}
    tags |= {f"version.{name}": version(name) for name in ("torch", "ray", "mlflow")}
    # only if this file is part of the repository, not just inside its folder
    if _git("ls-files", "--error-unmatch", Path(__file__).name) and (
        commit := _git("rev-parse", "HEAD")
    ):
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit
    return tags


def data_tags(digests: Mapping[str, str]) -> dict[str, str]:
    """Tags of a parent run that name the digest of each data set; none if there is only one.

    ``digests``: by label. :func:`run_tags` has the digest of all of them together.
    """
    if len(digests) == 1:
        return {}
    return {f"{DIGEST}.{label}": digest for label, digest in digests.items()}


def of_dataset(tags: Mapping[str, str], label: str) -> dict[str, str]:
    """The tags of a trial's run on the data set ``label``, from those of the parent run."""
    digest = tags.get(f"{DIGEST}.{label}", tags.get(DIGEST))
    kept = {key: value for key, value in tags.items() if not key.startswith(f"{DIGEST}.")}
    return kept if digest is None else {**kept, DIGEST: digest}


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


class _Quiet:
    """How many threads want silence now, and the levels from before."""

    lock = threading.Lock()
    wanted = 0
    levels: ClassVar[dict[str, int]] = {}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of MLflow and its libraries while a thread is within the block.

    They report migrations, retries and errors with stack traces and full addresses. raygan reports
    what matters itself.
    """
    names = ("mlflow", "alembic", "urllib3", "sqlalchemy")
    with _Quiet.lock:
        if not _Quiet.wanted:
            _Quiet.levels = {name: logging.getLogger(name).level for name in names}
        _Quiet.wanted += 1
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.wanted -= 1
            if not _Quiet.wanted:
                for name, level in _Quiet.levels.items():
                    logging.getLogger(name).setLevel(level)
