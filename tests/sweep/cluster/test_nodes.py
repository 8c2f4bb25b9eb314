"""What is said of trials that wait for resources, and how a Ray that fails is told."""

import os
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from raygan.errors import ResourceError
from raygan.records import LOSS
from raygan.storage import Storage
from raygan.sweep.cluster import nodes, ray_quirks, tune
from raygan.sweep.cluster.ray_quirks import Scaling
from raygan.sweep.session.progress import Progress
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.spec.yaml_sections import Scale
from raygan.sweep.study.study import Study

ONE_GPU = (("CPU", 2.0), ("GPU", 1.0))
ASKED = "2 of 3 trials wait for resources, 1 workers of 2 CPUs and 1 GPUs each; "


@pytest.fixture
def look(monkeypatch):
    """What is said of three trials, two of which wait, on a cluster that tells this."""
    monkeypatch.setattr(nodes, "PATIENCE_SECONDS", 0.0)
    said: list[str] = []
    records = {
        trial: SimpleNamespace(config={"norm": trial}, dataset=f"set-{trial}") for trial in "abc"
    }
    study = SimpleNamespace(
        counted_until={"a": None, "b": 5.0, "c": None}, spec=None, records=records
    )
    watch = nodes.Watch(study, said.append)

    def look(*, autoscaling: bool = True, by=None, **told) -> list[str]:
        scale = Scale(
            cpus_per_worker=2, gpus_per_worker=1, max_concurrent=3, autoscaling=autoscaling,
            by=by or {},
        )  # fmt: skip
        study.spec = SimpleNamespace(scale=scale)
        groups = told.pop("groups", 2)
        if isinstance(groups, int):
            groups = [(ONE_GPU,)] * groups
        waiting = tuple((str(index), bundles) for index, bundles in enumerate(groups))
        monkeypatch.setattr(ray_quirks, "scaling", lambda: Scaling(**told, waiting=waiting))
        said.clear()
        watch.look()
        return list(said)

    return look


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"alive": True, "coming": ("gpu", "gpu")}, "the autoscaler has asked for 2 × gpu"),
        (
            {"alive": True, "failures": ("gpu: no\x1b capacity",)},
            "the autoscaler cannot start nodes (gpu: no\\x1b capacity) and tries again",
        ),
        ({"alive": True}, "the autoscaler has started none yet"),
        ({"alive": True, "refused": frozenset("0")}, "the autoscaler has started none yet"),
        (
            {"alive": True, "refused": frozenset("01")},
            "the autoscaler adds no node for them: no node type is large enough, or its limit of "
            "nodes is reached",
        ),
        ({}, "no autoscaler is running on this cluster"),
        ({"autoscaling": False}, "all are taken now"),
    ],
)
def test_trials_that_wait_are_told_with_the_reason(look, told, why):
    assert look(**told) == [ASKED + why]
    assert look(**told) == []  # once is enough, for a while


def test_what_is_unchanged_is_told_again_with_its_time(look, monkeypatch):
    monkeypatch.setattr(nodes, "AGAIN_SECONDS", 0.0)
    why = "the autoscaler has asked for 1 × gpu"
    assert look(alive=True, coming=("gpu",)) == [ASKED + why]
    assert look(alive=True, coming=("gpu",)) == [f"{ASKED}{why} (for 0s)"]


def test_an_autoscaler_that_has_died_is_told_and_what_it_said_last_does_not_count(
    look, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now[0])
    asked = {"alive": True, "coming": ("gpu",)}
    dead = "the autoscaler has reported nothing for a while: it may have died"
    alive = ASKED + "the autoscaler has asked for 1 × gpu"
    for mark, said in (("1", [alive]), ("2", []), ("2", [])):  # it is said once
        assert look(**asked, mark=mark) == said
        now[0] += nodes.DEAD_SECONDS / 2
    (said,) = look(**asked, mark="2")
    assert said.startswith(ASKED + dead)
    assert look(**asked, mark="3") == [alive]


