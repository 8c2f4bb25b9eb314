"""The final tests of a sweep: which are due, what they leave, and the command that makes them."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import ray
import torch
from click.testing import CliRunner
from PIL import Image
from ray.exceptions import RayTaskError
from rich.console import Console

from raygan import checkpoints
from raygan.cli import main
from raygan.data import DatasetConfig, load, prepare
from raygan.errors import CheckpointError, ConfigError, DataError
from raygan.folder import checkpoint_file
from raygan.gan import checkpoint
from raygan.gan.judge.final import FinalTest
from raygan.gan.judge.final_config import FinalConfig
from raygan.gan.judge.quality import MEASURES
from raygan.gan.sampling import codes
from raygan.gan.state import TrainState
from raygan.records import LOSS
from raygan.report import finals, tables
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job, job_of
from raygan.sweep.cluster.tasks import Tasks
from raygan.sweep.cluster.trial import WORKER_FAILURES
from raygan.sweep.commands import watch
from raygan.sweep.session import final_making
from raygan.sweep.session import final_tests as final
from raygan.sweep.session.final_tests import FinalJob, Generator, PlannedTest
from raygan.sweep.session.live import Ends
from raygan.sweep.session.lock import Lock
from raygan.sweep.session.progress import FinalProgress
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import gather, looks
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.compared import cells
from raygan.sweep.study.gather import make_report
from raygan.sweep.study.prepared import Prepared, PreparedSet
from raygan.sweep.study.study import Study
from tests.object_store import far
from tests.sweep.prepared import one_set

SWEEP = """
name: a
dataset: {name: digits, size: 16, running: 8, final: 20}
grid: {norm: [bn, wn]}
replicate: {seeds: 1}
train:
  {features: 4, code_size: 4, latent: uniform, batch_size: 8, iterations: 20, evaluate_every: 10,
   quality: none}
final: {steps: 2, images: 18, restarts: 2, audited: 5}
"""
CONFIG = FinalConfig(steps=2, images=18, restarts=2, audited=5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    config = DatasetConfig(name="digits", size=16, running=8, final=20)
    return prepare(config, tmp_path_factory.mktemp("data"))


@pytest.fixture
def study(tmp_path, prepared) -> Study:
    """A sweep whose two replicates have ended: bn's best generator is not its last one."""
    (tmp_path / "data").symlink_to(prepared.parent)
    read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    images = load(prepared)
    made = Study(read, Storage(str(tmp_path)) / "a")
    stored = one_set(id="1", folder=str(prepared), digest=images.digest, baseline=images.baseline)
    state.store(made.storage, read, stored)
    play(made, {"digits": images.shape})
    return made


def play(study: Study, shapes: dict[str, tuple[int, int, int]]) -> None:
    """Run all trials; ``shapes``: of each data set's images, by label."""
    while (planned := study.next_trial()) is not None:
        study.started(planned.id)
        for step in (10, 20):
            loss = step if planned.config.norm == "bn" else 1 / step
            study.heard(planned.id, {"step": step, LOSS: float(loss)})
            saved = TrainState.create(planned.config, shapes[planned.dataset])
            saved.step = step
            folder = study.storage.local / "trials" / planned.id / f"checkpoint_{step}"
            checkpoint.save(saved.state_dict(), folder, step)
        study.ended(planned.id)


@pytest.fixture
def jobs(study):
    """What is due, ready to be run."""

    def jobs(config: FinalConfig = CONFIG, **options) -> list[FinalJob]:
        data = state.stored_data(study.storage, study.spec)
        return [
            FinalJob(test, job_of(plan.of_record(record), study.spec, study.storage, data))
            for test in final.due(study.storage, final.tested(study), config, **options)
            for record in [study.records[test.generator.trial]]
        ]

    return jobs


def run_all(jobs: list[FinalJob]) -> list[str]:
    lines: list[str] = []
    assert final.run(jobs, final_making.Here(), 1, lines.append) == 0
    return lines


def test_every_checkpoint_is_tested_once(jobs):
    assert [job.test.generator for job in jobs()] == [
        Generator("bn-seed1", "bn s1", "checkpoint_10", ("best",)),
        Generator("bn-seed1", "bn s1", "checkpoint_20", ("last",)),
        Generator("wn-seed1", "wn s1", "checkpoint_20", ("best", "last")),
    ]
    assert jobs(FinalConfig(steps=0)) == []
    assert [job.test.generator.which for job in jobs(which=("last",))] == [("last",), ("last",)]


def test_nothing_is_tested_before_all_trials_have_ended(tmp_path):
    begun = Study(spec.validate(parse(SWEEP, "x")), Storage(str(tmp_path / "b")))
    assert final.tested(begun) == []


