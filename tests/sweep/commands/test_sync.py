"""``raygan sync``: what of a stored sweep it brings MLflow, once, and what it refuses. No server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan import recipe
from raygan.cli import main
from raygan.folder import PICTURES
from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.session import conclude
from raygan.sweep.session.lock import Lock
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import registered
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.study import Study
from raygan.tracking import images, problems
from raygan.tracking.copying import Copying
from raygan.tracking.mlflow_tracker import Tracker
from raygan.tracking.runs import NOTE
from tests.sweep.prepared import one_set
from tests.tracking.fake_mlflow import FakeClient
from tests.tracking.test_copying import PATIENCE, until
from tests.tracking.test_problems import answer  # noqa: F401 - fixture
from tests.tracking.test_runs import store_pictures

SWEEP = "name: norms\ngrid: {norm: [bn, wn]}\ntrain: {iterations: 20, evaluate_every: 10}\n"
DATA = one_set(id="id", digest="d", baseline=0.1)
POINTS = [(10, 0.1), (20, 0.05)]


class Server(FakeClient):
    """One that goes away for good with a request."""

    left: int | None = None
    """Requests until then; None: it stays."""
    sent: Callable[[], None] | None = None
    """Called with each request that has evaluations, before its effect."""

    def log_batch(self, run_id, metrics=(), params=(), tags=()) -> None:
        if self.sent is not None and any(metric.key == LOSS for metric in metrics):
            self.sent()
        super().log_batch(run_id, metrics, params, tags)

    def _request(self, method: str, what: object = None) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("it is away")
        super()._request(method, what)

    def content(self) -> dict[str, tuple]:
        return {
            run.name: (run.status, run.tags, run.params, run.metrics.keys(), sorted(run.files))
            for run in self.runs.values()
        }


@pytest.fixture
def server(monkeypatch) -> Server:
    return use(Server(), monkeypatch)


def use(server: Server, monkeypatch) -> Server:
    """Let all trackers connect to ``server``."""

    def connect(self: Tracker) -> None:
        self._client, self._experiment_id = server, "1"

    monkeypatch.setattr(Tracker, "connect", connect)
    return server


@pytest.fixture(autouse=True)
def fast(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("raygan.sweep.session.lock.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("raygan.tracking.mlflow_tracker.RETRY_SECONDS", 0.001)
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 0.001)
    # drawn in tests of their own
    monkeypatch.setattr("raygan.report.make.drawings", lambda _: [])
    monkeypatch.setattr(conclude, "overview_png", lambda *_: b"")


@pytest.fixture
def study(tmp_path) -> Study:
    """A sweep that has begun; none of its trials has started."""
    sweep = Storage(str(tmp_path)) / "norms"
    read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    state.store(sweep, read, DATA)
    registered.register(sweep, read, "d", "c", 0)
    state.note_synced(sweep, synced=False)
    return Study(read, sweep)


def train(study: Study, evaluations: int = 2) -> None:
    """Start a trial and train it as far as that."""
    trial = study.next_trial().id
    study.started(trial)
    for step in range(10, 10 * evaluations + 1, 10):
        study.heard(trial, {"step": step, LOSS: 1 / step, "perf/images_seen": 2.0 * step})
    if evaluations == 2:
        study.ended(trial)
    study.flush()


def run(study: Study, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(
        main, ["sync", "norms", "--storage", study.storage.parent, *arguments]
    )
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


AT = ("--mlflow", "http://127.0.0.1:9")


def test_a_whole_sweep_is_copied_and_a_second_time_changes_nothing(study, server):
    train(study)
    train(study)
    output = run(study, *AT)
    assert (
        "Copying 2 trials of norms to MLflow at http://127.0.0.1:9, experiment 'raygan'" in output
    )
    assert "MLflow has all that is stored of this sweep." in output
    assert {run.status for run in server.runs.values()} == {"FINISHED"}
    for name in ("bn", "wn"):
        trial = server.trial(f"{name}")
        assert trial.logged(LOSS) == POINTS
        assert (trial.params["cell"], trial.params["outcome"]) == (name, "ok")
        assert trial.logged("stability/best") == [(0, 0.05)]
        assert trial.tags["mlflow.parentRunId"] == "run-0"
    parent = server.trial("norms")
    assert parent.tags["data_digest"] == "d"
    assert parent.tags["raygan.plan"] == registered.entries(study.storage)[0].sha256
    assert "bn" in parent.tags[NOTE]
    assert parent.logged("trials/ok") == [(2, 2.0)]
    assert {"sweep.yaml", "results.parquet", "report.html"} <= set(parent.files)
    before = server.content()
    run(study, *AT)
    assert server.content() == before


def test_a_sweep_that_has_not_ended_is_copied_as_far_as_it_is_and_later_the_rest(study, server):
    train(study)
    train(study, 1)
    output = run(study, *AT)
    assert "The sweep has not ended: its command resumes it" in output
    assert {name: run[0] for name, run in server.content().items()} == {
        "norms": "KILLED", "bn": "FINISHED", "wn": "KILLED",
    }  # fmt: skip
    assert server.trial("wn").logged(LOSS) == POINTS[:1]
    before = server.content()
    run(study, *AT)
    assert server.content() == before
    resumed = Study(study.spec, study.storage)
    train(resumed)
    assert "has not ended" not in run(study, *AT)
    assert server.trial("wn").logged(LOSS) == POINTS
    assert {run.status for run in server.runs.values()} == {"FINISHED"}


def test_paused_trials_of_a_sweep_whose_budget_is_reached_are_copied(tmp_path, server):
    sweep = Storage(str(tmp_path)) / "norms"
    budget = f"{SWEEP}storage: {tmp_path}\nbudget: {{wall_clock: 1s}}"
    read = spec.validate(parse(budget, "x"))
    state.store(sweep, read, DATA)
    now = [0.0]
    study = Study(read, sweep, now=lambda: now[0])
    train(study, 1)
    now[0] = 9.0
    study.close()
    assert "has not ended" not in run(study, *AT)
    assert server.trial("bn").logged(LOSS) == POINTS[:1]
    assert {run.status for run in server.runs.values()} == {"KILLED"}


@pytest.mark.parametrize("requests", range(0, 16, 3))
def test_what_an_outage_cuts_off_is_made_up_for_once(study, server, monkeypatch, requests):
    train(study)
    train(study)
    monkeypatch.setattr(conclude, "_write", lambda *_, **__: None)
    whole = use(Server(), monkeypatch)
    run(study, *AT)
    use(server, monkeypatch)
    state.note_synced(study.storage, synced=False)
    server.left = requests
    with monkeypatch.context() as short:
        short.setattr("raygan.tracking.mlflow_tracker.CLOSE_SECONDS", 0.02)
        output = run(study, *AT, code=2)
    assert "http://127.0.0.1:9" in output
    assert "it is away" in output
    assert state.is_unsynced(study.storage)
    server.left = None
    run(study, *AT)
    assert not state.is_unsynced(study.storage)
    assert logged(server) == logged(whole)


def statuses(server: Server) -> dict[str, str]:
    return {run.name: run.status for run in server.runs.values()}


def interrupted(study: Study, server: Server, monkeypatch) -> str:
    """Run ``raygan sync`` with Ctrl-C while evaluations are sent."""
    reached = threading.Event()
    waiting: list[Copying] = []

    def close(self: Copying, *_: object, **__: object) -> bool:
        assert reached.wait(PATIENCE)
        waiting.append(self)
        raise KeyboardInterrupt

    def sent() -> None:
        server.sent = None
        reached.set()
        until(lambda: waiting and waiting[0]._given_up)

    server.sent = sent
    with monkeypatch.context() as pressed:
        pressed.setattr(Copying, "close", close)
        return run(study, *AT, code=130)


def cut_off(study: Study, server: Server, monkeypatch) -> str:
    """Run ``raygan sync`` while the server goes away with the first evaluations."""

    def sent() -> None:
        server.sent, server.left = None, 0
        raise ConnectionError("it is away")

    server.sent = sent
    with monkeypatch.context() as short:
        short.setattr("raygan.tracking.mlflow_tracker.CLOSE_SECONDS", 0.02)
        output = run(study, *AT, code=2)
    server.left = None
    return output


@pytest.mark.parametrize(
    ("end", "advice"),
    [
        (interrupted, "interrupted: the same command copies the rest"),
        (cut_off, "Run the same command again; it copies the rest"),
    ],
)
def test_a_copy_that_is_cut_off_leaves_no_run_open(study, server, monkeypatch, end, advice):
    monkeypatch.setattr("raygan.tracking.mlflow_tracker.THREADS", 1)
    train(study)
    train(study)
    assert advice in end(study, server, monkeypatch)
    assert state.is_unsynced(study.storage)
    assert statuses(server)["norms"] == "KILLED"
    assert len(server.runs) == 2
    assert "RUNNING" not in statuses(server).values()
    run(study, *AT)
    assert not state.is_unsynced(study.storage)
    assert statuses(server) == dict.fromkeys(("norms", "bn", "wn"), "FINISHED")
    for name in ("bn", "wn"):
        assert server.trial(name).logged(LOSS) == POINTS
        assert server.trial(name).params["cell"] == name


@pytest.mark.parametrize("end", [interrupted, cut_off])
def test_the_parent_run_of_a_sweep_that_has_ended_keeps_its_status_while_it_is_copied_again(
    study, server, monkeypatch, end
):
    train(study)
    train(study)
    run(study, *AT)
    lose(server, "bn")
    end(study, server, monkeypatch)
    assert statuses(server) == dict.fromkeys(("norms", "bn", "wn"), "FINISHED")
    assert state.is_unsynced(study.storage)


def lose(server: Server, trial: str) -> None:
    """Let a trial's run lack its evaluations and its end."""
    server.trial(trial).tags.pop("outcome")
    server.trial(trial).metrics.clear()


