import io
import json
import math
import re
import shlex
from functools import partial
from types import SimpleNamespace

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

import raygan
from raygan import records
from raygan.cli import main
from raygan.errors import ConfigError, DataError
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.shown import say
from raygan.storage import Storage
from raygan.sweep.commands import evaluate
from raygan.sweep.session import conclude, lock
from raygan.sweep.session.lock import Lock
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.compared import cells
from raygan.sweep.study.prepared import PreparedSet
from raygan.sweep.study.study import Study
from tests.sweep.prepared import one_set

SWEEP = "name: norms\ngrid: {norm: [bn, wn]}\nreplicate: {seeds: 2}\nsearch: {lr: [1e-4]}\n"


@pytest.fixture
def storage(tmp_path) -> Storage:
    """A storage with a sweep of one ended and one open trial."""
    found = Storage(str(tmp_path))
    sweep = found / "norms"
    read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    state.store(sweep, read, one_set(id="1", digest="d", baseline=0.0512))
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
    assert "Not running. The same command resumes the sweep." in output
    (bn,) = [line.split() for line in output.splitlines() if line.startswith("bn")]
    assert bn[:5] == ["bn", "1/1", "0/2", "0", "0"]
    assert "wn lr=1e-4: interrupted, iteration 1000/20000, loss 0.02000" in output
    assert "1.00 trial-hours" in output


def test_status_names_who_runs_it(run, storage):
    with Lock(storage / "norms", lambda: None, print):
        output = run("status", "norms")
    assert f"Running: process {lock.os.getpid()} on" in output
    assert "wn lr=1e-4: running" in output


def test_status_says_how_old_the_last_report_of_each_running_trial_is(run, storage):
    with Lock(storage / "norms", lambda: None, print) as held:
        held.signs = lambda: {"wn-000": 754.0}
        held.beat()
        output = run("status", "norms")
        assert "wn lr=1e-4: running, iteration 1000/20000, loss 0.02000, last report 13m ago" in output  # fmt: skip
        held.signs = dict
        held.beat()
        output = run("status", "norms")
    assert "wn lr=1e-4: waiting for its workers, iteration 1000/20000, loss 0.02000\n" in output
    assert "ago" not in run("status", "norms")


def test_the_last_report_is_told_by_the_clock_of_the_driver_alone(tmp_path):
    now = [50.0]
    read = spec.validate(parse(SWEEP, "x"))
    study = Study(read, Storage(str(tmp_path / "new")), now=lambda: now[0])
    first, second = study.next_trial().id, study.next_trial().id
    study.started(first)
    study.started(second)
    assert study.signs() == {}
    study.heard(first, {"step": 0})
    now[0] = 80.0
    study.tick()
    study.heard(second, {"step": 1000, LOSS: 0.1})
    now[0] = 81.0
    assert study.signs() == {first: 31.0, second: 1.0}
    study.started(first)  # its workers were lost
    study.ended(second)
    assert study.signs() == {}


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
    assert "mean training image has 0.05120" in output
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["trial"] for row in rows] == ["bn-000", "wn-000"]
    run("results", "norms", "--out", str(tmp_path / "a.csv"))
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").num_rows == 2
    run("results", "norms", "--out", str(tmp_path / "a"), "--format", "json")
    assert json.loads((tmp_path / "a").read_text()) == rows


def test_results_go_into_a_pipe(storage):
    arguments = ["results", "norms", "--storage", storage.uri, "--format"]
    written = {kind: CliRunner().invoke(main, [*arguments, kind]).stdout_bytes
               for kind in ("parquet", "csv", "json")}  # fmt: skip
    rows = pq.read_table(io.BytesIO(written["parquet"])).to_pylist()
    assert json.loads(written["json"]) == rows
    assert pyarrow.csv.read_csv(io.BytesIO(written["csv"])).column_names == list(rows[0])


