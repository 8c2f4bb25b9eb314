"""A sweep from its start to its end, its trials trained by nobody: what is opened, closed, said."""

import json
import os
import re
import resource
import shutil
import signal
import threading
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

import raygan
from raygan import __version__
from raygan.cli import main as cli
from raygan.errors import ConfigError, LockedError, RayganError, RunError, TrackingError
from raygan.records import LOSS
from raygan.report import tables
from raygan.storage import Storage
from raygan.sweep.commands.sweep import main
from raygan.sweep.session import run as running
from raygan.sweep.session.lock import Lock
from raygan.sweep.session.run import Options, run
from raygan.sweep.session.session import Session
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import registered
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.prepared import PreparedSet
from raygan.tracking.mlflow_tracker import Tracker
from tests.clusters import wait_until
from tests.sweep.prepared import one_set

SWEEP = """
name: norms
grid: {norm: [bn, wn]}
train: {iterations: 20, evaluate_every: 10}
"""
DATA = one_set(folder="f", digest="d", baseline=0.1, shape="1×8×8", train=9)

pytestmark = pytest.mark.cluster  # whole sweeps with a database of MLflow: they take seconds


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    """An empty MLflow database: to make one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def sweep(tmp_path, monkeypatch, database):
    """Run a sweep whose trials are played by a function; its exit code and what it printed."""
    shutil.copy(database, tmp_path)
    # drawn in tests of its own
    monkeypatch.setattr("raygan.sweep.session.conclude.overview_png", lambda *_: b"")
    monkeypatch.setattr("raygan.report.make.drawings", lambda _: [])
    monkeypatch.setattr("raygan.sweep.session.lock.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("raygan.tracking.mlflow_tracker.CLOSE_SECONDS", 20.0)
    monkeypatch.setattr(running, "_start", lambda *_: 1)
    monkeypatch.setattr(running.preparing, "prepare_on_cluster", lambda *_: DATA.sets)

    def start(play, more: str = "", **options) -> tuple[int, str]:
        monkeypatch.setattr(running.tune, "run", lambda study, *_: play(study))
        read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}\n{more}", "x"))
        console = Console(width=160)
        with console.capture() as capture:
            code = run(read, console, Options(**options))
        return code, capture.get()

    return start


def runs_of(storage: Path) -> dict[str, Run]:
    """MLflow's runs, by the trial or, for the parent, the sweep."""
    client = MlflowClient(f"sqlite:///{storage}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {run.data.tags.get("trial", run.data.tags["sweep"]): run for run in found}


@pytest.fixture
def statuses(tmp_path):
    """Each MLflow run's status, by the trial or, for the parent, the sweep."""

    def statuses() -> dict[str, str]:
        return {name: run.info.status for name, run in runs_of(tmp_path).items()}

    return statuses


def train(study, trial: str, *, to: int = 20) -> None:
    study.started(trial)
    for step in range(10, to + 1, 10):
        point = {"step": step, "val/reconstruction_loss": 1 / step, "perf/images_per_second": 1.0}
        study.heard(trial, point)
    if to == 20:
        study.ended(trial)


def train_all(study) -> None:
    while (planned := study.next_trial()) is not None:
        train(study, planned.id)


def train_one(study) -> None:
    train(study, study.next_trial().id)
    train(study, study.next_trial().id, to=10)


def test_whole_sweep_is_finished(sweep, statuses):
    code, output = sweep(train_all)
    assert code == 0
    assert statuses() == dict.fromkeys(("norms", "bn-000", "wn-000"), "FINISHED")
    assert "Results: " in output


def test_whole_sweep_has_a_report_with_what_trained(sweep, tmp_path):
    _, output = sweep(train_all)
    assert f"Report:  {tmp_path}/norms/report.html" in output
    text = (tmp_path / "norms" / "report.md").read_text()
    assert "2 of 2 trials ended, finished." in text
    assert f"raygan: {__version__}" in text
    (tmp_path / "norms" / "report.md").unlink()
    sweep(train_all)  # shown again, with the versions that trained
    assert (tmp_path / "norms" / "report.md").read_text() == text


def test_whole_sweep_over_two_data_sets_carries_them_everywhere(sweep, tmp_path, monkeypatch):
    sets = {
        "small": PreparedSet(folder="f", digest="s1", baseline=0.3, shape="1×8×8", train=9),
        "big": PreparedSet(folder="f", digest="b1", baseline=0.2, shape="1×16×16", train=8),
    }
    monkeypatch.setattr(running.preparing, "prepare_on_cluster", lambda *_: sets)
    text = "dataset:\n- {label: small, size: 8}\n- {label: big, size: 16}\n"
    code, output = sweep(train_all, text)
    assert code == 0
    assert "4 trials in 4 cells" in output
    assert (
        "small: 9 training images 1×8×8\nbig: 8 training images 1×16×16; up to 1 trials" in output
    )
    assert "0.30000 (small), 0.20000 (big)" in " ".join(output.split())
    assert "Report:" in output
    found = runs_of(tmp_path)
    digests = {"data_digest.small": "s1", "data_digest.big": "b1"}
    assert found["norms"].data.tags.items() >= digests.items()
    for label, digest in (("small", "s1"), ("big", "b1")):
        for norm in ("bn", "wn"):
            run = found[f"{label}_{norm}-000"]
            assert (run.data.tags["dataset"], run.data.tags["data_digest"]) == (label, digest)
            assert run.data.params["dataset"] == label
    frame = raygan.results(str(tmp_path / "norms"))
    assert sorted(frame.dataset) == ["big", "big", "small", "small"]
    code, output = sweep(train_all, text)  # shown again
    assert code == 0
    more = {**sets, "huge": replace(sets["big"], digest="h1")}
    monkeypatch.setattr(running.preparing, "prepare_on_cluster", lambda *_: more)
    text += "- {label: huge, size: 32}\n"
    code, output = sweep(train_all, text)
    assert code == 0
    assert "The sweep is extended: `dataset` by huge." in output
    found = runs_of(tmp_path)
    assert found["norms"].data.tags.items() >= {**digests, "data_digest.huge": "h1"}.items()
    assert found["huge_wn-000"].data.tags["data_digest"] == "h1"
    monkeypatch.setattr(running.preparing, "prepare_on_cluster", lambda *_: {
        **more, "big": replace(sets["big"], digest="b2")})  # fmt: skip
    with pytest.raises(ConfigError, match=r"the images of the data set big \(big\) have changed"):
        sweep(train_all, text + "replicate: {seeds: 1}\n", fresh=False)


def test_report_that_cannot_be_made_fails_no_sweep(sweep, monkeypatch, caplog):
    monkeypatch.setattr("raygan.report.make.drawings", lambda _: 1 / 0)
    code, output = sweep(train_all)
    assert code == 0
    assert "Report:" not in output
    assert re.search(r"run `raygan report norms --storage \S+` to see the error", caplog.text)


def test_one_that_ended_too_soon_is_no_success_and_goes_on(sweep, statuses):
    code, output = sweep(train_one)
    assert code == 143
    assert statuses() == {"norms": "KILLED", "bn-000": "FINISHED", "wn-000": "KILLED"}
    assert "Interrupted; the same command resumes the sweep." in output
    code, _ = sweep(train_all)
    assert code == 0
    assert set(statuses().values()) == {"FINISHED"}


def test_signal_is_an_interruption(sweep, statuses):
    def interrupted(study) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)  # Tune's handler, which stays
        train_one(study)
        os.kill(os.getpid(), signal.SIGTERM)

    code, output = sweep(interrupted, fresh=True)
    assert code == 143
    assert statuses()["wn-000"] == "KILLED"
    assert "the same command, with `--set name=norms` for --fresh, resumes the sweep" in output