def test_a_parent_run_that_a_killed_sweep_left_open_is_closed_by_a_copy_from_its_begin(
    study, server
):
    train(study)
    train(study)
    run(study, *AT)
    server.trial("norms").status = "RUNNING"
    lose(server, "bn")
    seen: list[object] = []
    server.sent = lambda: seen.extend([statuses(server)["norms"], *told(study)])
    run(study, *AT)
    assert seen[0] == "KILLED"
    for output in seen[1:]:  # the copy says what it is
        assert "Done; being copied to MLflow by process" in output
    assert statuses(server)["norms"] == "FINISHED"


def logged(server: Server) -> dict[str, dict[str, object]]:
    return {
        run.name: {"status": run.status, **{m.key: run.logged(m.key) for m in run.metrics.values()}}
        for run in server.runs.values()
    }


def test_trials_have_the_versions_that_trained_them(study, server):
    train(study)
    train(study)
    study.storage.write("result.json", b'{"versions": {"version.torch": "1.0"}}')
    run(study, *AT)
    for found in server.runs.values():
        assert found.tags["version.torch"] == "1.0"
        assert found.tags["data_digest"] == "d"
        assert "git_commit" not in found.tags


def test_a_sweep_that_is_running_is_refused(study, server):
    train(study)
    with Lock(study.storage, lambda: None, print):
        output = run(study, *AT, code=2)
    assert "is being run by process" in output
    assert "start it again without --offline" in output
    assert server.requests == []
    assert study.storage.read("lock.json") is None


