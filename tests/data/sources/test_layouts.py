"""CIFAR-10, CelebA and LSUN in the layouts in which people have them, built here in small."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raygan.data import DatasetConfig, load, prepare
from raygan.data.manifest import read_manifest
from raygan.data.sources import find as sources
from raygan.data.sources import pickles
from raygan.errors import DataError
from tests.data.pictures import saved

PER_BATCH = 20


def read(name: str, path: Path, **fields) -> np.ndarray:
    return np.stack(list(sources.read(DatasetConfig.of(name=name, path=str(path), **fields))))


# CIFAR-10


def python2_pickle(rows: np.ndarray, name: str) -> bytes:
    """A batch as the original files are: protocol 2, written by Python 2, so that text is bytes."""

    def text(value: str) -> bytes:  # SHORT_BINSTRING, Python 2's str
        return b"U" + bytes([len(value)]) + value.encode()

    def number(value: int) -> bytes:  # BININT1
        return b"K" + bytes([value])

    count = len(rows)
    raw = rows.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
        b"(K\x01" + number(count) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<I", len(raw))
        + raw
        + b"tb"
    )
    labels = b"](" + b"".join(number(i % 10) for i in range(count)) + b"e"
    files = b"](" + b"".join(text(f"{i}.png") for i in range(count)) + b"e"
    items = text("batch_label") + text(name) + text("labels") + labels + text("data") + array
    return b"\x80\x02}(" + items + text("filenames") + files + b"u."


def planes(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (PER_BATCH, 3072), np.uint8)


def pixels(seed: int) -> np.ndarray:
    return planes(seed).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture
def batches(tmp_path) -> Path:
    """``cifar-10-batches-py``, 20 images in each batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for seed, name in enumerate((*pickles.TRAIN, *pickles.TEST)):
        (folder / name).write_bytes(python2_pickle(planes(seed), name))
    meta = {"num_cases_per_batch": PER_BATCH, "label_names": ["airplane"], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    (folder / "readme.html").write_text("<html>")
    return folder


def test_the_batches_of_the_tests_are_what_pickle_reads(batches):
    found = pickle.loads((batches / "data_batch_2").read_bytes(), encoding="bytes")
    assert np.array_equal(found[b"data"], planes(1))
    assert found[b"filenames"][:2] == [b"0.png", b"1.png"]


@pytest.mark.parametrize("inside", [True, False])
def test_cifar10_keeps_the_official_split(batches, inside):
    images = read("cifar10", batches if inside else batches.parent)
    assert np.array_equal(images, np.concatenate([pixels(seed) for seed in range(5)]))


def test_cifar10_pooled(batches, tmp_path):
    images = read("cifar10", batches, pool=True)
    assert np.array_equal(images, np.concatenate([pixels(seed) for seed in range(6)]))
    splits = {}
    for pool in (False, True):
        config = DatasetConfig.of(name="cifar10", path=str(batches), pool=pool)
        where = prepare(config, tmp_path / "cache")
        splits[read_manifest(where)["source"]["split"]] = len(load(where))
    assert splits == {"train": 100, "train+test": 120}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("key", ["data", b"data"])
def test_batches_pickled_by_others(batches, protocol, key):
    (batches / "data_batch_1").write_bytes(pickle.dumps({key: planes(7)}, protocol))
    assert np.array_equal(pickles.batch(str(batches / "data_batch_1")), pixels(7))


def test_cifar10_resized(batches):
    assert read("cifar10", batches, size=16).shape == (100, 16, 16, 3)
    cropped = read("cifar10", batches, crop=8)
    assert np.array_equal(cropped[:20], pixels(0)[:, 12:20, 12:20])


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_wants_to_run_is_refused(batches, tmp_path, protocol):
    evil = {b"data": planes(0), b"x": Evil(tmp_path / "harm")}
    (batches / "data_batch_3").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(
        DataError, match=r"data_batch_3: not a batch of CIFAR-10 \(it asks for \w+\.mk"
    ):
        read("cifar10", batches)
    assert not (tmp_path / "harm").exists()


def huge(opcode: bytes) -> bytes:
    return b"\x80\x04N" + opcode + b"."


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        b"\x80\x02}.",
        b"\x80\x02N.",
        pickle.dumps({"data": 5}),
        pickle.dumps({"data": np.zeros((4, 100), np.uint8)}, 2),
        pickle.dumps({"data": np.zeros((4, 3072), np.int16)}, 2),
        pickle.dumps({"data": np.zeros((4, 3072), object)}, 2),
        pickle.dumps({"data": np.asfortranarray(np.zeros((4, 3072), np.uint8))}, 2),
        pickle.dumps({"data": np.zeros((4, 3072), np.uint8)}, 2)[:-500],
        huge(b"r\xff\xff\xff\xff"),  # LONG_BINPUT far beyond all others
        huge(b"\x8e" + b"\xff" * 7 + b"\x7f"),  # BINBYTES8
        huge(b"\x8b\xff\xff\xff\x7f"),  # LONG4
        b"\x80\x02" + b"(" * 10_000 + b".",
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R}b.",
        b"\x80\x02T\x01",  # a number cut off
        # nested tuples as a key, whose hash takes twice as long for each level
        b"\x80\x02}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.",
        b"\x80\x02}(K\x01\x85" + b"2\x86" * 60 + b"K\x01u.",
        b"\x80\x02(K\x01\x85" + b"2\x86" * 60 + b"K\x01d.",
        b"\x80\x04(K\x01\x85" + b"2\x86" * 60 + b"\x91.",
        b"\x80\x04\x8f(K\x01\x85" + b"2\x86" * 60 + b"\x90.",
    ],
)
def test_damaged_batches_are_named(batches, data):
    (batches / "data_batch_4").write_bytes(data)
    with pytest.raises(DataError, match=r"data_batch_4: not a batch of CIFAR-10 \("):
        read("cifar10", batches)


