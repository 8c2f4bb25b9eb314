"""What of the trials' records goes to MLflow, in which requests, and what a failed one leaves."""

from __future__ import annotations

import io
import itertools
import threading
from itertools import pairwise
from types import SimpleNamespace

import pytest
from PIL import Image

from raygan.folder import PICTURES, earlier_picture_file, picture_file, trial_folder
from raygan.gan.config import TrainConfig
from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.tracking import images, trial_run
from raygan.tracking.context import data_tags
from raygan.tracking.runs import Ending, Runs, model_name
from raygan.tracking.trial_run import Point
from tests.tracking.fake_mlflow import FakeClient


def encoded(kind: str = "WEBP", shade: int = 9) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 4), (shade, 99, 199)).save(sink, format=kind)
    return sink.getvalue()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path)) / "sweep"


@pytest.fixture
def opened(client, sweep):
    def opened() -> Runs:
        runs = Runs(client, "1", "sweep", "id", sweep)
        runs.open("name: sweep\n", {})
        client.requests.clear()
        return runs

    return opened


def record(
    evaluations: int, *, of: int = 200, outcome: str | None = None, name: str = "wn-000"
) -> TrialRecord:
    history = [
        {"step": 10.0 * n, LOSS: 1 / n, "perf/images_seen": 320.0 * n}
        for n in range(1, evaluations + 1)
    ]
    config = TrainConfig(iterations=10 * of, evaluate_every=10).to_dict()
    title = "wn lr=1e-4" if name == "wn-000" else name
    return TrialRecord(name, "wn", 0, title, {}, config, outcome, None, history)


def copy(runs: Runs, trial: TrialRecord, **more) -> None:
    told = {"ended": trial.outcome is not None, "summary": [], "times": {}}
    runs.copy(trial, **(told | more))


def store_pictures(sweep: Storage, *steps: int, name: str = "wn-000") -> None:
    for step in steps:
        for kind in PICTURES:
            sweep.write(f"{trial_folder(name)}/{picture_file(kind, step)}", encoded())


def pictured(client: FakeClient) -> list[int]:
    """Steps whose pictures MLflow has, in the order in which they came."""
    return list(dict.fromkeys(images.step_of(name) for name in client.trial().files))


def test_many_evaluations_go_in_one_request(client, opened):
    copy(opened(), record(200))
    sent = [metrics for metrics in client.made("log_batch") if metrics]
    assert [len(metrics) for metrics in sent] == [400]
    assert client.trial().logged(LOSS) == [(10 * n, 1 / n) for n in range(1, 201)]


def test_a_request_has_whole_evaluations_and_at_most_1000_metrics(client, opened):
    trial = record(120)
    for point in trial.history:
        point |= {f"train/{number}": 1.0 for number in range(17)}
    copy(opened(), trial)
    sent = [metrics for metrics in client.made("log_batch") if metrics]
    assert [len(metrics) for metrics in sent] == [988, 988, 304]  # 19 for each evaluation
    assert {len({metric.step for metric in metrics}) for metrics in sent} == {52, 16}


def test_evaluations_have_the_times_when_they_were_told(client, opened):
    copy(opened(), record(4), times={20: 2000, 40: 4000})
    times = [metric.timestamp for metric in client.trial().metrics.values() if metric.key == LOSS]
    assert times == [2000, 2000, 4000, 4000]


@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
@pytest.mark.parametrize(
    "method", ["create_run", "search_runs", "log_batch", "log_artifacts", "set_terminated"]
)
def test_a_request_that_fails_before_or_after_its_effect_is_made_up_for_once(
    client, sweep, opened, method, when
):
    store_pictures(sweep, *range(10, 41, 10))
    runs = opened()
    runs._asked = False
    summary = [Point({"stability/best": 0.1})]
    for trial in (record(2, of=4), record(4, of=4, outcome="ok")):
        getattr(client, when).add(method)
        for _ in range(3):
            try:
                copy(runs, trial, summary=summary)
            except OSError:
                continue
    run = client.trial()  # one run
    assert run.logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3), (40, 1 / 4)]
    assert run.logged("stability/best") == [(0, 0.1)]
    assert pictured(client) == [10, 20, 30, 40]
    assert len(run.files) == 16
    assert (run.status, run.tags["outcome"]) == ("FINISHED", "ok")