def test_whatever_is_raised_leaves_no_run_running(sweep, statuses):
    def broken(study) -> None:
        train_one(study)
        raise RuntimeError("Ray is gone")

    with pytest.raises(RuntimeError, match="Ray is gone"):
        sweep(broken)
    assert statuses() == {"norms": "FAILED", "bn-000": "FINISHED", "wn-000": "KILLED"}


def copying_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("mlflow-")}


@pytest.mark.parametrize("full", [False, True])
def test_error_leaves_no_run_open_in_mlflow_and_no_thread_that_copies(
    sweep, statuses, monkeypatch, full
):
    def broken(study) -> None:
        train_one(study)
        if full:

            def fail() -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(study, "close", fail)
        raise RuntimeError("Ray is gone")

    with pytest.raises(OSError if full else RuntimeError):
        sweep(broken)
    assert statuses() == {"norms": "FAILED", "bn-000": "FINISHED", "wn-000": "KILLED"}
    wait_until(lambda: not copying_threads(), "the threads end")


AWAY = "tracking: {uri: 'http://127.0.0.1:9'}"


def test_mlflow_that_is_away_at_the_start_is_named_with_the_way_without_it(sweep, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(running, "_start", lambda *_: pytest.fail("Ray is started"))
    with pytest.raises(TrackingError, match=r"http://127.0.0.1:9 .*; or add --offline"):
        sweep(train_all, AWAY)


def test_offline_sweep_asks_no_mlflow_and_says_how_to_copy_it(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(Tracker, "connect", lambda _: pytest.fail("MLflow is asked"))
    code, output = sweep(train_all, AWAY, offline=True)
    command = f"raygan sync norms --storage {tmp_path}"
    assert code == 0
    assert (
        f"Nothing is copied to MLflow (--offline). When the sweep has ended, run: {command}"
        in output
    )
    assert f"MLflow:  not copied (--offline); run: {command}" in output
    assert "raygan ui" not in output
    assert state.is_unsynced(Storage(str(tmp_path / "norms")))
    code, output = sweep(lambda study: pytest.fail("it is done"), AWAY, offline=True)
    assert (code, f"run: {command}" in output) == (0, True)


def test_offline_sweep_checks_the_address_that_it_does_not_use(sweep):
    with pytest.raises(TrackingError, match="sqlite:///path or http://host:port"):
        sweep(train_all, "tracking: {uri: 'localhost:5000'}", offline=True)


def test_offline_sweep_needs_no_address_where_the_embedded_database_cannot_be(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    read = spec.validate(parse(SWEEP, "x"))
    bucket = Storage("mock://bucket/raygan")
    options = Options(offline=True)
    session = Session(read, bucket, bucket / "norms", options, Console(), None, None)
    assert running._tracker(session) is None
    with pytest.raises(TrackingError, match="or add --offline"):
        running._tracker(replace(session, options=Options()))


def test_sweep_that_began_offline_is_copied_when_it_is_resumed_with_mlflow(
    sweep, tmp_path, statuses
):
    assert sweep(train_one, offline=True)[0] == 143
    assert statuses() == {}
    assert sweep(train_all)[0] == 0
    assert statuses() == dict.fromkeys(("norms", "bn-000", "wn-000"), "FINISHED")
    assert points(tmp_path, "bn-000") == points(tmp_path, "wn-000") == [(10, 0.1), (20, 0.05)]
    assert not state.is_unsynced(Storage(str(tmp_path / "norms")))


def test_offline_sweep_that_is_done_is_copied_by_its_command_without_offline(
    sweep, tmp_path, statuses
):
    assert sweep(train_all, "budget: {trials: 1}")[0] == 4
    assert sweep(train_all, "budget: {trials: 2}", offline=True)[0] == 0
    assert statuses() == {"norms": "KILLED", "bn-000": "FINISHED"}
    assert state.is_unsynced(Storage(str(tmp_path / "norms")))
    code, _ = sweep(lambda study: pytest.fail("it is done"), "budget: {trials: 2}")
    assert code == 0
    assert set(statuses().values()) == {"FINISHED"}
    assert not state.is_unsynced(Storage(str(tmp_path / "norms")))


def synced(tmp_path) -> str:
    done = CliRunner().invoke(cli, ["sync", "norms", "--storage", str(tmp_path)])
    assert done.exit_code == 0, done.output
    return done.output


def content(tmp_path) -> dict[str, tuple]:
    """What MLflow has of each run, without times and what time changes."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = {}
    for one in client.search_runs([e.experiment_id for e in client.search_experiments()]):
        id, data = one.info.run_id, one.data
        logged = {
            key: [(m.step, m.value) for m in client.get_metric_history(id, key)]
            for key in data.metrics
            if not key.startswith(("spent/", "mlflow/"))
        }
        tags = {k: v for k, v in data.tags.items() if k not in ("raygan.plan", *OF_THE_RUN)}
        files = [file.path for file in client.list_artifacts(id)]
        found[tags.get("trial", "norms")] = (one.info.status, logged, data.params, tags, files)
    return found


OF_THE_RUN = ("raygan.sweep", "raygan.trial", "mlflow.parentRunId")
"""Tags that name the sweep's own id or one of MLflow."""


def test_sync_gives_mlflow_what_a_sweep_with_mlflow_gives_it_and_nothing_twice(
    sweep, tmp_path, tester, database
):
    sweep(train_and_save, REPLICATES)
    live = content(tmp_path)
    shutil.rmtree(tmp_path / "norms")
    shutil.copy(database, tmp_path)
    assert sweep(train_and_save, REPLICATES, offline=True)[0] == 0
    assert content(tmp_path) == {}
    assert "has all that is stored" in synced(tmp_path)
    assert content(tmp_path) == live
    synced(tmp_path)
    assert content(tmp_path) == live


def test_sync_after_a_whole_sweep_with_mlflow_adds_nothing(sweep, tmp_path):
    sweep(train_all)
    live = content(tmp_path)
    synced(tmp_path)
    assert content(tmp_path) == live


def test_sync_after_mlflow_went_away_for_good_copies_the_rest(sweep, tmp_path, monkeypatch):
    with monkeypatch.context() as away:
        away.setattr("raygan.tracking.mlflow_tracker.CLOSE_SECONDS", 0.1)

        def lose(study) -> None:
            train(study, study.next_trial().id)
            away.setattr(MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
            train(study, study.next_trial().id)

        code, output = sweep(lose)
    assert code == 0
    assert "MLflow lacks the latest results (division by zero" in output
    assert f"To copy them: raygan sync norms --storage {tmp_path}" in output
    assert state.is_unsynced(Storage(str(tmp_path / "norms")))
    synced(tmp_path)
    assert points(tmp_path, "bn-000") == points(tmp_path, "wn-000") == [(10, 0.1), (20, 0.05)]
    assert {status for status, *_ in content(tmp_path).values()} == {"FINISHED"}
    assert not state.is_unsynced(Storage(str(tmp_path / "norms")))


def points(tmp_path, trial: str) -> list[tuple[int, float]]:
    _, logged, *_ = content(tmp_path)[trial]
    return logged[LOSS]


def test_budget_has_its_exit_code_and_the_way_on(sweep, statuses):
    code, output = sweep(train_all, "budget: {trials: 1}")
    assert code == 4
    assert statuses() == {"norms": "KILLED", "bn-000": "FINISHED"}
    assert "The budget is reached (1 of 1 trials)" in output
    code, _ = sweep(lambda study: pytest.fail("nothing is left to run"), "budget: {trials: 1}")
    assert code == 4
    code, _ = sweep(train_all, "budget: {trials: 2}")
    assert code == 0


def test_finished_sweep_is_shown_though_mlflow_is_away(sweep, monkeypatch):
    sweep(train_all)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "tracking: {uri: 'http://127.0.0.1:9'}"
    code, output = sweep(lambda study: pytest.fail("it is done"), uri)
    assert code == 0
    assert "bn-000" not in output
    assert "MLflow at http://127.0.0.1:9 cannot be used" in output


def test_showing_a_finished_sweep_again_adds_nothing_to_mlflow(sweep, tmp_path):
    sweep(train_all)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")

    def points() -> int:
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        return sum(
            len(client.get_metric_history(run.info.run_id, key))
            for run in runs
            for key in run.data.metrics
        )

    before = points()
    code, _ = sweep(lambda study: pytest.fail("it is done"))
    assert code == 0
    assert points() == before


def test_tables_that_cannot_be_written_do_not_hide_the_rest(sweep, statuses, monkeypatch):
    whole = Storage.write

    def full(self, name, data, **options) -> None:
        if name.endswith((".parquet", ".png")):
            raise OSError(28, "No space left on device")
        whole(self, name, data, **options)

    monkeypatch.setattr(Storage, "write", full)
    code, output = sweep(train_all)
    assert code == 0
    assert "The tables cannot be written" in output
    assert statuses()["norms"] == "FINISHED"


@pytest.mark.parametrize("asked", ["for final tests", "for the lock"])
def test_storage_that_is_away_while_a_sweep_starts_is_named(sweep, monkeypatch, asked):
    if asked == "for final tests":
        sweep(train_all)
        calls, owner, name = [None], running.final_tests, "due"
    else:
        calls, owner, name = [], Lock, "confirm"
    whole = getattr(owner, name)

    def away(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise OSError("connection refused")
        return whole(*arguments)

    monkeypatch.setattr(owner, name, away)
    with pytest.raises(ConfigError, match=r"cannot be written or read \(connection refused\)"):
        sweep(lambda _: pytest.fail("nothing may be trained"))


def test_storage_that_is_away_at_the_end_is_told(sweep, monkeypatch):
    def away(*_: object, **__: object) -> None:
        raise OSError("connection refused")

    def train_all_and_lose_it(study) -> None:
        train_all(study)
        study.flush()
        for name in ("read", "write", "files", "folders", "delete"):
            monkeypatch.setattr(Storage, name, away)

    code, output = sweep(train_all_and_lose_it)
    assert code == 0
    assert "The tables cannot be written (connection refused); the same command writes" in output
    assert "Results: " in output


def test_every_trial_that_fails_is_no_verdict(sweep, statuses):
    def failing(study) -> None:
        while (planned := study.next_trial()) is not None:
            study.ended(planned.id, error="out of memory")

    code, output = sweep(failing)
    assert code == 3
    assert "2 × failed: out of memory" in output
    assert set(statuses().values()) == {"FAILED"}
    code, _ = sweep(train_all, retry_failed=True)
    assert code == 0
    assert set(statuses().values()) == {"FINISHED"}


def test_journal_that_cannot_be_written_ends_no_sweep(sweep, tmp_path, caplog):
    (tmp_path / "norms" / "optuna.log").mkdir(parents=True)
    code, _ = sweep(train_all)
    assert code == 0
    assert "cannot be written any more, so optuna-dashboard" in caplog.text


REPLICATES = "replicate: {seeds: 1}\nfinal: {steps: 7}"


def train_and_save(study) -> None:
    train_all(study)
    for trial in study.records:
        study.storage.write(f"trials/{trial}/checkpoint_20/step-000000020.pt", b"")


class Runner:
    """Makes final tests in Ray's place; at the ``stops``-th, the sweep is stopped."""

    made: ClassVar[list[str]] = []

    def __init__(self, stops: int | None = None, *, fails: bool = False) -> None:
        self._stops, self._fails = stops, fails

    def start(self, job, final_job):
        return final_job

    def ended(self, running):
        return running[:1]

    def result(self, running):
        test, generator = running.test, running.test.generator
        if self._fails:
            raise OSError("connection refused")
        self.made.append(generator.title)
        result = {"loss": 0.5, "images": 1, "steps": 7, "audited": 0,
                  "asked": asdict(test.config), "replaced": ""}  # fmt: skip
        written = json.dumps({**result, "checkpoint": generator.checkpoint}).encode()
        quality = json.dumps({"kind": test.quality, "checkpoint": generator.checkpoint}).encode()
        for which in generator.which:
            Storage(running.job.folder).write(f"final/{which}.json", written)
            if test.quality != "none":
                Storage(running.job.folder).write(f"final/{which}-quality.json", quality)
        if len(self.made) == self._stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    def stop(self, running):
        pass


@pytest.fixture
def tester(monkeypatch):
    monkeypatch.setattr(Runner, "made", [])

    def make(stops: int | None = None, *, fails: bool = False) -> None:
        monkeypatch.setattr(running, "Tasks", lambda _: Runner(stops, fails=fails))

    make()
    return make


def test_final_tests_follow_the_replicates_and_are_made_once(sweep, tester, statuses):
    code, output = sweep(train_and_save, REPLICATES)
    assert code == 0
    assert "final test 2/2, wn s1, best and last: loss 0.50000" in output
    assert Runner.made == ["bn s1", "wn s1"]
    code, output = sweep(lambda study: pytest.fail("nothing is left to run"), REPLICATES)
    assert (code, len(Runner.made)) == (0, 2)
    assert "final test" not in output
    assert set(statuses().values()) == {"FINISHED"}


def test_mlflow_hears_of_final_tests_that_were_made_later(sweep, tester, tmp_path):
    def wn() -> tuple[float, str]:
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        by_name = {run.info.run_name: run.data for run in found}
        return by_name["wn s1"].metrics["final/best"], by_name["norms"].tags["mlflow.note.content"]

    sweep(train_and_save, REPLICATES)
    assert wn()[0] == 0.5
    for path in (tmp_path / "norms" / "trials").glob("wn*/final/best.json"):
        path.write_text(path.read_text().replace("0.5", "0.25"))
    code, _ = sweep(lambda study: pytest.fail("nothing is left to run"), REPLICATES)
    loss, note = wn()
    assert (code, loss) == (0, 0.25)
    assert "wn has the lowest" in note


def test_changed_budget_of_the_final_test_makes_it_again(sweep, tester):
    sweep(train_and_save, REPLICATES)
    again = REPLICATES.replace("7", "8")
    code, _ = sweep(lambda study: pytest.fail("no trial is left to run"), again)
    assert (code, len(Runner.made)) == (0, 4)
    off = REPLICATES.replace("7", "0")
    sweep(lambda study: pytest.fail("no trial is left to run"), off)
    assert len(Runner.made) == 4


def test_sweep_that_is_stopped_among_its_final_tests_goes_on_with_them(sweep, tester, statuses):
    tester(stops=1)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)  # Tune's handler stays
    try:
        code, output = sweep(train_and_save, REPLICATES)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (code, Runner.made) == (143, ["bn s1"])
    assert "Interrupted; the same command resumes the sweep." in output
    assert statuses()["norms"] == "KILLED"
    tester()
    code, output = sweep(lambda study: pytest.fail("no trial is left to run"), REPLICATES)
    assert (code, Runner.made) == (0, ["bn s1", "wn s1"])
    assert "final test 1/1, wn s1" in output
    assert statuses()["norms"] == "FINISHED"


def test_without_its_final_tests_a_sweep_is_not_done_and_goes_on_with_them(
    sweep, tester, statuses, tmp_path
):
    def result() -> tuple[int, bool]:
        content = json.loads((tmp_path / "norms" / "result.json").read_text())
        return content["exit_code"], content["finished"]

    tester(fails=True)
    code, output = sweep(train_and_save, REPLICATES)
    assert (code, result()) == (1, (1, False))
    assert (
        "2 final tests could not be made: the verdict rests on the running test; the sa" in output
    )
    assert statuses()["norms"] == "KILLED"
    tester()
    code, _ = sweep(lambda study: pytest.fail("no trial is left to run"), REPLICATES)
    assert (code, result()) == (0, (0, True))
    assert statuses()["norms"] == "FINISHED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_the_tables_are_written_ends_at_once_and_is_made_up_for(
    sweep, statuses, monkeypatch, number
):
    write = tables.write

    def interrupted(*arguments) -> None:
        write(*arguments)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGUSR1, lambda *_: None)  # Tune's handler stays
    try:
        with monkeypatch.context() as once:
            once.setattr("raygan.report.tables.write", interrupted)
            with pytest.raises(SystemExit) as ended:
                sweep(train_all)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended.value.code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert statuses()["norms"] == "KILLED"
    code, _ = sweep(lambda study: pytest.fail("nothing is left to run"))
    assert code == 0
    assert statuses()["norms"] == "FINISHED"


def test_no_run_stays_running_if_the_opening_of_mlflow_is_interrupted(sweep, statuses, monkeypatch):
    def interrupted(*_: object) -> None:
        raise SystemExit(130)

    monkeypatch.setattr(MlflowClient, "log_text", interrupted)
    with pytest.raises(SystemExit):
        sweep(train_all)
    assert statuses() == {"norms": "FAILED"}


def test_an_error_among_the_trials_has_its_own_exit_code(sweep, tmp_path, monkeypatch):
    def broken(_) -> None:
        raise ConfigError("mine.py:4: the stop rule raised ZeroDivisionError")

    with pytest.raises(RunError, match=r"mine\.py:4"):
        sweep(broken)
    file = tmp_path / "sweep.yaml"
    file.write_text(f"{SWEEP}storage: {tmp_path}")
    done = CliRunner().invoke(main, [str(file)])
    assert done.exit_code == 1
    assert "error: mine.py:4: the stop rule raised" in done.stderr


def test_no_final_test_where_the_budget_has_ended_the_sweep(sweep, tester):
    code, _ = sweep(train_and_save, f"{REPLICATES}\nbudget: {{trials: 1}}")
    assert (code, Runner.made) == (4, [])


@contextmanager
def held(sweep: Storage):
    with Lock(sweep, lambda: None, print):
        yield


def test_sweep_that_another_runs_is_not_touched(sweep, tmp_path):
    folder = Storage(str(tmp_path / "norms"))
    with held(folder), pytest.raises(LockedError):
        sweep(train_all)
    assert folder.files() == []


def test_full_disk_is_one_line_before_anything_starts(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"{SWEEP}storage: {tmp_path / 'results'}\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        done = CliRunner().invoke(main, [str(path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 2
    assert "cannot be written or read ([Errno 27] File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("where", [(Lock, "confirm"), (running, "_untested")])
def test_storage_that_fails_just_before_the_first_trial_is_one_error(sweep, monkeypatch, where):
    sweep(train_all)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*where, fail)
    more = "" if where[0] is running else "replicate: {seeds: 1}\n"
    with pytest.raises(ConfigError, match=r"cannot be written or read \(\[Errno 5\]"):
        sweep(lambda study: pytest.fail("a trial starts"), more)


@pytest.mark.parametrize("name", ["norms/optuna.log", "norms/report", "norms/trials", "mlflow.db"])
def test_no_sweep_writes_through_a_link(sweep, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside / "new" if "." in name else outside)
    with pytest.raises(RayganError, match="is a symbolic link"):
        sweep(train_all)
    assert list(outside.iterdir()) == []


def test_sweep_that_an_earlier_version_began_is_resumed_with_its_early_stopping(sweep, tmp_path):
    search = "search: {lr: [1e-3, 1e-4]}\n"
    before = spec.validate(parse(f"{SWEEP}{search}stop: {{rule: none}}\nstorage: {tmp_path}", "x"))
    state.store(Storage(str(tmp_path / "norms")), before, replace(DATA, id="1"))
    code, _ = sweep(train_all, search)
    assert code == 0
    assert state.stored_spec(Storage(str(tmp_path / "norms"))).stop.rule == "none"


def lacks_the_extra(kind: str) -> None:
    if kind == "features":
        raise ConfigError("pip install 'raygan[quality]'")


def test_sweep_whose_quality_cannot_be_measured_here_does_not_start(sweep, tmp_path, monkeypatch):
    sweep(lambda study: None, "")  # with what this machine has
    stored = (tmp_path / "norms" / "sweep.yaml").read_text()
    assert "quality: features" in stored or "quality: wasserstein" in stored
    monkeypatch.setattr("raygan.gan.judge.quality.check", lacks_the_extra)
    monkeypatch.setattr(running, "_start", lambda *_: pytest.fail("it has started"))
    path = tmp_path / "named.yaml"
    path.write_text(f"name: named\nstorage: {tmp_path}\ntrain: {{quality: features}}\n")
    for arguments in ([str(path)], [str(path), "--dry-run"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert "raygan[quality]" in done.output
    assert not (tmp_path / "named" / "sweep.yaml").exists()


def test_unfair_early_stopping_is_refused_in_a_new_sweep_only(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("raygan.sweep.stopping.asha.LEAST_GRACE", 0.1)
    more = "search: {lr: [1e-3, 1e-4]}\nstop: {rule: asha, grace: 1}\n"
    with pytest.raises(ConfigError, match="is below 10%"):
        sweep(lambda study: pytest.fail("it is refused"), more)
    before = spec.validate(parse(f"{SWEEP}{more}storage: {tmp_path}", "x"))
    state.store(Storage(str(tmp_path / "norms")), before, replace(DATA, id="1"))
    assert sweep(train_all, more)[0] == 0


def test_names_that_cannot_be_stored_are_refused_in_a_new_sweep_only(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr("raygan.sweep.spec.checks.MOST_NAME", 5)
    path = tmp_path / "named.yaml"
    path.write_text(f"{SWEEP}storage: {tmp_path}\n")
    words = "may have up to 6 characters, and at most 5 are allowed"
    with pytest.raises(ConfigError, match=words):
        sweep(lambda study: pytest.fail("it is refused"))
    assert words in CliRunner().invoke(main, [str(path), "--dry-run"]).output
    before = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    state.store(Storage(str(tmp_path / "norms")), before, replace(DATA, id="1"))
    assert sweep(train_all)[0] == 0
    assert words not in CliRunner().invoke(main, [str(path), "--dry-run"]).output


def test_claims_that_are_added_to_a_finished_sweep_are_written_down(sweep, tmp_path, database):
    storage = Storage(str(tmp_path / "norms"))
    sweep(train_all)
    shutil.copy(database, tmp_path)  # so that MLflow lacks all of it
    sweep(lambda study: pytest.fail("it is done"), "claims: [{lower: wn, than: bn}]\n")
    first, last = registered.entries(storage)
    assert (first.trials, last.trials) == (0, 2)
    assert state.stored_spec(storage).claims == last.content.claims
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    tags = [run.data.tags for run in runs if "raygan.plan" in run.data.tags]
    assert [(found["raygan.plan"], found["raygan.plan.latest"]) for found in tags] == [
        (first.sha256, last.sha256)
    ]
