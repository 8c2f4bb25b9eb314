import json
import sys
import threading
from types import SimpleNamespace

import pytest

from raygan import background
from raygan.errors import ResourceError
from raygan.sweep.cluster import ray_quirks, tune
from raygan.sweep.spec import scales, sweep_spec
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.spec.yaml_sections import Scale


def cluster(monkeypatch, *nodes: tuple[float, float]) -> None:
    found = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in nodes]
    found.append({"Alive": False, "Resources": {"CPU": 64, "GPU": 8}})  # lost: does not count
    monkeypatch.setattr(tune.ray, "nodes", lambda: found)


@pytest.mark.parametrize(
    ("nodes", "scale", "at_once"),
    [
        ([(2, 0)], {}, 2),
        ([(3, 0), (3, 0)], {"cpus_per_worker": 2}, 2),  # a worker does not span nodes
        ([(2, 0), (2, 0)], {"workers": 2}, 2),  # but a trial may
        ([(8, 1)], {"gpus_per_worker": 0.25}, 4),
        ([(2, 1)], {"gpus_per_worker": 0.25}, 2),  # CPUs run out first
        ([(8, 2)], {"gpus_per_worker": 0.4}, 4),  # a fraction does not span GPUs
        ([(16, 4), (0, 0)], {"gpus_per_worker": 1, "workers": 2}, 2),
        ([(16, 4)], {"gpus_per_worker": 2}, 2),
        ([(8, 0)], {"max_concurrent": 3}, 3),
    ],
)
def test_as_many_trials_as_the_cluster_holds(monkeypatch, nodes, scale, at_once):
    cluster(monkeypatch, *nodes)
    assert tune.concurrency([Scale(**scale)], ours=False) == at_once


@pytest.mark.parametrize(
    ("heavy", "at_once"),
    [
        ({"workers": 2}, 4),  # as many as fit of the cells that take less: the others wait
        ({"gpus_per_worker": 0.5}, 8),
        ({"workers": {"min": 1, "max": 3}}, 4),
    ],
)
def test_cells_that_take_more_wait_while_those_that_take_less_run(monkeypatch, heavy, at_once):
    cluster(monkeypatch, (8, 4))
    spec = sweep(f"gpus_per_worker: 1, by: {{architecture: {{resnet: {json.dumps(heavy)}}}}}")
    assert tune.concurrency(scales.of(spec), ours=False) == at_once


def test_every_cell_must_be_able_to_start(monkeypatch):
    cluster(monkeypatch, (4, 0))
    spec = sweep("by: {architecture: {resnet: {workers: 8}}}")
    with pytest.raises(ResourceError, match="one trial asks for 8 workers of 1 CPUs"):
        tune.concurrency(scales.of(spec), ours=False)


@pytest.mark.parametrize(
    ("gpus", "at_once"),
    [(4, 1), (5, 2), (9, 3), (2, 1)],  # what is left over after the widest is enough for one more
)
def test_an_elastic_trial_counts_with_its_most_workers(monkeypatch, gpus, at_once):
    cluster(monkeypatch, (16, gpus))
    scale = Scale(gpus_per_worker=1, workers={"min": 1, "max": 4})
    assert tune.concurrency([scale], ours=False) == at_once


def sweep(scale: str) -> SweepSpec:
    text = f"{{name: a, grid: {{architecture: [dcgan, resnet]}}, scale: {{{scale}}}}}"
    return sweep_spec.validate(parse(text, "x"))


def test_what_can_never_start_is_an_error_that_says_what_there_is(monkeypatch):
    cluster(monkeypatch, (2, 0))
    with pytest.raises(
        ResourceError, match=r"1 workers of 1 CPUs and 1 GPUs .* have 2 CPUs and 0 GPUs"
    ):
        tune.concurrency([Scale(gpus_per_worker=1)], ours=True)
    with pytest.raises(ResourceError):
        tune.concurrency([Scale(gpus_per_worker=1, max_concurrent=4)], ours=True)


