"""A sweep and a final test write into their storage, and nowhere else."""

import shlex
import sys

import pytest

from tests.clusters import PATIENCE, ROOT, mlflow_runs, start, stop

pytestmark = pytest.mark.cluster

OF_OTHERS = (".ray/", ".cache/matplotlib/", ".config/matplotlib/")
"""Under the home folder: Ray's token for its own clusters, and Matplotlib's list of fonts."""


def entries(folder) -> list[str]:
    """What lies in ``folder``, without empty folders."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def test_sweep_and_final_test_leave_working_directory_and_home_as_they_were(sweep, tmp_path):
    cwd, home, storage = (tmp_path / name for name in ("cwd", "home", "a #1 & 100%"))
    for folder in (cwd, home):
        folder.mkdir()
    env = {
        "HOME": str(home), "PYTHONPATH": str(ROOT),
        # a Ray of its own, so that its workers have this home folder, too
        "RAY_ADDRESS": None, "RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": None,
        "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None,
    }  # fmt: skip
    made = sweep("footprint", storage=str(storage), grid={"norm": ["bn"]}, env=env)
    evaluate = "import sys; from raygan.cli import main; sys.argv[0] = 'raygan'; main()"
    commands = (
        [*made.command],
        [sys.executable, "-c", evaluate, "evaluate", str(made.file), "--steps", "2"],
    )
    for command in commands:
        process = start(command, made.log, made.env, cwd=cwd)
        try:
            assert process.wait(2 * PATIENCE) == 0, made.log.read_text()
        finally:
            stop(process)
    assert entries(cwd) == []
    assert [name for name in entries(home) if not name.startswith(OF_OTHERS)] == []
    assert sorted(path.name for path in storage.iterdir()) == [
        "data", "footprint", "mlartifacts", "mlflow.db",
    ]  # fmt: skip
    told = next(line for line in made.log.read_text().splitlines() if "raygan ui" in line)
    *_, option, where = shlex.split(told)  # as a shell takes it
    assert (option, where) == ("--storage", str(storage))
    assert set(mlflow_runs(f"sqlite:///{where}/mlflow.db", "footprint")) == {"footprint", "bn-000"}
    assert entries(storage / "footprint" / "trials" / "bn-000" / "final")
