import json
from dataclasses import asdict

import pytest
from click.testing import CliRunner
from rich.console import Console

from raygan.errors import ConfigError
from raygan.folder import SPEEDS_FILE
from raygan.gan.speed import Speed
from raygan.report.planning import detectable, seeds_needed
from raygan.storage import Storage
from raygan.sweep.commands import preview
from raygan.sweep.commands.sweep import main
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.estimate import STARTUP_SECONDS
from raygan.sweep.study.power import parse_sd, say_power
from raygan.sweep.study.study import Study
from tests.sweep.prepared import one_set

SWEEP = """
name: norms
grid: {norm: [bn, wn]}
search: {method: random, trials: 9, lr: {min: 1.0e-5, max: 1.0e-3, scale: log}}
stop: {rule: asha, grace: 1000, reduction: 3}
replicate: {seeds: 3}
train: {iterations: 9000, evaluate_every: 1000, batch_size: 32}
scale: {gpus_per_worker: 0.5, max_concurrent: 4}
budget: {gpu_hours: 40, usd_per_gpu_hour: 2.5}
"""
TEST = (224 + 4 * 200) * 2000 / (200 * 50)
"""As many evaluations as a final test takes: of the 1,797 digits, an eighth is held out for it."""


@pytest.fixture
def sweep(tmp_path) -> spec.SweepSpec:
    return spec.validate(parse(f"{SWEEP}storage: {tmp_path}", "x"))


@pytest.fixture
def shown(sweep, monkeypatch):
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))

    def shown() -> str:
        console = Console(width=160, record=True, quiet=False)
        with console.capture() as capture:
            preview.show_plan(sweep, console, None, calibrate=False)
        return capture.get()

    return shown


def test_plan_shows_what_the_trials_of_each_cell_take(tmp_path, monkeypatch):
    by = "{norm: {wn: {workers: 4}}}"
    text = SWEEP.replace("gpus_per_worker: 0.5", f"gpus_per_worker: 1, by: {by}")
    heavier = spec.validate(parse(f"{text}storage: {tmp_path}", "x"))
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (4, None))
    content = {cell: asdict(Speed(1.0, 9.0)) for cell in ("bn", "wn")}
    (Storage(str(tmp_path)) / "norms").write(SPEEDS_FILE, json.dumps(content).encode())
    console = Console(width=160)
    with console.capture() as capture:
        preview.show_plan(heavier, console, None, calibrate=False)
    output = capture.get()
    assert "each trial of bn: 1 workers × (1 CPUs, 1 GPUs)\n" in output
    assert "each trial of wn: 4 workers × (1 CPUs, 1 GPUs); at once: 4\n" in output
    # 12 trials of 9,000 s, 9 evaluations and a start in each cell: with one GPU, and with four
    hours = 12 * (9000 + 9 * 9 + STARTUP_SECONDS) / 3600
    assert f"{2 * hours:.2f} trial-hours, {5 * hours:.2f} GPU-hours" in output
    # final tests: 6 generators of each cell, as long as so many evaluations by as many workers
    assert f"in addition, {6 * 9 * (1 + 4) * TEST / 3600:.2f} worker-hours" in output


def test_plan_counts_what_will_run(shown):
    output = shown()
    assert "2 cells × (9 trials + 3 replicates) = 24 trials" in output
    assert "each trial: 1 workers × (1 CPUs, 0.5 GPUs); at once: 2" in output
    assert "iterations: at most 216,000; about " in output
    assert "time, GPU-hours and cost: unknown; --calibrate measures" in output
    assert "budget:     gpu_hours 40" in output
    assert (
        "final tests: at most 12 generators, on up to 224 images; each takes as long as about 205 "
        "evaluations\n"
    ) in output
    assert "name: norms" in output


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("none", None),
        ("wasserstein", "sample quality: wasserstein, at most 216 evaluations\n"),
        ("features", "sample quality: features, at most 216 evaluations, about 2 s each on a CPU"),
    ],
)
def test_what_the_quality_of_samples_costs_is_told(shown, sweep, monkeypatch, kind, told):
    monkeypatch.setattr(spec.SweepSpec, "quality", lambda _: kind)
    monkeypatch.setattr(preview.checks, "check_quality", lambda _: None)
    output = shown()
    assert (told is None and "sample quality" not in output) or told in output


def test_measured_rates_give_time_and_money(shown, sweep):
    rates = {cell: asdict(Speed(100.0, 2.0)) for cell in ("bn", "wn")}
    Storage(f"{sweep.storage}/norms").write("rates.json", json.dumps(rates).encode())
    output = shown()
    # 24 trials × (9000 / 100 + 9 × 2 + 8) seconds
    hours = 24 * 116 / 3600
    assert f"at most:    23m, {hours:.2f} trial-hours, {hours / 2:.2f} GPU-hours, $0.97" in output
    assert "3200" in output  # images per second
    assert f"evaluations; in addition, {12 * TEST * 2 / 3600:.2f} worker-hours" in output


