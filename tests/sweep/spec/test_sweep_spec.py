import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from raygan import recipe
from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig, fields
from raygan.gan.judge.metric import Metric
from raygan.gan.judge.metrics import METRICS
from raygan.retries import retrying
from raygan.storage import Storage
from raygan.sweep.commands.sweep import main
from raygan.sweep.spec import checks, plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.registered import content
from tests.sweep.prepared import one_set

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))


def read(text: str) -> spec.SweepSpec:
    return spec.validate(parse(text, "sweep.yaml"))


def test_defaults_are_those_of_the_training_configuration():
    assert read("{name: a, train: {quality: none}}").train_config() == TrainConfig()


def test_every_training_field_may_stand_in_all_three_places():
    for name in set(fields()) - {"quality"}:
        for section in ("train", "grid"):
            assert name in type(spec.spec_class().model_fields[section].default).model_fields
        searched = type(spec.spec_class().model_fields["search"].default).model_fields
        assert name in searched  # `seed` is the search's own there


@pytest.mark.parametrize("installed", [True, False])
def test_quality_is_what_this_machine_can_measure_unless_the_yaml_names_it(monkeypatch, installed):
    monkeypatch.setattr("raygan.gan.judge.quality.is_available", lambda: installed)
    found = "features" if installed else "wasserstein"
    for text in ("name: a", "{name: a, train: {quality: auto}}"):
        assert read(text).train_config().quality == found
        assert read(text).resolved()["train"]["quality"] == found
    for named in ("none", "features", "wasserstein"):
        given = read(f"{{name: a, train: {{quality: {named}}}}}")
        assert given.train_config().quality == given.resolved()["train"]["quality"] == named


def test_quality_is_the_same_in_all_trials():
    for section in ("grid", "search"):
        with pytest.raises(ConfigError, match=rf"unknown key `{section}\.quality`"):
            read(f"{{name: a, {section}: {{quality: [none, wasserstein]}}}}")


def lacks_the_extra(kind: str) -> None:
    if kind == "features":
        raise ConfigError("pip install 'raygan[quality]'")


def test_quality_of_features_without_the_extra_is_refused_before_a_sweep_starts(monkeypatch):
    monkeypatch.setattr("raygan.gan.judge.quality.is_available", lambda: False)
    monkeypatch.setattr("raygan.gan.judge.quality.check", lacks_the_extra)
    with pytest.raises(ConfigError, match=r"raygan\[quality\]"):
        checks.check_quality(read("{name: a, train: {quality: features}}"))
    checks.check_quality(read("{name: a, train: {quality: none}}"))
    checks.check_quality(read("name: a"))


