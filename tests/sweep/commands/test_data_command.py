"""``python -m raygan.data``: prepare and info, as a shell knows them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from raygan.data.pace import Pace
from raygan.storage import Storage
from raygan.sweep.cluster.preparing import (
    Preparation,
    preparations_of,
    prepare_images,
    prepare_on_ray,
)
from raygan.sweep.commands.data_command import main
from raygan.sweep.spec.sweep_spec import load as load_spec

LEFT_OUT = "files left out, by suffix: 1 .txt"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def prepared(folder: Path, out: Path, *options: object) -> Path:
    done = run("prepare", "--source", "folder", "--path", folder, "--out", out, *options)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.strip())


def test_prepare_prints_where_it_is_and_how_fast_it_was(folder, tmp_path):
    done = run("prepare", "--source", "folder", "--path", folder, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert "24 of 24 images" in done.stderr
    assert "images/s" in done.stderr
    where = Path(done.stdout.strip())
    assert where.parent == tmp_path / "out"
    assert (where / "manifest.json").exists()
    again = run("prepare", "--source", "folder", "--path", folder, "--out", tmp_path / "out")
    assert again.stdout == done.stdout
    assert again.stderr == f"{LEFT_OUT}\n"


def test_a_sweep_finds_what_was_prepared_for_it(folder, tmp_path):
    content = {"name": "a", "storage": str(tmp_path / "results"),
               "dataset": {"name": "folder", "path": str(folder), "size": 4}}  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    done = run("prepare", tmp_path / "a.yaml", "--set", "dataset.size=8")
    assert done.exit_code == 0, done.output
    spec = load_spec(tmp_path / "a.yaml", ["dataset.size=8"])
    (order,) = preparations_of(spec, Storage(str(tmp_path / "results"))).values()
    prepared = prepare_images(order)
    assert prepared.folder == done.stdout.strip()
    assert prepared.shape == "3×8×8"


def test_all_data_sets_of_a_sweep_are_prepared_each_once(folder, tmp_path):
    images = {"name": "folder", "path": str(folder), "size": 8}
    sets = [images, {**images, "size": 4, "label": "small"}, {**images, "label": "again"}]
    content = {"name": "a", "storage": str(tmp_path / "results"), "dataset": sets,
               "train": {"levels": 1}}  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    done = run("prepare", tmp_path / "a.yaml")
    assert done.exit_code == 0, done.output
    eight, four, again = done.stdout.split()
    assert eight == again
    orders = preparations_of(load_spec(tmp_path / "a.yaml"), Storage(str(tmp_path / "results")))
    found = {label: prepare_images(order) for label, order in orders.items()}
    assert {label: (one.folder, one.shape) for label, one in found.items()} == {
        "folder": (eight, "3×8×8"), "small": (four, "3×4×4"), "again": (eight, "3×8×8"),
    }  # fmt: skip
    assert len(list((tmp_path / "results" / "data").glob("*/manifest.json"))) == 2


def test_an_error_names_the_data_set_of_a_list(tmp_path):
    file = tmp_path / "a.yaml"
    missing = "{name: folder, path: nothere, label: mine}"
    file.write_text(f"name: a\nstorage: {tmp_path}\ndataset: [{missing}]\n")
    done = run("prepare", file)
    assert done.exit_code != 0
    assert "data set mine (`dataset.0`): " in done.stderr
    assert "check `dataset.0.path`" in done.stderr


def test_a_sweep_that_prepares_says_what_is_left_out(folder, tmp_path):
    dataset = {"name": "folder", "path": str(folder), "size": 4}
    preparation = Preparation(dataset=dataset, folder=str(tmp_path / "data"))
    *lines, prepared = prepare_on_ray(preparation)
    assert lines[0] == LEFT_OUT
    assert "24 of 24 images" in lines[1]
    assert prepared.train == 18


def test_splits_are_chosen_and_said(folder, tmp_path):
    (folder / "class-0").rename(folder / "train")
    (folder / "class-1").rename(folder / "dev")
    (folder / "test").mkdir()
    (folder / "dev" / "01.png").rename(folder / "test" / "01.png")
    given = ("--source", "folder", "--path", folder)
    out = ("--out", tmp_path / "out")
    done = run("prepare", *given, *out)
    assert "split: train of validation, test, train; `dataset.split` chooses" in done.stderr
    done = run("prepare", *given, *out, "--split", "train", "--split", "test")
    assert "split: train+test of validation" in done.stderr
    text = " ".join(run("info", done.stdout.strip()).stdout.split())
    assert "split: ['train', 'test']" in text
    assert "files, split train+test of validation, test, train, digest" in text
    assert "files left out 1 .txt" in text
    done = run("prepare", *given, *out, "--split", "no\x1b")
    assert done.exit_code == 2
    assert r"has no split no\x1b; it has validation, test, train." in done.stderr


def test_info_says_what_there_is(folder, tmp_path):
    (folder / "class-0" / "02.png").write_bytes(b"")
    where = prepared(folder, tmp_path / "out", "--max-corrupt", "0.1", "--size", "16")
    done = run("info", where, "--verify")
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "23 of 24; 1 left out" in text
    assert "16×16, 3 channels" in text
    assert "train 19, running 2, final 2; seed 0" in text
    assert "channel means 0.4" in text
    assert "all checksums are correct" in text
    assert f"left out: {folder}/class-0/02.png: holds no image bytes" in done.stdout
    sheet = where.with_name(f"{where.name}.png")
    assert f"contact sheet: {sheet}" in done.stdout
    picture = Image.open(io.BytesIO(sheet.read_bytes()))
    assert picture.width >= 5 * 16
    assert len(picture.getcolors(10**6)) > 20
    run("info", where, "--sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == sheet.read_bytes()


def test_verify_names_the_shard_that_is_damaged(folder, tmp_path):
    where = prepared(folder, tmp_path / "out")
    data = bytearray((where / "000000.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (where / "000000.arrow").write_bytes(data)
    done = run("info", where, "--verify")
    assert done.exit_code == 2
    assert "000000.arrow: its checksum differs from the manifest's" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare",), "give a sweep's YAML file, or --source"),
        (("prepare", "--source", "imagenet"), "'imagenet' is not one of 'digits', 'cifar10'"),
        (("prepare", "--source", "folder", "--out", "x"), "`dataset.path` is missing"),
        (("prepare", "none.yaml"), "none.yaml: cannot be read"),
        (("prepare", "a.yaml", "--size", "8"), "change it with --set"),
        (("prepare", "--source", "digits", "--size", "7"), "must be even"),
        (("prepare", "--source", "lsun", "--path", "none", "--out", "x"), "no such file or folder"),
        (("info", "none"), "not a whole prepared data set"),
    ],
)
def test_mistakes_are_explained(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["splits", "left_out"])
def test_a_manifest_of_a_version_before_is_described(folder, tmp_path, missing):
    where = prepared(folder, tmp_path / "out")
    manifest = json.loads((where / "manifest.json").read_text())
    del manifest["source"][missing], manifest["config"]["split"]
    (where / "manifest.json").write_text(json.dumps(manifest))
    done = run("info", where)
    assert done.exit_code == 0, done.output
    assert "files, split all, digest" in " ".join(done.stdout.split())


def test_control_characters_in_a_manifest_are_shown(folder, tmp_path):
    where = prepared(folder, tmp_path / "out")
    manifest = json.loads((where / "manifest.json").read_text())
    manifest["corrupt"] = [{"where": "a\x1b]0.png", "reason": "\x1b[2J"}]
    manifest["source"]["layout"] = "fi\x1bles"
    (where / "manifest.json").write_text(json.dumps(manifest))
    done = run("info", where)
    assert r"left out: a\x1b]0.png: \x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("damage", [{"source": {}}, {"mean": ["x"]}, {"split_seed": None}])
def test_a_manifest_of_wrong_types_is_damaged(folder, tmp_path, damage):
    where = prepared(folder, tmp_path / "out")
    manifest = json.loads((where / "manifest.json").read_text()) | damage
    if damage == {"split_seed": None}:
        del manifest["split_seed"]
    (where / "manifest.json").write_text(json.dumps(manifest))
    done = run("info", where)
    assert done.exit_code == 2
    assert "damaged" in done.stderr
    assert done.stderr.count("\n") == 1


def test_pace_tells_rate_and_time_left():
    now, said = 0.0, []
    pace = Pace(said.append, every=10, clock=lambda: now)
    for step in range(1, 11):
        now += 6
        pace(1000 * step, 10_000, (10, 10, 3))
    assert said[0] == "2,000 of 10,000 images · 167 images/s · 0.1 MB/s · 48s left"
    assert said[-1] == "10,000 of 10,000 images · 167 images/s · 0.1 MB/s"
    assert len(said) == 5
