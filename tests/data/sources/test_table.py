"""Data sources as recipes: the built-in ones keep what they have prepared; users bring their own."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raygan import recipe
from raygan.data import DatasetConfig, load, prepare
from raygan.data.decoders import processes
from raygan.data.making import ShardWork, make
from raygan.data.manifest import read_manifest
from raygan.data.prepare import _key
from raygan.data.sources import find as sources
from raygan.data.sources.source import DataSource, Source
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError, DataError

FOUND = Source("files", "all", "0" * 64, 100, lambda size: iter(()))


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("digits-7cb21dc415ca46d7", {}),
        ("digits-3f2039f1f4ae4fa8", {"size": 16, "crop": 8}),
        ("cifar10-d0ea5fdf9ec814b2", {"name": "cifar10", "pool": True}),
        ("celeba-c8949f57db659e58", {"name": "celeba"}),
        ("celeba-d1aa737c8666d10e", {"name": "celeba", "crop": 128, "size": 64}),
        ("lsun-b8bd299792307a49", {"name": "lsun", "size": 64}),
        ("folder-bb3b27298b4a05b5", {"name": "folder", "running": 5, "final": 6, "split_seed": 3}),
        ("parquet-d0ea5fdf9ec814b2", {"name": "parquet", "split": ["train", "test"]}),
    ],
)
def test_what_earlier_versions_have_prepared_is_found_again(key, given):
    assert _key(DatasetConfig.of(path="x", **given), FOUND) == key


def test_digests_are_those_of_earlier_versions(tmp_path):
    for number in range(3):
        file = tmp_path / "img_align_celeba" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([number]) * 100)
        os.utime(file, ns=(10**18, 10**18 + number))
    digests = [
        sources.find(DatasetConfig(name=name, path=str(tmp_path))).digest[:16]
        for name in ("folder", "celeba", "lsun")
    ]
    assert digests == ["f46a4277c8d757ca", "ce8cc2c3f99e3233", "f46a4277c8d757ca"]
    where = prepare(DatasetConfig(size=8, running=2, final=2), tmp_path / "cache")
    assert where.name == "digits-1ce28212cec18852"
    assert load(where).digest.startswith("524729618a762370a50b65ca")


def test_a_configuration_holds_the_parameters_of_its_source():
    config = DatasetConfig.of(name="cifar10", path="x", pool=True)
    assert config.parameters == {"download": False, "pool": True}
    assert config.to_dict()["pool"] is True
    assert "parameters" not in config.to_dict()
    assert DatasetConfig.of(**config.to_dict()) == config
    assert DatasetConfig(name="cifar10", path="x", parameters={"pool": True}) == config
    assert DatasetConfig(name="folder", path="x").parameters == {}


def test_a_stored_configuration_with_the_parameters_of_other_sources_is_read():
    old = {"name": "folder", "path": "x", "download": False, "pool": False, "crop": None}
    assert DatasetConfig.of(**old) == DatasetConfig(name="folder", path="x")
    with pytest.raises(ConfigError, match=r"`dataset.pool` applies to `name: cifar10` only"):
        DatasetConfig.of(**{**old, "pool": True})
    with pytest.raises(ConfigError, match=r"`dataset.name` \(='web'\) must be one of digits, cif"):
        DatasetConfig.of(name="web")
    with pytest.raises(ConfigError, match=r"`pool` \(=3\) must be true or false"):
        DatasetConfig.of(name="cifar10", path="x", pool=3)


RAW = '''
"""A file of raw pixels."""
from pathlib import Path

import numpy as np

from raygan.data.sources.source import DataSource


class Raw(DataSource):
    """Raw grey pixels, one image after the other."""

    name = "raw"
    channels = 1
    side: int = 8
    """Side of the images, in pixels."""

    def count(self, path):
        return Path(path).stat().st_size // self.side**2

    def read(self, path, start, stop):
        size = self.side**2
        data = Path(path).read_bytes()[start * size : stop * size]
        yield from np.frombuffer(data, np.uint8).reshape(-1, self.side, self.side)
'''


@pytest.fixture(autouse=True)
def no_recipes_are_left():
    yield
    recipe.use([])


def enter(source: str = RAW) -> None:
    recipe.use([recipe.RecipeFile("raw.py", source)])


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    """40 grey images of 8×8 pixels, which lie in the file ``raw``."""
    made = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype(np.uint8)
    (tmp_path / "raw").write_bytes(made.tobytes())
    return made


def config(tmp_path: Path, **given: object) -> DatasetConfig:
    return DatasetConfig.of(name="raw", path=str(tmp_path / "raw"), **given)


def test_a_users_own_source_is_prepared(tmp_path, pixels):
    enter()
    where = prepare(config(tmp_path), tmp_path / "cache")
    assert where.name.startswith("raw-")
    assert np.array_equal(torch.cat(list(load(where).shards)).numpy()[..., 0], pixels)
    manifest = read_manifest(where)
    assert (manifest["source"]["layout"], manifest["config"]["side"]) == ("raw", 8)
    assert load(prepare(config(tmp_path, crop=4, size=6), tmp_path / "cache")).shape == (1, 6, 6)


def test_other_files_parameters_or_code_are_another_set(tmp_path, pixels):
    enter()
    keys = [_key(one, sources.find(one)) for one in (config(tmp_path), config(tmp_path, side=4))]
    enter(RAW.replace("yield from", "yield from 255 -"))
    keys.append(_key(config(tmp_path), sources.find(config(tmp_path))))
    (tmp_path / "raw").write_bytes(b"1" * 64 * 40)
    keys.append(_key(config(tmp_path), sources.find(config(tmp_path))))
    assert len(set(keys)) == 4


def test_grey_images_of_a_source_of_colour_become_colour(tmp_path, pixels):
    enter(RAW.replace("    channels = 1\n", ""))
    image = next(sources.read(config(tmp_path)))
    assert np.array_equal(image, pixels[0][:, :, None].repeat(3, axis=2))


ENCODED = """
import io
import numpy as np
from PIL import Image
from raygan.data.sources.source import DataSource

