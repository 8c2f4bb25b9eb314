import subprocess
import sys

import pytest

from raygan.storage import Storage
from raygan.sweep import plan, spec
from raygan.sweep.trial import _set_aside_if_damaged, dataset_of, job_of
from raygan.sweep.yaml_loader import parse

SNAPSHOT = "checkpoint_manager_snapshot.json"


@pytest.mark.parametrize(
    ("content", "kept"), [(b'{"a": 1}', True), (b'{"a": ', False), (b"\xff", False)]
)
def test_half_a_snapshot_is_set_aside(tmp_path, content, kept):
    storage = Storage(str(tmp_path))
    storage.write(SNAPSHOT, content)
    _set_aside_if_damaged({"folder": str(tmp_path)})
    assert (storage.read(SNAPSHOT) is not None) == kept
    assert (storage.read(f"{SNAPSHOT}.damaged") == content) != kept


def test_first_launch_has_no_snapshot(tmp_path):
    _set_aside_if_damaged({"folder": str(tmp_path / "new")})


def test_path_of_the_images_is_absolute_for_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: images}", "x"))
    assert dataset_of(sweep)["path"] == str(tmp_path / "images")


def test_address_of_the_images_stays_as_it_is():
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: 's3://b/images'}", "x"))
    assert dataset_of(sweep)["path"] == "s3://b/images"


@pytest.mark.parametrize(("resident", "share"), [("auto", 0.25), ("never", 0.0)])
def test_share_of_the_gpu_that_images_may_look_at(tmp_path, resident, share):
    scale = f"scale: {{gpus_per_worker: 0.25, resident: {resident}}}"
    sweep = spec.validate(parse(f"name: a\nreplicate: {{seeds: 1}}\n{scale}", "x"))
    (cell,) = plan.cells(sweep)
    planned = plan.replicate(sweep, cell, 0, {}, "source")
    job = job_of(planned, sweep, Storage(str(tmp_path)), {"folder": "", "digest": ""})
    assert (job["gpus"], job["gpu_share"]) == (0.25, share)


def test_driver_and_controller_need_no_torch():
    code = (
        "import sys, raygan.sweep.trial, ray.train.v2.api.data_parallel_trainer, "
        "ray.tune.integration.ray_train; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