def test_a_cluster_that_is_said_to_grow_is_trusted_with_a_number(monkeypatch):
    cluster(monkeypatch, (2, 0))
    scale = {"gpus_per_worker": 1, "max_concurrent": 4}
    assert tune.concurrency([Scale(**scale, autoscaling=True)], ours=False) == 4
    with pytest.raises(ResourceError, match=r"set `scale\.autoscaling: true`"):
        tune.concurrency([Scale(**scale)], ours=False)


def test_only_groups_whose_makers_are_dead_are_removed(monkeypatch):
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData as Table

    dead, alive, here = b"\1" * 16, b"\2" * 16, b"\xff" * 16

    def group(number: int, job: bytes, actor: bytes, state=Table.CREATED, detached=False) -> bytes:
        return Table(
            placement_group_id=number.to_bytes(18, "big"), creator_job_id=job,
            creator_actor_id=actor, state=state, is_detached=detached,
        ).SerializeToString()  # fmt: skip

    ended, own, other = (bytes([number, 0, 0, 0]) for number in (1, 2, 3))
    groups = [
        group(1, ended, alive),
        group(2, ended, alive, detached=True),
        group(3, ended, alive, state=Table.REMOVED),
        group(4, own, dead),
        group(5, own, dead, state=Table.PENDING),
        group(6, own, alive),
        group(7, own, here),
        group(8, own, b"\3" * 16),  # an actor that is not known, yet or any more
        group(9, other, dead),
    ]
    removed, asked = [], []
    states = {dead.hex(): {"State": "DEAD"}, alive.hex(): {"State": "ALIVE"}}

    def actors(actor=None, job_id=None, actor_state_name=None) -> dict:
        if actor is not None:
            asked.append(actor)
            return states.get(actor, {})
        assert job_id.binary() == own
        return {name: one for name, one in states.items() if one["State"] == actor_state_name}

    jobs = [{"JobID": ended.hex(), "IsDead": True}, {"JobID": own.hex(), "IsDead": False}]
    accessor = SimpleNamespace(get_placement_group_table=lambda: groups)
    state = sys.modules["ray._private.state"]
    monkeypatch.setattr(state, "jobs", lambda: jobs)
    monkeypatch.setattr(state, "actors", actors)
    monkeypatch.setattr(state.state, "_connect_and_get_accessor", lambda: accessor)
    context = SimpleNamespace(get_job_id=own.hex)
    monkeypatch.setattr(tune.ray, "get_runtime_context", lambda: context)
    # `ray.util.placement_group` as an attribute is the function of that name
    module = sys.modules["ray.util.placement_group"]
    monkeypatch.setattr(module, "remove_placement_group", lambda found: removed.append(found.id))
    ray_quirks.free_leftovers()
    assert [int(name.hex(), 16) for name in removed] == [1, 4, 5]
    assert alive.hex() not in asked, "each trial that runs costs a call"


def test_tunes_loop_does_not_wait_for_what_frees_resources(monkeypatch):
    looked = threading.Event()
    threads = []

    def free() -> None:
        threads.append(threading.current_thread())
        looked.set()

    monkeypatch.setattr(ray_quirks, "free_leftovers", free)
    monkeypatch.setattr(tune, "FREE_SECONDS", 0.0)
    study = SimpleNamespace(tick=lambda: None)
    tune._Callback(study, tune._Errors()).on_step_begin(0, [])
    assert threads == []
    with tune._freeing():
        assert looked.wait(30)
    assert threading.main_thread() not in threads
    assert not threads[0].is_alive()


def test_looks_that_take_long_are_few(monkeypatch):
    now, waits = [0.0], []

    def free() -> None:
        now[0] += (0.001, 0.2, 45.0)[len(waits) - 1]

    class Over:
        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return len(waits) == 4

    monkeypatch.setattr(background, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(ray_quirks, "free_leftovers", free)
    freeing = tune._freeing()
    freeing._over = Over()
    freeing._run()
    assert waits == pytest.approx([0.5, 0.5, 4.0, 10.0])
