import json

import pytest

from raygan.errors import ConfigError, RayganError
from raygan.storage import Storage
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.sweep_spec import SweepSpec, spec_class
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.prepared import Prepared
from tests.sweep.prepared import one_set

SWEEP = """
name: norms
grid: {norm: [bn, wn]}
search: {method: random, trials: 4, lr: {min: 1.0e-5, max: 1.0e-3, scale: log}}
stop: {rule: asha, grace: 100}
replicate: {seeds: 2}
train: {iterations: 1000, evaluate_every: 100}
storage: /somewhere
"""
DATA = one_set(id="1", digest="d", baseline=0.1)


def read(text: str = SWEEP) -> SweepSpec:
    return spec.validate(parse(text, "sweep.yaml"))


@pytest.fixture
def sweep(tmp_path) -> Storage:
    return Storage(str(tmp_path / "norms"))


@pytest.fixture
def begun(sweep) -> Storage:
    state.store(sweep, read(), DATA)
    sweep.write("trials/bn-000/record.json", b"{}")
    return sweep


def data_of(sweep: Storage, **options: bool) -> Prepared | None:
    return state.stored_data(sweep, read(), **options)


def damage(sweep: Storage, name: str) -> None:
    whole = sweep.read(name)
    sweep.write(name, whole[: len(whole) // 2])


def test_what_was_stored_comes_back(begun):
    assert state.stored_spec(begun).resolved() == read().resolved()
    assert state.stored_data(begun, read()) == DATA


def test_what_is_known_of_the_images_keeps_its_format(begun):
    known = {"id": "1", "digest": "d", "baseline": 0.1, "folder": "f", "shape": "1×8×8", "train": 9}
    state.store(begun, read(), one_set(**known))
    assert json.loads(begun.read(state.DATA_FILE)) == known


def test_images_of_an_earlier_version_that_stored_less_are_known(begun):
    begun.write(state.DATA_FILE, b'{"id": "1", "digest": "d", "baseline": 0.1}')
    assert state.stored_data(begun, read()) == one_set(id="1", digest="d", baseline=0.1)


@pytest.mark.parametrize("lost", ["id", "digest", "baseline"])
def test_images_without_what_identifies_them_are_damaged(begun, lost):
    known = {"id": "1", "digest": "d", "baseline": 0.1}
    del known[lost]
    for name in begun.files():
        if name.startswith(state.DATA_FILE):
            begun.write(name, json.dumps(known).encode())
    with pytest.raises(RayganError, match=rf"damaged \({lost}: Field required\)"):
        state.stored_data(begun, read())


def test_a_folder_without_anything_is_a_new_sweep(sweep):
    assert state.stored_spec(sweep) is None
    assert state.stored_data(sweep, read()) is None


FILES = pytest.mark.parametrize(
    ("name", "stored"),
    [(state.SPEC_FILE, state.stored_spec), (state.DATA_FILE, data_of)],
)


@FILES
@pytest.mark.parametrize("hurt", [damage, Storage.delete, lambda s, n: s.write(n, b"\xff\x00")])
def test_backup_is_used_for_a_damaged_or_lost_file(begun, name, stored, hurt, caplog):
    whole = stored(begun)
    hurt(begun, name)
    assert stored(begun) == whole
    assert "its backup is used" in caplog.text


@FILES
def test_no_part_of_a_file_is_taken_for_the_whole(begun, name, stored):
    whole = begun.read(name)
    known = stored(begun)
    for length in range(0, len(whole), 7):
        begun.write(name, whole[:length])
        again = stored(begun)
        assert again == known, length


@FILES
@pytest.mark.parametrize("hurt", [damage, Storage.delete])
def test_without_a_whole_backup_it_is_refused_and_never_taken_for_new(begun, name, stored, hurt):
    for which in (name, f"{name}.bak"):
        hurt(begun, which)
    with pytest.raises(RayganError, match="restore it, start a new sweep"):
        stored(begun)


def test_results_without_the_rest_are_no_new_sweep(sweep):
    sweep.write("result.json", b"{}")
    with pytest.raises(RayganError, match="the sweep has begun"):
        state.stored_spec(sweep)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trials: 4", "trials: 6", "`search.trials` from 4 to 6"),
        ("seeds: 2", "seeds: 5", "`replicate.seeds` from 2 to 5"),
    ],
)
def test_more_trials_and_seeds_extend_a_sweep(sweep, old, new, words):
    assert state.check_unchanged(read(SWEEP.replace(old, new)), read(), sweep) == [words]


def test_more_seeds_of_the_grid_extend_a_sweep(sweep):
    before, now = (
        read(SWEEP.replace("norm: [bn, wn]", f"seed: {seeds}").replace("{seeds: 2}", "{}"))
        for seeds in ("[1, 2]", "[2, 3, 1]")
    )
    grown = state.check_unchanged(now, before, sweep)
    assert grown == ["`grid.seed` from [1, 2] to [2, 3, 1]"]
    with pytest.raises(ConfigError):
        state.check_unchanged(before, now, sweep)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials: 4", "trials: 3"),
        ("seeds: 2", "seeds: 1"),
        ("[bn, wn]", "[bn, wn, vanilla]"),
        ("grace: 100", "grace: 200"),
        ("1.0e-5", "1.0e-6"),
        ("seeds: 2", "seeds: 2, top: 2"),
    ],
)
def test_any_other_change_is_refused_with_a_diff_and_the_ways_on(sweep, old, new):
    with pytest.raises(ConfigError) as caught:
        state.check_unchanged(read(SWEEP.replace(old, new)), read(), sweep)
    message = str(caught.value)
    assert "\n-" in message
    assert "\n+" in message
    assert "--fresh, or --set name=" in message
    assert "restore the YAML" in message