class Encoded(DataSource):
    'PNG files.'

    name = "encoded"
    channels = 1
    needs_path = False
    mode: str = "L"
    'Of the files.'

    def count(self, path):
        return 256

    def read(self, path, start, stop):
        for shade in range(start, stop):
            file = io.BytesIO()
            Image.new("L", (8, 6), shade).convert(self.mode).save(file, "PNG")
            yield file.getvalue()
"""


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("geometry", "shape"), [({}, (6, 8)), ({"size": 4}, (4, 4)), ({"crop": 4, "size": 6}, (6, 6))]
)
def test_a_grey_source_may_return_encoded_images(tmp_path, mode, geometry, shape):
    enter(ENCODED)
    images = load(prepare(DatasetConfig.of(name="encoded", mode=mode, **geometry), tmp_path))
    assert (len(images), images.shape) == (256, (1, *shape))
    shades = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    assert torch.equal(torch.cat(list(images.shards)), shades.expand(256, *shape, 1))


def test_encoded_images_of_a_source_of_colour_are_as_before(tmp_path):
    enter(ENCODED.replace("    channels = 1\n", ""))
    assert load(prepare(DatasetConfig(name="encoded"), tmp_path)).shape == (3, 6, 8)


def test_a_source_without_a_path(tmp_path):
    enter(RAW.replace("channels = 1", "needs_path = False").replace(
        "return Path(path).stat().st_size // self.side**2", "return 20").replace(
        "data = Path(path).read_bytes()[start * size : stop * size]",
        "data = bytes(range(start, stop)) * size"))  # fmt: skip
    images = load(prepare(DatasetConfig(name="raw"), tmp_path))
    assert (len(images), images.shape) == (20, (3, 8, 8))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("yield from np", "yield from nothing.np", r"raw.py:24: NameError: name 'nothing'"),
        ("return Path(path).stat()", "return Path('/none').stat()", "raw.py:19: FileNotFoundError"),
        ("// self.side**2", "/ 64", "the data source raw counts 40.0 images"),
        ("[start * size : stop * size]", "[: 3 * size]", "asked for images 0 to 39 and returned 3"),
        (
            "[start * size : stop * size]",
            "[start * size : ] + bytes(size)",
            r"asked for images 0 to 39 and returned more, not 40; `read` must return these",
        ),
        ("    def read", "    def read_", "raw has no `read`"),
        (
            "yield from np",
            "yield from 1.5 * np",
            r"raw, image 0: the data source returns float64 \[8",
        ),
        ("reshape(-1,", "reshape(-1, 7,", r"raw.py:24: ValueError: cannot reshape"),
    ],
)
def test_what_is_wrong_with_a_users_own_source_is_named(tmp_path, pixels, old, new, message):
    assert old in RAW
    enter(RAW.replace(old, new))
    with pytest.raises(DataError, match=message):
        prepare(config(tmp_path), tmp_path / "cache")


def test_a_split_of_a_source_that_has_none_is_refused(tmp_path):
    enter()
    with pytest.raises(ConfigError, match=r"raw has no splits: remove it"):
        config(tmp_path, split="train")


def test_other_processes_enter_the_files_that_they_lack():
    other = RAW.replace('"raw"', '"other"')
    recipe.use([recipe.RecipeFile("other.py", other)])
    recipe.ensure([recipe.RecipeFile("raw.py", RAW)])
    recipe.ensure([recipe.RecipeFile("raw.py", RAW)])
    assert SOURCES.names[-2:] == ("other", "raw")
    recipe.ensure([recipe.RecipeFile("raw.py", RAW.replace('"raw"', '"raw2"'))])
    assert SOURCES.names[-2:] == ("other", "raw2")
    assert recipe.file_of(SOURCES["other"]) == recipe.RecipeFile("other.py", other)
    assert recipe.file_of(SOURCES["digits"]) is None


def test_a_parameter_with_the_name_of_a_key_is_refused():
    keys = {field.name for field in dataclasses.fields(DatasetConfig)} | {"label", "train"}
    assert keys == set(DataSource.reserved)
    with pytest.raises(ConfigError, match=r"^raw.py: .*`size` has the name of another key"):
        enter(RAW.replace("side", "size"))
    assert "raw" not in SOURCES.names


def test_a_file_that_another_machine_cannot_run_is_an_error_of_the_data(tmp_path, pixels):
    file = recipe.RecipeFile("raw.py", "import not_installed_here")
    job = ShardWork(DatasetConfig(), (32, 32, 1), str(tmp_path), 0, (file,))
    with pytest.raises(DataError, match=r"^raw.py:1: ModuleNotFoundError"):
        make(job, (0, next(sources.find(DatasetConfig()).cut(2))))


@pytest.mark.cluster
def test_a_users_own_source_is_prepared_by_other_processes(tmp_path, pixels, monkeypatch):
    monkeypatch.setattr(sys.modules["raygan.data.prepare"], "SHARD_BYTES", 64 * 10)
    enter()
    where = prepare(config(tmp_path), tmp_path / "cache", map=processes(2))
    assert len(read_manifest(where)["shards"]) == 4
    assert np.array_equal(torch.cat(list(load(where).shards)).numpy()[..., 0], pixels)
    enter(RAW.replace("yield from np", "yield from nothing.np"))
    with pytest.raises(DataError, match=r"raw.py:24: NameError"):
        prepare(config(tmp_path), tmp_path / "cache", map=processes(2))
