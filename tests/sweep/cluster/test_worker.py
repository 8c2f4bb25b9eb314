import itertools
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train
import ray.train.collective

from raygan import recipe
from raygan.checkpoints import Shelf, find_checkpoints
from raygan.data import DatasetConfig, load, prepare
from raygan.errors import CheckpointError
from raygan.folder import IMAGES
from raygan.gan import checkpoint
from raygan.gan.config import TrainConfig
from raygan.gan.keeping import Keeper
from raygan.gan.state import TrainState
from raygan.gan.train import train
from raygan.storage import Storage
from raygan.sweep.cluster import worker
from raygan.sweep.cluster.job import Job
from raygan.sweep.cluster.last_checkpoints import Listener
from raygan.sweep.cluster.worker import _newest, _saved, load_images, train_worker


@pytest.fixture
def reports(monkeypatch) -> list[dict]:
    """What a worker tells Ray Train."""
    heard: list[dict] = []
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    monkeypatch.setattr(ray.train, "report", lambda metrics, **_: heard.append(metrics))
    return heard


def job(tmp_path: Path, **changes) -> Job:
    folder = prepare(DatasetConfig(name="digits", size=16, running=8), tmp_path / "data")
    config = TrainConfig(
        features=4, code_size=4, batch_size=8, iterations=4, evaluate_every=2,
        reconstruction_steps=1,
    )  # fmt: skip
    job = Job(
        trial="trial",
        config=config.to_dict(),
        prepared=str(folder),
        digest=load(folder).digest,
        folder=str(tmp_path / "trial"),
    )
    return replace(job, **changes)


def test_last_report_says_nothing_since_ray_may_lose_it(tmp_path, reports):
    train_worker(job(tmp_path).to_plain())
    assert [report["step"] for report in reports[:-1]] == [0, 2, 4]
    assert reports[-1] == {"step": 0}


def test_when_the_last_evaluation_is_told_all_is_written(tmp_path, monkeypatch):
    """Tune may end the process as soon as it has heard of it."""
    home = Storage(str(tmp_path / "trial"))
    seen = {}

    def report(metrics: dict) -> None:
        found = [step for step, _ in find_checkpoints(home)]
        seen[metrics["step"]] = found, len(home.files(IMAGES)), metrics.get("checkpoint_bytes")

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    writes, slow = Shelf.save, threading.Event()
    monkeypatch.setattr(Shelf, "save", lambda *given: slow.wait(0.2) or writes(*given))
    train_worker(job(tmp_path, checkpoint_every="1h").to_plain())
    steps, pictures, size = seen[4]
    assert steps == [4]
    assert pictures == 4
    (file,) = home.local.glob("checkpoint_*/step-*.pt")
    assert size == file.stat().st_size
    saved = checkpoint.load(file)
    assert saved["best"]["step"] == saved["best_step"]


@pytest.mark.parametrize(("every", "steps"), [(1, [4, 3]), (3, [4, 3]), ("1h", [4])])
def test_checkpoints_come_as_often_as_the_yaml_says(tmp_path, reports, monkeypatch, every, steps):
    keep = Keeper.keep
    monkeypatch.setattr(Keeper, "keep", lambda self, state: (keep(self, state), self.finish()))
    train_worker(job(tmp_path, checkpoint_every=every).to_plain())
    assert [step for step, _ in find_checkpoints(Storage(str(tmp_path / "trial")))] == steps


def test_a_worker_that_will_be_preempted_keeps_its_state_at_once(tmp_path, reports, monkeypatch):
    kept = []
    monkeypatch.setattr(Shelf, "save", lambda _, saved: kept.append(saved["step"]) or 1)
    monkeypatch.setattr("raygan.gan.keeping.MEETING_SECONDS", 0.0)
    monkeypatch.setattr("raygan.gan.keeping.ASKING_SECONDS", 0.0)
    told = iter([None, object(), None, None, None, None])
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: next(told))
    train_worker(job(tmp_path, checkpoint_every="1h").to_plain())
    assert kept == [2, 4]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[float]:
    """The losses of a trial that nothing has stopped."""
    whole = job(tmp_path_factory.mktemp("undisturbed"))
    config, images = whole.train_config(), load(Path(whole.prepared))
    return [e.loss for e in train(config, images, TrainState.create(config, images.shape))]