def told(study: Study) -> list[str]:
    """What ``raygan status`` and ``raygan watch`` say."""
    where = ["norms", "--storage", study.storage.parent]
    runs = (CliRunner().invoke(main, [command, *where]) for command in ("status", "watch"))
    return [" ".join(done.output.split()) for done in runs]


def copying(study: Study, stop: Callable[[], None] = lambda: None) -> Lock:
    """What another ``raygan sync`` holds."""
    return Lock(study.storage, stop, print, copies=True)


def test_status_and_watch_say_that_a_sweep_is_copied_and_that_its_trials_are_interrupted(
    study, server
):
    train(study)
    train(study, 1)
    with copying(study) as lock:
        for _ in range(2):
            status, watch = told(study)
            assert "Not running; being copied to MLflow by process" in status
            assert "wn: interrupted, iteration 10/20" in status
            assert "Not running; being copied to MLflow by process" in watch
            assert "1 of 2 trials done, 1 interrupted" in watch
            for output in (status, watch):
                assert "lacks" not in output
                assert " running," not in output
            lock.beat()
    study.storage.write("lock.json", json.dumps(asdict(replace(lock._mine, born=1.0))).encode())
    for output in told(study):  # it was killed
        assert "Not running" in output
        assert "resumes the sweep" in output
        assert "process" not in output
        assert "MLflow lacks results" in output


