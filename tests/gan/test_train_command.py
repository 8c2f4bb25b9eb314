"""`python -m raygan.gan.train`, by itself and under torchrun, with no Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from raygan import recipe
from raygan.folder import checkpoint_file
from raygan.gan import checkpoint
from raygan.gan.config import fields
from raygan.gan.state import TrainState
from raygan.gan.train_command import main

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    "features": 2,
    "code-size": 4,
    "batch-size": 8,
    "iterations": 4,
    "evaluate-every": 2,
    "reconstruction-steps": 2,
    "data-running": 10,
    "data-final": 10,
    "data-size": 16,
}
TINY = [f"--{name}={value}" for name, value in OPTIONS.items()]
MODULE = ["-m", "raygan.gan.train"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[list[dict[str, float]], str]:
    """The evaluations that it printed, and what it said beside them."""
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs, or none")
@pytest.mark.cluster
def test_one_process_and_two_under_torchrun_train_alike(tmp_path, capsys):
    two = start(*TORCHRUN, *MODULE, *TINY, "--out", str(tmp_path / "two"))
    main([*TINY, "--out", str(tmp_path / "one")])  # in this process: its imports are paid for
    printed = capsys.readouterr()
    alone, (together, said) = list(map(json.loads, printed.out.splitlines())), finish(two)
    assert "mean image: reconstruction loss 0." in printed.err
    assert said.count("mean image: reconstruction loss 0.") == 1
    assert [line["step"] for line in alone] == [line["step"] for line in together] == [2, 4]
    for a, b in zip(alone, together, strict=True):
        a.pop("perf/images_per_second")
        b.pop("perf/images_per_second")
        assert a == pytest.approx(b, rel=1e-3)
    for out in (tmp_path / "one", tmp_path / "two"):
        assert checkpoint.load_latest(out / "checkpoints")[0]["step"] == 4
        for picture in ("samples.png", "reconstructions.png"):
            with Image.open(out / picture) as image:
                assert image.format == "PNG"


def lines(capsys) -> list[dict[str, float]]:
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in printed:
        line.pop("perf/images_per_second")
    return printed


def test_the_same_command_goes_on_where_it_stopped(tmp_path, capsys):
    whole, parts = ["--out", str(tmp_path / "whole")], ["--out", str(tmp_path / "parts")]
    main([*TINY, "--iterations", "6", *whole])
    expected = lines(capsys)
    main([*TINY, *parts])
    first = lines(capsys)
    main([*TINY, "--iterations", "6", *parts])
    said = capsys.readouterr()
    assert "resumed after iteration 4" in said.err
    assert [line["step"] for line in first] == [2, 4]
    (last,) = map(json.loads, said.out.splitlines())
    last.pop("perf/images_per_second")
    assert [*first, last] == expected


def test_what_is_true_or_false_is_switched(tmp_path, capsys):
    losses = []
    for option in ("--flip", "--no-flip"):
        main([*TINY, option, "--out", str(tmp_path / option)])
        losses.append([line["train/loss_d"] for line in lines(capsys)])
    assert losses[0] != losses[1]


EACH = ["--checkpoint-every", "1"]


def test_the_last_two_are_kept_with_the_best_generator_in_them(tmp_path, capsys):
    main([*TINY, *EACH, "--evaluate-every", "1", "--iterations", "5", "--out", str(tmp_path)])
    losses = {line["step"]: line["val/reconstruction_loss"] for line in lines(capsys)}
    best = min(losses, key=losses.get)
    folder = tmp_path / "checkpoints"
    last = checkpoint.load_latest(folder)[0]
    assert last["step"] == 5
    assert (last["best"]["step"], last["best"]["loss"]) == (best, losses[best])
    assert len(checkpoint.steps(folder)) <= 2


def test_the_last_one_is_written_whatever_the_interval(tmp_path, capsys):
    main([*TINY, "--checkpoint-every", "1h", "--out", str(tmp_path)])
    assert checkpoint.steps(tmp_path / "checkpoints") == [4]


def test_the_best_of_an_earlier_version_is_not_deleted(tmp_path, capsys):
    main([*TINY, "--iterations", "2", "--out", str(tmp_path)])
    folder = tmp_path / "checkpoints"
    saved = checkpoint.load_latest(folder)[0]
    del saved["best"]
    checkpoint.save(saved | {"best_loss": 0.0}, folder, 2)
    main([*TINY, "--iterations", "8", "--out", str(tmp_path)])
    checkpoint.save(checkpoint.load(folder / checkpoint_file(8)), folder, 8)
    assert checkpoint.steps(folder) == [2, 8]


def test_a_damaged_checkpoint_is_passed_over_aloud(tmp_path, capsys):
    main([*TINY, "--iterations", "2", "--out", str(tmp_path)])
    folder = tmp_path / "checkpoints"
    kept = checkpoint.load_latest(folder)[0]
    checkpoint.save(kept, folder, 4)
    os.truncate(folder / checkpoint_file(4), 100)
    capsys.readouterr()
    main([*TINY, "--iterations", "4", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert "skipped: " in said
    assert "step-000000004.pt" in said
    assert "resumed after iteration 2" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "error: `batch_size` (=0) must be a whole number from 1 to "),
        (["--lr", "-1"], "error: `lr` (=-1.0) must be a positive number"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--lr-d", "-1"], "error: `lr_d` (=-1.0) must be a positive number"),
        (["--norm", "no-such"], "argument --norm: invalid choice: 'no-such'"),
        (
            ["--checkpoint-every", "5x"],
            "error: `checkpoint_every` (='5x') must be a number of iter",
        ),
        (["--no-such-option", "1"], "unrecognized arguments"),
        (["--data-size", "15"], "error: `dataset.size` (=15) must be even"),
        (["--data-name", "folder"], "error: `dataset.path` is missing"),
        (["--data-name", "folder", "--data-path", "/no/such"], "error: /no/such: no such file"),
        (["--levels", "9"], "error: `levels` (=9) is too many"),
        (
            ["--norm", "bn", "--batch-size", "1", "--levels", "4"],
            "error: `batch_size` (=1) is too small for `norm: bn`",
        ),
    ],
)
def test_a_wrong_value_exits_with_2_and_says_which(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main([*TINY, "--out", str(tmp_path), *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_checkpoint_of_another_configuration_exits_with_2(tmp_path, capsys):
    main([*TINY, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        main([*TINY, "--out", str(tmp_path), "--norm", "bn"])
    assert caught.value.code == 2
    assert "norm was 'wn', is 'bn'" in capsys.readouterr().err


def test_a_run_that_diverges_exits_with_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*TINY, "--norm", "vanilla", "--lr", "1e30", "--out", str(tmp_path)])
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert "diverged: a metric was not finite at iteration 2" in said
    assert "Traceback" not in said
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_behind_a_damaged_last_checkpoint_there_is_always_one_to_go_on_from(tmp_path, capsys):
    folder = tmp_path / "checkpoints"

    def go_on(iterations: int) -> str:
        main([*TINY, "--out", str(tmp_path), "--iterations", str(iterations)])
        return capsys.readouterr().err

    go_on(4)
    go_on(5)
    assert {4, 5} <= set(checkpoint.steps(folder))
    os.truncate(folder / checkpoint_file(5), 100)
    assert "resumed after iteration 4" in go_on(6)
    assert {4, 6} <= set(checkpoint.steps(folder))  # 5 is not one to go on from
    os.truncate(folder / checkpoint_file(6), 100)
    assert "resumed after iteration 4" in go_on(8)


def test_parameters_of_data_sources_are_options(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*TINY, "--data-pool", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert (
        "`dataset.pool` applies to `name: cifar10` only, not to digits" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "parameters" not in capsys.readouterr().out


def test_a_note_about_an_own_metric_is_printed_once(tmp_path, capsys):
    source = """