def test_mlflow_gets_the_first_and_last_pictures_and_some_between(client, sweep, opened):
    store_pictures(sweep, *range(10, 2001, 10))
    copy(opened(), record(200, outcome="ok"))
    steps = pictured(client)
    assert (steps[0], steps[-1], len(steps)) == (10, 2000, images.MOST_STEPS)
    gaps = {later - earlier for earlier, later in pairwise(steps[1:])}
    assert gaps <= {130, 140}


def test_a_trial_that_ends_early_has_the_pictures_of_its_last_evaluation(client, sweep, opened):
    store_pictures(sweep, *range(10, 61, 10))
    runs = opened()
    copy(runs, record(6))
    assert pictured(client) == [10]
    copy(runs, record(6, outcome="stopped"))
    assert pictured(client) == [10, 60]


def test_the_pictures_after_a_restart_are_those_of_a_trial_without_one(client, sweep, opened):
    store_pictures(sweep, *range(10, 2001, 10))
    for evaluations in (7, 50, 51, 133, 200):
        copy(opened(), record(evaluations))
        copy(opened(), record(evaluations), ended=True)  # interrupted
    copy(opened(), record(200, outcome="ok"))
    steps = [step for step in range(10, 2001, 10) if images.is_chosen(step, 10, 2000)]
    assert pictured(client) == steps
    assert len(client.trial().files) == 4 * len(steps)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 100, 1000])
def test_pictures_are_chosen_evenly_and_never_more_than_allowed(count):
    iterations = 10 * count - 3  # the last evaluation comes sooner than after ten iterations
    steps = [min(10 * number, iterations) for number in range(1, count + 1)]
    chosen = [step for step in steps if images.is_chosen(step, 10, iterations)]
    assert len(chosen) == min(count, images.MOST_STEPS)
    assert (chosen[0], chosen[-1]) == (steps[0], iterations)


def test_pictures_that_are_written_after_their_evaluation_is_told_are_sent_later(
    client, sweep, opened
):
    runs = opened()
    copy(runs, record(1))
    assert client.trial().logged(LOSS) == [(10, 1.0)]  # the metrics do not wait
    for evaluations in (2, 9, 14, 16):  # the storage was away: they wait in the worker
        copy(runs, record(evaluations, of=28))
    assert pictured(client) == []
    store_pictures(sweep, 10, 20, 30)
    sweep.write(f"{trial_folder('wn-000')}/{picture_file('samples', 40)}", encoded())
    copy(runs, record(17, of=28))
    chosen = [step for step in range(10, 281, 10) if images.is_chosen(step, 10, 280)]
    assert pictured(client) == [step for step in chosen if step <= 30]
    store_pictures(sweep, *range(40, 281, 10))
    copy(runs, record(28, of=28, outcome="ok"))
    assert pictured(client) == chosen
    assert len(client.trial().files) == 4 * images.MOST_STEPS


def test_pictures_that_were_lost_with_their_worker_hold_nothing_up(client, sweep, opened):
    runs = opened()
    store_pictures(sweep, 10)
    copy(runs, record(2, of=4))
    store_pictures(sweep, 30)  # it has resumed after iteration 20
    copy(runs, record(3, of=4))
    assert pictured(client) == [10, 30]


def test_a_trial_that_was_ended_before_its_last_pictures_has_the_last_ones_that_there_are(
    client, sweep, opened
):
    runs = opened()
    store_pictures(sweep, *range(10, 61, 10))
    copy(runs, record(7))
    assert pictured(client) == [10]
    copy(runs, record(7, outcome="stopped"))
    assert pictured(client) == [10, 60]