def test_a_missing_batch_is_named(batches):
    (batches / "data_batch_5").unlink()
    with pytest.raises(DataError, match=r"data_batch_5 missing; the download may be incomplete"):
        read("cifar10", batches)
    (batches / "test_batch").unlink()
    with pytest.raises(DataError, match="data_batch_5, test_batch missing"):
        read("cifar10", batches, pool=True)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Not on the tests' output."""


@pytest.mark.cluster  # a server
def test_cifar10_is_downloaded_through_torchvision(batches, tmp_path, monkeypatch, request):
    from torchvision.datasets import CIFAR10

    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, arcname=batches.name)

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    handler = partial(QuietHandler, directory=tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    request.addfinalizer(lambda: (server.shutdown(), server.server_close()))
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5(batches / n)] for n in pickles.TRAIN])
    monkeypatch.setattr(CIFAR10, "test_list", [[n, md5(batches / n)] for n in pickles.TEST])
    meta = {**CIFAR10.meta, "md5": md5(batches / "batches.meta")}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    root = tmp_path / "downloaded"
    assert read("cifar10", root, download=True).shape == (100, 32, 32, 3)
    assert [entry.name for entry in root.iterdir()] == ["cifar-10-batches-py"]
    archive.unlink()  # it is not downloaded again
    assert read("cifar10", root, download=True).shape == (100, 32, 32, 3)
    with pytest.raises(DataError, match="elsewhere: CIFAR-10 cannot be downloaded to it"):
        read("cifar10", tmp_path / "elsewhere", download=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def hugging_face(path: Path, column: str, cells: list[bytes]) -> None:
    """As the datasets library writes it: its features in the schema's metadata, small groups."""
    rows = [{"bytes": cell, "path": f"{index}.png"} for index, cell in enumerate(cells)]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({column: images, "label": pa.array([0] * len(cells), pa.int64())})
    features = (
        '{"info": {"features": {"%s": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}}}'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.replace_schema_metadata({"huggingface": features % column})
    pq.write_table(table, path, row_group_size=7, compression="snappy")


def test_cifar10_as_parquet(tmp_path):
    for seed, part in enumerate(("train", "test")):
        cells = [saved(Image.fromarray(image), "PNG") for image in pixels(seed)]
        hugging_face(tmp_path / "plain_text" / f"{part}-00000-of-00001.parquet", "img", cells)
    assert np.array_equal(read("cifar10", tmp_path), pixels(0))
    both = np.concatenate([pixels(0), pixels(1)])
    assert np.array_equal(read("cifar10", tmp_path, pool=True), both)
    file = tmp_path / "plain_text" / "train-00000-of-00001.parquet"
    assert np.array_equal(read("cifar10", file), pixels(0))
    with pytest.raises(DataError, match="has no split test; it has train"):
        read("cifar10", file, pool=True)


# CelebA


def face(index: int) -> Image.Image:
    """178×218, its colour at the centre 160×160, another around it."""
    image = Image.new("RGB", (178, 218), (0, 0, 255))
    image.paste((10 * index, 100, 0), (9, 29, 169, 189))
    return image


@pytest.fixture
def celeba(tmp_path) -> Path:
    """``celeba/img_align_celeba``, as torchvision leaves it, and the zip that it comes from."""
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for index in range(1, 25):
        face(index).save(folder / f"{index:06}.jpg", quality=95)
    (tmp_path / "celeba" / "list_attr_celeba.txt").write_text("24\n")
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        archive.mkdir("img_align_celeba")
        for file in sorted(folder.iterdir(), reverse=True):
            archive.write(file, f"img_align_celeba/{file.name}")
        archive.writestr("__MACOSX/img_align_celeba/._000001.jpg", b"Mac OS X")
    return tmp_path


def check_faces(images: np.ndarray) -> None:
    assert images.shape == (24, 160, 160, 3)
    expected = [(10 * index, 100, 0) for index in range(1, 25)]
    assert np.abs(images[:, 80, 80].astype(int) - expected).max() <= 4
    assert (images[:, 4, 4, 2] < 40).all()  # nothing of what is around the centre


@pytest.mark.parametrize("path", ["", "celeba", "celeba/img_align_celeba", "img_align_celeba.zip"])
def test_celeba_is_cropped_to_its_centre(celeba, path):
    check_faces(read("celeba", celeba / path))


def test_celeba_zip_in_a_folder(celeba):
    (celeba / "zipped").mkdir()
    (celeba / "img_align_celeba.zip").rename(celeba / "zipped" / "img_align_celeba.zip")
    check_faces(read("celeba", celeba / "zipped"))


def test_celeba_as_parquet(celeba):
    files = sorted((celeba / "celeba" / "img_align_celeba").iterdir())
    cells = [file.read_bytes() for file in files]
    for index, part in enumerate(("test", "train")):
        name = f"{part}-0000{index}-of-00002.parquet"
        hugging_face(celeba / "hub" / "data" / name, "image", cells[12 * index : 12 * index + 12])
    check_faces(read("celeba", celeba / "hub"))


@pytest.mark.parametrize(
    ("fields", "side"), [({"size": 64}, 64), ({"crop": 108, "size": 64}, 64), ({"crop": 178}, 178)]
)
def test_any_even_crop_and_size(celeba, fields, side):
    images = read("celeba", celeba, **fields)
    assert images.shape == (24, side, side, 3)
    blue = images[:, 2, side // 2, 2]
    assert (blue > 200).all() if fields.get("crop") == 178 else (blue < 40).all()


def test_the_zip_and_the_folder_are_the_same_images(celeba, tmp_path):
    digests = set()
    for path in ("celeba", "img_align_celeba.zip"):
        config = DatasetConfig(name="celeba", path=str(celeba / path), size=32)
        digests.add(load(prepare(config, tmp_path / "cache")).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_zip_is_named(celeba, share):
    archive = celeba / "img_align_celeba.zip"
    os.truncate(archive, int(archive.stat().st_size * share))
    with pytest.raises(DataError, match=r"img_align_celeba\.zip: not a readable zip archive"):
        read("celeba", archive)


def test_a_damaged_entry_of_a_zip_is_left_out(celeba, tmp_path):
    archive = celeba / "img_align_celeba.zip"
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as opened:
        entry = opened.getinfo("img_align_celeba/000005.jpg")
    data[entry.header_offset + 400] ^= 255
    archive.write_bytes(data)
    config = DatasetConfig(name="celeba", path=str(archive), max_corrupt=0.05)
    manifest = read_manifest(prepare(config, tmp_path / "cache"))
    (corrupt,) = manifest["corrupt"]
    assert corrupt["where"] == f"{archive}, img_align_celeba/000005.jpg"
    assert corrupt["reason"] == "its size or checksum in the archive is wrong"


def test_an_entry_that_unpacks_to_more_than_an_image_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("raygan.data.sources.archives.MAX_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(10**6))
    with pytest.raises(DataError, match=r"a\.zip, bomb\.png: has more than 1,000 bytes"):
        read("folder", tmp_path / "a.zip")


def test_a_zip_with_a_password_is_named(celeba):
    archive = celeba / "img_align_celeba.zip"
    data = bytearray(archive.read_bytes())
    start = 0
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        data[start + 8] |= 1  # encrypted
        start += 4
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"zip, img_align_celeba/0000\d\d\.jpg: needs a password"):
        read("celeba", archive)


# LSUN


def bedroom(index: int) -> bytes:
    """A WEBP image whose shorter side is 256."""
    size = (341, 256) if index % 2 else (256, 300)
    return saved(Image.new("RGB", size, (8 * index, 60, 200)), "WEBP", quality=90)


def sha1(index: int) -> bytes:
    return hashlib.sha1(str(index).encode()).hexdigest().encode()


@pytest.fixture
def lsun(tmp_path) -> Path:
    lmdb = pytest.importorskip("lmdb", reason="needs the extra raygan[lsun]")
    folder = tmp_path / "bedroom_train_lmdb"
    with (
        lmdb.open(str(folder), map_size=2**24) as env,
        env.begin(write=True) as transaction,
    ):
        for index in range(24):
            transaction.put(sha1(index), bedroom(index))
    return folder


def shades(count: int) -> list[int]:
    return [8 * index for index in sorted(range(count), key=sha1)]


@pytest.mark.parametrize("inside", [True, False])
def test_lsun_is_read_in_the_order_of_its_keys(lsun, inside):
    images = read("lsun", lsun if inside else lsun.parent, size=32)
    assert images.shape == (24, 32, 32, 3)
    assert np.abs(images[:, 16, 16, 0].astype(int) - shades(24)).max() <= 6


@pytest.mark.parametrize("size", [1, 5, 24, 100])
def test_lsun_pieces_are_the_whole(lsun, size):
    source = sources.find(DatasetConfig(name="lsun", path=str(lsun)))
    pieces = list(source.cut(size))
    assert [piece.count for piece in pieces] == [min(size, 24 - i) for i in range(0, 24, size)]
    where = [where for piece in pieces for where, _ in piece.read()]
    assert where == [f"{lsun}, {sha1(i).decode()}" for i in sorted(range(24), key=sha1)]


def test_lsun_is_prepared_and_its_folder_may_be_read_only(lsun, tmp_path):
    (lsun / "lock.mdb").unlink()
    lsun.chmod(0o555)
    where = prepare(DatasetConfig(name="lsun", path=str(lsun), crop=160), tmp_path / "cache")
    assert load(where).shape == (3, 160, 160)
    assert read_manifest(where)["source"]["layout"] == "lmdb"
    assert [file.name for file in lsun.iterdir()] == ["data.mdb"]


TRUNCATED = """
import os, sys
from raygan.data import DatasetConfig; from raygan.data.sources import find as sources
from raygan.errors import DataError
for left in (20_000, 5000, 100, 0):
    os.truncate(f"{sys.argv[1]}/data.mdb", left)
    try:
        list(sources.read(DatasetConfig(name="lsun", path=sys.argv[1], size=8)))
    except DataError as error:
        print(left, error)
"""


@pytest.mark.cluster  # a new process
def test_a_truncated_lmdb_is_named_not_a_crash(lsun, run_python):
    run = run_python(TRUNCATED, lsun)
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert [line.split()[0] for line in said] == ["20000", "5000", "100", "0"]
    assert all("bedroom_train_lmdb" in line for line in said)


def test_lsun_without_the_extra_says_how_to_get_it(lsun, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(DataError, match=r"needs the package lmdb; pip install 'raygan\[lsun\]'"):
        read("lsun", lsun, size=8)


def test_lsun_as_files_and_as_parquet(tmp_path):
    folder = tmp_path / "bedroom" / "0" / "a"
    folder.mkdir(parents=True)
    for index in range(6):
        (folder / f"{index}.webp").write_bytes(bedroom(index))
    hugging_face(tmp_path / "hub" / "train-0.parquet", "image", [bedroom(i) for i in range(6)])
    one, other = (read("lsun", tmp_path / name, size=16) for name in ("bedroom", "hub"))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", ["cifar10", "celeba", "lsun"])
def test_a_path_without_any_layout_says_what_was_looked_for(tmp_path, name):
    (tmp_path / "a.txt").write_text("")
    wanted = {"cifar10": "data_batch_1", "celeba": r"\.jpg", "lsun": r"\.webp"}[name]
    with pytest.raises(DataError, match=rf"{tmp_path}: holds no .*{wanted}.* no \.parquet file"):
        read(name, tmp_path)