from raygan.gan.judge.metric import Metric

class Nothing(Metric):
    \"\"\"Not a number.\"\"\"
    name = "nothing"

    def measure(self, samples, images):
        return float("nan")
"""
    recipe.use([recipe.RecipeFile("own.py", source)])
    try:
        main([*TINY, "--out", str(tmp_path)])
    finally:
        recipe.use([])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err.count("val/nothing is left out") == 1


def test_help_names_every_field(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in fields())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_a_checkpoint_of_its_iteration(
    tmp_path, capsys, monkeypatch, number, code
):
    main([*TINY, f"--out={tmp_path / 'whole'}"])
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    out, handler = tmp_path / "out", signal.getsignal(number)
    advance = TrainState.advance

    def interrupted(self: TrainState) -> None:
        advance(self)
        if self.step == 3:
            signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(TrainState, "advance", interrupted)
        with pytest.raises(SystemExit) as caught:
            main([*TINY, f"--out={out}"])
    assert caught.value.code == code
    assert signal.getsignal(number) is handler
    assert checkpoint.steps(out / "checkpoints") == [3]
    seen = capsys.readouterr()
    assert "stopped after iteration 3; the same command resumes" in seen.err

    main([*TINY, f"--out={out}"])
    told = [
        json.loads(line) for line in [*seen.out.splitlines(), *capsys.readouterr().out.splitlines()]
    ]
    for evaluation in (*told, *expected):
        evaluation.pop("perf/images_per_second")
    assert told == expected
