"""The sweep as a Ray job, with token authentication on."""

from __future__ import annotations

import subprocess

from tests.clusters import BIN, ROOT, mlflow_runs


def submit(cluster, env, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(BIN / "ray"), "job", "submit", "--address", cluster.dashboard,
         "--working-dir", ".", "--", *command],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def test_job_runs_the_sweep(cluster, tmp_path):
    env = {k: v for k, v in cluster.env.items() if k != "RAY_ADDRESS"}
    done = submit(
        cluster, env, "python", "-m", "raygan.sweep", "sweeps/quickstart.yaml", "--smoke-test",
        "--set", f"storage={tmp_path}/results", "--set", "name=job",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20/20  reconstruction loss" in done.stdout
    runs = mlflow_runs(f"sqlite:///{tmp_path}/results/mlflow.db", "job-smoke")
    searched = {f"{norm}-000" for norm in ("vanilla", "bn", "wn")}
    assert set(runs) == {"job-smoke"} | searched | {f"{trial}-seed1" for trial in searched}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_job_with_relative_storage_is_refused(cluster):
    env = {k: v for k, v in cluster.env.items() if k != "RAY_ADDRESS"}
    done = submit(cluster, env, "python", "-m", "raygan.sweep", "sweeps/quickstart.yaml")
    assert done.returncode != 0
    assert "`storage` (='results') is relative" in done.stdout + done.stderr


def test_wrong_token_is_refused(cluster, tmp_path):
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    env = {k: v for k, v in cluster.env.items() if k != "RAY_ADDRESS"}
    done = submit(
        cluster, {**env, "RAY_AUTH_TOKEN_PATH": str(wrong)}, "python", "-c", "print('in')"
    )
    assert done.returncode != 0
    assert "in\n" not in done.stdout
