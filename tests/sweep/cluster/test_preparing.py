"""What is prepared for a sweep, without Ray."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray

from raygan.errors import ConfigError, DataError, RunError
from raygan.gan.config import TrainConfig
from raygan.storage import Storage
from raygan.sweep.cluster.preparing import (
    Preparation,
    placed,
    plain,
    preparations_of,
    prepare_images,
    prepare_on_cluster,
)
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse


def test_what_is_to_be_prepared_is_plain_and_names_every_kind_of_network(tmp_path):
    text = "name: a\ngrid: {norm: [bn, wn]}\ntrain: {lr: 3e-4}"
    (made,) = preparations_of(spec.validate(parse(text, "x")), Storage(str(tmp_path))).values()
    assert made.folder == str(tmp_path / "data")
    assert {config["norm"] for config in made.configs} == {"bn", "wn"}
    assert json.loads(json.dumps(made.configs)) == list(made.configs)


def test_path_of_the_images_is_absolute_for_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: images}", "x"))
    assert plain(sweep.datasets()["folder"])["path"] == str(tmp_path / "images")


def test_address_of_the_images_stays_as_it_is():
    sweep = spec.validate(parse("name: a\ndataset: {name: folder, path: 's3://b/images'}", "x"))
    assert plain(sweep.datasets()["folder"])["path"] == "s3://b/images"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"levels": 9}, "`levels` \\(=9\\) is too many for images of 32×32 pixels"),
        ({"norm": "bn", "levels": 5, "batch_size": 1}, "`batch_size` \\(=1\\) is too small"),
    ],
)
def test_what_cannot_be_trained_on_the_images_is_refused_once_they_are_known(
    monkeypatch, changed, says
):
    manifest = {"shape": (9, 32, 32, 1), "running": [1], "final": [2], "digest": "d", "baseline": 1}
    monkeypatch.setattr("raygan.data.prepare", lambda *_, **__: "s3://bucket/prepared")
    monkeypatch.setattr("raygan.data.manifest.read_manifest", lambda _: manifest)
    good = TrainConfig(levels=5, batch_size=1).to_dict()
    digits = Preparation(dataset={"name": "digits"}, folder="f", configs=(good,))
    assert prepare_images(digits).train == 7
    with pytest.raises(ConfigError, match=says):
        prepare_images(replace(digits, configs=(good, {**good, **changed})))


@pytest.mark.parametrize("several", [True, False])
def test_an_error_names_the_data_set_of_a_list(monkeypatch, tmp_path, several):
    def fail(order, _):
        if order.dataset["name"] == "folder":
            raise DataError("x: no such file or folder; check `dataset.path`")

    monkeypatch.setattr("raygan.sweep.cluster.preparing._prepared", fail)
    one = "{name: folder, path: x, label: mine}"
    listed = f"[{{}}, {one}]" if several else one.replace(", label: mine", "")
    sweep = spec.validate(parse(f"name: a\ndataset: {listed}", "x"))
    with pytest.raises(DataError) as caught:
        prepare_on_cluster(sweep, Storage(str(tmp_path)))
    assert str(caught.value) == (
        "data set mine (`dataset.1`): x: no such file or folder; check `dataset.1.path`"
        if several
        else "x: no such file or folder; check `dataset.path`"
    )


def test_a_process_that_was_killed_is_one_line(monkeypatch, tmp_path):
    def killed(_):
        raise ray.exceptions.OutOfMemoryError(
            "Task was killed due to the node running low on memory"
        )

    task = SimpleNamespace(remote=lambda _: iter([None]))
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: task)
    monkeypatch.setattr(ray, "get", killed)
    sweep = spec.validate(parse("name: a", "x"))
    with pytest.raises(RunError, match="could not be prepared: Task was killed due to the node"):
        prepare_on_cluster(sweep, Storage(str(tmp_path)))


def test_an_error_about_the_networks_names_the_data_set():
    sweep = spec.validate(parse("name: a\ndataset: [{label: b}]", "x"))
    says = r"^data set b \(`dataset.0`\): `levels` \(=6\) is too many"
    with pytest.raises(ConfigError, match=says), placed(sweep, "b"):
        raise ConfigError("`levels` (=6) is too many")
