"""What telling the tracker costs, and how far it says that MLflow is behind. No server."""

from __future__ import annotations

import io
import itertools
import random
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from mlflow.entities import Metric
from rich.console import Console

from raygan.records import LOSS, TrialRecord
from raygan.storage import Storage
from raygan.sweep.session import progress
from raygan.sweep.session.progress import Behind
from raygan.tracking import images, mlflow_tracker
from raygan.tracking.mlflow_tracker import Lag, Tracker, _Change
from raygan.tracking.runs import Ending
from tests.tracking.fake_mlflow import FakeClient
from tests.tracking.test_copying import PATIENCE, until
from tests.tracking.test_runs import record, store_pictures


class Held(FakeClient):
    """A server that answers :meth:`log_batch` with evaluations only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.asked = threading.Event()
        self.inside = self.at_once = 0
        """Such requests now, and the most at one time."""
        self.cut_off: Sequence[Metric] | None = ()
        """Metrics of a request that had no answer and has its effect late, just before it is
        repeated; None: the next request is such a one."""

    def log_batch(self, run_id, metrics=(), params=(), tags=()) -> None:
        if any(metric.key == LOSS for metric in metrics):
            self.inside += 1
            self.at_once = max(self.at_once, self.inside)
            self.asked.set()
            assert self.let.wait(PATIENCE)
            self.inside -= 1
            if self.cut_off is None:
                self.cut_off = metrics
                raise TimeoutError
            super().log_batch(run_id, self.cut_off)
        super().log_batch(run_id, metrics, params, tags)


@pytest.fixture
def client() -> Held:
    return Held()


@pytest.fixture
def opened(client, tmp_path) -> Iterator[Callable[[], Tracker]]:
    made: list[Tracker] = []

    def start(*, ends: bool = True) -> Tracker:
        tracker = Tracker("http://127.0.0.1:1", "norms", "sweep", Storage(str(tmp_path)) / "sweep")
        tracker._client, tracker._experiment_id = client, "1"  # as connect() does
        tracker.open("id", "name: sweep\n", {})
        if ends:
            made.append(tracker)
        return tracker

    yield start
    client.let.set()
    for tracker in made:
        assert tracker.close("FINISHED")


class History(list):
    """Evaluations that may be counted and of which the last may be read, but nothing more."""

    def _refuse(self, *_: object) -> None:
        pytest.fail("the whole history is walked or copied")

    __iter__ = __copy__ = __deepcopy__ = __reduce_ex__ = copy = __add__ = _refuse

    def __getitem__(self, place):
        return super().__getitem__(place) if place == -1 else self._refuse()


def test_telling_an_evaluation_does_not_touch_the_earlier_ones(opened, client, monkeypatch):
    tracker = opened()
    put: list[object] = []
    monkeypatch.setattr(tracker._copying, "put", lambda _, change: put.append(change))
    trial = record(200)
    trial.history = History(trial.history)
    tracker.update(trial)
    tracker.update(trial, ended=True, summary={"stability/best": 0.1}, spent={"step": 1.0})
    first, second, parent = put
    first = first.joined(second)
    assert first.record.history is trial.history
    assert len(first.times) == 1
    assert parent.record is None


def test_mlflow_is_behind_by_the_evaluations_that_it_lacks(opened, client):
    tracker = opened()
    assert tracker.behind == Lag()
    trial = record(5)
    tracker.update(trial)
    assert client.asked.wait(PATIENCE)
    trial.history += record(8).history[5:]
    tracker.update(trial)
    behind = tracker.behind
    assert behind.evaluations == 8  # each once, though some are being copied
    assert behind.seconds > 0
    client.let.set()
    until(lambda: tracker.behind == Lag())
    assert client.trial().logged(LOSS) == [(10 * n, 1 / n) for n in range(1, 9)]


def test_evaluations_that_mlflow_lacks_are_counted_while_it_is_away(opened, client, monkeypatch):
    tracker, trial = opened(), record(3)
    client.let.set()
    tracker.update(trial)
    until(lambda: tracker.behind == Lag())
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 1000.0)
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS_MOST", 1000.0)
    client.fail_before.add("log_batch")
    trial.history += record(8).history[3:]
    tracker.update(trial)
    until(lambda: tracker.last_error)
    until(lambda: tracker.behind.evaluations == 5)


def test_the_age_of_what_mlflow_lacks_is_told_without_a_look_at_the_evaluations(
    opened, client, monkeypatch
):
    tracker = opened()
    assert tracker.seconds_behind == 0
    trial = record(200)
    trial.history = History(trial.history)
    change = _Change(time.monotonic() - 2 * progress.BEHIND_SECONDS, trial)
    monkeypatch.setattr(tracker._copying, "pending", lambda: [change])
    monkeypatch.setattr(tracker._runs, "logged", lambda _: 0)
    assert progress._why_behind(tracker) == "it has not taken them all yet"


def test_the_parent_run_has_how_far_mlflow_is_behind(opened, client):
    tracker = opened()
    client.let.set()
    tracker.update(record(1, outcome="ok"), ended=True, spent={"step": 1.0, "spent/usd": 2.0})
    until(lambda: tracker.behind == Lag())
    parent = client.trial("sweep")
    assert parent.logged("spent/usd") == [(1, 2.0)]
    assert [step for step, _ in parent.logged("mlflow/evaluations_behind")] == [1]
    assert [step for step, _ in parent.logged("mlflow/seconds_behind")] == [1]


def test_a_change_that_waits_is_as_it_was_told(opened, client, tmp_path):
    """What becomes of the record meanwhile is told by itself: copied early, the last pictures of
    the trial would be taken for lost."""
    tracker, trial = opened(), record(2, of=2)
    tracker.update(trial)
    assert client.asked.wait(PATIENCE)
    trial.outcome = "ok"
    client.let.set()
    until(lambda: tracker.behind == Lag())
    run = client.trial()
    assert (run.status, run.files) == ("RUNNING", [])
    store_pictures(Storage(str(tmp_path)) / "sweep", 20)
    tracker.update(trial, ended=True)
    until(lambda: tracker.behind == Lag())
    assert (run.status, run.tags["outcome"]) == ("FINISHED", "ok")
    assert {images.step_of(name) for name in run.files} == {20}


def test_changes_of_a_trial_are_copied_one_after_another_as_they_were_told(opened, client):
    tracker, trial = opened(), record(0)
    for point in record(60).history:
        trial.history.append(point)
        tracker.update(trial)
        if trial.step == 10:
            assert client.asked.wait(PATIENCE)
    trial.outcome = "ok"
    tracker.update(trial, ended=True)
    threading.Event().wait(0.05)  # for other threads that should not copy this trial now
    client.let.set()
    assert tracker.close("FINISHED")
    assert client.at_once == 1
    assert client.trial().logged(LOSS) == [(10 * n, 1 / n) for n in range(1, 61)]
    assert client.trial().status == "FINISHED"


def test_an_evaluation_that_is_told_after_the_end_is_copied_by_a_second_one(opened, client):
    """A trial may still report when a sweep is stopped."""
    tracker, trial = opened(), record(1)
    client.let.set()
    tracker.update(trial, ended=True)
    assert tracker.close("KILLED")
    trial.history += record(2).history[1:]
    tracker.update(trial)
    assert tracker.close("KILLED")
    assert client.trial().logged(LOSS) == [(10, 1.0), (20, 1 / 2)]
    assert {run.status for run in client.runs.values()} == {"KILLED"}


def test_an_end_that_is_too_short_says_so_and_a_later_run_copies_the_rest_once(
    opened, client, monkeypatch
):
    trial = record(2)
    tracker = opened(ends=False)
    tracker.update(trial)
    assert client.asked.wait(PATIENCE)
    trial.history += record(3).history[2:]  # late
    tracker.update(trial, ended=True)
    with monkeypatch.context() as short:
        short.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.01)
        assert not tracker.close("KILLED")
        assert not tracker.close("KILLED")  # nor later
    assert client.trial("sweep").status == "RUNNING"
    client.let.set()
    until(lambda: client.trial().logged(LOSS) == [(10, 1.0), (20, 1 / 2)])  # the request goes on
    later = opened()
    later.update(trial, ended=True)
    assert later.close("KILLED")
    assert client.trial().logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3)]
    assert {run.status for run in client.runs.values()} == {"KILLED"}


class Closing(threading.Thread):
    """Closes a tracker on a thread of its own."""

    def __init__(self, tracker: Tracker, *end: object) -> None:
        super().__init__(daemon=True)
        self.tracker, self.end = tracker, end
        self.result: bool | None = None
        self.start()

    def run(self) -> None:
        self.result = self.tracker.close(*self.end)


ENDS = [("FINISHED", Ending()), ("KILLED",)]


@pytest.mark.parametrize(("first", "second"), [ENDS, ENDS[::-1]])
def test_of_two_threads_that_close_the_first_decides_the_status_and_the_second_waits(
    opened, client, first, second
):
    tracker = opened()
    tracker.update(record(2))
    assert client.asked.wait(PATIENCE)
    deciding = Closing(tracker, *first)
    until(lambda: tracker._copying._closing)
    waiting = Closing(tracker, *second)
    waiting.join(0.05)  # it would be in the middle of it, too
    assert waiting.result is None
    client.let.set()
    for thread in (deciding, waiting):
        thread.join(PATIENCE)
        assert thread.result is True
    assert client.made("set_terminated") == [first[0]]
    assert client.trial("sweep").status == first[0]


def test_a_thread_that_waits_no_longer_for_another_to_close_does_not_end_that_one(
    opened, client, monkeypatch
):
    tracker = opened()
    for number in range(2 * mlflow_tracker.THREADS):  # some wait for a thread
        tracker.update(record(2, name=f"wn-{number:05d}"), ended=True)
    assert client.asked.wait(PATIENCE)
    whole = Closing(tracker, *ENDS[0])
    until(lambda: tracker._copying._closing)
    with monkeypatch.context() as short:
        short.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.01)
        assert not tracker.close("KILLED")
    client.let.set()
    whole.join(PATIENCE)
    assert whole.result is True
    assert client.trial("sweep").status == "FINISHED"


def test_a_request_that_is_repeated_has_the_times_of_the_first(opened, client, monkeypatch):
    """It may have had its effect: MLflow takes what is the same once."""
    clock = itertools.count(1_700_000_000, 100)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 0.001)
    client.let.set()
    tracker = opened()
    client.cut_off = None
    tracker.catch_up(record(3, outcome="ok"), lambda _: {})
    assert tracker.close("FINISHED")
    assert client.trial().logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3)]


def test_what_a_sweep_has_spent_is_logged_in_order_while_trials_are_copied(opened, client):
    tracker = opened()
    client.let.set()
    for number in range(1, 30):
        trial = record(1, outcome="ok", name=f"wn-{number:05d}")
        tracker.update(trial, ended=True, spent={"step": float(number), "spent/usd": 1.0})
    until(lambda: tracker.behind == Lag())
    steps = [step for step, _ in client.trial("sweep").logged("spent/usd")]
    assert steps == sorted(steps)
    assert steps[-1] == 29


def test_what_a_sweep_has_spent_while_mlflow_was_away_is_logged_at_each_step(opened, client):
    tracker = opened()
    tracker.update(record(1), spent={"step": 0.0, "spent/usd": 0.0})
    until(lambda: client.trial("sweep").logged("spent/usd"))
    log_batch, client.log_batch = client.log_batch, away
    for number in range(1, 300):
        tracker.update(record(1), spent={"step": float(number), "spent/usd": number / 4})
    until(lambda: tracker.last_error)
    client.log_batch = log_batch
    client.let.set()
    assert tracker.close("FINISHED")
    parent = client.trial("sweep")
    assert parent.logged("spent/usd") == [(step, step / 4) for step in range(300)]
    for key in ("mlflow/evaluations_behind", "mlflow/seconds_behind"):
        assert [step for step, _ in parent.logged(key)] == list(range(300))


def away(*_, **__) -> None:
    raise ConnectionError


class Failing(FakeClient):
    """A server that fails often: before or after the effect, or with a late effect."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.fails = True

    def log_batch(self, run_id, metrics=(), params=(), tags=()) -> None:
        if not (metrics or params or tags):
            return
        with self.lock:
            if self.fails and self.random.random() < 0.4:
                ways = (self.fail_before, self.fail_after, self.fail_late)
                self.random.choice(ways).add("log_batch")
            super().log_batch(run_id, metrics, params, tags)