def test_the_start_ends_with_an_error_if_the_autoscaler_dies(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(nodes.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(nodes.time, "sleep", lambda _: now.__setitem__(0, now[0] + 5.0))
    group = SimpleNamespace(id=SimpleNamespace(hex=lambda: "a"))
    monkeypatch.setattr(nodes, "placement_group", lambda _: group)
    monkeypatch.setattr(nodes, "remove_placement_group", lambda _: None)
    monkeypatch.setattr(tune, "alive", list)
    told = Scaling(alive=True, coming=("gpu",), mark="7")
    monkeypatch.setattr(ray_quirks, "scaling", lambda: told)
    scale = Scale(gpus_per_worker=1, max_concurrent=3, autoscaling=True)
    with pytest.raises(ResourceError, match="the autoscaler, which could add one, has reported"):
        nodes.room([scale], ours=False, say=said.append)
    assert nodes.GIVE_UP_DEAD_SECONDS < now[0] < 400  # it may come back, so it is waited for
    assert "the autoscaler has asked for 1 × gpu" in said[0]
    assert "it may have died (see `monitor.log` on the head node)" in said[1]


def test_workers_that_are_only_slow_to_start_are_not_told(look):
    assert look(alive=True, groups=0) == []


HEAVY = {"norm": {"c": {"workers": 2}}}


@pytest.mark.parametrize("by", [HEAVY, {"dataset": {"set-c": {"workers": 2}}}])
def test_trials_of_different_weight_are_counted_each_by_what_it_asks_for(look, by):
    waiting = [(ONE_GPU,), (ONE_GPU, ONE_GPU), (ONE_GPU,) * 3]  # the last is another sweep's
    asks = "1 workers of 2 CPUs and 1 GPUs, or 2 workers of 2 CPUs and 1 GPUs each"
    assert look(by=by, groups=waiting, alive=True) == [
        f"2 of 3 trials wait for resources, {asks}; the autoscaler has started none yet"
    ]


def test_a_heavier_trial_that_waits_for_lighter_ones_is_not_told(look):
    assert look(by=HEAVY, groups=[(ONE_GPU, ONE_GPU)], autoscaling=False) == []


def test_trial_has_started_when_its_workers_have_spoken(tmp_path):
    text = "{name: a, train: {iterations: 20, evaluate_every: 10}}"
    study = Study(spec.validate(parse(text, "x")), Storage(str(tmp_path / "a")))
    said = StringIO()
    with Progress(study, Console(file=said, width=160)):
        trial = study.next_trial().id
        study.started(trial)
        assert f"waiting for resources (trial {trial})" in said.getvalue()
        assert "started" not in said.getvalue()
        study.heard(trial, {"step": 0})
        assert f"started (trial {trial};" in said.getvalue()
        study.heard(trial, {"step": 10, LOSS: 0.5, "perf/images_per_second": 1.0})
    assert said.getvalue().count("started") == said.getvalue().count("waiting") == 1


@pytest.fixture
def broken_ray(monkeypatch, tmp_path):
    """A Ray that fails like this."""
    monkeypatch.setattr(ray_quirks, "make_private_token", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # connect() sets some of Ray's
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_quirks, "MOST_OF_A_PATH", 1000)

    def fail(error: Exception) -> None:
        def init(**_: object) -> None:
            raise error

        monkeypatch.setattr(tune.ray, "init", init)

    return fail


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen"),
        OSError(28, "No space left on device"),
        RuntimeError("the raylet\x1b died"),
        Exception("\nthe dashboard's last lines"),
        Exception(),
    ],
)
@pytest.mark.parametrize("local", [True, False])
def test_ray_that_fails_is_an_error_that_says_what_to_do(broken_ray, error, local):
    broken_ray(error)
    with pytest.raises(ResourceError) as caught:
        tune.connect(None if local else "ray.example:nowhere", verbose=False)
    said = str(caught.value)
    if local:
        assert "Ray could not be started on this machine: " in said
        assert "try again" in said
    else:
        assert "no Ray cluster can be used at 'ray.example:nowhere'" in said
        assert "check --address" in said
        assert "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH" in said
    assert (str(error).strip() or "Exception").replace("\x1b", "\\x1b") in said
    assert "\x1b" not in said


def test_the_iteration_that_a_trial_resumes_from_is_that_of_its_workers(tmp_path):
    study = Study(
        spec.validate(parse("name: a\ntrain: {iterations: 900}", "x")), Storage(str(tmp_path))
    )
    trial = study.next_trial().id
    study.heard(trial, {"step": 800, "val/reconstruction_loss": 0.1})
    said = StringIO()
    with Progress(study, Console(file=said, width=200)):
        study.started(trial)
        note = "the checkpoint after iteration 800 is damaged; resumed after iteration 600"
        study.heard(trial, {"step": 600, "history": [], "notes": [note]})
    assert "resumed after iteration 600" in said.getvalue().splitlines()[1]
    assert note in said.getvalue()
    assert study.records[trial].notes == [note]