def test_status_and_watch_say_that_a_sweep_that_is_copied_has_ended(study, server):
    train(study)
    train(study)
    run(study, *AT)
    with copying(study):
        for output in told(study):
            assert "Done; being copied to MLflow by process" in output


def test_a_sweep_that_is_copied_is_refused_with_what_to_do(study, server):
    train(study)
    with copying(study):
        output = run(study, *AT, code=2)
    assert "is being copied to MLflow by process" in output
    where = f"norms --storage {study.storage.parent}"
    assert f"wait until it ends, or stop it (raygan stop {where})" in output
    assert "offline" not in output
    assert server.requests == []


def test_stop_says_what_copies_the_rest(study, monkeypatch):
    train(study)
    monkeypatch.setattr("raygan.sweep.session.lock.BEAT_SECONDS", 0.01)

    def stop() -> None:
        held._released.set()
        study.storage.delete("lock.json")

    with copying(study, stop) as held:
        output = CliRunner().invoke(main, ["stop", "norms", "--storage", study.storage.parent])
    assert output.exit_code == 0, output.output
    said = " ".join(output.output.split())
    assert "to stop copying norms to MLflow" in said
    command = f"raygan sync norms --storage {study.storage.parent}"
    assert f"Stopped. To copy the rest: {command}" in said


def test_status_and_watch_tell_of_a_sweep_that_is_not_in_mlflow_until_it_is(study, server):
    train(study)
    train(study)
    command = f"raygan sync norms --storage {study.storage.parent}"
    with Lock(study.storage, lambda: None, print):
        for output in told(study):
            assert f"To copy them, when it has ended: {command}" in output
    for output in told(study):
        assert f"MLflow lacks results of this sweep. To copy them, {command}" in output
    run(study, *AT)
    for output in told(study):
        assert "MLflow" not in output


@pytest.fixture
def asked(server, monkeypatch) -> list[tuple[str, str]]:
    """Addresses and experiments that trackers connect to."""
    found: list[tuple[str, str]] = []
    connect = Tracker.connect

    def note(self: Tracker) -> None:
        found.append((self.uri, self.experiment))
        connect(self)

    monkeypatch.setattr(Tracker, "connect", note)
    return found


def test_the_address_is_the_option_or_that_of_the_yaml_or_the_stored_one(
    study, asked, tmp_path, monkeypatch
):
    train(study)
    monkeypatch.setattr(conclude, "sync", lambda *_: (True, True))
    run(study)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    run(study)
    stored = study.spec.model_copy(update={"tracking": tracking("stored")})
    state.store(study.storage, stored, DATA)
    run(study)
    file = tmp_path / "norms.yaml"
    file.write_text(
        f"{SWEEP}storage: {tmp_path}\ntracking: {{uri: 'http://yaml', experiment: x}}\n"
    )
    done = CliRunner().invoke(main, ["sync", str(file)])
    assert done.exit_code == 0, done.output
    run(study, "--mlflow", "http://option")
    assert asked == [
        (f"sqlite:///{tmp_path}/mlflow.db", "raygan"),
        ("http://environment", "raygan"),
        ("http://stored", "raygan"),
        ("http://yaml", "x"),
        ("http://option", "raygan"),
    ]


def tracking(host: str) -> spec.Tracking:
    return spec.Tracking(uri=f"http://{host}")


RULE = """
from raygan.recipes import Stopper, StopRule


class Never(Stopper):
    def stops(self, trial, step, loss):
        return False


class Mine(StopRule):
    \"\"\"Stops nothing.\"\"\"

    name = "mine"

    def start(self, grace):
        return Never()
"""


@pytest.fixture
def no_recipes_are_left():
    yield
    recipe.keep_only({})


