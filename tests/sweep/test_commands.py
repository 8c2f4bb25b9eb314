import json

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.sweep import lock, spec, state
from raygan.sweep.lock import Lock
from raygan.sweep.yaml_loader import parse

SWEEP = "name: norms\ngrid: {norm: [bn, wn]}\nreplicate: {seeds: 2}\nsearch: {lr: [1e-4]}\n"


@pytest.fixture
def storage(tmp_path) -> Storage:
    """A storage with a sweep of one ended and one open trial."""
    found = Storage(str(tmp_path))
    sweep = found / "norms"
    read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    state.store(sweep, read, {"id": "1", "digest": "d", "baseline": 0.0512})
    for cell, outcome in (("bn", "ok"), ("wn", None)):
        config = TrainConfig(norm=cell).to_dict()
        record = TrialRecord(f"{cell}-000", cell, 0, f"{cell} lr=1e-4", {"lr": 1e-4}, config)
        record.merge([{"step": 1000.0, LOSS: 0.02, "perf/images_per_second": 9.0}])
        record.outcome, record.seconds = outcome, 1800.0
        record.save(sweep)
    (tmp_path / "norms.yaml").write_text(f"{SWEEP}storage: {tmp_path}\n")
    return found


@pytest.fixture
def run(storage):
    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, [*arguments, "--storage", storage.uri])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_status_says_how_far_it_is(run):
    output = run("status", "norms")
    assert "Not running. The same command goes on." in output
    (bn,) = [line.split() for line in output.splitlines() if line.startswith("bn")]
    assert bn[:5] == ["bn", "1/1", "0/2", "0", "0"]
    assert "wn lr=1e-4: waiting to go on, iteration 1000/20000, loss 0.02000" in output
    assert "1.00 trial-hours" in output


def test_status_names_who_runs_it(run, storage):
    with Lock(storage / "norms", lambda: None, print):
        output = run("status", "norms")
    assert f"Running: process {lock.os.getpid()} on" in output
    assert "wn lr=1e-4: running" in output


def test_status_of_one_that_is_done(run, storage):
    sweep = storage / "norms"
    record = json.loads(sweep.read("trials/wn-000/record.json"))
    sweep.write("trials/wn-000/record.json", json.dumps({**record, "outcome": "ok"}).encode())
    sweep.write("result.json", b'{"finished": true}')
    assert "Done." in run("status", "norms")


def test_looking_at_a_sweep_changes_nothing(run, storage):
    def everything() -> dict:
        files = sorted(path for path in storage.local.rglob("*") if path.is_file())
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = everything()
    run("status", "norms")
    run("results", "norms")
    run("stop", "norms")
    assert everything() == before


def test_yaml_file_names_its_sweep(storage):
    done = CliRunner().invoke(main, ["status", str(storage.local / "norms.yaml")])
    assert done.exit_code == 0, done.output
    assert "Not running" in done.output


def test_results_are_a_table(run, tmp_path):
    output = run("results", "norms", "--out", str(tmp_path / "a.parquet"))
    assert "bn lr=1e-4" in output
    assert "unfinished" in output
    assert "mean training image scores 0.05120" in output
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["trial"] for row in rows] == ["bn-000", "wn-000"]
    run("results", "norms", "--out", str(tmp_path / "a.csv"))
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").num_rows == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "nrms"], "there is no sweep 'nrms' in"),
        (["status", "nrms"], "sweeps there: norms"),
        (["stop", "../norms"], "is no sweep's name"),
        (["results", "a\0b"], "is no sweep's name"),
        (["results", "n" * 300], "is no sweep's name"),
        (["results", "norms", "--out", "x.txt"], "must end in .parquet or .csv"),
        (["results", "norms", "--out", "/nowhere/x.csv"], "cannot be written"),
    ],
)
def test_mistakes_are_named(run, arguments, says):
    assert says in run(*arguments, code=2)


def test_stop_of_a_sweep_that_does_not_run(run):
    assert "norms is not running." in run("stop", "norms")


def test_stop_asks_the_holder_and_waits_for_it(run, storage, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    held = Lock(storage / "norms", lambda: held.__exit__(None, None, None), print)
    monkeypatch.setattr(held._thread, "join", lambda *_: None)  # it is this thread
    with held:
        output = run("stop", "norms")
    assert "Stopped. The same command goes on from there." in output
