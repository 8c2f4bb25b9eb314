"""What goes to the processes of a trial."""

import json

import pytest

from raygan.errors import ConfigError
from raygan.gan.state import TrainState
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job, job_of
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from tests.sweep.prepared import one_set

PREPARED = one_set(folder="images", digest="d", baseline=0.1)


def test_a_job_is_the_same_after_it_has_gone_over_a_wire(tmp_path):
    sweep = spec.validate(parse("name: a\ntrain: {lr: 3e-4}\nscale: {workers: 2}", "x"))
    (cell,) = plan.cells(sweep)
    planned = plan.trial(sweep, cell, 0, {})
    job = job_of(planned, sweep, Storage(str(tmp_path)), PREPARED)
    assert Job(**json.loads(json.dumps(job.to_plain()))) == job
    assert job.train_config() == planned.config
    assert (job.workers, job.prepared, job.digest) == ((2,), "images", "d")
    assert job.folder == f"{tmp_path}/trials/{planned.id}"


def test_a_learning_rate_goes_from_the_yaml_to_both_optimizers(tmp_path):
    sweep = spec.validate(parse("name: a\ntrain: {lr: 3e-4, lr_d: 2e-4, features: 4}", "x"))
    (cell,) = plan.cells(sweep)
    job = job_of(plan.trial(sweep, cell, 0, {}), sweep, Storage(str(tmp_path)), PREPARED)
    state = TrainState.create(Job(**job.to_plain()).train_config(), (1, 8, 8))
    found = [one.param_groups[0]["lr"] for one in (state.optimizer_g, state.optimizer_d)]
    assert found == [3e-4, 2e-4]


def test_values_that_are_no_configuration_are_refused_where_they_are_used():
    job = Job(trial="a", config={"lr": -1.0}, folder="f", prepared="p", digest="d")
    with pytest.raises(ConfigError, match="`lr`"):
        job.train_config()


def test_only_replicates_draw_their_own_split_and_only_if_asked():
    text = "name: a\nsearch: {{lr: [1.0e-4]}}\nreplicate: {{seeds: 2{}}}"
    asked, not_asked = (
        spec.validate(parse(text.format(more), "x")) for more in (", resplit: true", "")
    )
    cell = plan.cells(asked)[0]
    searched = plan.trial(asked, cell, 0, {"lr": 1e-4})
    replicate = plan.replicate(asked, cell, 1, {"lr": 1e-4}, searched.id)
    sweep = Storage("s")
    seeds = [job_of(one, of, sweep, PREPARED).split_seed for one, of in (
        (searched, asked), (replicate, asked), (replicate, not_asked))]  # fmt: skip
    assert seeds == [None, replicate.config.seed, None]


@pytest.mark.parametrize(("resident", "share"), [("auto", 0.25), ("never", 0.0)])
def test_share_of_the_gpu_that_images_may_look_at(tmp_path, resident, share):
    scale = f"scale: {{gpus_per_worker: 0.25, resident: {resident}}}"
    sweep = spec.validate(parse(f"name: a\nreplicate: {{seeds: 1}}\n{scale}", "x"))
    (cell,) = plan.cells(sweep)
    planned = plan.replicate(sweep, cell, 0, {}, "source")
    job = job_of(planned, sweep, Storage(str(tmp_path)), PREPARED)
    assert (job.gpus, job.gpu_share) == (0.25, share)


def test_a_job_takes_what_its_cell_takes(tmp_path):
    by = "by: {architecture: {resnet: {workers: {min: 2, max: 8}, cpus_per_worker: 3}}}"
    grid = "grid: {architecture: [dcgan, resnet], batch_size: [16, 12]}"
    sweep = spec.validate(parse(f"name: a\n{grid}\nscale: {{stalled_after: 2m, {by}}}", "x"))
    jobs = {
        cell.name: job_of(plan.trial(sweep, cell, 0, {}), sweep, Storage(str(tmp_path)), PREPARED)
        for cell in plan.cells(sweep)
    }
    taken = {name: (job.workers, job.cpus, job.stalled_after) for name, job in jobs.items()}
    assert taken == {
        "dcgan_batch_size=16": ((1,), 1.0, 120.0),
        "dcgan_batch_size=12": ((1,), 1.0, 120.0),
        "resnet_batch_size=16": ((2, 4, 8), 3.0, 120.0),
        "resnet_batch_size=12": ((2, 3, 4, 6), 3.0, 120.0),
    }