@pytest.mark.usefixtures("no_recipes_are_left")
def test_a_sweep_with_recipes_of_ones_own_is_named_by_its_yaml(tmp_path, server):
    (tmp_path / "mine.py").write_text(RULE)
    file = tmp_path / "norms.yaml"
    file.write_text(
        f"{SWEEP}search: {{lr: [1e-4]}}\nstop: {{rule: mine}}\nrecipes: [mine.py]\n"
        f"storage: {tmp_path}\n"
    )
    read, sweep = spec.load(file), Storage(str(tmp_path)) / "norms"
    state.store(sweep, read, DATA)
    train(Study(read, sweep))
    recipe.keep_only({})
    output = refused(tmp_path, *AT)
    assert "uses recipes of your own (mine.py), whose code is needed here: give its YAML" in output
    assert server.requests == []
    done = CliRunner().invoke(main, ["sync", str(file), *AT])
    assert done.exit_code == 0, done.output
    assert server.trial("bn lr=1e-4").logged(LOSS) == POINTS


def test_what_cannot_be_copied_is_refused_with_what_to_do(study, tmp_path, monkeypatch):
    assert "there is no sweep 'other'" in refused(tmp_path, "other")
    assert "joins several addresses" in refused(tmp_path, "--mlflow", "http://a::http://b")
    assert "MLflow keeps runs in a database or on a server" in refused(
        tmp_path, "--mlflow", "localhost:5000"
    )
    hidden = refused(tmp_path, "--mlflow", "http://me:hunter2@example.org")
    assert "--mlflow" in hidden
    assert problems.PASSWORD in hidden
    assert "hunter2" not in hidden
    away = refused(tmp_path, *AT)
    assert "MLflow at http://127.0.0.1:9 cannot be used: it cannot be reached" in away
    assert "--mlflow gives another address" in away
    monkeypatch.setattr(
        "raygan.sweep.commands.sync.default_uri", lambda _: default_uri_of_a_bucket()
    )
    assert "MLFLOW_TRACKING_URI to an MLflow server; --mlflow gives another" in refused(tmp_path)
    (study.storage.local / "data.json").unlink()
    (study.storage.local / "data.json.bak").unlink()
    assert "'norms' has no trial yet; run the sweep first" in refused(tmp_path, *AT)


def default_uri_of_a_bucket() -> str:
    from raygan.tracking.context import default_uri

    return default_uri(Storage("mock://bucket/raygan"))


def test_a_server_that_wants_a_password_names_the_variables(study, tmp_path, answer, monkeypatch):  # noqa: F811
    for name in (problems.USERNAME, problems.PASSWORD, problems.TOKEN):
        monkeypatch.delenv(name, raising=False)
    output = refused(tmp_path, "--mlflow", answer(401, "You are not authenticated"))
    assert f"{problems.USERNAME} and {problems.PASSWORD}" in output
    assert "none of them is set" in output


def refused(storage: Path, *arguments: str) -> str:
    name = () if arguments and not arguments[0].startswith("-") else ("norms",)
    done = CliRunner().invoke(main, ["sync", *name, *arguments, "--storage", str(storage)])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return " ".join(done.output.split())


@pytest.mark.cluster  # a server of objects
def test_a_sweep_in_object_storage_is_copied_once_with_its_pictures_and_checkpoints(
    store,
    server,
):
    sweep = Storage("s3://bucket/raygan") / "norms"
    read = spec.validate(parse(f"{SWEEP}storage: s3://bucket/raygan", "x"))
    state.store(sweep, read, DATA)
    state.note_synced(sweep, synced=False)
    study = Study(read, sweep)
    train(study)
    train(study, 1)
    store_pictures(sweep, 10, 20, name="bn-000")
    sweep.write("trials/bn-000/checkpoint_000000020_a/step-000000020.pt", b"weights")
    output = run(study, *AT)
    assert "The sweep has not ended" in output
    assert "raygan ui" not in output  # it is at the address that was given
    trial = server.trial("bn")
    assert trial.logged(LOSS) == POINTS
    assert (trial.status, server.trial("wn").status) == ("FINISHED", "KILLED")
    sent = set(trial.files)
    assert {f"images/{name}" for kind in PICTURES for name in images.names(kind, 20)} <= sent
    assert "checkpoint/step-000000020.pt" in sent
    assert not state.is_unsynced(sweep)
    assert sweep.read("lock.json") is None
    before = server.content()
    run(study, *AT)
    assert server.content() == before