def test_results_are_read_with_one_listing_per_trial(study, jobs, monkeypatch):
    final_making.make_test(jobs()[0])
    listed: list[str] = []
    real = Storage.files

    def files(self: Storage, name: str = "") -> list[str]:
        listed.append(f"{self.name}/{name}")
        return real(self, name)

    monkeypatch.setattr(Storage, "files", files)
    known = study.records.values()
    found = finals.read_all(study.storage, known)
    assert found.tests["bn-seed1"].keys() == {"best"}
    assert (found.fids, found.qualities) == ({}, {})
    assert sorted(listed) == ["bn-seed1/final", "wn-seed1/final"]
    for read in (
        lambda: tables.results_table(study.storage, known),
        lambda: make_report(study.storage, study.spec, study.records, None),
    ):
        listed.clear()
        read()
        assert sorted(name for name in listed if name.endswith("/final")) == [
            "bn-seed1/final", "wn-seed1/final"
        ]  # fmt: skip


class Together(Storage):
    """Storage that answers no request of one trial before one of the other is asked."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.both = threading.Barrier(2)

    def files(self, name: str = "") -> list[str]:
        self.both.wait(30)
        return super().files(name)

    def folders(self, name: str = "") -> list[str]:
        self.both.wait(30)
        return super().folders(name)

    def read(self, name: str, most: int | None = None) -> bytes | None:
        self.both.wait(30)
        return super().read(name, most)


def test_trials_are_asked_about_at_the_same_time(study):
    storage, known = Together(study.storage.uri), list(study.records.values())
    assert finals.read_all(storage, known) == ({}, {}, {})
    tests = final.due(storage, known, CONFIG, ["last"])
    assert [test.generator.trial for test in tests] == ["bn-seed1", "wn-seed1"]
    assert [test.state for test in final.statuses(storage, tests)] == ["waiting"] * 2
    made = {trial: {"best": {"images": 18}} for trial in study.records}
    assert finals.read_image_losses(storage, made) == {}


def test_only_trials_with_a_result_are_tested(study):
    study.records["bn-seed1"].outcome = "diverged"
    study.records["wn-seed1"].outcome = "collapsed"
    assert [record.id for record in final.tested(study)] == ["wn-seed1"]


def test_a_test_leaves_numbers_a_table_and_pictures(study, jobs):
    lines = run_all(jobs())
    assert len(lines) == 3
    assert lines[2].startswith("final test 3/3, wn s1, best and last: loss 0.")
    folder = study.storage.local / "trials" / "bn-seed1" / "final"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{which}{end}"
        for which in ("best", "last")
        for end in (".json", ".parquet", "-hardest.png", "-easiest.png")
    )
    found = json.loads((folder / "best.json").read_text())
    asked = {name: found[name] for name in ("step", "images", "steps", "restarts", "audited")}
    assert asked == {"step": 10, "images": 18, "steps": 2, "restarts": 2, "audited": 5}
    rows = pq.read_table(folder / "best.parquet").to_pylist()
    assert [row["index"] for row in rows] == list(range(18))
    assert found["loss"] == pytest.approx(sum(row["loss"] for row in rows) / 18)
    for row in rows[:5]:
        searches = [row["loss"], row["restart_1"], row["restart_2"]]
        assert row["winner"] == searches.index(min(searches))
    lowest = [min(row["loss"], row["restart_1"], row["restart_2"]) for row in rows[:5]]
    assert found["restarts_loss"] == pytest.approx(sum(lowest) / 5)
    assert found["code_norm"] == pytest.approx(sum(row["code_norm"] for row in rows) / 18)
    assert 0 < found["code_norm"] < found["ball_radius"] < 1  # of a uniform prior; after 2 steps
    assert (found["outside"], found["ball_images"]) == (0, 5)
    assert found["ball_loss"] == pytest.approx(sum(row["ball_loss"] for row in rows[:5]) / 5)
    assert found["ball_free_loss"] == found["audited_loss"]
    assert {row["ball_loss"] for row in rows[5:]} == {None}
    assert {row["winner"] for row in rows[5:]} == {row["restart_1"] for row in rows[5:]} == {None}
    with Image.open(folder / "best-hardest.png") as picture:
        assert picture.width / picture.height == pytest.approx(2, rel=0.1)  # 4 rows of 4 pairs


def test_what_is_done_is_done_unless_the_budget_or_the_checkpoint_changes(study, jobs):
    run_all(jobs())
    assert jobs() == []
    assert len(jobs(replace(CONFIG, steps=3))) == 3
    study.storage.write("trials/bn-seed1/final/last.json", b"{")
    assert [job.test.generator.checkpoint for job in jobs()] == ["checkpoint_20"]
    run_all(jobs())
    for other in (b"[1]", b"{}"):  # not of ours
        study.storage.write("trials/bn-seed1/final/last.json", other)
        assert [job.test.generator.checkpoint for job in jobs()] == ["checkpoint_20"]
    run_all(jobs())
    study.storage.write("trials/wn-seed1/checkpoint_10/step-000000020.pt", b"")
    study.storage.delete("trials/wn-seed1/checkpoint_20/step-000000020.pt")
    assert [job.test.generator.trial for job in jobs()] == ["wn-seed1"]


def test_crash_while_a_test_is_written_again_leaves_no_old_number(study, jobs, monkeypatch):
    run_all(jobs())
    (job,) = [
        job for job in jobs(replace(CONFIG, steps=3)) if job.test.generator.which == ("last",)
    ]
    monkeypatch.setattr("raygan.gan.picture_grid.grid_png", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        final_making.make_test(job)
    assert final.read(study.storage / "trials" / "bn-seed1", "last") is None


def test_table_holds_only_finite_losses():
    losses, nan = torch.tensor([0.3, 0.1]), float("nan")
    test = FinalTest(losses, torch.tensor([[nan], [0.2]]), torch.empty(0))
    columns = final_making._columns(test)
    assert columns["restart_1"] == [None, None]
    assert columns["restart_2"] == [pytest.approx(0.2), None]
    assert columns["winner"] == [2, None]


def without_new_keys(trial: Storage, which: str) -> dict:
    """Make the result of a test one that an earlier version stored."""
    name = f"final/{which}.json"
    found = json.loads(trial.read(name))
    new = {"code_norm", "outside", "ball_radius", "ball_images", "ball_loss", "ball_free_loss"}
    old = {key: value for key, value in found.items() if key not in new}
    del old["asked"]["protocol"]
    trial.write(name, json.dumps(old).encode())
    return old


def test_results_of_earlier_versions_are_of_the_default_protocol_and_lack_codes(study, jobs):
    run_all(jobs())
    trial = study.storage / "trials" / "wn-seed1"
    for which in ("best", "last"):
        without_new_keys(trial, which)
    assert jobs() == []
    assert final.read(trial, "best")["asked"] == asdict(CONFIG)
    read = finals.read_all(study.storage, study.records.values()).tests
    row = finals.columns(read["wn-seed1"], {}, {})
    assert row["final_best"] > 0
    assert row["final_best_protocol"] == "per-image"
    assert [row[f"final_best{ending}"] for ending in finals.CODES] == [None] * 4


def test_a_test_of_another_protocol_is_made_again_and_kept_apart(study, jobs):
    run_all(jobs())
    trial, other = study.storage / "trials" / "wn-seed1", replace(CONFIG, protocol="authors")
    before = final.read(trial, "best")
    again = jobs(other)
    assert len(again) == 3
    final_making.make_test(again[2])
    found = final.read(trial, "best")
    assert found["asked"]["protocol"] == "authors"
    assert 0 < found["code_norm"] < before["code_norm"]  # ε shortens its steps
    read = finals.read_all(study.storage, study.records.values()).tests
    kept = gather._of_one_budget(read, cells(study.spec, study.records), study.spec)
    assert set(kept["bn-seed1"]) == {"best", "last"}
    assert kept["wn-seed1"] == {}
    assert finals.columns(read["wn-seed1"], {}, {})["final_best_protocol"] == "authors"


@pytest.mark.cluster  # takes seconds
def test_report_compares_tests_of_one_budget(evaluate, study, jobs):
    def measure() -> str:
        made = make_report(study.storage, study.spec, study.records, None)
        return made.verdict

    run_all(jobs())
    assert "final test's loss" in measure()
    evaluate("a/wn-seed1", "--steps", "1")
    assert "end loss of the running test" in measure()
    assert "1 of 2 runs took it with other settings (steps: 1)" in measure()
    evaluate("a/bn-seed1", "--steps", "1")
    assert "final test's loss" in measure()


def test_the_same_test_gives_the_same_numbers(jobs):
    job = jobs()[0]
    first, again = final_making.make_test(job), final_making.make_test(job)
    assert {**first, "seconds": 0} == {**again, "seconds": 0}


def test_checkpoints_are_read_from_addresses(study):
    trial = study.storage / "trials" / "bn-seed1"
    here = checkpoints.load(trial, "checkpoint_10")
    there = checkpoints.load(far(trial.local), "checkpoint_10")
    assert here["step"] == there["step"] == 10
    assert all((there["generator"][k] == v).all() for k, v in here["generator"].items())


@pytest.fixture
def with_quality(study, monkeypatch) -> list[str]:
    """The trials were trained with measures of quality, whose values are counted up."""
    made: list[str] = []

    def final_quality(generator, config, images, kind):
        made.append(kind)
        names = MEASURES[kind]
        return {**dict.fromkeys(names, len(made) / 10), "kind": kind, "images": 1000,
                "real_images": len(images.final), "seed": config.seed}  # fmt: skip

    monkeypatch.setattr("raygan.gan.judge.sample_quality.final_quality", final_quality)
    for record in study.records.values():
        record.config["quality"] = "features"
    return made


@pytest.fixture
def quality_jobs(study, jobs, monkeypatch):
    """What is due; the trials' checkpoints are loaded whatever measures they were trained with."""
    whole = final_making.load_generator

    def load_generator(generator: Generator, job: Job):
        return whole(generator, replace(job, config={**job.config, "quality": "none"}))

    monkeypatch.setattr(final_making, "load_generator", load_generator)
    return jobs


