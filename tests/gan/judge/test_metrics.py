"""Metrics as recipes: a user's own is measured beside the built-in one, and harms nothing."""

from __future__ import annotations

import math

import pytest
import torch

from raygan import recipe
from raygan.errors import ConfigError
from raygan.gan.judge.metrics import METRICS, measure
from raygan.gan.train import train
from raygan.recipe import RecipeFile

OWN = '''
import torch
from raygan.gan.judge.metric import Metric

class Brightness(Metric):
    """Mean brightness of the samples."""
    name = "brightness"
    scale: float = 1.0
    """Factor."""

    def measure(self, samples, images):
        return self.scale * samples.mean().item()
'''


@pytest.fixture
def own(request):
    """A user's own metric whose last line is the parameter."""
    text = OWN.replace("self.scale * samples.mean().item()", request.param)
    recipe.use([RecipeFile("brightness.py", text)])
    yield
    recipe.use([])


MEAN = "self.scale * samples.mean().item()"
SAMPLES = torch.full((4, 1, 16, 12), 0.25)


@pytest.mark.parametrize("own", [MEAN], indirect=True)
@pytest.mark.usefixtures("own")
def test_every_metric_of_the_table_is_measured_at_each_evaluation(fresh, images):
    assert METRICS.names[-1] == "brightness"
    values, notes = measure({}, SAMPLES, images, 0)
    assert (values["val/brightness"], notes) == (0.25, [])
    assert measure({"scale": 2.0}, SAMPLES, images, 0)[0]["val/brightness"] == 0.5
    state = fresh()
    for evaluation in train(state.config, images, state):
        assert 0 < evaluation.metrics["val/brightness"] < 1
        assert "val/variety" in evaluation.metrics
        assert evaluation.finite
    assert [point["step"] for point in state.history if "val/brightness" in point] == [2, 4, 5]


@pytest.mark.parametrize("own", ["float('nan')", "samples.sum() / 0"], indirect=True)
@pytest.mark.usefixtures("own")
def test_an_own_metric_that_is_not_finite_ends_no_trial(fresh, images):
    state = fresh()
    evaluations = list(train(state.config, images, state))
    assert all(evaluation.finite for evaluation in evaluations)
    assert not any("val/brightness" in evaluation.metrics for evaluation in evaluations)
    (note,) = {note for evaluation in evaluations for note in evaluation.notes}
    assert note == "val/brightness is left out of evaluations at which it is no finite number"


def test_a_variety_that_is_not_finite_still_says_that_the_samples_are_no_numbers(images):
    values, notes = measure({}, torch.full((256, 1, 16, 12), math.nan), images, 0)
    assert math.isnan(values["val/variety"])
    assert notes == []


@pytest.mark.parametrize("own", ["samples.zero_().sum() + torch.rand(())"], indirect=True)
@pytest.mark.usefixtures("own")
def test_an_own_metric_changes_nothing_that_others_use(images):
    samples = SAMPLES.clone()
    before = torch.random.get_rng_state()
    first = measure({}, samples, images, 7)
    assert measure({}, samples, images, 7) == first != measure({}, samples, images, 8)
    assert torch.equal(samples, SAMPLES)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("nothing", r"^brightness.py:12: NameError: name 'nothing' is not defined"),
        ("samples @ samples", r"^brightness.py:12: RuntimeError"),
        ("'bright'", r"^the metric `brightness` returned 'bright'; return a number"),
        ("samples.mean(0)", r"^the metric `brightness` returned tensor"),
    ],
    indirect=["own"],
)
def test_an_error_in_an_own_metric_is_named(own, message, images):
    with pytest.raises(ConfigError, match=message):
        measure({}, SAMPLES, images, 0)


@pytest.mark.parametrize("own", ["None"], indirect=True)
@pytest.mark.usefixtures("own")
def test_an_own_metric_that_does_not_apply_is_left_out(images):
    values, notes = measure({}, SAMPLES, images, 0)
    assert "val/brightness" not in values
    assert notes == []


def test_a_name_that_is_taken_is_refused():
    for name in ("reconstruction_loss", "variety"):
        with pytest.raises(ConfigError, match="name"):
            recipe.use([RecipeFile("own.py", OWN.replace('"brightness"', f'"{name}"'))])
    assert {"variety", "brightness"} & set(METRICS.names) == {"variety"}


def test_each_metric_is_a_sign_of_progress(monkeypatch, images):
    signs = []
    monkeypatch.setattr("raygan.liveness.progress", lambda: signs.append(1))
    measure({}, SAMPLES, images, 0)
    assert len(signs) == len(list(METRICS))