@pytest.mark.parametrize("seed", range(5))
def test_in_any_order_of_failures_each_value_of_each_step_is_logged_once(
    seed, tmp_path, monkeypatch
):
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 0.001)
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS_MOST", 0.001)
    monkeypatch.setattr("raygan.tracking.mlflow_tracker.RETRY_SECONDS", 0.001)
    ticks = itertools.count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    client = Failing(seed)
    tracker = Tracker("http://127.0.0.1:1", "norms", "sweep", Storage(str(tmp_path)) / "sweep")
    tracker._client, tracker._experiment_id = client, "1"  # as connect() does
    tracker.open("id", "name: sweep\n", {})
    trials = [record(0, name=f"wn-{number:05d}") for number in range(6)]
    for point in record(5).history:
        for trial in trials:
            trial.history.append(point)
            tracker.update(trial)
        threading.Event().wait(random.choice((0, 0.005)))
    for step, trial in enumerate(trials):
        trial.outcome = "ok"
        for usd, loss in ((0.5, 0.2), (0.7, 0.1)):  # at its end, and after its final test
            spent = {"step": float(step), "spent/usd": step + usd}
            tracker.update(trial, ended=True, spent=spent, summary={"final/best": loss})
            threading.Event().wait(random.choice((0, 0.005)))
    assert tracker.close("FINISHED", Ending({"loss/wn": 0.1, "spent/usd": 9.0}, 6))

    parent = client.trial("sweep")
    spent = [(step, step + usd) for step in range(6) for usd in (0.5, 0.7)]
    assert parent.logged("spent/usd") == [*spent, (6, 9.0)]
    assert parent.logged("loss/wn") == [(6, 0.1)]
    behind = Counter(step for step, _ in parent.logged("mlflow/seconds_behind"))
    assert set(behind) == set(range(6))
    assert max(behind.values()) <= 2  # no more than were told
    for trial in trials:
        run = client.trial(trial.id)
        assert run.logged(LOSS) == [(10 * n, 1 / n) for n in range(1, 6)]
        assert run.logged("final/best") == [(0, 0.2), (0, 0.1)]
        latest = client._entity(trial_run_id(client, trial.id)).data.metrics
        assert latest["final/best"] == 0.1
    assert {run.status for run in client.runs.values()} == {"FINISHED"}
    assert not tracker._copying.pending()