def test_quality_is_made_with_the_final_test(study, quality_jobs, with_quality):
    lines = run_all(quality_jobs())
    assert with_quality == ["features"] * 3
    assert lines[0].endswith(
        "; feature energy distance 0.1, recall 0.1, coverage 0.1 (1000 samples, 20 images)"
    )
    assert ": loss 0." in lines[0]
    trial = study.storage / "trials" / "bn-seed1"
    best, last = (
        json.loads(trial.read(f"final/{which}-quality.json")) for which in ("best", "last")
    )
    assert best == {
        "feature_energy_distance": 0.1, "recall": 0.1, "coverage": 0.1, "kind": "features",
        "images": 1000, "real_images": 20, "seed": best["seed"], "step": 10,
        "checkpoint": "checkpoint_10",
    }  # fmt: skip
    assert (last["recall"], last["step"]) == (0.2, 20)
    wn = study.storage / "trials" / "wn-seed1"
    assert wn.read("final/best-quality.json") == wn.read("final/last-quality.json")
    assert quality_jobs() == []


def test_only_what_is_missing_is_made(study, quality_jobs, with_quality):
    def due() -> list[tuple[str, int, str]]:
        return [
            (job.test.generator.checkpoint, job.test.config.steps, job.test.quality)
            for job in quality_jobs(which=("last",))
            if job.job.trial == "bn-seed1"
        ]

    assert due() == [("checkpoint_20", 2, "features")]
    run_all(quality_jobs())
    assert due() == []
    trial = study.storage / "trials" / "bn-seed1"
    written = trial.read("final/last-quality.json")
    of_another = json.dumps({**json.loads(written), "checkpoint": "checkpoint_10"}).encode()
    for changed in (b"{", b"{}", of_another):
        trial.write("final/last-quality.json", changed)
        assert due() == [("checkpoint_20", 0, "features")]
    (job,) = [job for job in quality_jobs() if job.test.config.steps == 0]
    assert final_making.make_test(job).keys() == {"quality"}
    assert due() == []
    trial.delete("final/last.json")
    assert due() == [("checkpoint_20", 2, "none")]
    assert "quality" not in final_making.make_test(quality_jobs()[0])