@pytest.mark.parametrize("later", [False, True])  # with the same stop, or by another command
def test_pictures_that_are_stored_after_a_stop_are_sent_with_what_is_told_next(
    client, sweep, opened, later
):
    """At once after SIGTERM, MLflow is told of the stop while workers write last checkpoints."""
    runs, trial = opened(), record(4, of=4)
    store_pictures(sweep, 10, 20, 30)
    copy(runs, trial, ended=True)
    assert pictured(client) == [10, 20, 30]
    store_pictures(sweep, 40)
    copy(opened() if later else runs, trial, ended=True)
    assert pictured(client) == [10, 20, 30, 40]
    run = client.trial()
    assert (run.status, run.tags["outcome"], len(run.files)) == ("KILLED", "interrupted", 16)
    assert run.logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3), (40, 1 / 4)]


def test_mlflow_gets_the_very_bytes_that_are_stored(client, sweep, opened, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it is decoded"))
    store_pictures(sweep, 10)
    copy(opened(), record(1, of=4))
    sent = client.trial().contents
    assert len(sent) == 4
    assert set(sent.values()) == {encoded()}


def test_pictures_of_earlier_versions_are_sent_as_webp(client, sweep, opened):
    home = trial_folder("wn-000")
    for kind in PICTURES:
        sweep.write(f"{home}/{earlier_picture_file(kind, 10)}", encoded("PNG"))
        sweep.write(f"{home}/{earlier_picture_file(kind, 20)}", encoded("PNG"))
        sweep.write(f"{home}/{picture_file(kind, 20)}", encoded(shade=200))  # made again
    copy(opened(), record(2, of=2, outcome="ok"))
    assert pictured(client) == [10, 20]
    shades = {}
    for name, content in client.trial().contents.items():
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == "WEBP"
            shades[images.step_of(name)] = picture.getpixel((4, 2))[0] > 100
    assert shades == {10: False, 20: True}


def test_a_picture_of_an_earlier_version_is_made_smaller_and_small_ones_are_not_enlarged():
    for given, there in (((1287, 643), (512, 256)), ((512, 9), (512, 9)), ((8, 4), (8, 4))):
        with Image.open(io.BytesIO(images.encoded(Image.new("RGB", given)))) as sent:
            assert (sent.format, sent.size) == ("WEBP", there)


def test_names_of_pictures_are_those_that_mlflow_makes():
    from mlflow.tracking.client import MlflowClient

    sent: list[str] = []

    class Client(MlflowClient):
        def log_artifact(self, run_id, local_path, artifact_path=None):
            sent.append(local_path.rsplit("/", 1)[1])

        def set_tag(self, run_id, key, value, synchronous=None):
            assert (key, str(value)) == (images.SHOWN_TAG, "True")

    Client.__new__(Client).log_image("run", Image.new("RGB", (8, 4)), key="samples", step=20)
    parts = [name.rpartition(".")[0].split("+") for name in sent]
    own = [name.rpartition(".")[0].split("+") for name in images.names("samples", 20)]
    for its, ours in zip(parts, own, strict=True):
        assert len(its) == len(ours)
        assert its[:4] == ours[:4]
        assert its[6:] == ours[6:]
    assert {images.step_of(name) for name in sent} == {20}
    assert images.step_of("samples%step%20%timestamp%0%x.png") == 20  # of earlier versions


def test_ended_trials_cost_a_request_for_each_page_of_them(client, opened):
    client.page = 100
    trials = [record(2, outcome="ok", name=f"wn-{number:05d}") for number in range(250)]
    runs = opened()
    for trial in trials:
        copy(runs, trial, summary=[Point({"stability/best": 0.5})])
    again = opened()
    for trial in trials:
        copy(again, trial, if_lacking=lambda: pytest.fail("the summary is made"))
    assert [method for method, _ in client.requests] == ["search_runs"] * 3


def test_only_trials_that_differ_are_copied_again(client, opened):
    client.page = 1000
    runs = opened()
    for number in range(5):
        copy(runs, record(2, outcome="ok", name=f"wn-{number:05d}"))
    again = opened()
    for number in range(7):
        longer = record(3 if number == 3 else 2, outcome="ok", name=f"wn-{number:05d}")
        copy(again, longer, if_lacking=lambda: Point({"stability/best": 0.5}))
    assert len(client.made("create_run")) == 2
    assert client.trial("wn-00003").logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3)]
    assert client.trial("wn-00006").logged("stability/best") == [(0, 0.5)]


