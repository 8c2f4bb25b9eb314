"""The quality of samples in a run and at its end, with measures that only look at what they get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from raygan.data.images import ImageSet
from raygan.errors import ConfigError, DataError
from raygan.gan.config import TrainConfig
from raygan.gan.judge import quality, sample_quality, weights
from raygan.gan.pixels import as_float
from raygan.gan.state import TrainState
from raygan.gan.train import sample, train
from raygan.gan.workers import Workers
from tests.gan.conftest import SHAPE

KEY = "val/sliced_wasserstein"


@pytest.fixture
def with_final(images: ImageSet) -> ImageSet:
    """More final images than are needed at least."""
    return ImageSet.of(images.shards, images.running[:3], torch.arange(43, 60), "d", 0.0)


@pytest.fixture
def seen(monkeypatch) -> dict[str, list[Any]]:
    """What the measures get; a measure is the mean of the samples' pixels."""
    got: dict[str, list[Any]] = {"real": [], "samples": [], "kinds": []}

    def reference(kind, real, device, workers):
        got["kinds"].append(kind)
        got["real"].append(real)
        return f"reference {len(got['real'])}"

    def measure(kind, samples, real, workers=None):
        assert real == f"reference {len(got['real'])}"
        got["samples"].append(samples)
        return dict.fromkeys(quality.MEASURES[kind], float(samples.mean()))

    monkeypatch.setattr(quality, "check", lambda kind: None)
    monkeypatch.setattr(quality, "reference", reference)
    monkeypatch.setattr(quality, "measure", measure)
    return got


def test_each_evaluation_has_the_measures_of_its_samples(fresh, with_final, seen):
    state = fresh(quality="features")
    evaluations = list(train(state.config, with_final, state))
    names = {f"val/{name}" for name in quality.MEASURES["features"]}
    assert all(names <= e.metrics.keys() for e in evaluations)
    assert [len(samples) for samples in seen["samples"]] == [256] * len(evaluations)
    for samples, e in zip(seen["samples"], evaluations, strict=True):
        shown = as_float(e.samples)
        torch.testing.assert_close(samples[: len(shown)], shown, atol=1 / 255, rtol=0)
    assert state.history[-1]["val/recall"] == evaluations[-1].metrics["val/recall"]


def test_real_images_are_held_out_ones_and_prepared_once_in_a_run(fresh, with_final, seen):
    state = fresh(quality="wasserstein")
    assert len(list(train(state.config, with_final, state))) > 1
    (real,) = seen["real"]
    assert torch.equal(real, with_final.take(with_final.final))
    assert seen["kinds"] == ["wasserstein"]


def test_most_real_images_are_evenly_spaced(with_final, monkeypatch):
    real = sample_quality._real(with_final, 4)
    assert torch.equal(real, with_final.take(with_final.final[torch.tensor([0, 4, 8, 12])]))
    assert len(sample_quality._real(with_final, 1000)) == 17


def test_without_quality_nothing_is_measured(fresh, with_final, seen):
    state = fresh()
    (*_, last) = train(state.config, with_final, state)
    assert not any(key.removeprefix("val/") in str(quality.MEASURES) for key in last.metrics)
    assert seen["real"] == seen["samples"] == []


def test_quality_does_not_change_the_training(fresh, with_final):
    states = [fresh(quality=kind) for kind in ("none", "wasserstein")]
    for state in states:
        list(train(state.config, with_final, state))
    one, other = (dict(state.generator.state_dict()) for state in states)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_nan_in_the_samples_is_an_outcome(fresh, with_final, seen):
    state = fresh(quality="features")
    with torch.no_grad():
        next(iter(state.generator.parameters())).fill_(math.nan)
    (*_, last) = train(state.config, with_final, state)
    assert not last.finite
    assert all(math.isnan(last.metrics[f"val/{name}"]) for name in quality.MEASURES["features"])
    assert seen["samples"] == []


def test_too_few_held_out_images_are_noted_and_the_run_goes_on(fresh, images, seen):
    state = fresh(quality="wasserstein")
    (*_, last) = train(state.config, images, state)
    assert last.finite
    assert KEY not in last.metrics
    assert last.notes == (
        "no quality of samples is measured: of at least 10 final held-out images that it needs, "
        "there are 7",
    )


def lacks_the_extra(kind: str) -> None:
    if kind == "features":
        raise ConfigError("pip install 'raygan[quality]'")