def test_quality_of_another_kind_is_due_unless_it_says_more(study, quality_jobs, with_quality):
    for record in study.records.values():
        record.config["quality"] = "wasserstein"
    run_all(quality_jobs())
    assert quality_jobs() == []
    for record in study.records.values():
        record.config["quality"] = "features"
    assert len(quality_jobs()) == 3
    run_all(quality_jobs())
    for record in study.records.values():
        record.config["quality"] = "wasserstein"
    assert quality_jobs() == []
    assert with_quality == ["wasserstein"] * 3 + ["features"] * 3


def test_quality_without_a_final_test(study, quality_jobs, with_quality):
    jobs = quality_jobs(FinalConfig(steps=0))
    assert statuses(study.storage, jobs) == [("waiting", 0.0)] * 3
    lines = run_all(jobs)
    assert lines[0] == (
        "final test 1/3, bn s1, best: feature energy distance 0.1, recall 0.1, coverage 0.1 "
        "(1000 samples, 20 images)"
    )
    assert statuses(study.storage, jobs) == [("done", 1.0)] * 3
    assert study.storage.read("trials/bn-seed1/final/best.json") is None
    assert quality_jobs(FinalConfig(steps=0)) == []
    assert final.steps_of([job.test for job in jobs]) == ": quality of their samples"


def test_quality_that_cannot_be_measured_costs_no_final_test(
    study, quality_jobs, with_quality, monkeypatch
):
    def fails(*_: object) -> None:
        raise ConfigError("needs raygan[quality]")

    monkeypatch.setattr("raygan.gan.judge.sample_quality.final_quality", fails)
    lines: list[str] = []
    assert final.run(quality_jobs(), final_making.Here(), 1, lines.append) == 3
    assert lines[0] == "final test 1/3, bn s1, best: failed (needs raygan[quality])"
    assert final.read(study.storage / "trials" / "bn-seed1", "best") is not None
    assert [job.test.quality for job in quality_jobs()] == ["features"] * 3


def test_trials_of_an_earlier_version_have_no_quality(study, jobs, with_quality):
    for record in study.records.values():
        del record.config["quality"]
    assert {job.test.quality for job in jobs()} == {"none"}
    run_all(jobs())
    assert with_quality == []