@pytest.mark.parametrize(
    "line",
    [
        "scale: {max_concurrent: 1}",
        "budget: {trials: 3}",
        "tracking: {experiment: x}",
    ],
)
def test_how_and_where_may_change(sweep, line):
    assert state.check_unchanged(read(SWEEP + line), read(), sweep) == []


def test_how_often_checkpoints_are_kept_may_change(sweep):
    often = read(SWEEP.replace("train: {", "train: {checkpoint_every: 90s, "))
    assert often.train.checkpoint_every == "90s"
    assert state.check_unchanged(often, read(), sweep) == []
    with pytest.raises(ConfigError, match=r"train\.checkpoint_every may change"):
        state.check_unchanged(read(SWEEP.replace("seeds: 2", "seeds: 1")), often, sweep)


def test_sweep_that_an_earlier_version_began_without_a_stopping_rule_is_resumed_so(sweep):
    now = read(SWEEP.replace("stop: {rule: asha, grace: 100}\n", ""))
    before = read(SWEEP.replace("rule: asha, grace: 100", "rule: none"))
    resumed = state.with_defaults_of(now, before)
    assert state.check_unchanged(resumed, before, sweep) == []
    assert resumed.stopping().rule == "none"
    assert state.with_defaults_of(now, read()).stopping().rule == "median"
    assert state.with_defaults_of(read(), before).stopping().rule == "asha"


def test_sweep_is_resumed_with_the_quality_that_it_was_started_with(sweep, monkeypatch):
    installed = [True, False]
    monkeypatch.setattr("raygan.gan.judge.quality.is_available", lambda: installed[0])
    state.store(sweep, read(), DATA)
    before = state.stored_spec(sweep)
    assert before.train.quality == "features"
    installed.reverse()
    resumed = state.with_defaults_of(read(), before)
    assert resumed.train_config().quality == "features"
    assert state.check_unchanged(resumed, before, sweep) == []
    named = read(SWEEP.replace("train: {", "train: {quality: wasserstein, "))
    with pytest.raises(ConfigError, match="quality: wasserstein"):
        state.check_unchanged(state.with_defaults_of(named, before), before, sweep)


def test_sweep_that_an_earlier_version_stored_has_no_quality(sweep):
    state.store(sweep, read(), DATA)
    path = sweep.local / "sweep.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True)
                            if "quality" not in line))  # fmt: skip
    before = state.stored_spec(sweep)
    resumed = state.with_defaults_of(read(), before)
    assert resumed.train_config().quality == "none"
    assert state.check_unchanged(resumed, before, sweep) == []


def test_fresh_takes_the_next_name(tmp_path):
    storage = Storage(str(tmp_path))
    names = []
    for _ in range(3):
        fresh = state.beside(read(), storage)
        names.append(fresh.name)
        state.store(storage / fresh.name, fresh, DATA)
    assert names == ["norms", "norms-2", "norms-3"]


def test_warmup_survives_being_stored(sweep):
    text = SWEEP + "warmup: {iterations: 50}\n"
    state.store(sweep, read(text), DATA)
    assert state.check_unchanged(read(text), state.stored_spec(sweep), sweep) == []


@pytest.mark.parametrize("word", ["1e-4", "1e4", "no", "~", "0x1", "2020-01-01", "", "true"])
def test_words_that_look_like_numbers_are_stored_as_words(sweep, word):
    given = read().model_dump(exclude_unset=True) | {"storage": word or "x"}
    given["dataset"] = {"name": "parquet", "path": word or "x"}
    text = spec_class().model_validate(given)
    state.store(sweep, text, DATA)
    assert state.stored_spec(sweep).resolved() == text.resolved()


def test_long_stored_yaml_is_refused_at_once(sweep):
    content = b"name: norms\n" + b"# x\n" * 2**20 + b"...\n"
    sweep.write(state.SPEC_FILE, content)
    with pytest.raises(RayganError, match="at most"):
        state.stored_spec(sweep)


@pytest.mark.parametrize("split", ["all", "[train, test]"])
def test_a_sweep_that_an_earlier_version_began_may_name_its_splits(sweep, split):
    text = SWEEP + "dataset: {name: parquet, path: /images}\n"
    state.store(sweep, read(text), DATA)
    stored = state.stored_spec(sweep)
    named = read(text.replace("/images", f"/images, split: {split}"))
    assert state.check_unchanged(named, stored, sweep) == []
    with pytest.raises(ConfigError, match="split"):
        state.check_unchanged(read(text.replace("/images", "/images, split: test")), named, sweep)
