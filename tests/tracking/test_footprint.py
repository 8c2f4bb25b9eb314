"""The commands and `raygan.run` write into a sweep's storage, and nowhere else."""

import shlex
import sys

import pytest

from tests.clusters import PATIENCE, ROOT, mlflow_runs, start, stop

pytestmark = [pytest.mark.cluster, pytest.mark.soak]

OF_OTHERS = (".ray/", ".cache/matplotlib/", ".config/matplotlib/")
"""Under the home folder: Ray's token for its own clusters, and Matplotlib's list of fonts."""


def entries(folder) -> list[str]:
    """What lies in ``folder``, without empty folders."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


COMMAND = "import sys; from raygan.cli import main; sys.argv[0] = 'raygan'; main()"
PYTHON = """
import sys
import raygan

found = raygan.run(sys.argv[1], replicate={"seeds": 1})
assert found.exit_code == 0
assert len(found.frame) == 2
assert found.verdict and found._repr_html_() and found.report.html()
"""
"""Extends the sweep by a trial, so that there is something to run."""


def written(folder) -> dict[str, int]:
    """When each file in ``folder`` was written last."""
    return {name: (folder / name).stat().st_mtime_ns for name in entries(folder)}


def test_working_directory_and_home_stay_as_they_were(sweep, tmp_path):
    cwd, home, temporary, storage = (
        tmp_path / name for name in ("cwd", "home", "tmp", "a #1 & 100%")
    )
    for folder in (cwd, home, temporary):
        folder.mkdir()
    env = {
        "HOME": str(home), "PYTHONPATH": str(ROOT),
        # a Ray of its own, so that its workers have this home folder, too
        "RAY_ADDRESS": None, "RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN_PATH": None,
        "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None,
    }  # fmt: skip
    made = sweep("footprint", storage=str(storage), grid={"norm": ["bn"]}, env=env)

    def run(*command: str, **more: str) -> None:
        process = start([sys.executable, *command], made.log, {**made.env, **more}, cwd=cwd)
        try:
            assert process.wait(2 * PATIENCE) == 0, made.log.read_text()
        finally:
            stop(process)

    run(*made.command[1:])
    run("-c", COMMAND, "evaluate", str(made.file), "--steps", "2")
    run("-c", PYTHON, str(made.file))
    before = written(storage)
    for looks in (["status"], ["watch"], ["watch", "--once"], ["results"]):
        run("-c", COMMAND, *looks, str(made.file), TMPDIR=str(temporary))
        assert written(storage) == before, f"raygan {' '.join(looks)} has written"
    run("-c", COMMAND, "report", str(made.file), TMPDIR=str(temporary))
    after = written(storage)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed
    assert {name.split("/")[1].split(".")[0] for name in changed} == {"report"}
    assert entries(temporary) == []
    assert entries(cwd) == []
    assert [name for name in entries(home) if not name.startswith(OF_OTHERS)] == []
    assert sorted(path.name for path in storage.iterdir()) == [
        "data", "footprint", "mlartifacts", "mlflow.db",
    ]  # fmt: skip
    told = next(line for line in made.log.read_text().splitlines() if "raygan ui" in line)
    *_, option, where = shlex.split(told)  # as a shell takes it
    assert (option, where) == ("--storage", str(storage))
    assert set(mlflow_runs(f"sqlite:///{where}/mlflow.db", "footprint")) == {
        "footprint", "bn-000", "bn-seed1",
    }  # fmt: skip
    assert entries(storage / "footprint" / "trials" / "bn-000" / "final")