def test_results_are_a_data_frame_in_python(storage):
    frame = raygan.results(f"{storage.uri}/norms")
    assert frame.set_index("trial").loc["bn-000", ["cell", "outcome"]].tolist() == ["bn", "ok"]
    with pytest.raises(ConfigError, match=r"give a sweep's own folder"):
        raygan.results(storage.uri)


def test_results_hold_the_final_tests(run, storage):
    folder = storage / "norms" / "trials" / "bn-000" / "final"
    for which, loss in (("best", 0.01), ("last", 0.02)):
        found = {"loss": loss, "audited_loss": loss + 0.1, "restarts_loss": None}
        folder.write(f"{which}.json", json.dumps(found).encode())
    folder.write("best-fid.json", b'{"fid": 30.5, "kid": 0.25}')
    folder.write("last-quality.json", b'{"recall": 0.5, "feature_energy_distance": -0.01}')
    bn, wn = raygan.results(f"{storage.uri}/norms").to_dict("records")
    assert (bn["final_last_recall"], bn["final_last_feature_energy_distance"]) == (0.5, -0.01)
    assert bn["final_best_recall"] is None
    assert math.isnan(wn["final_last_recall"])
    assert (bn["final_best"], bn["final_last"], bn["final_best_audited"]) == (0.01, 0.02, 0.11)
    assert (bn["fid_best"], bn["kid_best"]) == (30.5, 0.25)
    assert math.isnan(wn["final_best"])
    written = json.loads(run("results", "norms", "--format", "json"))
    assert [row["final_last"] for row in written] == [0.02, None]


def test_report_of_a_running_sweep(run, storage, tmp_path):
    output = run("report", "norms", "--out", str(tmp_path / "elsewhere"))
    assert "The sweep has not finished: these results may change." in output
    assert "bn has a loss of 0.02000" in output
    assert not (storage / "norms").files("report")
    page = (tmp_path / "elsewhere" / "report.html").read_text()
    assert "1 of 6 trials ended, not finished" in page
    run("report", "norms")
    assert {"report.html", "report.md"} <= set((storage / "norms").files())


def test_report_says_what_trained(run, storage):
    summary = {"versions": {"version.torch": "9.8.7", "git_commit": "abc123"}}
    (storage / "norms").write("result.json", json.dumps(summary).encode())
    run("report", "norms")
    text = (storage / "norms").read("report.md").decode()
    assert "torch: 9.8.7" in text
    assert "of commit abc123" in text
    assert "lr:\n      - 0.0001" in text  # the resolved YAML


def test_cells_that_differ_in_their_seed_are_one(storage):
    text = "name: a\ngrid: {norm: [bn, wn], seed: [1, 2]}\nsearch: {lr: [1e-4, 1e-3]}\n"
    read, known = spec.validate(parse(text, "x")), {}
    for cell in plan.cells(read):
        for index, lr in enumerate((1e-4, 1e-3)):
            planned = plan.trial(read, cell, index, {"lr": lr})
            record = TrialRecord(
                planned.id, cell.name, index, "", {"lr": lr}, planned.config.to_dict()
            )
            record.merge([{"step": 10.0, LOSS: 0.02 + lr}])
            # wn's second seed gives no result
            record.outcome = "failed" if cell.values == {"norm": "wn", "seed": 2} else "ok"
            known[record.id] = record
    bn, wn = cells(read, known)
    assert (bn.name, bn.values, sorted(bn.runs)) == ("bn", {"norm": "bn"}, [1, 2])
    assert {record.config["lr"] for record in bn.runs.values()} == {1e-4}
    assert len(bn.records) == 4
    assert [record.config["seed"] for record in wn.failed] == [2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["status", "nrms"], "there is no sweep 'nrms' in"),
        (["status", "nrms"], "sweeps there: norms"),
        (["stop", "../norms"], "is not a valid sweep name"),
        (["results", "a\0b"], "is not a valid sweep name"),
        (["results", "n" * 300], "is not a valid sweep name"),
        (["results", "norms", "--out", "x.txt"], "must end in one of .parquet, .csv, .json"),
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
    assert "Stopped. The same command resumes the sweep." in output