def trial_run_id(client: FakeClient, name: str) -> str:
    return next(run_id for run_id, run in client.runs.items() if run.name == name)


def test_evaluations_that_are_told_while_others_are_copied_are_logged_once(
    opened, client, monkeypatch
):
    """The first request has them, too; it has its effect late, after MLflow was asked again."""
    monkeypatch.setattr("raygan.tracking.copying.RETRY_SECONDS", 0.001)
    ticks = itertools.count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(ticks)))
    client.let.set()
    client.cut_off = None
    tracker, trial, create_run = opened(), record(1), client.create_run

    def more(*run, **of) -> object:
        for point in record(3).history[1:]:
            trial.history.append(point)
            tracker.update(trial)
        return create_run(*run, **of)

    client.create_run = more
    tracker.update(trial)
    assert tracker.close("FINISHED")
    assert client.trial().logged(LOSS) == [(10, 1.0), (20, 1 / 2), (30, 1 / 3)]


def tracker_behind(error: str | None, seconds: float) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        last_error=error,
        behind=Lag(12, seconds),
        seconds_behind=seconds,
        closed=threading.Event(),
    )


def test_it_is_said_once_that_mlflow_is_behind_and_once_that_it_is_not():
    said = io.StringIO()
    tracker = tracker_behind(None, 0)
    behind = Behind(tracker, Console(file=said, width=200))
    late = 2 * progress.BEHIND_SECONDS
    for seconds in (1.0, late, late + 1, 2.0, 1.0):
        vars(tracker).update(vars(tracker_behind(None, seconds)))
        behind.look()
    first, second = said.getvalue().splitlines()
    assert "MLflow is behind by 30s (evaluations that it lacks: 12)" in first
    assert "caught up again" in second
    tracker.last_error = "it cannot be reached"
    behind.look()
    assert "it cannot be reached" in said.getvalue()