def test_final_test_has_one_worker(sweep, monkeypatch, capsys):
    spread = sweep.model_copy(update={"scale": sweep.scale.model_copy(update={"workers": 4})})
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))
    rates = {cell: asdict(Speed(100.0, 0.5)) for cell in ("bn", "wn")}  # four together
    Storage(f"{sweep.storage}/norms").write("rates.json", json.dumps(rates).encode())
    preview.show_plan(spread, Console(width=160), None, calibrate=False)
    assert f"{12 * TEST * 2 / 3600:.2f} worker-hours" in capsys.readouterr().out


def test_plan_shows_each_data_set_and_what_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))
    sets = (
        "dataset:\n- {label: small, size: 16, final: 50}\n"
        "- {name: folder, path: /images, train: {iterations: 4500, features: 8}}\n"
    )
    both = spec.validate(parse(f"{SWEEP}{sets}storage: {tmp_path}".replace(
        "iterations: 9000, ", "reconstruction_steps: 100, "), "x"))  # fmt: skip
    rates = {cell.name: asdict(Speed(1.0, 9.0)) for cell in plan.cells(both)}
    (Storage(str(tmp_path)) / "norms").write(SPEEDS_FILE, json.dumps(rates).encode())
    console = Console(width=160)
    with console.capture() as capture:
        preview.show_plan(both, console, None, calibrate=False)
    output = capture.get()
    assert "data set small: digits, 16×16 pixels\n" in output
    assert "data set folder: folder, /images; features 8, iterations 4500\n" in output
    rows = {line.split()[0]: line.split()[3] for line in output.splitlines() if line[:6] in (
        "small_", "folder")}  # fmt: skip
    assert rows == {"small_bn": "20,000", "small_wn": "20,000",
                    "folder_bn": "4,500", "folder_wn": "4,500"}  # fmt: skip
    assert "4 cells × (9 trials + 3 replicates) = 48 trials" in output
    each = [20_000 + 20 * 9, 4500 + 5 * 9]  # the last iteration is evaluated, too
    seconds = 2 * 12 * (sum(each) + 2 * STARTUP_SECONDS)
    assert f"{seconds / 3600:.2f} trial-hours" in output
    assert "on up to 2000 images" in output


def test_trials_that_have_run_are_what_is_believed(shown, sweep):
    study = Study(sweep, Storage(f"{sweep.storage}/norms"))
    for planned in (study.next_trial(), study.next_trial()):
        study.heard(planned.id, {"step": 9000, "val/reconstruction_loss": 0.1})
        study.records[planned.id].seconds = 98.0
        study.ended(planned.id)
    output = shown()
    assert f"≤ {12 * 98 / 3600:.2f}" in output
    assert "about 205 evaluations\n" in output  # which are not known by themselves


def test_the_plan_says_which_difference_will_be_found(shown, sweep):
    assert (
        "power:      with 3 seeds, a difference of 9.7% between two cells would be found in 80% of "
        "sweeps; 2% takes 38 seeds, 5% takes 8 seeds, 10% takes 3 seeds\n            (1 comparison; "
        "spread of the loss between seeds 3.0%, assumed; --sd sets it)" in shown()
    )
    study = Study(sweep, Storage(f"{sweep.storage}/norms"))
    for losses in ([0.1] * 18, [0.1, 0.2, 0.3] * 2):
        for loss in losses:
            if (planned := study.next_trial()) is not None:
                study.heard(planned.id, {"step": 9000, "val/reconstruction_loss": loss})
                study.ended(planned.id)
    assert "seen in this sweep)" in shown()


@pytest.mark.parametrize("text", ["3x", "0", "-1%", "200%", ""])
def test_a_spread_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="such as 3%"):
        parse_sd(text)


def test_nothing_is_written(shown, tmp_path):
    shown()
    assert list(tmp_path.iterdir()) == []


def test_an_offline_plan_says_how_the_sweep_gets_into_mlflow(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))
    file = tmp_path / "a.yaml"
    file.write_text(f"{SWEEP}storage: {tmp_path}")
    done = CliRunner().invoke(main, [str(file), "--dry-run", "--offline"])
    assert done.exit_code == 0, done.output
    later = f"raygan sync norms --storage {tmp_path}"
    assert f"MLflow: nothing is copied to it (--offline); later: {later}" in done.output
    assert "MLflow" not in CliRunner().invoke(main, [str(file), "--dry-run"]).output