@pytest.mark.parametrize(("told_at", "reported"), [(2, [0]), (3, [0, 2])])
def test_a_worker_that_is_stopped_keeps_its_state_and_resumes_there(
    tmp_path, reports, monkeypatch, undisturbed, told_at, reported
):
    whole = job(tmp_path)
    calls, events, home = itertools.count(1), [], Storage(whole.folder)
    with monkeypatch.context() as stopping:
        stopping.setattr(Listener, "is_stopped", lambda _: next(calls) >= told_at)

        def has_kept(_: Listener) -> None:
            events.append(([step for step, _ in find_checkpoints(home)], len(home.files(IMAGES))))

        stopping.setattr(Listener, "has_kept", has_kept)
        stopping.setattr(worker, "_wait_for_the_end", lambda: events.append("waits to be ended"))
        train_worker(replace(whole, checkpoint_every="1h").to_plain())
    # a picture of each evaluation that is in the checkpoint is written, too
    assert events == [([told_at], 2 * (told_at // 2)), "waits to be ended"]
    assert [report["step"] for report in reports[:-1]] == reported

    before = [r["val/reconstruction_loss"] for r in reports if "val/reconstruction_loss" in r]
    reports.clear()
    train_worker(whole.to_plain())
    first, *others = reports[:-1]
    assert first["step"] == told_at
    told = [*first["history"], *others]
    assert [point["val/reconstruction_loss"] for point in told] == undisturbed
    assert before == undisturbed[: len(before)]


def test_a_trial_that_is_stopped_after_its_last_iteration_ends(tmp_path, reports, monkeypatch):
    calls = itertools.count(1)
    monkeypatch.setattr(Listener, "is_stopped", lambda _: next(calls) >= 4)
    monkeypatch.setattr(worker, "_wait_for_the_end", lambda: pytest.fail("it waits"))
    train_worker(job(tmp_path).to_plain())
    assert [report["step"] for report in reports[:-1]] == [0, 2, 4]


def test_a_trial_that_diverges_waits_for_the_checkpoint_that_is_being_written(
    tmp_path, reports, monkeypatch
):
    slow, writes = threading.Event(), Shelf.save
    monkeypatch.setattr(Shelf, "save", lambda *given: slow.wait(0.2) or writes(*given))
    diverging = job(tmp_path, checkpoint_every=1)
    config = diverging.config | {"norm": "vanilla", "lr": 1e30}
    train_worker(replace(diverging, config=config).to_plain())
    assert reports[-2]["outcome"] == "early-failure"
    home = Storage(str(tmp_path / "trial"))
    assert [step for step, _ in find_checkpoints(home)] == [1]
    assert Shelf(home).newest()[1] == []


def test_an_evaluation_is_told_before_its_checkpoint_is_written(tmp_path, monkeypatch):
    """While the storage is away or slow, training goes on."""
    back, steps = threading.Event(), []

    def report(metrics: dict) -> None:
        steps.append(metrics["step"])
        if metrics["step"] == 2:
            back.set()

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray.train, "report", report)
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: None)
    writes, waited = Shelf.save, []
    monkeypatch.setattr(
        Shelf, "save", lambda *given: (waited.append(back.wait(60)), writes(*given))[1]
    )
    train_worker(job(tmp_path, checkpoint_every=1).to_plain())
    assert steps == [0, 2, 4, 0]
    assert all(waited)


def test_a_trial_with_its_own_split_trains_and_is_tested_on_it(tmp_path):
    made = job(tmp_path)
    whole, own = load_images(made), load_images(replace(made, split_seed=3))
    assert own.digest == whole.digest
    assert own.final.tolist() == whole.resplit(3).final.tolist() != whole.final.tolist()


def test_failure_is_an_outcome_and_is_not_the_last_report(tmp_path, reports):
    train_worker(job(tmp_path, digest="another").to_plain())
    assert reports[0]["outcome"] == "failed"
    assert "not the images that the sweep began with" in reports[0]["reason"]
    assert reports[1:] == [{"step": 0}]


def test_a_worker_resumes_from_the_newest_whole_checkpoint_and_says_so(tmp_path, reports):
    cut = job(tmp_path)
    home = tmp_path / "trial"
    config, images = cut.train_config(), load(Path(cut.prepared))
    state = TrainState.create(config, images.shape)
    for evaluation in train(config, images, state):
        folder = home / f"checkpoint_{evaluation.step}"
        path = checkpoint.save(state.state_dict(), folder, evaluation.step)
    expected = [point["val/reconstruction_loss"] for point in state.history]
    path.write_bytes(path.read_bytes()[:-1])

    train_worker(cut.to_plain())
    first, *others = reports
    assert first["step"] == 2
    assert "after iteration 4 is damaged" in first["notes"][0]
    assert first["notes"][0].endswith("resumed after iteration 2")
    told = [*first["history"], others[0]]
    assert [point["val/reconstruction_loss"] for point in told] == expected


def test_a_checkpoint_without_networks_fails_the_trial_with_the_reason(tmp_path, reports):
    cut = job(tmp_path)
    state = {"config": cut.config, "shape": [1, 16, 16], "step": 2}
    checkpoint.save(state, tmp_path / "trial" / "checkpoint_2", 2)
    train_worker(cut.to_plain())
    assert reports[0]["outcome"] == "failed"
    assert "does not hold all of its parts" in reports[0]["reason"]


OWN = """
from raygan.gan.judge.metric import Metric

class Brightness(Metric):
    \"\"\"Mean brightness of the samples.\"\"\"
    name = "brightness"

    def measure(self, samples, images):
        return VALUE
"""


@pytest.mark.parametrize(
    ("value", "metrics", "notes", "reason"),
    [
        ("samples.mean()", 2, 0, None),
        ("float('nan')", 0, 2, None),
        ("nothing", 0, 0, "ConfigError: own.py:9: NameError: name 'nothing' is not defined"),
    ],
)
def test_a_worker_reports_a_users_own_metric(tmp_path, reports, value, metrics, notes, reason):
    own = replace(job(tmp_path), recipes=(("own.py", OWN.replace("VALUE", value)),))
    try:
        train_worker(own.to_plain())
    finally:
        recipe.use([])
    assert sum("val/brightness" in report for report in reports) == metrics
    assert sum(bool(report.get("notes")) for report in reports) == notes
    failed = [report["reason"] for report in reports if "outcome" in report]
    assert failed == ([] if reason is None else [f"raygan.errors.{reason}"])


def test_checkpoints_that_cannot_be_reached_are_not_taken_for_damaged(tmp_path, monkeypatch):
    home = Storage(str(tmp_path / "trial"))
    place = home.local / "checkpoint_2"
    checkpoint.save({"step": 2}, place, 2)
    aside = tmp_path / "aside"
    whole = Storage.files

    def files(self, name=""):
        """The folder is lost just after it was listed."""
        found = whole(self, name)
        if name == place.name:
            home.local.rename(aside)
            home.local.write_text("")
        return found

    with monkeypatch.context() as lost:
        lost.setattr(Storage, "files", files)
        with pytest.raises(OSError, match="trial"):
            _newest(Shelf(home), home)
    home.local.unlink()
    aside.rename(home.local)
    assert _newest(Shelf(home), home) == ({"step": 2}, [])


@pytest.mark.parametrize("seen_first", [2, None])
def test_all_workers_resume_from_the_checkpoint_that_the_first_one_has_found(
    tmp_path, monkeypatch, seen_first
):
    home, said = Storage(str(tmp_path / "trial")), []
    monkeypatch.setattr(
        ray.train.collective,
        "broadcast_from_rank_zero",
        lambda data: (said.append(data), said[0])[1],
    )
    if seen_first is not None:
        checkpoint.save({"step": seen_first}, home.local / f"checkpoint_{seen_first}", seen_first)
    first = _saved(Shelf(home), home, 0, 2)
    # a worker that was thought dead writes one more, before the second worker looks
    checkpoint.save({"step": 4}, home.local / "checkpoint_4", 4)
    assert _saved(Shelf(home), home, 1, 2) == first
    assert first == (None if seen_first is None else {"step": seen_first}, [])


def test_a_worker_that_cannot_read_the_checkpoint_of_the_first_one_raises(tmp_path, monkeypatch):
    home = Storage(str(tmp_path / "trial"))
    monkeypatch.setattr(ray.train.collective, "broadcast_from_rank_zero", lambda _: "checkpoint_2")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        _saved(Shelf(home), home, 1, 2)