def test_run_without_the_extra_fails_before_its_first_iteration(fresh, with_final, monkeypatch):
    monkeypatch.setattr(quality, "check", lacks_the_extra)
    state = fresh(quality="features")
    with pytest.raises(ConfigError, match=r"raygan\[quality\]"):
        next(iter(train(state.config, with_final, state)))
    assert state.step == 0


def test_resumed_run_has_the_quality_of_the_uninterrupted_one(fresh, with_final):
    whole = fresh(quality="wasserstein")
    expected = [e.metrics[KEY] for e in train(whole.config, with_final, whole)]
    state = fresh(quality="wasserstein")
    got = []
    evaluations = train(state.config, with_final, state)
    got.append(next(evaluations).metrics[KEY])
    evaluations.close()
    again = TrainState.restore(state.state_dict())
    got += [e.metrics[KEY] for e in train(again.config, with_final, again)]
    assert got == expected
    assert len(set(got)) > 1


def test_checkpoint_of_an_earlier_version_has_no_quality(fresh):
    saved = fresh().state_dict()
    del saved["config"]["quality"]
    assert TrainState.restore(saved).config.quality == "none"
    assert TrainConfig.of(**saved["config"]).quality == "none"


def test_final_quality_is_of_1000_samples_that_depend_on_the_seed_alone(fresh, with_final, seen):
    state = fresh()
    found = sample_quality.final_quality(state.judged, state.config, with_final, "features")
    assert found == {
        **dict.fromkeys(quality.MEASURES["features"], float(seen["samples"][0].mean())),
        "kind": "features", "images": 1000, "real_images": 17, "seed": 11,
        "weights_sha256": weights.SHA256,
    }  # fmt: skip
    torch.rand(3)
    sample_quality.final_quality(state.judged, state.config, with_final, "features")
    other = replace(state.config, seed=12)
    sample_quality.final_quality(state.judged, other, with_final, "features")
    one, again, another = seen["samples"]
    assert one.shape == (1000, *SHAPE)
    assert torch.equal(one, again)
    assert not torch.equal(one, another)
    pictures = as_float(sample(state.judged, state.config, 64))
    assert not torch.allclose(one[:64], pictures, atol=1 / 128)  # codes of their own
    assert torch.equal(seen["real"][0], with_final.take(with_final.final))


def test_final_quality_that_is_no_number_is_none(fresh, with_final, seen):
    state = fresh()
    with torch.no_grad():
        next(iter(state.generator.parameters())).fill_(math.nan)
    found = sample_quality.final_quality(state.judged, state.config, with_final, "wasserstein")
    assert found["sliced_wasserstein"] is None
    assert "weights_sha256" not in found


def test_final_quality_of_too_few_images_is_refused(fresh, images, seen):
    state = fresh()
    with pytest.raises(DataError, match="of at least 10 final held-out images"):
        sample_quality.final_quality(state.judged, state.config, images, "wasserstein")


@pytest.fixture
def make_tiny() -> Callable[[int, int], ImageSet]:
    """Images of a size, as many as are needed."""

    def make(height: int, width: int) -> ImageSet:
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (40, height, width, 1), dtype=torch.uint8, generator=rng)
        return ImageSet.of([pixels], *torch.arange(16, 40).split(12), "d", 0.0)

    return make


@pytest.mark.parametrize("size", [(6, 12), (8, 4)])
def test_images_smaller_than_a_patch_are_noted_and_the_run_goes_on(small, make_tiny, size):
    config, images = small(quality="wasserstein"), make_tiny(*size)
    state = TrainState.create(config, images.shape)
    (*_, last) = train(config, images, state)
    assert last.finite
    assert KEY not in last.metrics
    assert last.notes == (
        "no quality of samples is measured: the sliced Wasserstein distance needs images of at "
        f"least 7×7 pixels, and these have {size[0]}×{size[1]}",
    )
    with pytest.raises(DataError, match="needs images of at least 7×7 pixels"):
        sample_quality.final_quality(state.judged, config, images, "wasserstein")


def test_images_of_a_patch_have_a_quality(make_tiny):
    images = make_tiny(7, 7)
    samples = as_float(images.take(images.running))
    measured, notes = sample_quality.RunningQuality("wasserstein", images, Workers())(samples)
    assert measured[KEY] > 0
    assert not notes


def test_small_images_have_features(make_tiny, seen):
    images = make_tiny(4, 4)
    samples = as_float(images.take(images.running))
    measured, notes = sample_quality.RunningQuality("features", images, Workers())(samples)
    assert len(measured) == len(quality.MEASURES["features"])
    assert not notes