def test_own_metric_with_the_name_of_a_measure_is_refused(monkeypatch):
    class Recall(Metric):
        """Of mine."""

        name = "sliced_wasserstein"

    METRICS.add(Recall)
    try:
        with pytest.raises(ConfigError, match="your own metric `sliced_wasserstein` has the name"):
            checks.check_quality(read("{name: a, train: {quality: wasserstein}}"))
        checks.check_quality(read("{name: a, train: {quality: none}}"))
    finally:
        METRICS.remove("sliced_wasserstein")


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("name: a\ntrain:\n  featurs: 8", "sweep.yaml:3", "unknown key `train.featurs`; did you mean `features`?"),
        ("name: a\nfeatures: 8", "sweep.yaml:2", "did you mean `train.features`?"),
        ("name: a\nzzz: 8", "sweep.yaml:2", "allowed here: name"),
        ("name: a\ntrain:\n  features: eight", "sweep.yaml:3", "valid integer"),
        ("name: a\ntrain:\n  features: '8'", "sweep.yaml:3", "valid integer"),
        ("name: a\ntrain: {norm: batch}", "sweep.yaml:2", "'vanilla', 'bn', 'wn', "),
        ("name: a\ngrid: {norm: [wn, bn], loss: [log, wgan-gp]}", "sweep.yaml:2", "cannot be used with `norm: bn`"),
        ("name: a\ngrid: {norm: [wn, bn]}\nsearch: {loss: [log, wgan-gp]}", "sweep.yaml:3", "cannot be used with `norm: bn`"),
        ("name: a\nsearch:\n  norm: [wn, bn]\n  loss: [log, wgan-gp]", "sweep.yaml:4", "cannot be used with `norm: bn`"),
        ("name: a\nsearch:\n  trials: 4\n  update: [simultaneous, alternating]\n  d_steps: {min: 1, max: 3}", "sweep.yaml", "needs `update: alternating`"),
        ("name: a\nsearch:\n  d_steps: [1, 2]\n  update: [alternating, simultaneous]", "sweep.yaml", "needs `update: alternating`"),
        ("name: a\ngrid: {blocks: [1, 2]}", "sweep.yaml", "`blocks` applies to `architecture: resnet` only"),
        ("name: a\ngrid: {architecture: [resnet, dcgan]}\nsearch: {blocks: [1, 2]}", "sweep.yaml", "`blocks` applies to `architecture: resnet` only"),
        ("name: a\ntrain:\n  update: simultaneous\n  d_steps: 2", "sweep.yaml:4", "needs `update: alternating`"),
        ("name: a\ntrain:\n  lr: -1", "sweep.yaml:3", "`lr` (=-1.0) must be a positive number"),
        ("name: a\ntrain: {lr: inf}", "sweep.yaml:2", "valid number"),
        ("train: {}", "sweep.yaml", "`name` is missing"),
        ("name: ../up", "sweep.yaml:1", "`name` (='../up')"),
        ("name: a..b", "sweep.yaml:1", "must not contain '..'"),
        ('name: "a\\0b"', "sweep.yaml:1", "`name`"),
        ("name: " + "n" * 300, "sweep.yaml:1", "`name`"),
        ("name: a\ngrid:\n  norm: bn", "sweep.yaml:3", "valid list"),
        ("name: a\ngrid:\n  norm: [bn, bm]", "sweep.yaml:3", "`grid.norm`"),
        ("name: a\ngrid:\n  norm: [bn, bn]", "sweep.yaml:3", "holds a value twice"),
        ("name: a\nsearch: {lr: {min: 1, max: 0.1}}", "sweep.yaml:2", "must be below"),
        ("name: a\nsearch: {lr: {min: 0, max: 0.1, scale: log}}", "sweep.yaml:2", "positive on a log scale"),
        ("name: a\nsearch: {lr: {min: 0.01, max: 0.1}}", "sweep.yaml", "`search.trials` is missing"),
        ("name: a\nsearch: {method: grid, lr: {min: 0.01, max: 0.1}}", "sweep.yaml", "needs lists"),
        ("name: a\nsearch: {lr: [1e-3], try_first: [{norm: bn}]}", "sweep.yaml", "must name the searched fields"),
        ("name: a\ngrid: {lr: [1e-3]}\nsearch: {lr: [1e-3]}", "sweep.yaml", "both `grid` and `search`"),
        ("name: a\ntrain: {lr: 1e-3}\nsearch: {lr: [1e-3]}", "sweep.yaml", "and also under `grid` or `search`"),
        ("name: a\nscale: {workers: 3}", "sweep.yaml", "must be divisible by"),
        ("name: a\nscale: {max_concurrent: none}", "sweep.yaml:2", "'auto'"),
        ("name: a\nscale: {gpus_per_worker: 1.5}", "sweep.yaml:2", "must be a whole number"),
        ("name: a\ndataset: {name: parquet}", "sweep.yaml", "`dataset.path` is missing"),
        ("name: a\ndataset: {name: imagenet}", "sweep.yaml:2", "'digits', 'cifar10', "),
        ("name: a\ndataset: {size: 31}", "sweep.yaml", "must be even"),
        ("name: a\nstop: {rule: hyperband}", "sweep.yaml:2", "'asha', 'median', "),
        ("name: data", "sweep.yaml:1", "must not be one of data"),
        ("name: a\ntrain: {features: 99999999999999}", "sweep.yaml:2", "whole number from 1 to"),
        ("name: a\ntrain: {batch_size: 33}\nscale: {workers: 2}", "sweep.yaml:2", "must be divisible by"),
        ("name: a\ngrid: {batch_size: [32, 33]}\nscale: {workers: 2}", "sweep.yaml:2", "must be divisible by"),
        ("name: a\nscale: {workers: 2, gpus_per_worker: 0.25}", "sweep.yaml:2", "cannot share a GPU"),
        ("name: a\ngrid: {lr: [1, 1.0]}", "sweep.yaml:2", "holds a value twice"),
        ("name: a\nsearch: {trials: 3}", "sweep.yaml", "has no field to search"),
        ("name: a\nsearch: {lr: [1e-3], try_first: [{lr: 1e-2}]}", "sweep.yaml", "is outside `search.lr`"),
        ("name: a\nsearch: {trials: 2, lr: {min: 1e-4, max: 1e-2}, try_first: [{lr: 1}]}", "sweep.yaml", "is outside"),
        ("name: a\nsearch: {lr: [1, 2], try_first: [{lr: 1}, {lr: 1}]}", "sweep.yaml", "twice"),
        (f"name: a\ngrid: {{seed: {list(range(200))}, features: {list(range(1, 200))}}}", "sweep.yaml", "10000 are allowed"),
        ("name: a\nsearch:\n  trials: 2\n  levels: {min: 2, max: 9}", "sweep.yaml:4", "`levels` (=9) is too many for images of 32×32 pixels: they cannot be halved again after level 4; lower `levels` to at most 5"),
        ("name: a\ngrid: {levels: [2, 5, 6]}", "sweep.yaml:2", "`levels` (=6) is too many"),
        ("name: a\ntrain: {levels: 5}\ndataset: {size: 16}", "sweep.yaml:2", "`levels` (=5) is too many for images of 16×16"),
        ("name: a\nsearch:\n  trials: 2\n  batch_size: {min: 8, max: 32}\nscale: {workers: 2}", "sweep.yaml:4", "not divisible by `scale.workers` (=2); list the values to try, such as [8, 16, 32]"),
        ("name: a\nsearch:\n  trials: 2\n  features: {min: 4, max: 8}\n  try_first: [{features: 4.5}]", "sweep.yaml:5", "valid integer"),
        ("name: a\ngrid: {norm: [wn, bn]}\nsearch: {batch_size: [1, 8], levels: [2, 5]}", "sweep.yaml:3", "`batch_size` (=1) is too small for `norm: bn`"),
        ("name: a\ntrain: {norm: sn, levels: 5, batch_size: 1}", "sweep.yaml:2", "`batch_size` (=1) is too small for `norm: sn`"),
        ("name: a\nstop:\n  rule: asha\n  patience: 9", "sweep.yaml:4", "`stop.patience` applies to `rule: patience`, but `stop.rule` is asha"),
        ("name: a\nstop: {rule: median, reduction: 4}", "sweep.yaml:2", "`stop.reduction` applies to `rule: asha`, but `stop.rule` is median"),
        ("name: a\nstop: {rule: patience, reduction: 4}", "sweep.yaml:2", "`stop.reduction` applies to `rule: asha`"),
        ("name: a\nstop:\n  grace: 500", "sweep.yaml:3", "`stop.grace` has no effect without `stop.rule`"),
        ("name: a\nreplicate: {top: 2}", "sweep.yaml:2", "`replicate.top` has no effect without `replicate.seeds`"),
        ("name: a\ntrain: {warmup_factor: 0.2}", "sweep.yaml:2", "`warmup_factor` has no effect without `train.warmup`"),
        ("name: a\ntrain: {lr_decay: linear, iterations: 9, evaluate_every: 9}", "sweep.yaml:2", "`lr_decay` has no effect with `evaluate_every` (=9) and `iterations` (=9)"),
        ("name: a\ngrid: {warmup_factor: [0.1, 0.2]}", "sweep.yaml:2", "`warmup_factor` has no effect without `train.warmup`"),
        ("name: a\ntrain: {blocks: 3}", "sweep.yaml:2", "`blocks` applies to `architecture: resnet`, but `architecture` is dcgan"),
        ("name: a\ntrain: {architecture: dcgan, blocks: 3}", "sweep.yaml:2", "remove `blocks`, or change `architecture`"),
        ("name: a\nstop: {patience: 7}", "sweep.yaml:2", "`stop.patience` has no effect without `stop.rule`"),
        ("name: a\ntrain: {beta1: 0.9}", "sweep.yaml:2", "`beta1` applies to `optimizer: adam`"),
        ("name: a\ntrain: {epsilon: true}", "sweep.yaml:2", "`train.epsilon`"),
        ("name: a\ngrid: {optimizer: [adam, rmsprop]}\nsearch: {beta1: [0.0, 0.5]}", "sweep.yaml", "of rmsprop that differ in it would be the same"),
        ("name: a\ndataset: {path: images}", "sweep.yaml:2", "`dataset.path` has no effect without `dataset.name`"),
        ("name: a\nsearch: {lr: [1e-3, 1e-4], seed: 3}", "sweep.yaml:2", "`search.seed` applies to `method: random or tpe`"),
        ("name: a\nsearch: {seed: 3}", "sweep.yaml", "has no field to search"),
        ("name: a\nsearch: {method: tpe}", "sweep.yaml", "has no field to search"),
        ("name: a\nstop:\n  rule: asha\n  grace: 600\ntrain: {iterations: 600}", "sweep.yaml:4", "`rule: asha` stops trials at iteration 1000 at the earliest, but they end at 600"),
        ("name: a\nstop: {rule: median, grace: 1000}\ntrain: {iterations: 1000}", "sweep.yaml:2", "`stop.grace` (=1000) is too large"),
        ("name: a\nstop: {rule: patience}\ntrain: {iterations: 5000}", "sweep.yaml:2", "`stop.patience` (=5000) is too large: `rule: patience` stops trials at iteration 6000 at"),
        ("name: a\nstop: {rule: asha, grace: 90}\ntrain:\n  iterations: 800\n  evaluate_every: 800", "sweep.yaml:5", "`evaluate_every` (=800) is too large: `rule: asha` stops trials at iteration 800"),
        ("name: a\nstop: {rule: asha, grace: 950}\ngrid: {iterations: [500, 900]}", "sweep.yaml:2", "they end at 900"),
        ("name: a\nsearch: {lr: [1e-3, 1e-4]}\nstop: {grace: 20000}", "sweep.yaml:3", "`stop.grace` (=20000) is too large: `rule: median` stops"),
        ("name: a\nsearch: {lr: [1e-3, 1e-4], repeats: 2}", "sweep.yaml:2", "greater than or equal to 3"),
        ("name: a\nsearch: {repeats: 3}", "sweep.yaml", "has no field to search"),
        ("name: a\ngrid: {seed: [1, 2]}\nsearch: {lr: [1e-3, 1e-4], repeats: 3}", "sweep.yaml", "remove `grid.seed`, or `search.repeats`"),
        ("name: a\nsearch: {method: random, lr: {min: 1, max: 2}, trials: 4000, repeats: 3}", "sweep.yaml", "define 12000 trials"),
        ("- a", "sweep.yaml", "must be a mapping"),
        ("", "sweep.yaml", "must be a mapping"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_line_and_the_remedy(text, where, says):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith(where)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        read("name: a\ntrain: {featurs: 1, levls: 2}\nstop: {rul: asha}")
    assert len(str(caught.value).splitlines()) == 3


def test_axes_and_space_are_in_the_order_of_the_configuration():
    found = read(
        "name: a\ngrid: {update: [simultaneous], norm: [wn, bn]}\nsearch: {lr: [1e-3], features: [4]}"
    )
    assert list(found.axes()) == ["norm", "update"]
    assert list(found.space()) == ["features", "lr"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_shipped_sweep_is_valid_and_can_be_planned(path, monkeypatch):
    def away() -> None:
        raise OSError("no such host")

    # a test asks no real storage
    monkeypatch.setattr("raygan.storage.filesystem", lambda address: retrying(away, address))
    monkeypatch.setattr("raygan.retries.time.sleep", lambda _: pytest.fail("it tries again"))
    result = CliRunner().invoke(main, [str(path), "--dry-run"])
    assert result.exit_code == 0, result.output
    loaded = spec.load(path)
    assert loaded.name in result.output
    assert f"{math.prod(map(len, loaded.axes().values()))} cells" in result.output


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_resolved_yaml_means_the_same_sweep(path):
    loaded = spec.load(path)
    again = read(yaml.safe_dump(loaded.resolved(), sort_keys=False))
    assert again.resolved() == loaded.resolved()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_smoke_keeps_the_cells(path):
    loaded = spec.load(path)
    small = spec.smoke(loaded)
    assert small.axes() == loaded.axes()
    assert small.train.iterations == 20
    assert small.name != loaded.name


def test_smoke_makes_both_networks_tiny():
    small = spec.smoke(read("name: a\ntrain: {features: 256, features_d: 512}")).train
    assert (small.features, small.features_d) == (8, None)


def test_overrides():
    path = SWEEPS[0]
    changed = spec.load(path, ["train.features=4", "search.lr=[1e-2]", "name=other"])
    assert (changed.train.features, changed.space(), changed.name) == (4, {"lr": [0.01]}, "other")


def test_an_override_may_name_a_value_of_an_axis(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ngrid: {code_size: [16, 32]}\n")
    changed = spec.load(path, ["scale.by.code_size.16.workers=2"])
    assert [changed.scale.of({"code_size": size}).most for size in (16, 32)] == [2, 1]
    with pytest.raises(ConfigError, match=r"`scale\.by\.code_size\.64` is no value of"):
        spec.load(path, ["scale.by.code_size.64.workers=2"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.features", "must be key=value"),
        ("train..x=1", "must be key=value"),
        ("name.x=1", "is not a section"),
        ("train.featurs=1", "--set train.featurs=1: unknown key `train.featurs`"),
        ("train.features=[", "not valid YAML"),
    ],
)
def test_wrong_overrides_are_named(override, says):
    with pytest.raises(ConfigError) as caught:
        spec.load(SWEEPS[0], [override])
    assert says in str(caught.value)


def test_wrong_yaml_exits_2_before_ray_is_even_imported(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("name: a\ntrain:\n  featurs: 3\n")
    result = CliRunner().invoke(main, [str(path)])
    assert result.exit_code == 2
    assert f"{path}:3: unknown key `train.featurs`" in result.output
    assert not (tmp_path / "results").exists()


def test_schema_lists_every_key():
    schema = json.loads(CliRunner().invoke(main, ["--schema"]).output)
    assert set(schema["properties"]) == set(spec.spec_class().model_fields)
    assert set(schema["$defs"]["Train"]["properties"]) == {*fields(), "checkpoint_every"}
    assert "description" in schema["$defs"]["Train"]["properties"]["norm"]
    assert schema["properties"]["preset"]["enum"] == ["authors-dcgan", "authors-resnet", None]
    own = schema["$defs"]["OwnTrain"]["properties"]
    assert "levels" in own
    assert not [name for name, field in own.items() if "default" in field]


values = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2**70), st.floats(), st.text(max_size=5),
    st.lists(st.one_of(st.integers(), st.sampled_from(["bn", "wn"])), max_size=3),
    st.dictionaries(st.sampled_from(["lr", "norm", "min", "max", "scale", "rule"]),
                    st.one_of(st.floats(), st.lists(st.floats(), max_size=2)), max_size=3),
)  # fmt: skip
sections = st.one_of(
    values, st.dictionaries(st.sampled_from([*fields(), "path", "workers"]), values, max_size=4)
)


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from([*spec.spec_class().model_fields, "other"]), sections, max_size=4
    )
)
def test_any_mapping_is_accepted_or_refused_in_our_own_words(data):
    try:
        spec.validate(parse(yaml.safe_dump({"name": "a", **data}), "fuzz.yaml"))
    except ConfigError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "stop: {rule: none, grace: 9, reduction: 2}",  # switched off, perhaps by --set stop.rule=none
        "replicate: {seeds: 0, top: 2}",
        "final: {steps: 9}",  # of `raygan evaluate`
        "search: {lr: [1e-3, 1e-4], repeats: 3}\nstop: {grace: 500}",
        "stop: {rule: asha, grace: 1000, patience: 5000}",  # as an earlier version stored it
        "search: {lr: [1e-3, 1e-4], seed: 0}",
        "train: {architecture: dcgan, blocks: 2, warmup: 0, warmup_factor: 0.2}",
        "search: {batch_size: [8, 16], levels: [2, 5], norm: [wn, bn]}\nscale: {workers: 2}",
        "search: {trials: 3, levels: {min: 1, max: 5}}",
        "search: {trials: 3, batch_size: {min: 8, max: 32}}",
        "stop: {rule: asha}\ngrid: {iterations: [500, 1001]}\ntrain: {evaluate_every: 100}",
        "stop: {rule: patience}\ntrain: {iterations: 6001}",
        "dataset: {name: folder, path: images}\ntrain: {levels: 9}",  # their size is not known yet
    ],
)
def test_what_is_no_mistake_is_accepted_and_so_is_what_is_stored_of_it(text):
    found = read(f"name: a\n{text}")
    again = read(yaml.safe_dump(found.resolved(), sort_keys=False))
    assert again.resolved() == found.resolved()