class Heard(io.StringIO):
    """An output that knows when something was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()

    def write(self, text: str) -> int:
        self.heard.set()
        return super().write(text)


def test_it_is_said_while_nothing_else_happens_until_the_tracker_is_closed(monkeypatch):
    monkeypatch.setattr(progress, "BEHIND_LOOK_SECONDS", 0.001)
    tracker = tracker_behind("the database is locked", 1.0)
    said = Heard()
    before = set(threading.enumerate())
    Behind(tracker, Console(file=said, width=200)).start()
    (thread,) = set(threading.enumerate()) - before
    assert said.heard.wait(PATIENCE)
    monkeypatch.setattr(progress, "_why_behind", lambda _: None)
    tracker.closed.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    first, last = said.getvalue().splitlines()
    assert "the database is locked" in first
    assert "caught up again" in last


def test_a_record_of_a_trial_that_has_ended_is_copied_only_if_mlflow_lacks_its_end(opened, client):
    client.let.set()
    known, unknown = (record(2, outcome="ok", name=name) for name in ("wn-00001", "wn-00002"))
    before = opened()
    before.update(known, ended=True, summary={"stability/best": 0.1})
    until(lambda: before.behind == Lag())
    asked: list[str] = []

    def summary(trial: TrialRecord) -> dict[str, float]:
        asked.append(trial.id)
        return {"stability/best": 0.1}

    tracker = opened()
    for trial in (known, unknown):
        tracker.catch_up(trial, summary)
    until(lambda: tracker.behind == Lag())
    assert asked == ["wn-00002"]
    assert client.trial("wn-00002").logged("stability/best") == [(0, 0.1)]
