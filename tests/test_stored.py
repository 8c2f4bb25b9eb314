"""Whatever stands in a stored file, it is read as what it is or refused in one line."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raygan import records
from raygan.cli import main
from raygan.errors import RayganError
from raygan.gan.config import TrainConfig
from raygan.gan.judge.quality import MEASURES
from raygan.records import LOSS, TrialRecord
from raygan.report import finals, tables
from raygan.storage import Storage
from raygan.sweep.commands import preview
from raygan.sweep.session import final_tests as final
from raygan.sweep.session import lock
from raygan.sweep.session.lock import Holder
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import meter
from raygan.sweep.study import stored_sweep as state
from tests.sweep.prepared import one_set

SWEEP = "name: norms\ngrid: {norm: [bn, wn]}\nreplicate: {seeds: 2}\nsearch: {lr: [1e-4]}\n"
SPEC = spec.validate(parse(SWEEP, "x"))
DATA = one_set(id="1", digest="d", baseline=0.05, folder="/s/data/x", shape="3×8×8", train=9)
HOLDER = Holder("elsewhere", "", 1, 1.0, None, "2026-01-02 03:04:05", "t", 0.01)
TEST = {
    "loss": 0.1, "step": 2000, "images": 8, "steps": 5, "restarts": 1, "restarts_loss": 0.1,
    "audited": 4, "audited_loss": 0.1, "seconds": 1.0, "checkpoint": "checkpoint_1",
    "asked": {"steps": 5, "images": None, "restarts": 1, "audited": 4},
}  # fmt: skip
FID = {"fid": 30.5, "kid": 0.25, "kid_std": 0.1, "n": 100, "split": "train", "bits": 8,
       "resizer": "bilinear", "weights_sha256": "ab", "torch_fidelity": "0.4", "seed": 0}  # fmt: skip
QUALITY = {"feature_energy_distance": 0.5, "recall": 0.25, "coverage": 1.0, "kind": "features",
           "sliced_wasserstein": None, "images": 1000, "real_images": 900, "seed": 2**63 - 1,
           "weights_sha256": "ab", "step": 10, "checkpoint": "checkpoint_1"}  # fmt: skip
SUMMARY = {"finished": True, "versions": {"version.torch": "2"}, "spent": {"trial_hours": 1.0},
           "trials": [{"log_area": math.nan}]}  # fmt: skip
RECORD = "trials/bn-000/record.json"


def store(storage: Storage) -> Storage:
    """A sweep with everything that one can have, whole."""
    sweep = storage / "norms"
    state.store(sweep, SPEC, DATA)
    for cell in ("bn", "wn"):
        for name, kind, seed in (("000", "search", 0), ("000-seed1", "replicate", 1)):
            config = TrainConfig(norm=cell, seed=seed).to_dict()
            record = TrialRecord(f"{cell}-{name}", cell, 0, f"{cell} lr=1e-4", {"lr": 1e-4}, config)
            record.merge(
                [{"step": step, LOSS: 20 / step, "perf/x": 9.0} for step in (1e3, 2e3, 3e3)]
            )
            record.kind, record.outcome, record.seconds = kind, "ok", 1800.0
            record.checkpoints = {"best": "checkpoint_1"}
            record.save(sweep)
            for which in ("best", "last"):
                sweep.write(f"trials/{record.id}/final/{which}.json", json.dumps(TEST).encode())
            sweep.write(f"trials/{record.id}/final/best-fid.json", json.dumps(FID).encode())
            sweep.write(f"trials/{record.id}/final/best-quality.json", json.dumps(QUALITY).encode())
    rates = {"bn": {"iterations_per_second": 3.0, "evaluation_seconds": 1.0}}
    for name, content in (
        ("result.json", SUMMARY), ("clock.json", {"seconds": 10.0}), ("rates.json", rates),
        ("lock.json", asdict(HOLDER)), ("stop.json", {"token": "t"}),
    ):  # fmt: skip
        sweep.write(name, json.dumps(content).encode())
    return sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Storage:
    return store(Storage(str(tmp_path_factory.mktemp("stored"))))


def read_final(sweep: Storage) -> Any:
    return final.read(sweep / "trials" / "bn-000", "best")


def read_fids(sweep: Storage) -> Any:
    return finals.read_all(sweep, [TrialRecord("bn-000", "bn", 0, "", {}, {})]).fids


def read_qualities(sweep: Storage) -> Any:
    return finals.read_all(sweep, [TrialRecord("bn-000", "bn", 0, "", {}, {})]).qualities


def read_speeds(sweep: Storage) -> Any:
    return sweep.read_kept(preview.SPEEDS_FILE, preview._parse_speeds)


def is_asked(sweep: Storage) -> bool:
    held = lock.Lock(sweep, lambda: None, print)
    held._mine = HOLDER
    return held._is_asked_to_stop()


READERS: dict[str, Callable[[Storage], Any]] = {
    state.SPEC_FILE: state.stored_spec,
    state.DATA_FILE: lambda sweep: state.stored_data(sweep, SPEC),
    RECORD: records.load_all,
    tables.SUMMARY: state.summary,
    lock.LOCK_FILE: lock.read,
    lock.STOP_FILE: is_asked,
    meter.CLOCK_FILE: lambda sweep: meter.Clock(sweep).seconds,
    preview.SPEEDS_FILE: read_speeds,
    "trials/bn-000/final/best.json": read_final,
    "trials/bn-000/final/best-fid.json": read_fids,
    "trials/bn-000/final/best-quality.json": read_qualities,
}
DEEP: Any = 0
for _ in range(150):
    DEEP = [DEEP]
ODD = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 7200, 10**400, 2**63, 0.0, -0.5, 1.5, 1e-310, 1e38, 1e300,
        math.nan, math.inf, -math.inf, "", "x", "1", "[/red]", "a\x1b[31m\u202e", "\ud800", "../x",
        "http://host/::file:///x", "x" * 5000, [], [1], {}, {"a": 1}, {"step": 1.0}, DEEP,
    ]
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """A stored file with a value replaced, removed or added somewhere, or with damaged bytes."""
    how = draw(st.sampled_from(["replace", "replace", "remove", "add", "cut", "flip", "nest"]))
    try:
        document = {"": json.loads(whole)}
    except ValueError:  # YAML
        how = draw(st.sampled_from(["cut", "flip", "nest"]))
    if how == "cut":
        return whole[: draw(st.integers(0, len(whole)))]
    if how == "flip":
        at = draw(st.integers(0, len(whole) - 1))
        return whole[:at] + draw(st.binary(max_size=3)) + whole[at + 1 :]
    if how == "nest":
        return draw(st.sampled_from([b"[" * 10**5, b'{"a":' * 10**5, b"- " * 10**5 + b"...\n"]))
    where, key = document, ""
    while draw(st.integers(0, 3)) and isinstance(where[key], dict | list) and where[key]:
        where = where[key]
        keys = list(where) if isinstance(where, dict) else range(len(where))
        key = draw(st.sampled_from(keys))
    if how == "replace":
        where[key] = copy.deepcopy(draw(ODD))
    elif how == "remove" and where is not document:
        del where[key]
    elif isinstance(where[key], dict):
        where[key][draw(st.sampled_from(["new", "a\x1b", "seed", "step", ""]))] = draw(ODD)
    return json.dumps(document.get("")).encode()


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_any_file_is_read_or_refused_in_our_own_words(sweep, name, data):
    whole, backup = sweep.read(name), sweep.read(f"{name}.bak")
    sweep.write(name, data.draw(changed(whole)))
    sweep.delete(f"{name}.bak")
    try:
        READERS[name](sweep)
    except RayganError as error:
        text = str(error)
        assert text.isprintable(), text
        assert len(text) < 1000, text
    finally:
        sweep.write(name, whole)
        if backup is not None:
            sweep.write(f"{name}.bak", backup)


@pytest.mark.parametrize(
    "changed",
    [
        {"recall": 1.5}, {"coverage": -0.1}, {"recall": "0.5"}, {"recall": True}, {"recall": [0.5]},
        {"sliced_wasserstein": -1.0}, {"feature_energy_distance": 1e300}, {"kind": "fid"},
        {"checkpoint": "../x"}, {"checkpoint": "a\x1b"}, {"images": -1}, {"images": 1.5},
        {"seed": 2**63}, {"step": None}, {"weights_sha256": "x" * 5000},
    ],
)  # fmt: skip
def test_quality_of_samples_that_cannot_be_is_none(sweep, changed):
    name = "trials/bn-000/final/best-quality.json"
    whole = sweep.read(name)
    assert read_qualities(sweep)["bn-000"]["best"] == QUALITY
    sweep.write(name, json.dumps({**QUALITY, **changed}).encode())
    try:
        assert read_qualities(sweep) == {}
        assert finals.read_quality(sweep / "trials" / "bn-000", "best") is None
    finally:
        sweep.write(name, whole)


def test_names_of_the_measures_of_quality_are_those_of_the_judge():
    assert tuple(name for names in MEASURES.values() for name in names) == tuple(finals.QUALITIES)


def test_whole_files_are_read(sweep):
    for name, read in READERS.items():
        before = sweep.read(name)
        assert read(sweep), name
        sweep.write(name, before)  # a request to stop is heeded once


COMMANDS = (["status", "norms"], ["results", "norms"], ["results", "norms", "--format", "csv"],
            ["report", "norms"])  # fmt: skip


@pytest.mark.cluster
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_no_stored_file_makes_a_command_fail_in_another_way(sweep, arguments, data):
    names = [name for name in READERS if name != lock.STOP_FILE]
    name = data.draw(st.sampled_from(names))
    whole, backup = sweep.read(name), sweep.read(f"{name}.bak")
    sweep.write(name, data.draw(changed(whole)))
    sweep.delete(f"{name}.bak")
    try:
        done = CliRunner().invoke(main, [*arguments, "--storage", sweep.parent])
    finally:
        sweep.write(name, whole)
        if backup is not None:
            sweep.write(f"{name}.bak", backup)
    assert done.exit_code in (0, 2), (name, done.exc_info)
    if done.exit_code == 2:
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.output