def test_lists_of_words_are_shown_and_a_path_is_no_markup(tmp_path, monkeypatch, capsys):
    text = "name: a\nsearch: {norm: [bn, wn]}\ndataset: {name: folder, path: '/[red]x', size: 32}\n"
    words = spec.validate(parse(f"{text}storage: {tmp_path}", "x"))
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))
    preview.show_plan(words, Console(width=160), None, calibrate=False)
    output = capsys.readouterr().out
    assert "grid: norm [bn, wn]" in output
    assert "path: /[red]x" in output


def test_plan_refuses_unfair_early_stopping_unless_an_earlier_version_began_so(shown, sweep):
    stop = sweep.stop.model_copy(update={"grace": 100})
    object.__setattr__(sweep, "stop", stop)
    with pytest.raises(ConfigError, match="is below 5%"):
        shown()
    data = one_set(id="1", digest="d", baseline=0.1)
    state.store(Storage(sweep.storage) / sweep.name, sweep, data)
    assert "early stopping: asha" in shown()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{seeds: 3}", "{seeds: 3, until: 5}", "with at most 5 seeds, a difference of 7.2%"),
        ("trials: 9", "trials: 9, repeats: 5", "with 5 repeats, a difference of 6.3%"),
    ],
)
def test_power_is_that_of_the_last_look_or_of_the_repeats(tmp_path, old, new, words):
    text = SWEEP.replace(old, new) + f"storage: {tmp_path}"
    lines: list[str] = []
    say_power(spec.validate(parse(text, "x")), [], 0.03, lines.append)
    assert words in lines[0]


SETS = "name: a\ndataset: [{label: a}, {label: b}]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{SETS}claims: [{{lower: wn, than: bn}}]", [(2, "data sets")]),
        (f"{SETS}claims: [{{lower: a_wn, than: a_bn}}]", [(1, "")]),
        (SETS, [(1, ""), (2, "data sets")]),
        ("name: a\nclaims: [{lower: wn, than: bn}]", [(1, "")]),
        ("name: a\nreplicate: {seeds: 3}", [(1, "")]),
    ],
)
def test_the_power_of_differences_over_strata_is_told(text, told):
    text = text if "replicate" in text else f"{text}\nreplicate: {{seeds: 3}}"
    lines: list[str] = []
    sweep = spec.validate(parse(f"{text}\ngrid: {{norm: [bn, wn]}}", "x"))
    say_power(sweep, [], 0.03, lines.append)
    *firsts, last = lines
    count = 3 if text.startswith(SETS) and "claims" not in text else 1
    assert f"({count} comparison" in last
    for line, (strata, word) in zip(firsts, told, strict=True):
        difference = detectable(0.03, 3, count, strata=strata)
        over = f"values of an axis, on average over {strata} {word}," if word else "cells"
        assert f"a difference of {difference:.1f}% between two {over} would be found" in line


def test_the_power_over_architectures_is_told_and_the_average_varies_less():
    lines: list[str] = []
    text = SWEEP.replace("grid: {", "claims: [{lower: wn, than: bn}]\ngrid: {architecture: [dcgan, "
                         "resnet], ")  # fmt: skip
    say_power(spec.validate(parse(text, "x")), [], 0.03, lines.append)
    assert "on average over 2 strata, would be found" in lines[0]
    # twice the runs: the same standard error and nearly the same t
    assert detectable(0.03, 50, strata=2) == pytest.approx(detectable(0.03, 100), rel=1e-3)
    assert seeds_needed(0.03, 2.0, strata=2) < seeds_needed(0.03, 2.0)


@pytest.mark.parametrize("when", ["opened", "read"])
def test_a_plan_is_shown_where_the_storage_is_not_reached(tmp_path, monkeypatch, capsys, when):
    class Far(Storage):
        def __init__(self, uri):
            if when == "opened":
                raise ConfigError("no") from OSError("no such host\nand more")
            super().__init__(str(tmp_path))

        def read(self, name, most=None):
            raise OSError("no such host\nand more")

    far = spec.validate(parse(f"{SWEEP}storage: s3://bucket/x", "x"))
    monkeypatch.setattr(preview, "_at_once", lambda spec, address: (2, None))
    monkeypatch.setattr(preview, "Storage", Far)
    preview.show_plan(far, Console(width=160), None, calibrate=False)
    output = capsys.readouterr().out
    assert "2 cells × (9 trials + 3 replicates) = 24 trials" in output
    assert (
        "`storage` (='s3://bucket/x') cannot be used (no such host): what is stored there is not"
    ) in output
    with pytest.raises(ConfigError, match="--calibrate needs it"):
        preview.show_plan(far, Console(), None, calibrate=True)


def test_a_local_storage_that_cannot_be_read_is_refused(shown, sweep, monkeypatch):
    monkeypatch.setattr(Storage, "read", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(ConfigError, match="cannot be used"):
        shown()
