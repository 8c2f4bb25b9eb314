import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from raygan.errors import TrackingError
from raygan.gan.config import TrainConfig
from raygan.gan.picture_grid import grid_png
from raygan.gan.state import TrainState
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.tracking.context import PARAMS, default_uri, run_tags
from raygan.tracking.database import file_of
from raygan.tracking.mlflow_tracker import Lag, Tracker
from raygan.tracking.model import Model, save_model
from raygan.tracking.runs import NOTE, Ending, cut
from tests.clusters import wait_until

pytestmark = pytest.mark.cluster  # a database of MLflow takes seconds


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """One empty store: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path)) / "sweep"


def open_tracker(database: str, sweep: Storage) -> Tracker:
    tracker = Tracker(database, "experiment", "sweep", sweep)
    tracker.connect()
    tracker.open(sweep.uri, "name: sweep\n", run_tags("abc"))
    return tracker


def record(*steps: int, outcome: str | None = None) -> TrialRecord:
    history = [{"step": float(s), LOSS: 1 / s, "perf/images_per_second": 9.0} for s in steps]
    config = TrainConfig(iterations=40).to_dict()
    return TrialRecord(
        "wn-000", "wn", 0, "wn lr=1e-4", {"lr": 1e-4}, config, outcome, None, history
    )


def runs(database: str, sweep: Storage) -> dict:
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("experiment")
    found = client.search_runs([experiment.experiment_id])
    mine = [run for run in found if any(v.startswith(sweep.uri) for v in run.data.tags.values())]
    assert len({run.info.run_name for run in mine}) == len(mine)
    return {run.info.run_name: run for run in mine}


def logged(database: str, run) -> list[tuple[int, float]]:
    history = MlflowClient(database).get_metric_history(run.info.run_id, LOSS)
    return [(metric.step, metric.value) for metric in history]


def test_last_report_of_a_sweep_that_is_stopped_does_not_make_a_trial_run_again(database, sweep):
    tracker = open_tracker(database, sweep)
    tracker.update(record(10), ended=True)
    wait_until(lambda: tracker.behind == Lag(), "it is copied")
    tracker.update(record(10, 20))
    assert tracker.close("KILLED")
    found = runs(database, sweep)
    assert found["wn lr=1e-4"].info.status == "KILLED"
    assert [step for step, _ in logged(database, found["wn lr=1e-4"])] == [10, 20]


def test_runs_are_what_the_records_say(database, sweep, tmp_path):
    picture = grid_png(record_images())
    for step in (10, 20):
        sweep.write(f"trials/wn-000/images/samples-{step:09d}.png", picture)
    sweep.write("trials/wn-000/checkpoint_000000020_a/step-000000020.pt", b"weights")
    tracker = open_tracker(database, sweep)
    ended = record(10, 20, outcome="ok")
    for partly in (record(), record(10), record(10, 20)):
        tracker.update(partly)
    tracker.update(ended, ended=True, summary={"stability/best": 0.05})
    table = tmp_path / "results.parquet"
    table.write_bytes(b"x")
    assert tracker.close("FINISHED", Ending({"loss/wn_features=4": 0.05}, files=(table,)))

    found = runs(database, sweep)
    assert set(found) == {"sweep", "wn lr=1e-4"}
    parent, child = found["sweep"], found["wn lr=1e-4"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert set(child.data.params) == {"cell", "outcome", *PARAMS}
    assert (child.data.params["cell"], child.data.params["outcome"]) == ("wn", "ok")
    assert child.data.params["lr"] == "0.0001"
    tags = child.data.tags
    assert (tags["sweep"], tags["cell"], tags["seed"], tags["outcome"]) == (
        "sweep",
        "wn",
        "0",
        "ok",
    )
    assert tags["data_digest"] == "abc"
    assert logged(database, child) == [(10, 0.1), (20, 0.05)]
    assert child.data.metrics["stability/best"] == 0.05
    assert len(child.data.metrics) + len(child.data.params) < 30
    assert parent.data.metrics["loss/wn_features:4"] == 0.05
    client = MlflowClient(database)
    assert {a.path for a in client.list_artifacts(parent.info.run_id)} == {
        "sweep.yaml",
        "results.parquet",
    }
    assert [a.path for a in client.list_artifacts(child.info.run_id, "checkpoint")] == [
        "checkpoint/step-000000020.pt"
    ]
    images = [a.path for a in client.list_artifacts(child.info.run_id, "images")]
    assert sum("step+10" in i for i in images) == 2


def record_images():
    return torch.zeros(4, 1, 8, 8, dtype=torch.uint8)


def test_second_tracker_goes_on_with_the_same_runs_and_repeats_nothing(database, sweep):
    first = open_tracker(database, sweep)
    first.update(record(10, 20), ended=True)  # interrupted
    assert first.close("KILLED")
    assert {r.info.status for r in runs(database, sweep).values()} == {"KILLED"}
    assert runs(database, sweep)["wn lr=1e-4"].data.tags["outcome"] == "interrupted"

    second = open_tracker(database, sweep)
    second.update(record(10, 20, 30))
    second.update(record(10, 20, 30, 40, outcome="stopped"), ended=True)
    assert second.close("FINISHED")
    child = runs(database, sweep)["wn lr=1e-4"]
    assert [step for step, _ in logged(database, child)] == [10, 20, 30, 40]
    assert (child.info.status, child.data.tags["outcome"]) == ("KILLED", "stopped")


def test_summaries_of_an_ended_trial_are_added_and_never_repeated(database, sweep):
    for summary in ({"stability/best": 0.1}, {"stability/best": 0.1, "final/best": 0.2}):
        tracker = open_tracker(database, sweep)
        tracker.update(record(10, outcome="ok"), ended=True, summary=summary)
        assert tracker.close("FINISHED")
    child = runs(database, sweep)["wn lr=1e-4"]
    assert child.data.metrics["final/best"] == 0.2
    for key in ("stability/best", "final/best"):
        assert len(MlflowClient(database).get_metric_history(child.info.run_id, key)) == 1


def test_summaries_that_wait_are_put_together(database, sweep):
    tracker = open_tracker(database, sweep)
    with tracker._copying._changed:  # the thread that copies waits for this
        for summary in ({"stability/best": 0.1}, {"final/best": 0.2}):
            tracker.update(record(10, outcome="ok"), ended=True, summary=summary)
    assert tracker.close("FINISHED")
    found = runs(database, sweep)["wn lr=1e-4"].data.metrics
    assert (found["stability/best"], found["final/best"]) == (0.1, 0.2)


def test_metrics_whose_request_had_no_answer_are_in_mlflow_once(database, sweep, monkeypatch):
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 0.01)
    tracker = open_tracker(database, sweep)
    sent: set[tuple[str, float]] = set()
    log_batch = tracker._client.log_batch

    def without_answer(run_id: str, metrics=(), **more) -> None:
        log_batch(run_id, metrics, **more)
        told = {(metric.key, metric.value) for metric in metrics if "behind" not in metric.key}
        if told - sent:
            sent.update(told)
            raise TimeoutError

    monkeypatch.setattr(tracker._client, "log_batch", without_answer)
    for number, loss in ((1, 0.2), (2, 0.1)):
        spent = {"step": 1.0, "spent/usd": float(number), "spent/gpu_hours": 0.5}
        trial = record(10, outcome="ok")
        tracker.update(trial, ended=True, spent=spent, summary={"final/best": loss})
    assert tracker.close("FINISHED", Ending({"loss/wn": 0.1, "spent/usd": 3.0}, 1))
    found, client = runs(database, sweep), MlflowClient(database)

    def values(name: str, key: str) -> list[float]:
        history = client.get_metric_history(found[name].info.run_id, key)
        return sorted(metric.value for metric in history)

    assert values("sweep", "spent/usd") == [1.0, 2.0, 3.0]
    assert values("sweep", "spent/gpu_hours") == [0.5]
    assert values("sweep", "loss/wn") == [0.1]
    assert values("wn lr=1e-4", "final/best") == [0.1, 0.2]
    assert values("wn lr=1e-4", LOSS) == [0.1]
    assert found["wn lr=1e-4"].data.metrics["final/best"] == 0.1


def test_outcome_is_a_parameter_only_when_it_cannot_change(database, sweep):
    for outcome, known in (("failed", None), ("ok", "ok")):
        tracker = open_tracker(database, sweep)
        tracker.update(record(10))
        tracker.update(record(10, outcome=outcome), ended=True)
        assert tracker.close("FINISHED")
        child = runs(database, sweep)["wn lr=1e-4"]
        assert child.data.tags["outcome"] == outcome
        assert child.data.params.get("outcome") == known


def test_only_fields_that_are_not_the_default_are_added_to_the_parameters(database, sweep):
    changed = record(10)
    changed.config |= {"loss": "hinge", "d_steps": 5, "ema": 0.999}
    tracker = open_tracker(database, sweep)
    tracker.update(changed, ended=True)
    assert tracker.close("FINISHED")
    params = runs(database, sweep)["wn lr=1e-4"].data.params
    assert set(params) == {"cell", *PARAMS, "loss", "d_steps", "ema"}
    assert (params["d_steps"], params["ema"]) == ("5", "0.999")


def test_parent_has_description_folders_and_champion(database, sweep, tmp_path):
    state = TrainState.create(TrainConfig(norm="bn", features=2, code_size=6), (1, 8, 8))
    save_model(state.generator, 6, state.shape, tmp_path / "model")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "cells.csv").write_text("a")
    name = f"raygan-{tmp_path.name}"
    for key in ("wn-000/a", "wn-000/a", "wn-001/b"):
        ending = Ending(files=(folder,), note="verdict", models=(Model(key, tmp_path / "model"),))
        tracker = Tracker(database, "experiment", tmp_path.name, sweep)
        tracker.connect()
        tracker.open(sweep.uri, "name: sweep\n", run_tags("abc"))
        assert tracker.close("FINISHED", ending)
    client = MlflowClient(database)
    parent = runs(database, sweep)[tmp_path.name]
    assert parent.data.tags[NOTE] == "verdict"
    assert [a.path for a in client.list_artifacts(parent.info.run_id, "report")] == [
        "report/cells.csv"
    ]
    versions = client.search_model_versions(f"name = '{name}'")
    assert len(versions) == 2  # that which is there is not made again
    assert client.get_model_version_by_alias(name, "champion").run_id == parent.info.run_id
    experiment = client.get_experiment_by_name("experiment")
    assert "raygan" in experiment.tags[NOTE]


def test_refusing_registry_keeps_no_run_open(database, sweep, tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise PermissionError("not allowed")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", refuse)
    monkeypatch.setattr("raygan.tracking.model._version", refuse)
    tracker = open_tracker(database, sweep)
    ending = Ending({"loss/wn": 0.1}, models=(Model("wn-000/a", tmp_path),))
    assert tracker.close("FINISHED", ending)
    parent = runs(database, sweep)["sweep"]
    assert parent.info.status == "FINISHED"
    assert len(MlflowClient(database).get_metric_history(parent.info.run_id, "loss/wn")) == 1
    assert "not registered as raygan-sweep: not allowed" in caplog.text


def test_what_is_damaged_or_half_there_holds_nothing_up(database, sweep):
    for kind in ("samples", "reconstructions"):
        sweep.write(f"trials/wn-000/images/{kind}-{10:09d}.png", b"no picture")
    ended = record(10, outcome="ok")
    for name in ("step-000000010.pt", "step-000000010.json"):
        sweep.write(f"trials/wn-000/checkpoint_000000010_a/{name}", b"weights")
        tracker = open_tracker(database, sweep)
        tracker.update(ended, ended=True)
        assert tracker.close("FINISHED")
        run_id = runs(database, sweep)["wn lr=1e-4"].info.run_id
        MlflowClient(database).update_run(run_id, status="RUNNING")  # as if cut off before its end
    child = runs(database, sweep)["wn lr=1e-4"]
    assert logged(database, child) == [(10, 0.1)]
    kept = MlflowClient(database).list_artifacts(child.info.run_id, "checkpoint")
    assert len(kept) == 2


def test_evaluation_without_a_finite_loss_is_not_logged_again(database, sweep):
    bad = record(10, 20)
    bad.history[1] |= {LOSS: float("nan"), "train/loss_d": 1.0, "perf/images_seen": 640.0}
    for outcome in ("failed", "diverged"):
        bad.outcome = outcome
        tracker = open_tracker(database, sweep)
        tracker.update(bad, ended=True)
        assert tracker.close("FINISHED")
    child = runs(database, sweep)["wn lr=1e-4"]
    found = MlflowClient(database).get_metric_history(child.info.run_id, "train/loss_d")
    assert [metric.step for metric in found] == [20]


def test_how_the_sweep_has_ended_is_known_with_its_description(database, sweep):
    tracker = Tracker(database, "experiment", "sweep", sweep)
    tracker.connect()
    assert tracker.ended(sweep.uri) is None
    tracker.open(sweep.uri, "name: sweep\n", run_tags("abc"))
    assert tracker.close("FINISHED", Ending(note="verdict"))
    assert tracker.ended(sweep.uri) == ("FINISHED", "verdict")


def test_descriptions_are_cut_after_whole_lines():
    assert cut("a\nb") == "a\nb"
    assert cut("line\n" * 2000) == ("line\n" * 1000)[:-1]


def test_saved_generator_is_the_generator_and_needs_no_code_of_ours(tmp_path):
    config = TrainConfig(norm="wn", features=2, code_size=6)
    generator = TrainState.create(config, (3, 12, 10)).generator.eval()
    save_model(generator, 6, (3, 12, 10), tmp_path / "model")
    codes = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    torch.save(codes, tmp_path / "codes.pt")
    code = (
        "import sys, torch, mlflow.pytorch\n"
        "sys.modules['raygan'] = None\n"  # an import of it would fail
        f"model = mlflow.pytorch.load_model({str(tmp_path / 'model')!r})\n"
        f"codes = torch.load({str(tmp_path / 'codes.pt')!r}, weights_only=True)\n"
        f"torch.save(model(codes), {str(tmp_path / 'images.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    images = torch.load(tmp_path / "images.pt", weights_only=True)
    torch.testing.assert_close(images, generator(codes))
    assert not any("pickle" in path.name for path in (tmp_path / "model").rglob("*"))


def test_non_finite_is_never_logged(database, sweep):
    tracker = open_tracker(database, sweep)
    bad = record(10)
    bad.history[0]["train/loss_d"] = float("nan")
    bad.outcome, bad.reason = "diverged", "train/loss_d not finite"
    tracker.update(bad, ended=True)
    assert tracker.close("FINISHED", Ending({"loss/wn": float("inf")}))
    child = runs(database, sweep)["wn lr=1e-4"]
    assert "train/loss_d" not in child.data.metrics
    assert (child.info.status, child.data.tags["outcome"]) == ("FAILED", "diverged")
    assert not runs(database, sweep)["sweep"].data.metrics


def test_server_that_is_not_there_is_named_at_once(sweep):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(TrackingError, match=address):
        Tracker(address, "experiment", "sweep", sweep).connect()


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "/tmp/mlruns", "./mlruns"])
def test_file_store_is_refused(uri, sweep):
    with pytest.raises(TrackingError, match="sqlite"):
        Tracker(uri, "experiment", "sweep", sweep).connect()


def test_embedded_store_lies_in_local_storage_only(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_uri(Storage(str(tmp_path))) == f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(TrackingError, match=r"tracking\.uri"):
        default_uri(Storage("mock://bucket/raygan"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert default_uri(Storage(str(tmp_path))) == "http://server"


def test_artifacts_of_the_embedded_store_lie_in_the_storage(database, sweep, tmp_path):
    own = f"sqlite:///{tmp_path}/own.db"
    tracker = open_tracker(own, sweep)
    assert tracker.close("FINISHED")
    assert list((Path(sweep.uri).parent / "mlartifacts").rglob("sweep.yaml"))


HOLD = (
    "import sqlite3, sys\n"
    "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "connection.execute('BEGIN EXCLUSIVE')\n"
    "print('locked', flush=True)\n"
    "sys.stdin.read()\n"
)


def test_lock_of_another_process_is_told_and_all_is_copied_after_it(database, sweep, monkeypatch):
    monkeypatch.setattr("raygan.tracking.database.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS_MOST", 0.1)
    tracker = open_tracker(database, sweep)
    file = file_of(database)
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        tracker.update(record(10))
        with pytest.raises(TrackingError, match="is locked by another process"):
            open_tracker(database, sweep)
        wait_until(lambda: tracker.last_error, "the lock is told")
        assert f"{file} is locked by another process" in tracker.last_error
        tracker.update(record(10, 20, outcome="ok"), ended=True)
        other.stdin.close()
    assert tracker.close("FINISHED")
    assert tracker.last_error is None
    assert logged(database, runs(database, sweep)["wn lr=1e-4"]) == [(10, 0.1), (20, 0.05)]


def test_deleted_experiment_is_named_with_the_way_to_restore_it(database, sweep):
    client = MlflowClient(database)
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(TrackingError, match="`mlflow experiments restore --experiment-id"):
        Tracker(database, "deleted", "sweep", sweep).connect()


def test_storage_with_signs_of_addresses_in_its_name_holds_database_and_artifacts(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = Storage(str(tmp_path / "a #b;100% 'c'"))
    tracker = Tracker(default_uri(storage), "experiment", "sweep", storage / "sweep")
    tracker.connect()
    tracker.open("id", "name: sweep\n", {})
    assert tracker.close("FINISHED")
    assert [path.name for path in tmp_path.iterdir()] == [storage.name]
    assert sorted(path.name for path in storage.local.iterdir()) == ["mlartifacts", "mlflow.db"]
    assert list((storage.local / "mlartifacts").rglob("sweep.yaml"))
    # in another process: the address that is printed means this file
    code = (
        "import sys, mlflow; print(mlflow.MlflowClient(sys.argv[1]).search_experiments()[0].name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tracker.uri], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "experiment", done.stderr


@pytest.mark.parametrize("also", ["SELECT 1", "DROP TABLE metrics"])
def test_database_of_another_version_of_mlflow_is_named(database, sweep, tmp_path, also):
    open_tracker(database, sweep).close("FINISHED")
    file = tmp_path / "other.db"
    shutil.copy(file_of(database), file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'later'")
        connection.execute(also)
        connection.commit()
    with pytest.raises(TrackingError, match="made by another version of MLflow") as error:
        Tracker(f"sqlite:///{file}", "experiment", "sweep", sweep).connect()
    assert "mlflow db upgrade" in str(error.value)
