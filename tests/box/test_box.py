"""The user's own command on a cluster in a box, and the faults that take hosts of their own."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
import socket
import time
from collections.abc import Iterator

import pytest
import requests

from tests.box import hosts
from tests.box.box import ADDRESSES, WORKERS, Box
from tests.box.sweeps import BoxSweep
from tests.clusters import NORMS, TRIALS, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(900)]

LONG = {
    "iterations": 200,
    "evaluate_every": 10,
    "reconstruction_steps": 300,
    "checkpoint_every": 10,
}
"""Half a second per evaluation, time for faults, and a checkpoint at each."""
OUTAGE = 30
"""Seconds for which MLflow is away."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    for program in ("postgres", "initdb", "setpriv", "nsenter", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no program {program} on the PATH")
    for module in ("psycopg", "boto3", "flask_wtf"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; the extra `server` has it")
    if (why := hosts.problem()) is not None:
        pytest.skip(f"no namespaces can be made here: {why}")
    with Box(tmp_path_factory.mktemp("box")) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(box: Box) -> BoxSweep:
    """A sweep that nothing has disturbed: its curves are those that all others must give."""
    final = {"steps": 2, "images": 16, "restarts": 1, "audited": 4}
    made = BoxSweep.of(box, "undisturbed", grid=NORMS, train=LONG, final=final)
    made.run()
    return made


LOAD_CHAMPION = """
import mlflow, torch
generator = mlflow.pytorch.load_model("models:/raygan-undisturbed@champion")
print("image", tuple(generator(torch.zeros(1, 8)).shape))
"""


def test_sweep_ends_with_its_report_its_champion_and_all_metrics(
    box: Box, undisturbed: BoxSweep
) -> None:
    assert json.loads(undisturbed.stored("result.json"))["exit_code"] == 0
    assert b"</html>" in undisturbed.stored("report.html")
    assert {undisturbed.record(trial)["outcome"] for trial in TRIALS} == {"ok"}
    assert {host for trial in TRIALS for host in undisturbed.writers(trial)} == set(WORKERS)
    undisturbed.check_mlflow(*TRIALS)
    artifacts = [key for key in box.store.objects if key.startswith("raygan/mlflow/")]
    assert any(key.endswith("/report.html") for key in artifacts)
    code, output = box.head.run(["python", "-c", LOAD_CHAMPION], "champion.log")
    assert code == 0, output
    assert "image (1, 1, 16, 16)" in output


def test_hosts_reach_nothing_outside(box: Box) -> None:
    for host in box.hosts.values():
        with host.inside(), pytest.raises(OSError) as raised:  # noqa: PT011 - its number is read
            socket.create_connection(("192.0.2.1", 80), timeout=5)
        assert raised.value.errno == errno.ENETUNREACH


def test_row_25_a_client_without_token_or_password_is_refused(
    box: Box, undisturbed: BoxSweep
) -> None:
    import psycopg

    for login in (None, ("raygan", "guessed")):
        assert mlflow_status(box, login) == 401
    user = tuple(box.login.values())
    assert mlflow_status(box, user) == 200
    assert mlflow_status(box, user, host="mlflow.example.org") == 403
    with box.head.inside(), pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(
            host=ADDRESSES["services"], user="mlflow", password="guessed", dbname="mlflow"
        )

    keys = {"AWS_SHARED_CREDENTIALS_FILE": f"{box.place}/.aws/credentials"}
    stranger = keys | {"HOME": f"{box.place}/stranger", "RAY_AUTH_MODE": None}
    submit = ["ray", "job", "submit", "--", "python", "-c", "print(6 * 7)"]
    code, output = box.head.run(submit, "stranger-job.log", stranger)
    assert code != 0
    assert "42" not in output.split()

    # raygan's own words say what to set
    sweep = ["python", "-m", "raygan.sweep", "project/undisturbed.yaml", "--fresh"]
    joins = {"RAY_ADDRESS": "head:6379"}
    code, output = box.head.run(sweep, "no-password.log", stranger | joins)
    assert code == 2, output
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in output
    code, output = box.head.run(sweep, "no-token.log", stranger | joins | box.login)
    assert code == 2, output
    assert "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH" in output


def mlflow_status(box: Box, login: tuple[str, str] | None, host: str = "mlflow:5000") -> int:
    with box.head.inside(), requests.Session() as session:
        session.trust_env = False  # neither proxies nor passwords of this machine
        address = f"http://{ADDRESSES['services']}:5000/api/2.0/mlflow/experiments/search"
        answer = session.get(
            address, params={"max_results": 1}, auth=login, headers={"Host": host}, timeout=60
        )
        return answer.status_code


def test_row_02_trials_of_a_host_that_is_cut_off_resume_on_another(
    box: Box, undisturbed: BoxSweep
) -> None:
    made = BoxSweep.of(box, "cut-off", grid=NORMS, train=LONG)
    with made.submitted() as process:
        for trial in TRIALS:
            wait_until(lambda trial=trial: len(made.curve(trial)) >= 2, f"{trial} trains", process)
        lost = [trial for trial in TRIALS if "two" in made.writers(trial)]
        assert 0 < len(lost) < len(TRIALS)  # each host has room for two
        assert [made.record(trial)["outcome"] for trial in lost] == [None] * len(lost)
        seen = {trial: len(made.curve(trial)) for trial in lost}
        box.network.cut(box.hosts["two"])
        cut = time.monotonic()
        try:
            wait_until(
                lambda: all(len(made.curve(trial)) > seen[trial] for trial in lost), "it trains"
            )
            print(f"{len(lost)} trials evaluate again {time.monotonic() - cut:.0f} s after the cut")
            assert process.wait(400) == 0, made.output
        finally:
            box.boot("two")
            box.join("two")
    for trial in TRIALS:
        assert made.record(trial)["outcome"] == "ok", made.output
        assert made.curve(trial) == undisturbed.curve(trial)
        # its workers are new, its driver on the head is the same
        assert made.output.count(f"started (trial {trial}") == 1
        assert set(made.writers(trial)) == ({"one", "two"} if trial in lost else {"one"})
    made.check_mlflow(*TRIALS)


@pytest.mark.parametrize("row", ["row-07-mlflow-away", "row-09-database-restarts"])
def test_rows_07_and_09_mlflow_gets_all_metrics_once_and_in_order(box: Box, row: str) -> None:
    norms = ["vanilla", "bn"]
    trials = [f"{norm}-000" for norm in norms]
    train = {"iterations": 3000, "evaluate_every": 100}
    made = BoxSweep.of(box, row, grid={"norm": norms}, train=train)
    with made.submitted() as process:
        for trial in trials:
            wait_until(lambda trial=trial: made.metrics().get(trial), "metrics arrive", process)
        box.stop_mlflow() if row.startswith("row-07") else box.crash_postgres()
        seen = {trial: len(made.curve(trial)) for trial in trials}
        for trial in trials:
            wait_until(
                lambda trial=trial: len(made.curve(trial)) >= seen[trial] + 3, "it trains", process
            )
        if row.startswith("row-07"):
            time.sleep(OUTAGE)  # the outage itself
            assert "MLflow is behind" in made.output
            box.start_mlflow()
        else:
            box.start_postgres()
        assert process.wait(400) == 0, made.output
    made.check_mlflow(*trials)
    assert {made.curve(trial)[-1][0] for trial in trials} == {3000}


def test_row_04_a_new_cluster_resumes_the_sweep_of_a_lost_head(
    box: Box, undisturbed: BoxSweep
) -> None:
    done, cut = "vanilla-000", "bn-000"
    made = BoxSweep.of(
        box, "head-lost", grid={"norm": ["vanilla", "bn"]}, train=LONG, scale={"max_concurrent": 1}
    )
    with made.submitted() as process:
        wait_until(lambda: len(made.curve(cut)) >= 3, "the second trial trains", process)
        box.head.kill()
    assert [made.record(trial)["outcome"] for trial in (done, cut)] == ["ok", None]
    known = made.stored(f"trials/{done}/record.json")
    for name in ("head", *WORKERS):
        box.boot(name)
    box.start_ray()

    output = made.run()
    assert made.stored(f"trials/{done}/record.json") == known
    assert output.count(f"started (trial {done}") == 0
    assert output.count(f"started (trial {cut}") == 1
    for trial in (done, cut):
        assert made.record(trial)["outcome"] == "ok"
        assert made.curve(trial) == undisturbed.curve(trial)
    made.check_mlflow(done, cut)


def test_row_25_no_secret_is_printed_or_stored(box: Box, undisturbed: BoxSweep) -> None:
    """Last, so that it reads what all of the tests have left, the database's files included."""
    assert box.files_with_secrets() == box.given
    assert [key for key, data in box.store.objects.items() if box.has_secret(data)] == []