class Played:
    """A runner that ends tests out of order, and some of them badly."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.most = 0

    def start(self, job, final_job):
        assert job is final_job.job
        self.started.append(final_job.test.generator.title)
        return final_job

    def ended(self, running):
        self.most = max(self.most, len(running))
        return running[-1:]

    def result(self, running):
        if running.test.generator.title == "bad":
            raise RuntimeError("out of memory\nand more")
        return {"loss": 0.5, "images": 1, "steps": 2, "audited": 0, "replaced": ""}

    def stop(self, running):
        self.stopped.append(running.test.generator.title)


@pytest.fixture
def played(tmp_path):
    def played(*titles: str) -> list[FinalJob]:
        def job(title: str) -> Job:
            folder = f"{tmp_path}/trials/{title}"
            return Job(trial=title, config={}, folder=folder, prepared="", digest="")

        return [
            FinalJob(PlannedTest(Generator(title, title, "", ("best",)), CONFIG), job(title))
            for title in titles
        ]

    return played


def test_one_that_fails_is_told_and_the_others_are_made(played):
    runner, lines = Played(), []
    assert final.run(played("one", "bad", "two"), runner, 2, lines.append) == 1
    assert runner.started == ["one", "bad", "two"]
    assert runner.most == 2
    assert [line.partition(", ")[2] for line in lines] == [
        "bad, best: failed (out of memory)",
        "two, best: loss 0.50000 (1 images)",
        "one, best: loss 0.50000 (1 images)",
    ]
    assert [line.split(",")[0] for line in lines] == [f"final test {n}/3" for n in (1, 2, 3)]


def test_sweep_that_stops_gives_up_what_runs(played):
    runner, lines = Played(), []
    final.run(played("one", "two", "three"), runner, 2, lines.append, lambda: bool(lines))
    assert len(lines) == 1
    assert runner.started == ["one", "two"]
    assert runner.stopped == ["one"]


def statuses(sweep: Storage, jobs: list[FinalJob]) -> list[tuple[str, float]]:
    found = [final.status(sweep, job.test) for job in jobs]
    return [(status.state, status.done) for status in found]


def note(job: FinalJob, done: float) -> None:
    final.Notes(Storage(job.job.folder), job.test.generator)(done)


def test_test_says_how_far_it_is_while_it_runs(study, jobs, monkeypatch):
    monkeypatch.setattr(final, "PROGRESS_SECONDS", 0.0)
    all_jobs, seen = jobs(), []
    whole = final._note

    def noted(*arguments) -> None:
        whole(*arguments)
        seen.append(statuses(study.storage, all_jobs)[0])

    monkeypatch.setattr(final, "_note", noted)
    final_making.make_test(all_jobs[0])
    # 18 images from z = 0, twice 5 audited ones, and 5 within the ball
    shares = [0.0, 18 / 33, 23 / 33, 28 / 33, 1.0]
    assert seen == [*(("running", pytest.approx(share)) for share in shares), ("done", 1.0)]
    assert statuses(study.storage, all_jobs)[1:] == [("waiting", 0.0)] * 2


def test_searches_begin_again_from_codes_of_the_trained_distribution(jobs, monkeypatch):
    asked = []

    def drawn(*arguments):
        asked.append(arguments)
        return codes(*arguments)

    monkeypatch.setattr("raygan.gan.judge.final.codes", drawn)
    final_making.make_test(jobs()[0])
    assert [each[3:] for each in asked] == [(5, 4, "uniform")] * 2


def test_progress_is_written_now_and_then_only(study, jobs, monkeypatch):
    written = []
    monkeypatch.setattr(final, "_note", lambda *arguments: written.append(arguments[2]))
    monkeypatch.setattr(final, "PROGRESS_SECONDS", 1e9)
    final_making.make_test(jobs()[0])
    assert [progress and progress.done for progress in written] == [0.0, None]


def test_progress_that_cannot_be_written_fails_no_test(study, jobs, monkeypatch):
    write = Storage.write

    def full(self, name, data):
        if "progress" in name:
            raise OSError(28, "No space left on device")
        write(self, name, data)

    monkeypatch.setattr(Storage, "write", full)
    assert final_making.make_test(jobs()[0])["loss"] > 0


def test_storage_that_is_away_is_waited_for(study, jobs, monkeypatch):
    monkeypatch.setattr("raygan.retries.SHORTEST_PATIENCE", 0.0)
    all_jobs, away = jobs(), ["checkpoint", "result", "result"]

    def fails_at_first(function, what):
        def called(*arguments):
            if what in away:
                away.remove(what)
                raise OSError("connection refused")
            return function(*arguments)

        return called

    for name, what in (("load_generator", "checkpoint"), ("_write", "result")):
        monkeypatch.setattr(final_making, name, fails_at_first(getattr(final_making, name), what))
    final_making.make_test(all_jobs[0])
    assert away == []
    assert statuses(study.storage, all_jobs)[0] == ("done", 1.0)


def test_files_that_cannot_be_read_from_storage_that_answers_are_an_error(jobs, monkeypatch):
    def missing(*_: object) -> None:
        raise FileNotFoundError("shard-0.bin")

    monkeypatch.setattr(final_making, "load_generator", missing)
    with pytest.raises(DataError, match=r"cannot be read: shard-0\.bin"):
        final_making.make_test(jobs()[0])


def test_failed_test_is_known_as_such_until_it_is_made(study, jobs, monkeypatch):
    monkeypatch.setattr(final_making, "make_test", lambda _: 1 / 0)
    assert final.run(jobs()[:1], final_making.Here(), 1, lambda _: None) == 1
    assert statuses(study.storage, jobs())[0] == ("failed", 0.0)
    monkeypatch.undo()
    made, all_jobs = jobs()[:1], jobs()
    run_all(made)
    assert statuses(study.storage, all_jobs)[0] == ("done", 1.0)


def test_stopped_test_waits_again(study, jobs):
    all_jobs, lines = jobs(), []
    note(all_jobs[1], 0.5)
    assert statuses(study.storage, all_jobs)[1] == ("running", 0.5)
    final.run(all_jobs[:2], Played(), 2, lines.append, lambda: True)
    final.run(all_jobs[:2], Played(), 2, lines.append, lambda: bool(lines))
    assert statuses(study.storage, all_jobs)[0][0] == "waiting"


def test_watch_shows_final_tests(study, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("raygan.sweep.session.lock.SETTLE_SECONDS", 0.0)
    all_jobs = jobs()
    run_all(all_jobs[:1])
    note(all_jobs[1], 0.25)
    with Lock(study.storage, stop=lambda: None, lost=lambda _: None):
        done = CliRunner().invoke(main, ["watch", "a", "--storage", str(tmp_path)])
    lines = done.output.splitlines()
    assert lines[0].startswith(
        "a: 2 of 2 trials done; 1 of 3 final tests done, 1 running, 1 waiting"
    )
    rows = [line.split() for line in lines if line.startswith(("bn s1 ", "wn s1 "))]
    assert rows[0][:5] == ["bn", "s1", "last", "25%", "running"]
    assert rows[1] == ["wn", "s1", "best", "and", "last", "waiting"]
    assert rows[2][:5] == ["bn", "s1", "best", "100%", "ok"]
    now = CliRunner().invoke(main, ["watch", "a", "--storage", str(tmp_path)]).output
    assert "1 of 3 final tests done, 1 interrupted, 1 waiting\n" in now


def test_watch_shows_final_tests_once_no_trial_is_to_come(tmp_path):
    """One of two settings fails, so that there is one replicate instead of two."""
    text = "{name: b, search: {lr: [0.1, 0.2]}, replicate: {seeds: 1, top: 2}, train: {iterations: 20, evaluate_every: 10}}"
    made = Study(spec.validate(parse(text, "x")), Storage(str(tmp_path / "b")))
    shown = []
    while (planned := made.next_trial()) is not None:
        made.started(planned.id)
        if made.records.keys() != {planned.id}:  # the first one fails
            for step in (10, 20):
                made.heard(planned.id, {"step": step, LOSS: 1 / step})
                name = f"trials/{planned.id}/checkpoint_{step}/{checkpoint_file(step)}"
                made.storage.write(name, b"x")
        made.ended(planned.id)
        found = watch._tests(made.storage, made.spec, list(made.records.values()), made.look[0])
        shown.append([test.generator.which for test in found])
    assert made.complete
    assert shown == [[], [], [("best", "last")]]
    picture = watch.picture(made.storage, made.spec, looks.Reached(made.spec), Ends())
    assert picture.head.startswith("b: 3 of 3 trials done; 0 of 1 final tests done, 1 waiting")


def test_log_says_now_and_then_how_far_final_tests_are(study, jobs, monkeypatch):
    all_jobs, said = jobs(), io.StringIO()
    run_all(all_jobs[:1])
    note(all_jobs[1], 0.25)
    told = FinalProgress(
        study.spec, study.storage, [], [job.test for job in all_jobs], Console(file=said, width=160)
    )
    told.look()
    assert said.getvalue() == ""  # not yet
    monkeypatch.setattr("raygan.sweep.session.progress.SAY_SECONDS", 0.0)
    told.look()
    (line,) = said.getvalue().splitlines()
    assert " final tests: 1 of 3 done, 1 running (25%), about " in line


def test_terminal_shows_final_tests_while_they_run(study, jobs, monkeypatch):
    monkeypatch.setattr("raygan.sweep.session.progress.LOOK_SECONDS", 0.001)
    all_jobs, said = jobs(), io.StringIO()
    note(all_jobs[0], 0.25)
    console = Console(file=said, width=80, height=24, force_terminal=True)
    looked = threading.Event()
    status = final.status
    monkeypatch.setattr(final, "status", lambda *a, **k: looked.set() or status(*a, **k))
    with FinalProgress(study.spec, study.storage, [], [job.test for job in all_jobs], console):
        assert looked.wait(30)
    assert "0 of 3 final tests done" in said.getvalue()
    assert "25%" in said.getvalue()


def test_tasks_take_a_workers_resources_and_raise_what_was_raised(monkeypatch):
    asked: dict = {}

    def remote(**options):
        asked.update(options)
        return lambda function: SimpleNamespace(remote=lambda *given: (function, *given))

    def get(reference):
        raise RayTaskError("make_test", "traceback", CheckpointError("it is damaged"))

    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", get)
    job = Job(trial="a", config={}, folder="f", prepared="p", digest="d", cpus=2.0, gpus=0.5)
    runner = Tasks(final_making.make_test)
    assert runner.start(job, "a test") == (final_making.make_test, "a test")
    assert asked == {"num_cpus": 2.0, "num_gpus": 0.5, "max_retries": WORKER_FAILURES}
    with pytest.raises(CheckpointError, match="it is damaged"):
        runner.result("reference")


@pytest.fixture
def evaluate(tmp_path):
    def evaluate(*arguments: str, code: int = 0) -> str:
        command = ["evaluate", *arguments, "--storage", str(tmp_path), "--device", "cpu"]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == code, done.output
        return done.output

    return evaluate


def test_command_tests_the_replicates_of_a_sweep(evaluate, study, jobs):
    output = evaluate("a")
    assert output.count("final test ") == 3
    assert jobs() == []
    table = [line.split() for line in output.splitlines() if " s1 " in line and "test" not in line]
    assert [row[2:4] for row in table] == [["best", "10"], ["last", "20"], ["best", "20"], ["last", "20"]]  # fmt: skip
    assert "final test" not in evaluate("a")


def test_command_tests_each_trial_on_the_images_of_its_data_set(evaluate, tmp_path, prepared):
    """The shapes differ: a generator of one cannot be tested on the images of the other."""
    (tmp_path / "data").symlink_to(prepared.parent)
    small = {"name": "digits", "size": 8, "running": 8, "final": 20}
    folders = {"digits": prepared, "small": prepare(DatasetConfig(**small), prepared.parent)}
    listed = json.dumps(
        [{**small, "size": 16}, {**small, "label": "small", "train": {"levels": 1}}]
    )
    text = SWEEP.replace("{name: digits, size: 16, running: 8, final: 20}", listed)
    read = spec.validate(parse(f"{text}storage: {tmp_path}", "x"))
    images = {label: load(folder) for label, folder in folders.items()}
    sets = {
        label: PreparedSet(folder=f"/elsewhere/{folders[label].name}", digest=one.digest, baseline=1.0)
        for label, one in images.items()
    }  # fmt: skip
    made = Study(read, Storage(str(tmp_path)) / "a")
    state.store(made.storage, read, Prepared(id="1", sets=sets))
    play(made, {label: one.shape for label, one in images.items()})
    output = evaluate("a", "--steps", "1", "--restarts", "0", "--which", "last")
    assert output.count("final test ") == 4
    assert "failed" not in output
    for cell in ("digits_wn", "small_wn"):
        assert final.read(made.storage / "trials" / f"{cell}-seed1", "last")["steps"] == 1
    output = evaluate("a/small_wn-seed1", "--steps", "2", "--restarts", "0", "--which", "last")
    assert output.count("final test ") == 1


def test_command_tests_one_trial_with_another_budget(evaluate, study):
    budget = ("--steps", "1", "--restarts", "0", "--protocol", "authors")
    output = evaluate("a/wn-seed1", *budget, "--which", "last")
    assert "1 (authors)" in output
    assert output.count("final test") == 1
    found = final.read(study.storage / "trials" / "wn-seed1", "last")
    assert (found["steps"], found["restarts"], found["restarts_loss"]) == (1, 0, None)
    assert found["asked"]["protocol"] == "authors"
    assert final.read(study.storage / "trials" / "wn-seed1", "best") is None


def test_command_tests_the_best_trial_of_a_cell_without_replicates(evaluate, study):
    for record in study.records.values():
        record.kind = "search"
        record.save(study.storage)
    read = study.spec.model_dump(exclude_unset=True) | {"replicate": {"seeds": 0}}
    data = state.stored_data(study.storage, study.spec)
    state.store(study.storage, spec.spec_class().model_validate(read), data)
    assert evaluate("a", "--steps", "1").count("final test") == 3


def test_fid_is_written_beside_the_final_test(evaluate, study, monkeypatch, tmp_path):
    found = {"fid": 12.5, "kid": 0.01, "kid_std": 0.001, "n": 40}
    monkeypatch.setattr("raygan.gan.judge.fid.check", lambda path: path)
    asked = {}
    monkeypatch.setattr(
        "raygan.gan.judge.fid.fid", lambda *_, **given: asked.update(given) or found
    )
    output = evaluate("a/bn-seed1", "--fid", "--fid-weights", "w.pth", "--which", "last")
    assert "bn s1, last: FID 12.500, KID 0.01000" in output
    written = study.storage.read("trials/bn-seed1/final/last-fid.json")
    assert json.loads(written) == {**found, "step": 20, "checkpoint": "checkpoint_20"}
    assert asked["latent"] == "uniform"


def test_damaged_checkpoint_keeps_no_other_from_its_fid(evaluate, study, jobs, monkeypatch):
    run_all(jobs())
    damage(study, 10, 20)
    found = {"fid": 12.5, "kid": 0.01, "kid_std": 0.001, "n": 40}
    monkeypatch.setattr("raygan.gan.judge.fid.check", lambda path: path)
    monkeypatch.setattr("raygan.gan.judge.fid.fid", lambda *_, **__: found)
    output = evaluate("a", "--fid", "--fid-weights", "w.pth", code=3)
    assert "bn s1: no FID (no checkpoint is complete" in output
    assert output.count("FID 12.500") == 1


def test_fid_without_the_package_is_refused_before_anything_is_tested(evaluate, study, monkeypatch):
    monkeypatch.setattr("raygan.gan.judge.fid.find_spec", lambda _: None)
    assert "pip install 'raygan[fid]'" in evaluate("a", "--fid", code=2)
    assert study.storage.files("trials/bn-seed1/final") == []


@pytest.mark.parametrize("installed", [True, False])
def test_command_measures_the_quality_of_stored_checkpoints(
    evaluate, study, with_quality, monkeypatch, installed
):
    """Of a sweep that was trained without it, as those of earlier versions."""
    monkeypatch.setattr("raygan.gan.judge.quality.is_available", lambda: installed)
    monkeypatch.setattr("raygan.gan.judge.quality.check", lambda kind: None)
    kind = "features" if installed else "wasserstein"
    output = evaluate("a", "--quality")
    first = "feature energy distance 0.1, recall" if installed else "sliced wasserstein 0.1 ("
    assert f"bn s1, best: {first}" in output
    assert output.count("samples, 20 images)") == 3
    assert with_quality == [kind] * 3
    again = evaluate("a", "--quality", "--steps", "0", "--which", "last")
    assert again.count("samples, 20 images)") == 2
    assert len(with_quality) == 3
    found = make_report(study.storage, study.spec, study.records, None)
    assert found is not None
    known = finals.read_all(study.storage, study.records.values()).qualities
    assert known["wn-seed1"]["last"]["kind"] == kind


def test_command_without_the_option_measures_no_quality(evaluate, study, with_quality):
    evaluate("a/wn-seed1", "--which", "last")
    assert with_quality == []


def test_damaged_checkpoint_keeps_no_other_from_its_quality(
    evaluate, study, quality_jobs, with_quality
):
    run_all(quality_jobs(quality="none"))
    assert with_quality == []
    damage(study, 10, 20)
    output = evaluate("a", "--quality", code=3)
    assert "bn s1: no quality of samples (no checkpoint is complete" in output
    assert output.count("samples, 20 images)") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["b"], "there is no sweep 'b'"),
        (["a/vanilla"], "there is no trial 'vanilla'"),
        (["a/vanilla"], "trials there: bn-seed1, wn-seed1"),
        (["a/../a"], "there is no trial '../a'"),
        (["a", "--fid-weights", "w.pth"], "--fid-weights (='w.pth') needs --fid"),
        (["a", "--steps", "0"], "so there is no final test"),
        (["a", "--images", "-1"], "`final.images` (=-1)"),
    ],
)
def test_mistakes_are_named(evaluate, study, arguments, says):
    assert says in evaluate(*arguments, code=2)


def test_trial_without_a_checkpoint_is_named(evaluate, study):
    for file in (study.storage.local / "trials" / "bn-seed1").glob("*/step-*"):
        file.unlink()
    assert "no checkpoint of the best and the last generator" in evaluate("a/bn-seed1", code=2)


def damage(study, *steps: int) -> None:
    for step in steps:
        trial = study.storage.local / "trials" / "bn-seed1"
        (trial / f"checkpoint_{step}" / f"step-{step:09d}.pt").write_bytes(b"x")


def test_damaged_checkpoint_is_named_and_another_one_is_tested(evaluate, study):
    damage(study, 10)
    output = evaluate("a")
    assert output.count("the checkpoint after iteration 20 is used instead") == 2  # and in the end
    assert output.count(": loss 0.") == 3
    again = evaluate("a")
    assert "bn s1, best: the checkpoint after iteration 20 is used instead" in again
    found = finals.read_final(study.storage / "trials" / "bn-seed1", "best")
    assert found is not None
    assert "iteration 20 is used instead" in found["replaced"]


def test_trial_with_damaged_checkpoints_only_is_named_and_the_others_are_tested(evaluate, study):
    damage(study, 10, 20)
    output = evaluate("a", code=3)
    assert "bn s1, best: failed (no checkpoint is complete" in output
    assert output.count(": loss 0.") == 1


def test_sweep_without_a_result_is_named(evaluate, tmp_path, prepared):
    read = spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))
    state.store(Storage(str(tmp_path)) / "a", read, one_set(id="1", digest="d", baseline=0.1))
    assert "no trial of 'a' has a result yet" in evaluate("a", code=2)


@pytest.mark.parametrize("lost", ["generator", "optimizer_g", "history", "config"])
def test_checkpoint_that_lacks_a_part_is_named(study, jobs, lost):
    folder = study.storage.local / "trials" / "wn-seed1" / "checkpoint_20"
    saved = checkpoint.load(folder / checkpoint_file(20))
    saved[lost] = None
    checkpoint.save(saved, folder, 20)
    job = next(job for job in jobs() if job.job.trial == "wn-seed1")
    with pytest.raises(CheckpointError, match=r"the checkpoint (is of another|does not hold)"):
        final_making.load_generator(job.test.generator, job.job)