def test_requests_of_a_trial_are_few(client, sweep, opened):
    """200 evaluations, each copied as it comes."""
    store_pictures(sweep, *range(10, 2001, 10))
    runs = opened()
    for evaluations in range(1, 201):
        copy(runs, record(evaluations))
    copy(runs, record(200, outcome="ok"))
    methods = [method for method, _ in client.requests]
    assert {method: methods.count(method) for method in set(methods)} == {
        "create_run": 1,
        "log_batch": 202,  # parameters, evaluations, outcome
        "log_artifacts": 16,
        "set_terminated": 1,
    }


def test_metrics_of_the_parent_are_logged_again_only_if_they_have_changed(client, opened):
    for value, step in ((0.5, 2), (0.5, 2), (0.25, 2), (0.25, 3)):
        runs = opened()
        runs.close("FINISHED", Ending({"loss/wn lr=1": value, "trials/ok": 2.0}, step))
    parent = client.trial("sweep")
    assert parent.logged("loss/wn lr:1") == [(2, 0.5), (2, 0.25), (3, 0.25)]
    assert parent.logged("trials/ok") == [(2, 2.0), (3, 2.0)]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on with each look at it."""
    ticks = itertools.count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))


FAILURES = ["fail_before", "fail_after", "fail_late"]


@pytest.mark.parametrize("when", FAILURES)
def test_metrics_of_the_parent_are_logged_once_if_a_request_is_repeated(
    client, opened, clock, when
):
    runs = opened()
    points = [Point({"spent/usd": value}, step) for step, value in ((1, 0.5), (2, 0.5), (2, 0.7))]
    getattr(client, when).add("log_batch")
    with pytest.raises(OSError, match="log_batch"):
        runs.log_parent(points)
    points.append(Point({"spent/usd": 0.7}, 2))  # told meanwhile
    runs.log_parent(points)
    assert points == []
    parent = client.trial("sweep")
    assert parent.logged("spent/usd") == [(1, 0.5), (2, 0.5), (2, 0.7)]
    ending = Ending({"spent/usd": 0.9, "loss/wn": 0.1}, 2)
    getattr(client, when).add("log_batch")
    with pytest.raises(OSError, match="log_batch"):
        runs.close("FINISHED", ending)
    for again in (runs, opened()):
        again.close("FINISHED", ending)
    assert parent.logged("spent/usd")[2:] == [(2, 0.7), (2, 0.9)]
    assert parent.logged("loss/wn") == [(2, 0.1)]


def test_after_an_error_only_the_rest_of_the_parents_metrics_is_sent(client, opened, monkeypatch):
    runs = opened()
    points = [Point({"spent/usd": float(step)}, step) for step in range(250)]

    log_batch = client.log_batch

    def third_fails(*batch, **more) -> None:
        if len(client.made("log_batch")) == 2:
            client.fail_before.add("log_batch")
        log_batch(*batch, **more)

    monkeypatch.setattr(client, "log_batch", third_fails)
    with pytest.raises(ConnectionError):
        runs.log_parent(points)
    assert len(points) == 50
    runs.log_parent(points)
    assert [len(metrics) for metrics in client.made("log_batch")] == [100, 100, 50, 50]
    parent = client.trial("sweep")
    assert parent.logged("spent/usd") == [(step, float(step)) for step in range(250)]


@pytest.mark.parametrize("when", FAILURES)
def test_metrics_of_a_whole_trial_are_logged_once_if_a_request_is_repeated(
    client, opened, clock, when
):
    runs, trial = opened(), record(1, outcome="ok")
    copy(runs, record(1))
    lacking, summary = Point({"stability/best": 0.1}), [Point({"final/best": 0.2})]
    for _ in range(2):  # at its end, and after it
        getattr(client, when).add("log_batch")
        with pytest.raises(OSError, match="log_batch"):
            copy(runs, trial, summary=summary, if_lacking=lambda: lacking)
        copy(runs, trial, summary=summary, if_lacking=lambda: lacking)
        summary.append(Point({"final/best": 0.1, "stability/best": 0.1}))
    run = client.trial()
    assert run.logged("stability/best") == [(0, 0.1)]
    assert run.logged("final/best") == [(0, 0.2), (0, 0.1)]
    assert run.logged(LOSS) == [(10, 1.0)]


def test_several_threads_ask_once_what_mlflow_has(client, opened):
    for name in ("wn-00001", "wn-00002"):
        copy(opened(), record(1, name=name))
    runs = opened()
    threads = [
        threading.Thread(target=copy, args=(runs, record(2, name=name)))
        for name in ("wn-00001", "wn-00002")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.made("search_runs")) == 1
    assert not client.made("create_run")


def test_mlflow_gets_the_pictures_that_can_be_shown(client, sweep, opened, caplog):
    store_pictures(sweep, 10, 20)
    for kind in PICTURES:
        sweep.write(f"{trial_folder('wn-000')}/{picture_file(kind, 10)}", b"no picture")
    copy(opened(), record(2, of=4))
    assert pictured(client) == [20]
    assert caplog.text.count("damaged picture is not logged to MLflow") == 2


@pytest.mark.parametrize(
    ("outcome", "status", "known"),
    [
        ("ok", "FINISHED", "ok"),
        ("ok", "KILLED", None),  # cut off between its tag and its status
        ("ok", "RUNNING", None),
        ("stopped", "KILLED", "stopped"),
        ("interrupted", "KILLED", "interrupted"),
        ("diverged", "KILLED", None),
    ],
)
def test_a_run_has_ended_only_if_its_status_is_that_of_its_outcome(outcome, status, known):
    data = SimpleNamespace(
        tags={"outcome": outcome}, params={}, to_proto=lambda: SimpleNamespace(metrics=[])
    )
    run = SimpleNamespace(info=SimpleNamespace(run_id="1", status=status), data=data)
    assert trial_run.described(run).outcome == known


SETS = {"data_digest": "all", "data_digest.small": "s1", "data_digest.big": "b1"}


def test_a_trials_run_has_its_data_set_and_the_digest_of_its_images(client, sweep):
    runs = Runs(client, "1", "sweep", "id", sweep)
    digests = data_tags({"small": "s1", "big": "b1"})
    runs.open("name: sweep\n", {"data_digest": "all", "git_commit": "c", **digests})
    for label in ("small", "big"):
        trial = record(2, outcome="ok", name=f"{label}_wn-000")
        trial.dataset = label
        copy(runs, trial)
    assert client.trial("sweep").tags.items() >= SETS.items()
    for label in ("small", "big"):
        run = client.trial(f"{label}_wn-000")
        tags = {key: value for key, value in run.tags.items() if key.startswith("data")}
        assert tags == {"data_digest": SETS[f"data_digest.{label}"], "dataset": label}
        assert run.tags["git_commit"] == "c"
        assert run.params["dataset"] == label


def test_the_only_data_set_has_the_digest_of_the_sweep(client, sweep):
    assert data_tags({"digits": "d1"}) == {}
    runs = Runs(client, "1", "sweep", "id", sweep)
    runs.open("name: sweep\n", {"data_digest": "d1"})
    trial = record(2)
    trial.dataset = "digits"
    copy(runs, trial)
    assert client.trial().tags["data_digest"] == "d1"
    assert client.trial().params["dataset"] == "digits"


def test_a_trial_of_an_earlier_version_has_no_data_set_in_mlflow(client, opened):
    copy(opened(), record(2))
    assert "dataset" not in client.trial().tags
    assert "dataset" not in client.trial().params


def test_each_data_set_has_a_registered_model_of_its_own():
    assert model_name("norms") == "raygan-norms"
    assert model_name("norms", "cifar10") == "raygan-norms+cifar10"
    assert model_name("norms", "a-b") != model_name("norms-a", "b") != model_name("norms-a-b")