@pytest.mark.parametrize(
    "text",
    [
        "stop: {rule: asha, patience: 9}",
        "stop: {rule: asha, grace: 900}\ntrain: {iterations: 600}",
        "search: {trials: 3, levels: {min: 2, max: 9}}",
        "search: {trials: 3, batch_size: {min: 8, max: 32}}\nscale: {workers: 2}",
        "search: {lr: [1e-3, 1e-4], seed: 3}",
        "dataset: {name: folder, path: 's3://key:secret@bucket/images'}",
        "tracking: {uri: 'http://user:secret@host'}",
    ],
)
def test_sweep_that_an_earlier_version_began_is_still_read(text, tmp_path):
    with pytest.raises(ConfigError):
        read(f"name: a\n{text}")
    old = spec.validate(parse(f"name: a\n{text}", "sweep.yaml"), known=True)
    sweep = Storage(str(tmp_path))
    state.store(sweep, old, one_set(id="1", digest="d", baseline=0.1))
    assert state.stored_spec(sweep).resolved() == old.resolved()
    assert "secret" not in state.dump(old)


SECRET = [
    "storage: &",
    "dataset: {name: folder, path: &}",
    "tracking: {uri: &}",
    "tracking: &",
    "storage: [&]",
    "trackign: {uri: &}",
    "train: {lr: &}",
    "search: {lr: [1, &]}",
    "search: {lr: {min: &, max: 1}}",
    "name: &",
    "dataset: {?&: 1}",
    "?&: 1",
]
ADDRESSES = [
    "http://user:hunter2@host:5000",
    "postgresql://user:hunter2@host/mlflow",
    "s3://key:hunter2@bucket/images",
    "abfs://container@account/x?sig=hunter2",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("line", SECRET)
def test_secret_in_an_address_is_refused_wherever_it_stands_and_not_repeated(line, address):
    text = line.replace("?&", f'"{address}"').replace("&", f'"{address}"')
    with pytest.raises(
        ConfigError, match=r"^sweep.yaml:\d.*holds a user, a password or a key"
    ) as caught:
        read(f"name: a\n{text}" if not line.startswith("name") else text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "override",
    ["storage={}", "tracking.uri='{}'", "train.lr={}", "dataset.path=[s3://a/b, '{}']", "storage=['{}",
     "storage='{}' #", "tracking={{uri: '{}'}}", "{}", "name.x={}"],
)  # fmt: skip
def test_secret_in_an_option_is_not_repeated(override, address):
    with pytest.raises(ConfigError) as caught:
        spec.load(SWEEPS[0], [override.format(address)])
    assert str(caught.value).startswith("--set ")
    assert "hunter2" not in str(caught.value)


def test_more_trials_than_settings_are_planned_as_what_they_are(tmp_path):
    text = "search: {{method: random, trials: {}, norm: [wn, bn], features: {{min: 4, max: 6}}}}\n"
    path, runner = tmp_path / "a.yaml", CliRunner()
    path.write_text("name: a\n" + text.format(7) + "grid: {seed: [0, 1]}\n")
    output = runner.invoke(main, [str(path), "--dry-run"]).output
    assert "2 cells × (6 trials + 0 replicates) = 12 trials" in output
    assert "`search.trials` (=7) is more than there are settings: each cell tries all 6" in output
    path.write_text("name: a\n" + text.format(5))
    output = runner.invoke(main, [str(path), "--dry-run"]).output
    assert "1 cells × (5 trials + 0 replicates) = 5 trials" in output
    assert "more than there are settings" not in output


def test_every_shape_of_trial_is_tried_on_the_images_before_any_starts():
    found = read(
        "name: a\ndataset: {name: folder, path: x}\ngrid: {norm: [wn, bn], seed: [0, 1]}\n"
        "search: {trials: 2, batch_size: {min: 1, max: 64}, levels: {min: 2, max: 9}}"
    )
    shapes = {(c.norm, c.batch_size, c.levels) for c in checks.extremes(found, "folder")}
    assert shapes == {(n, b, v) for n in ("wn", "bn") for b in (1, 64) for v in (2, 9)}


@pytest.mark.parametrize("rule", ["asha", "median", "patience", "none"])
def test_smoke_test_of_any_rule_is_valid(rule):
    assert spec.smoke(read(f"name: a\nstop: {{rule: {rule}}}")).stop.rule == rule


def test_early_stopping_that_is_not_fair_is_refused_before_a_sweep_begins():
    words = r"`stop.grace` \(=999\) is below 5% of `iterations` \(=20000\).* raise it to 2000"
    with pytest.raises(ConfigError, match=words):
        checks.check_fair(read("name: a\nstop: {rule: asha, grace: 999}"))
    checks.check_fair(read("name: a\nstop: {rule: asha, grace: 1000}"))
    checks.check_fair(spec.smoke(read("name: a\ngrid: {iterations: [20000]}\nstop: {rule: asha}")))


RECIPES = """
from raygan.recipes import Loss, Norm

class One(Norm):
    '''A norm.'''

    name = "x"

class Log(Norm):
    '''A norm.'''

    name = "x_log"

class Upper(Norm):
    '''A norm.'''

    name = "X"

class LogHinge(Loss):
    '''A loss.'''

    name = "log_hinge"
    real = fake = generator = None

    p: int = 1
    '''A parameter.'''
    p_: int = 1
    '''Another.'''
    p__: int = 1
    '''A third one.'''
"""
P = "p" * 182


@pytest.fixture
def mine() -> Iterator[None]:
    recipe.use([recipe.RecipeFile("mine.py", RECIPES.replace("    p", f"    {P}"))])
    yield
    recipe.keep_only({})


TWICE = "grid: {norm: [x, x_log], loss: [hinge, log_hinge]}\n"


@pytest.mark.usefixtures("mine")
def test_cells_that_would_share_a_name_are_refused_before_a_sweep_begins():
    twice = read(f"name: a\n{TWICE}")
    with pytest.raises(ConfigError) as error:
        checks.check_names(twice)
    assert str(error.value) == (
        "the cells (norm: x, loss: log_hinge) and (norm: x_log, loss: hinge) would both be called "
        "`x_log_hinge`, but each needs a name of its own: rename one of the recipes, or give a "
        "data set another `label`"
    )
    with pytest.raises(ConfigError, match="would be called `x` and `X`, and some file systems"):
        checks.check_names(read("name: a\ngrid: {norm: [x, X]}"))
    checks.check_names(read("name: a\ngrid: {norm: [x, x_log], loss: [hinge]}"))
    # what an earlier version accepted is resumed, but not extended by more such cells
    checks.check_names(twice, twice)
    with pytest.raises(ConfigError, match="would both be called `x_log_hinge_seed=2`"):
        checks.check_names(
            read(f"name: a\n{TWICE.replace('}', ', seed: [1, 2]}')}"),
            read(f"name: a\n{TWICE.replace('}', ', seed: [1]}')}"),
        )


@pytest.mark.usefixtures("mine")
def test_names_and_titles_that_cannot_be_stored_are_refused_before_a_sweep_begins():
    more = "name: a\ntrain: {loss: log_hinge}\nreplicate: {seeds: 1000}\nwarmup: {}\n"
    whole, longer = (read(f"{more}grid: {{{P}: [{value}]}}") for value in (1, 10))
    (cell,) = plan.cells(whole)
    name = f"{plan.replicate_id(whole, cell, 999, cell.name)}-warmup"
    assert len(name) == checks.MOST_NAME
    checks.check_names(whole)
    words = r"the name of a trial of the cell `p+=10` may have up to 201 characters, and at most 200 are"
    with pytest.raises(ConfigError, match=words):
        checks.check_names(longer)
    checks.check_names(longer, longer)
    checks.check_names(read(f"{more}search: {{{P}: [1], {P}_: [1]}}"))
    with pytest.raises(ConfigError, match=r"the title of a trial of .* at most 500 are allowed"):
        checks.check_names(read(f"{more}search: {{{P}: [1], {P}_: [1], {P}__: [1]}}"))


@pytest.mark.parametrize("every", ["5", "1.5", "0", "5x", "true"])
def test_an_interval_of_checkpoints_that_is_none_is_refused_with_its_line(every):
    text = f"name: a\ntrain:\n  checkpoint_every: {every!r}\n"
    if every == "5":
        assert read(text).train.checkpoint_every == "5"
        return
    with pytest.raises(
        ConfigError, match=r"sweep.yaml:3: .*iterations, such as 1000, or a duration"
    ):
        read(text)


def test_how_often_a_checkpoint_is_kept_is_not_what_is_trained():
    often, default = read("name: a\ntrain: {checkpoint_every: 10}\n"), read("name: a\n")
    assert default.train.checkpoint_every == "5m"
    assert often.train_config() == default.train_config()
    plain = default.model_copy(update={"train": often.train})
    assert content(plain, "i", "c") == content(default, "i", "c")
    for section in ("grid: {checkpoint_every: [1, 2]}", "search: {checkpoint_every: [1, 2]}"):
        with pytest.raises(ConfigError, match="checkpoint_every"):
            read(f"name: a\n{section}\n")