SECRET = "s3://key:hunter2@bucket/sweeps"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "norms", "--storage", SECRET],
        ["results", "norms", "--storage", SECRET],
        ["evaluate", "norms", "--storage", SECRET],
        ["report", "norms", "--storage", "{}", "--out", SECRET],
        ["sweep", "{}/norms.yaml", "--dry-run", "--address", "ray://user:hunter2@head:10001"],
    ],
)
def test_secret_in_an_option_is_refused_and_not_repeated(storage, arguments):
    done = CliRunner().invoke(main, [text.format(storage.local) for text in arguments])
    assert done.exit_code == 2
    assert "holds a user, a password or a key" in done.output
    assert "hunter2" not in done.output


def test_printed_command_can_be_copied_whatever_the_storage_is_called(tmp_path):
    storage = Storage(str(tmp_path / "my results; #1"))
    study = Study(spec.validate(parse(SWEEP, "x")), storage / "norms")
    uri = f"sqlite:///{storage.local}/mlflow.db"
    console = Console(width=40)
    with console.capture() as capture:
        session = SimpleNamespace(say=partial(say, console))
        conclude._say_where(session, study, SimpleNamespace(uri=uri, experiment="e"))
    last = capture.get().splitlines()[-1]
    assert shlex.split(last.removeprefix("MLflow:")) == [
        "raygan", "ui", "norms", "--storage", str(storage.local)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"params": {"nonsense": 1}}, "does not know ['nonsense']"),
        ({"params": {"norm": "bn"}}, "does not belong to the sweep 'norms'"),
        ({"config": {"lr": 10**400}}, "is damaged|damaged"),
        ({"history": {"a": 1}}, "damaged"),
        ({"title": "[/red]"}, "damaged"),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["status", "results", "report", "evaluate"])
def test_damaged_record_is_one_line(run, storage, command, changes, says):
    folder = storage / "norms" / "trials" / "bn-000"
    content = json.dumps({**json.loads(folder.read("record.json")), **changes}).encode()
    folder.write("record.json", content)
    folder.write("record.json.bak", content)
    output = run(command, "norms", code=2)
    assert re.search(says.replace("[", r"\["), output)
    assert output.count("\n") == 1


def test_record_without_younger_fields_has_their_defaults(storage):
    folder = storage / "norms" / "trials" / "bn-000"
    content = json.loads(folder.read("record.json"))
    del content["config"]["ema"], content["kind"], content["gpu_seconds"]
    folder.write("record.json", json.dumps(content).encode())
    found = records.load_all(storage / "norms")["bn-000"]
    assert (found.config["ema"], found.kind, found.gpu_seconds) == (0.0, "search", 0.0)


def images(folder: str) -> PreparedSet:
    return PreparedSet(folder=folder, digest="d", baseline=0.1)


@pytest.mark.parametrize(
    "stored",
    ["/elsewhere/data/digits-1", "s3://other/data/digits-1", "http://host/digits-1", "digits-1"],
)
def test_prepared_images_are_looked_for_below_the_storage_alone(storage, stored):
    storage.write("data/digits-1/manifest.json", b"{}")
    found = evaluate._where(storage / "norms", images(stored))
    assert found == f"{storage.uri}/data/digits-1"


@pytest.mark.parametrize("stored", ["", "/", "..", "http://host/x::file:", "s3://other/unknown"])
def test_prepared_images_that_are_not_there_are_named(storage, stored):
    storage.write("manifest.json", b"{}")
    with pytest.raises(DataError, match="does not hold the sweep's prepared images"):
        evaluate._where(storage / "norms", images(stored))


def test_a_yaml_that_is_not_there_is_named():
    done = CliRunner().invoke(main, ["status", "not-there.yaml"])
    assert done.exit_code == 2
    assert "not-there.yaml: cannot be read (No such file or directory)" in done.output
