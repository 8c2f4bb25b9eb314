"""The configuration refuses what cannot be trained, and says which field."""

from __future__ import annotations

import json
import math

import pytest

from raygan.errors import ConfigError, RayganError
from raygan.gan.config import CORE, TrainConfig, choices
from raygan.gan.losses import LOSSES
from raygan.gan.losses.log import Log
from raygan.gan.nets.architectures import check_size

WHOLE = (
    "features", "features_d", "levels", "code_size", "d_steps", "batch_size", "iterations", "evaluate_every",
    "reconstruction_steps",
)  # fmt: skip


def test_the_defaults_are_those_of_the_paper():
    config = TrainConfig()
    assert (config.norm, config.optimizer, config.loss) == ("wn", "rmsprop", "log")
    assert (config.lr, config.batch_size, config.features) == (1e-4, 32, 64)


@pytest.mark.parametrize(
    "name",
    ["norm", "architecture", "latent", "update", "loss", "optimizer", "lr_decay", "precision"],
)
@pytest.mark.parametrize("value", ["no-such", "", None, 3, [], {}])
def test_a_word_must_be_one_of_the_choices(name, value):
    with pytest.raises(ConfigError, match=rf"`{name}` \(=.*must be one of") as caught:
        TrainConfig.of(**{name: value})
    assert all(choice in str(caught.value) for choice in choices()[name])


@pytest.mark.parametrize("name", [*WHOLE, "seed"])
@pytest.mark.parametrize("value", [-1, 2.5, 1.0, True, "4", math.nan])
def test_a_count_must_be_a_whole_number(name, value):
    with pytest.raises(ConfigError, match=rf"`{name}` \(="):
        TrainConfig.of(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_a_count_must_be_at_least_one(name):
    with pytest.raises(ConfigError, match=rf"`{name}` \(=0\) must be a whole number from 1 to"):
        TrainConfig.of(**{name: 0})


@pytest.mark.parametrize("value", [0, -1e-4, math.nan, math.inf, "1e-4", None, True])
def test_the_learning_rate_must_be_a_positive_number(value):
    with pytest.raises(ConfigError, match=r"`lr` \(="):
        TrainConfig(lr=value)


@pytest.mark.parametrize("name", ["flip", "compile"])
@pytest.mark.parametrize("value", [0, 1, "yes", None, 1.0])
def test_a_switch_is_true_or_false(name, value):
    assert getattr(TrainConfig.of(**{name: True}), name)
    with pytest.raises(ConfigError, match=rf"`{name}` \(=.*must be true or false"):
        TrainConfig.of(**{name: value})


@pytest.mark.parametrize("value", [-0.1, 1, 1.0, math.nan, "0.9", None, True])
def test_the_decay_of_the_mean_is_below_one(value):
    assert (TrainConfig(ema=0).ema, TrainConfig(ema=0.999).ema) == (0, 0.999)
    with pytest.raises(ConfigError, match=r"`ema` \(=.*from 0 to below 1"):
        TrainConfig(ema=value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"norm": "bn", "loss": "wgan-gp"}, "each image by itself.*use ln or gn"),
        ({"update": "simultaneous", "loss": "wgan-gp"}, "needs `update: alternating`"),
        ({"compile": True, "loss": "wgan-gp"}, "does not differentiate a gradient once more"),
        ({"norm": "bn", "r1": 1.0}, "`r1` cannot be used with `norm: bn`.*each image by itself"),
        ({"update": "simultaneous", "r1": 1.0}, "`r1` needs `update: alternating`"),
        ({"compile": True, "r1": 1.0}, "`r1` cannot be used with `compile: true`"),
        ({"loss": "wgan-gp", "r1": 1.0}, r"`r1` \(=1.0\) cannot be used with `loss: wgan-gp`"),
        ({"update": "simultaneous", "d_steps": 2}, r"`d_steps` \(=2\) needs `update: alternating`"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_with_the_reason(fields, reason):
    with pytest.raises(ConfigError, match=reason):
        TrainConfig.of(**fields)
    for name in fields:
        TrainConfig.of(**{key: value for key, value in fields.items() if key != name})


@pytest.mark.parametrize("name", ["weight_decay", "r1"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", None, True])
def test_the_factor_of_a_penalty_is_not_negative(name, value):
    assert [getattr(TrainConfig(**{name: x}), name) for x in (0, 0.5, 10)] == [0, 0.5, 10]
    with pytest.raises(ConfigError, match=rf"`{name}` \(=.*must be a number from 0 on"):
        TrainConfig(**{name: value})


def test_a_loss_of_a_user_with_a_gradient_penalty_is_checked_too():
    class Steep(Log):
        """Log loss with a penalty."""

        name = "steep"
        gradient_penalty = 2.0

    LOSSES.add(Steep)
    try:
        TrainConfig(loss="steep", norm="ln")
        with pytest.raises(ConfigError, match="`loss: steep` cannot be used with `norm: bn`"):
            TrainConfig(loss="steep", norm="bn")
    finally:
        LOSSES.remove("steep")


def test_the_seed_must_fit():
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ConfigError, match="`seed`"):
        TrainConfig(seed=2**63)


def test_only_levels_and_the_width_of_d_may_be_left_to_be_derived():
    assert TrainConfig(levels=None, features_d=None) == TrainConfig()
    with pytest.raises(ConfigError, match="`features`"):
        TrainConfig(features=None)


def test_a_configuration_travels_as_plain_json():
    config = TrainConfig(norm="bn", lr=3e-5, levels=2)
    sent = json.loads(json.dumps(config.to_dict()))
    assert tuple(sent) == (*CORE, "smoothing", "epsilon")
    assert TrainConfig.of(**sent) == config


def test_the_error_is_ours_and_a_value_error():
    assert issubclass(ConfigError, RayganError)
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize("norm", ["bn", "sn"])
def test_batch_norm_of_a_single_value_is_refused_with_the_reason(norm):
    one = {"norm": norm, "batch_size": 1, "levels": 5}
    with pytest.raises(ConfigError, match=r"`batch_size` \(=1\) is too small for `norm: .n`"):
        check_size(TrainConfig.of(**one), 32, 32)
    for changed in ({"batch_size": 2}, {"levels": 4}, {"norm": "wn"}, {"norm": "gn"}):
        check_size(TrainConfig.of(**{**one, **changed}), 32, 32)
    check_size(TrainConfig.of(**one), 32, 64)  # to 1×2


@pytest.mark.parametrize("levels", range(1, 9))
def test_more_levels_are_never_trained_where_fewer_are_not(levels):
    for size in range(2, 70, 2):
        fits = [_fits(TrainConfig(levels=count), size) for count in (levels, levels + 1)]
        assert fits[0] >= fits[1]


def _fits(config: TrainConfig, size: int) -> bool:
    try:
        check_size(config, size, size)
    except ConfigError:
        return False
    return True
