"""Measuring how fast a configuration trains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch

from raygan.data.images import ImageSet
from raygan.errors import ConfigError
from raygan.gan import speed
from raygan.gan.config import TrainConfig, choices

CPU = torch.device("cpu")


@dataclass
class Machine:
    """A clock that only training and evaluating move, and what was trained."""

    iteration: float
    evaluation: float
    now: float = 0.0

    def __post_init__(self) -> None:
        self.calls: list[tuple[int, TrainConfig, ImageSet]] = []

    def perf_counter(self) -> float:
        return self.now

    def train(self, config, images, state, *, gpu_share):
        self.gpu_share = gpu_share
        count = config.iterations - state.step
        self.calls.append((count, config, images))
        state.step = config.iterations
        work = config.reconstruction_steps * len(images.running)
        self.now += count * self.iteration + work * self.evaluation
        speed = config.batch_size * config.d_steps / self.iteration
        yield SimpleNamespace(metrics={"perf/images_per_second": speed})


@pytest.fixture
def machine(monkeypatch):
    """Replace training and the clock."""

    def make(**seconds: float) -> Machine:
        made = Machine(**seconds)
        monkeypatch.setattr(speed, "train", made.train)
        monkeypatch.setattr(speed, "time", made)
        return made

    return make


@pytest.mark.parametrize("norm", ["vanilla", "bn", "wn"])
@pytest.mark.parametrize("update", choices()["update"])
def test_every_configuration_has_a_speed(small, images, norm, update):
    measured = speed.measure(small(norm=norm, update=update), images, CPU, 0.0)
    assert 0 < measured.iterations_per_second < math.inf
    assert 0 < measured.evaluation_seconds < math.inf


@pytest.mark.parametrize("d_steps", [1, 5])
def test_what_is_measured_is_what_training_and_evaluating_take(small, images, machine, d_steps):
    config = small(reconstruction_steps=50, d_steps=d_steps)
    machine(iteration=0.01, evaluation=0.002)
    measured = speed.measure(config, images, CPU, 4.0)
    assert measured.iterations_per_second == pytest.approx(100)
    assert measured.evaluation_seconds == pytest.approx(50 * 13 * 0.002)


@pytest.mark.parametrize("iteration", [0.001, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 8.0])
def test_the_time_is_bounded(small, images, machine, iteration, seconds):
    made = machine(iteration=iteration, evaluation=1e-4)
    measured = speed.measure(small(), images, CPU, seconds)
    counts = [count for count, *_ in made.calls]
    warm_up, *counted, last = counts
    assert (warm_up, counted[0], last) == (2, 3, 1)
    assert counted == [3 * 2**k for k in range(len(counted))]
    assert made.now <= seconds + 6 * iteration + measured.evaluation_seconds + 1e-4 * len(counts)
    assert sum(counted) * iteration >= 0.49 * seconds


def test_only_the_last_iteration_is_followed_by_the_whole_evaluation(small, images, machine):
    made = machine(iteration=0.1, evaluation=0.01)
    config = small(lr=3e-3)
    speed.measure(config, images, CPU, 2.0)
    *training, (_, last, whole) = made.calls
    assert replace(last, iterations=5, evaluate_every=2) == config
    assert whole.running.tolist() == images.running.tolist()
    for _, quick, few in training:
        assert (quick.reconstruction_steps, len(few.running)) == (1, 1)
        assert replace(quick, iterations=5, evaluate_every=2, reconstruction_steps=3) == config


def test_a_worker_of_half_a_gpu_is_measured_as_one(small, images, machine):
    made = machine(iteration=0.1, evaluation=0.01)
    speed.measure(small(), images, CPU, 1.0, gpu_share=0.5)
    assert made.gpu_share == 0.5


def test_a_configuration_that_diverges_has_a_speed(small, images, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    config = small(norm="vanilla", lr=1e30)
    measured = speed.measure(config, images, CPU, 10)  # 191 iterations
    assert measured.iterations_per_second > 0


def test_nothing_else_changes(small, images):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    everything = torch.arange(len(images))
    pixels, running = images.take(everything), images.running.clone()
    speed.measure(small(), images, CPU, 0.0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(images.take(everything), pixels)
    assert torch.equal(images.running, running)


def test_networks_that_cannot_be_built_are_refused(small, images):
    with pytest.raises(ConfigError, match="levels"):
        speed.measure(small(levels=9), images, CPU, 0.0)


@pytest.mark.gpu
def test_a_gpu_has_a_speed(small, images):
    measured = speed.measure(small(), images, torch.device("cuda"), 0.5)
    assert measured.iterations_per_second > 0
    assert measured.evaluation_seconds > 0


def test_a_decay_is_not_followed_beyond_its_end(small, images, monkeypatch):
    """Where the learning rate would fall below 0."""
    seen = []

    def train(config, images, state, **_):
        seen.append(state.config.rate_factor(10**6))
        yield SimpleNamespace(metrics={"perf/images_per_second": 1.0})

    monkeypatch.setattr(speed, "train", train)
    speed.measure(small(lr_decay="linear"), images, CPU, 0)
    assert set(seen) == {1.0}
