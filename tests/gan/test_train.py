"""Training as an iterator of evaluations."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raygan.data.images import REFERENCE, ImageSet
from raygan.errors import ConfigError
from raygan.gan import checkpoint, sampling
from raygan.gan.config import TrainConfig, choices
from raygan.gan.draws import Draws
from raygan.gan.judge.reconstruction import reconstruct
from raygan.gan.picture_grid import GAP, MOST_WIDTH, grid_png, grid_webp
from raygan.gan.recorded import Recorded
from raygan.gan.state import TrainState
from raygan.gan.steps import Game
from raygan.gan.train import Evaluation, Stack, sample, train
from raygan.gan.workers import Workers

NORMS = pytest.mark.parametrize("norm", choices()["norm"])
ARMS = pytest.mark.parametrize(
    ("norm", "update"),
    [
        *((norm, "alternating") for norm in choices()["norm"]),
        *((norm, "simultaneous") for norm in ("vanilla", "bn", "wn")),
    ],
)
KEYS = {
    "train/loss_d", "train/loss_g", "train/accuracy_real", "train/accuracy_fake",
    "train/gradient_norm_d", "train/gradient_norm_g",
    "val/reconstruction_loss", "val/variety", "perf/images_per_second", "perf/images_seen",
}  # fmt: skip


@pytest.fixture
def run(images):
    """Train a state to its end; the evaluations."""

    def run(state: TrainState) -> list[Evaluation]:
        return list(train(state.config, images, state))

    return run


def curve(evaluations: list[Evaluation]) -> list[dict[str, float]]:
    """What must repeat bit for bit: all metrics but the speed."""
    return [
        {key: value for key, value in e.metrics.items() if key != "perf/images_per_second"}
        for e in evaluations
    ]


@pytest.mark.parametrize(
    ("iterations", "every", "steps"),
    [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3]), (3, 1, [1, 2, 3])],
)
def test_evaluates_at_every_interval_and_at_the_end(fresh, run, iterations, every, steps):
    evaluations = run(fresh(iterations=iterations, evaluate_every=every))
    assert [e.step for e in evaluations] == steps
    assert [e.metrics["perf/images_seen"] for e in evaluations] == [8 * step for step in steps]


@ARMS
def test_an_evaluation_holds_what_is_logged(fresh, run, norm, update):
    state = fresh(norm=norm, update=update)
    evaluations = run(state)
    for e in evaluations:
        assert set(e.metrics) == KEYS
        assert e.finite
        assert e.loss == e.metrics["val/reconstruction_loss"] > 0
        assert 0 <= e.metrics["train/accuracy_real"] <= 1
        assert 0 <= e.metrics["train/accuracy_fake"] <= 1
        assert e.metrics["perf/images_per_second"] > 0
        assert e.samples.shape == (64, 1, 16, 12)
        assert e.reconstructions.shape == (2 * 13, 1, 16, 12)
        assert e.samples.dtype == e.reconstructions.dtype == torch.uint8
        assert e.loss == pytest.approx(e.reconstruction_losses.double().mean().item())
        assert len(e.reconstruction_losses) == 13
    assert [h["step"] for h in state.history] == [2, 4, 5]
    assert state.history[-1]["val/reconstruction_loss"] == evaluations[-1].loss


def test_pictures_pair_the_held_out_images_with_their_reconstructions(fresh, run, images):
    (*_, last) = run(fresh())
    originals, found = last.reconstructions[::2], last.reconstructions[1::2]
    assert torch.equal(originals, images.take(images.running))
    error = (found.double() - originals.double()).div(255).square().mean((1, 2, 3))
    torch.testing.assert_close(error.float(), last.reconstruction_losses, atol=1e-3, rtol=0.05)


def test_train_metrics_are_means_since_the_last_evaluation(fresh, run):
    every = curve(run(fresh(evaluate_every=1, iterations=4)))
    together = curve(run(fresh(evaluate_every=4, iterations=4)))
    for name in ("train/loss_d", "train/loss_g", "train/accuracy_real"):
        mean = sum(metrics[name] for metrics in every) / 4
        assert together[0][name] == pytest.approx(mean, rel=1e-5)
    for name in ("train/gradient_norm_d", "val/reconstruction_loss"):
        assert together[0][name] == every[-1][name]


@ARMS
def test_a_resumed_run_has_the_curve_of_the_uninterrupted_one(
    fresh, run, images, tmp_path, norm, update
):
    whole = fresh(norm=norm, update=update, iterations=7)
    expected = curve(run(whole))

    first = fresh(norm=norm, update=update, iterations=7)
    seen = []
    for evaluation in train(first.config, images, first):
        seen.append(evaluation)
        checkpoint.save(first.state_dict(), tmp_path, first.step)
        if evaluation.step == 4:
            break
    resumed = fresh(norm=norm, update=update, iterations=7)
    saved, passed_over = checkpoint.load_latest(tmp_path)
    assert passed_over == []
    resumed.load_state_dict(saved)
    seen += run(resumed)

    assert curve(seen) == expected
    assert [h["val/reconstruction_loss"] for h in resumed.history] == [
        h["val/reconstruction_loss"] for h in whole.history
    ]
    assert (resumed.best_step, resumed.best_loss) == (whole.best_step, whole.best_loss)


RECIPES = pytest.mark.parametrize(
    "fields",
    [
        {"norm": "sn", "loss": "hinge", "d_steps": 2, "ema": 0.6},
        {"norm": "ln", "loss": "wgan-gp", "d_steps": 3, "optimizer": "adam", "lr_d": 3e-3},
        {"norm": "bn", "architecture": "resnet", "blocks": 1, "ema": 0.9, "precision": "bf16"},
    ],
    ids=lambda fields: fields["norm"],
)


@RECIPES
@pytest.mark.parametrize("pause", [1, 3])
def test_a_resumed_recipe_has_the_curve_of_the_uninterrupted_one(
    fresh, run, images, tmp_path, fields, pause
):
    fields = {**fields, "iterations": 4, "evaluate_every": 1, "flip": True}
    whole, first, resumed = fresh(**fields), fresh(**fields), fresh(**fields)
    expected = run(whole)
    for evaluation in train(first.config, images, first):
        if evaluation.step == pause:
            break
    resumed.load_state_dict(checkpoint.load(checkpoint.save(first.state_dict(), tmp_path, pause)))
    rest = run(resumed)
    assert curve(rest) == curve(expected)[pause:]
    assert all(
        torch.equal(a.samples, b.samples) for a, b in zip(rest, expected[pause:], strict=True)
    )


@pytest.mark.parametrize("architecture", choices()["architecture"])
@pytest.mark.parametrize("norm", choices()["norm"])
def test_every_arm_trains_with_every_loss(fresh, run, architecture, norm):
    for loss in choices()["loss"] if architecture == "dcgan" else ("log", "wgan-gp"):
        if (norm, loss) != ("bn", "wgan-gp"):
            fields = {"architecture": architecture, "norm": norm, "loss": loss, "blocks": 1}
            (evaluation,) = run(fresh(**fields, iterations=3, evaluate_every=3))
            assert evaluation.finite, loss


def test_each_update_of_d_has_images_and_noise_of_its_own(small, images):
    """What d_steps = 2 draws is what d_steps = 1 draws, taken in pairs; codes of G are not."""
    ones, twos = (
        Draws(small(loss="wgan-gp", flip=True, d_steps=n), images, Workers(), torch.device("cpu"))
        for n in (1, 2)
    )
    for step in range(4):
        pair, first, second = twos(step), ones(2 * step), ones(2 * step + 1)
        for name in ("real", "noise_d", "mix"):
            expected = torch.cat([getattr(first, name), getattr(second, name)])
            assert torch.equal(getattr(pair, name), expected), name
        assert torch.equal(pair.noise_g, ones(step).noise_g)
        assert pair.real.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= pair.mix.min() <= pair.mix.max() < 1
    assert torch.cat([ones(0).mix, ones(1).mix]).unique().numel() == 16
    assert Draws(small(), images, Workers(), torch.device("cpu"))(0).mix is None


def test_the_speed_counts_the_images_of_all_updates_of_d(fresh, run):
    (*_, last) = run(fresh(d_steps=3))
    assert last.metrics["perf/images_seen"] == 5 * 3 * 8


def test_the_mean_of_g_is_judged_and_does_not_change_the_training(fresh, run):
    plain, averaged = fresh(norm="bn"), fresh(norm="bn", ema=0.5)
    without, with_ = run(plain), run(averaged)
    assert plain.judged is plain.generator
    assert averaged.judged is not averaged.generator
    for a, b in zip(plain.generator.parameters(), averaged.generator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [e.loss for e in without] != [e.loss for e in with_]
    assert [e.metrics["train/loss_g"] for e in without] == [
        e.metrics["train/loss_g"] for e in with_
    ]
    assert torch.equal(with_[-1].samples, sample(averaged.judged, averaged.config))
    assert not torch.equal(with_[-1].samples, sample(averaged.generator, averaged.config))


def test_the_mean_is_that_of_its_formula(fresh):
    state = fresh(norm="bn", ema=0.7)
    seen: list[dict[str, torch.Tensor]] = []
    for step in range(4):
        with torch.no_grad():
            for value in state.generator.state_dict().values():
                value.add_(1 if value.dtype == torch.int64 else torch.randn(value.shape))
        seen.append({name: v.clone() for name, v in state.generator.state_dict().items()})
        state.advance()
        weights = [0.7 ** (step - k) for k in range(step + 1)]
        for name, got in state.judged.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert got == seen[-1][name]
                continue
            terms = [w * values[name] for w, values in zip(weights, seen, strict=True)]
            torch.testing.assert_close(got, sum(terms) / sum(weights))
    assert any("running_var" in name for name in seen[0])


def test_tf32_is_for_the_steps_only(fresh, images, monkeypatch):
    def flags() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    seen: dict[str, set[tuple[bool, bool]]] = {"step": set(), "evaluation": set()}
    step, test = Game.alternating, reconstruct

    def alternating(*given):
        seen["step"].add(flags())
        return step(*given)

    def reconstruction(*given, **options):
        seen["evaluation"].add(flags())
        return test(*given, **options)

    monkeypatch.setattr(Game, "alternating", alternating)
    monkeypatch.setattr("raygan.gan.train.reconstruct", reconstruction)
    before = flags()
    for precision, allowed in (("fp32", False), ("tf32", True), ("bf16", False)):
        state = fresh(precision=precision)
        for _ in train(state.config, images, state):
            assert flags() == before
        assert seen == {"step": {(allowed, allowed)}, "evaluation": {(False, False)}}
        seen["step"].clear()


@ARMS
def test_bf16_rounds_the_steps_but_no_weight(fresh, run, norm, update):
    fields = {"norm": norm, "update": update, "iterations": 2, "evaluate_every": 2}
    exact, rounded = fresh(**fields), fresh(**fields, precision="bf16")
    (one,), (other,) = run(exact), run(rounded)
    assert one.metrics["train/loss_d"] != other.metrics["train/loss_d"]
    assert other.metrics["train/loss_d"] == pytest.approx(one.metrics["train/loss_d"], rel=0.02)
    for network in (rounded.generator, rounded.discriminator):
        assert all(p.dtype == torch.float32 for p in network.parameters())
        assert all(p.grad.dtype == torch.float32 for p in network.parameters())
    assert other.loss == pytest.approx(one.loss, rel=0.02)


def test_a_lengthened_run_evaluates_at_the_same_steps_again(fresh, run):
    first, longer = fresh(iterations=5), fresh(iterations=8)
    run(first)
    longer.load_state_dict(first.state_dict())
    assert [e.step for e in run(longer)] == [6, 8]


def test_evaluating_more_often_does_not_change_the_training(fresh, run):
    often, seldom = fresh(evaluate_every=1), fresh(evaluate_every=5)
    run(often)
    run(seldom)
    for a, b in zip(often.generator.parameters(), seldom.generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_seed_decides(fresh, run):
    one, same, other = (curve(run(fresh(seed=seed))) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_finished_state_yields_nothing(fresh, run):
    state = fresh()
    run(state)
    assert run(state) == []


def test_the_best_is_the_lowest_reconstruction_loss(fresh, run):
    state = fresh(evaluate_every=1, iterations=6, lr=0.05)
    evaluations = run(state)
    losses = [e.loss for e in evaluations]
    assert state.best_loss == min(losses)
    assert state.best_step == 1 + losses.index(min(losses))
    lows = [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    assert [e.best for e in evaluations] == lows


@NORMS
def test_nan_in_the_weights_is_an_outcome(fresh, run, norm):
    state = fresh(norm=norm)
    next(state.generator.parameters()).data.fill_(math.nan)
    evaluations = run(state)
    assert [(e.step, e.finite, e.best) for e in evaluations] == [
        (2, False, False), (4, False, False), (5, False, False)
    ]  # fmt: skip
    assert state.best_loss == math.inf
    assert evaluations[0].samples.dtype == torch.uint8


def test_a_run_that_diverges_is_an_outcome(fresh, run):
    evaluations = run(fresh(norm="vanilla", lr=1e30, iterations=6))
    assert not evaluations[-1].finite
    assert not any(e.best for e in evaluations if not e.finite)


def test_the_shards_do_not_matter(fresh, run, images):
    whole = replace(images, shards=[torch.cat(list(images.shards))])
    state = fresh()
    assert curve(list(train(state.config, whole, state))) == curve(run(fresh()))


def test_what_is_held_out_is_not_trained_on(fresh, images):
    seen: list[torch.Tensor] = []

    class Watched(ImageSet):
        def take(self, indices, out=None):
            seen.append(indices)
            return super().take(indices, out)

    some = Watched(**{name: getattr(images, name) for name in ImageSet.__dataclass_fields__})
    state = fresh(iterations=10, evaluate_every=10)
    list(train(state.config, some, state))
    *batches, tested, compared = seen
    assert tested is images.running
    assert not set(compared.tolist()) & set(images.running.tolist() + images.final.tolist())
    assert len(batches) == 10
    trained = torch.cat(batches)
    assert sorted(trained.tolist()) == sorted(2 * images.train.at(torch.arange(40)).tolist())


def test_flips_are_of_the_training_images_only(fresh, run, images, monkeypatch):
    plain, flipping = run(fresh()), run(fresh(flip=True))
    assert curve(plain) != curve(flipping)
    assert curve(flipping) == curve(run(fresh(flip=True)))
    pairs = torch.stack([e.reconstructions[::2] for e in plain])
    assert torch.equal(pairs, torch.stack([e.reconstructions[::2] for e in flipping]))
    monkeypatch.setattr(sampling, "flipped", lambda images, _: images)
    assert curve(run(fresh(flip=True))) == curve(plain)


def test_a_resumed_run_flips_the_same_images(fresh, run, images):
    whole = curve(run(fresh(flip=True)))
    state, again = fresh(flip=True), fresh(flip=True)
    first = next(iter(train(state.config, images, state)))
    again.load_state_dict(state.state_dict())
    assert curve([first, *run(again)]) == whole


def test_the_share_of_the_gpu_decides_what_is_kept_there(fresh, images, monkeypatch):
    asked: list[float] = []

    def resident(self, device, share):
        asked.append(share)
        return self

    monkeypatch.setattr(ImageSet, "resident", resident)
    state = fresh(iterations=1)
    list(train(state.config, images, state, gpu_share=0.25))
    assert asked == [0.25]


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    workers = Workers()
    monkeypatch.setattr(workers, "count", 3)
    with pytest.raises(ConfigError, match=r"`batch_size` \(=8\).*number of workers \(=3\)"):
        workers.part(8)


def test_samples_depend_on_the_seed_and_the_weights_only(fresh):
    state, other = fresh(seed=1), fresh(seed=2)
    torch.manual_seed(1)
    first = sample(state.generator, state.config)
    torch.manual_seed(2)
    assert torch.equal(sample(state.generator, state.config), first)
    assert not torch.equal(sample(state.generator, other.config), first)
    assert state.generator.training
    assert sample(state.generator, state.config, count=5).shape[0] == 5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_the_images_row_by_row(channels):
    images = torch.randint(0, 256, (5, channels, 4, 6), dtype=torch.uint8)
    picture = Image.open(io.BytesIO(grid_png(images, columns=2, scale_to=1)))
    assert picture.size == (2 * 6 + GAP, 3 * 4 + 2 * GAP)
    assert picture.mode == ("L" if channels == 1 else "RGB")
    fourth = torch.tensor(
        list(picture.crop((6 + GAP, 4 + GAP, 12 + GAP, 8 + GAP)).convert("RGB").tobytes())
    )
    expected = images[3].expand(3, -1, -1).permute(1, 2, 0).flatten()
    assert torch.equal(fourth, expected.long())


def test_small_grids_are_enlarged_by_a_whole_factor():
    grid = grid_png(torch.zeros(4, 1, 10, 10, dtype=torch.uint8))
    side = 20 + GAP
    assert Image.open(io.BytesIO(grid)).size == (512 // side * side, 512 // side * side)


@pytest.mark.parametrize(
    ("side", "width"),
    [(16, 4 * (8 * 17 - 1)), (32, 2 * (8 * 33 - 1)), (160, 8 * 161 - 1), (256, MOST_WIDTH)],
)
def test_a_grid_as_webp_has_a_bounded_width_and_its_tiles_their_colours(side, width):
    shades = torch.arange(8, dtype=torch.uint8) * 30
    images = shades.view(8, 1, 1, 1).expand(8, 3, side, side).contiguous()
    images[:, 0] = 200
    picture = Image.open(io.BytesIO(grid_webp(images, columns=8)))
    assert (picture.format, picture.width) == ("WEBP", width)
    for number, shade in enumerate(shades.tolist()):
        found = picture.getpixel((round((number + 0.5) * width / 8), picture.height // 2))
        assert found == pytest.approx((200, shade, shade), abs=8)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.gpu
def test_the_loop_does_not_wait_for_the_device(small, images: ImageSet):
    device = torch.device("cuda")
    config = small(iterations=8, evaluate_every=4, ema=0.9)
    state = TrainState.create(config, images.shape, device)
    for _ in train(config, images, state):  # warm: compiled kernels, optimizer state
        break
    game = state.game(Workers())
    real = torch.rand(8, *images.shape, device=device)
    noise = torch.randn(8, config.code_size, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            game.alternating(real, noise, noise)
            game.simultaneous(real, noise, noise)
            state.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def rates(state: TrainState) -> list[float]:
    return [o.param_groups[0]["lr"] for o in (state.optimizer_g, state.optimizer_d)]


def test_each_network_has_its_learning_rate_and_a_warmup(fresh, images, monkeypatch):
    state = fresh(lr=1e-3, lr_d=4e-3, warmup=2, warmup_factor=0.5, iterations=4, evaluate_every=1)
    seen = [rates(state) for _ in train(state.config, images, state)]
    assert seen == [[5e-4, 2e-3]] * 2 + [[1e-3, 4e-3]] * 2


@pytest.mark.parametrize(
    ("decay", "shares"),
    [("linear", [1, 3 / 4, 1 / 2, 1 / 4]), ("cosine", [1, 0.85355, 0.5, 0.14645])],
)
def test_the_learning_rates_decay_at_each_evaluation(fresh, images, monkeypatch, decay, shares):
    fields = {"warmup": 3, "warmup_factor": 0.1, "iterations": 8, "evaluate_every": 2}
    state, seen = fresh(lr=1e-3, lr_d=4e-3, lr_decay=decay, **fields), []
    advance = TrainState.advance
    monkeypatch.setattr(
        TrainState, "advance", lambda self: (seen.append(rates(self)), advance(self))
    )
    list(train(state.config, images, state))
    factors = [share * (0.1 if step < 3 else 1) for step, share in enumerate(np.repeat(shares, 2))]
    assert seen == [pytest.approx([1e-3 * f, 4e-3 * f], rel=1e-4) for f in factors]


@pytest.mark.parametrize("decay", ["none", "linear"])
def test_an_iteration_is_recorded_again_only_when_the_rates_change(fresh, run, monkeypatch, decay):
    forgotten = []
    monkeypatch.setattr(Recorded, "forget", lambda _: forgotten.append(1))
    run(fresh(lr_decay=decay, warmup=3, iterations=6, evaluate_every=2))
    # at the start and after the warm-up; at the evaluations, the last one included
    assert len(forgotten) == 2 + (3 if decay == "linear" else 0)


def test_one_learning_rate_is_that_of_both(fresh):
    assert rates(fresh(lr=2e-3)) == [2e-3, 2e-3]


@pytest.mark.parametrize("pause", [1, 2, 3])
def test_a_warmup_that_is_resumed_is_the_same(fresh, images, run, pause, tmp_path):
    fields = {"warmup": 2, "iterations": 5, "evaluate_every": 1, "norm": "vanilla"}
    whole = curve(run(fresh(**fields)))
    state = fresh(**fields)
    for evaluation in train(state.config, images, state):
        if evaluation.step == pause:
            break
    again = fresh(**fields)
    again.load_state_dict(state.state_dict())
    assert curve(run(again)) == whole[pause:]


def test_a_warmup_changes_the_first_iterations(fresh, run):
    warm, cold = (run(fresh(warmup=n, norm="vanilla"))[-1].metrics for n in (2, 0))
    assert warm["train/loss_d"] != cold["train/loss_d"]


@pytest.mark.parametrize("latent", choices()["latent"])
def test_every_code_is_of_the_distribution_and_searches_begin_at_0(fresh, run, latent):
    state, codes = fresh(latent=latent, norm="bn"), []
    state.generator.register_forward_pre_hook(
        lambda _, given: codes.append(given[0].detach().clone())
    )
    run(state)
    drawn = [each for each in codes if len(each) in (8, 64)]  # of a batch, of samples
    assert len(drawn) == 2 * 5 + 3 * REFERENCE // 64
    assert sum(not each.any() for each in codes) == 3  # reconstruction tests
    most = [each.abs().max().item() for each in drawn]
    assert all(0.8 < each <= 1 if latent == "uniform" else each > 1 for each in most)


WITH_OTHERS = [
    {"latent": "uniform", "norm": "bn"},
    {"lr_decay": "cosine", "warmup": 1, "norm": "wn"},
    {"r1": 5.0, "norm": "sn"},
    {"augment": "diffaugment", "norm": "bn", "update": "simultaneous"},
    {"augment": "diffaugment", "norm": "ln", "loss": "wgan-gp", "d_steps": 2},
]


@pytest.mark.parametrize("fields", WITH_OTHERS)
@pytest.mark.parametrize("pause", [2, 4])
def test_a_run_with_other_fields_that_is_resumed_is_the_same(fresh, images, run, fields, pause):
    state = fresh(iterations=7, **fields)
    whole = curve(run(fresh(iterations=7, **fields)))
    for evaluation in train(state.config, images, state):
        if evaluation.step == pause:
            break
    again = fresh(iterations=7, **fields)
    again.load_state_dict(state.state_dict())
    assert curve(run(again)) == whole[pause // 2 :]


@pytest.mark.parametrize("fields", WITH_OTHERS)
def test_a_field_has_an_effect(fresh, run, fields):
    first, *_ = fields
    others = {name: value for name, value in fields.items() if name != first}
    found, plain = (run(fresh(iterations=7, **each))[-1] for each in (fields, others))
    assert found.metrics["train/loss_d"] != plain.metrics["train/loss_d"]


def test_a_run_that_fails_early_is_not_trained_to_its_first_evaluation(fresh, run, monkeypatch):
    monkeypatch.setattr("raygan.gan.train.EARLY", 3)
    (evaluation, *_) = run(fresh(lr=1e30, iterations=50, evaluate_every=50))
    assert (evaluation.step, evaluation.finite) == (3, False)


def test_a_healthy_run_is_not_evaluated_early(fresh, run, monkeypatch):
    plain = curve(run(fresh(iterations=6, evaluate_every=6)))
    monkeypatch.setattr("raygan.gan.train.EARLY", 3)
    assert curve(run(fresh(iterations=6, evaluate_every=6))) == plain


def test_a_checkpoint_from_before_a_field_existed_has_its_default(fresh):
    saved = fresh().state_dict()
    for name in ("warmup", "lr_d", "d_steps", "ema", "precision", "compile", "smoothing"):
        del saved["config"][name]
    fresh().load_state_dict(saved)


def test_several_at_once_have_the_numbers_of_each_alone(small, images: ImageSet):
    chosen = [small(seed=seed, evaluate_every=every) for seed, every in ((1, 2), (2, 2), (3, 3))]
    states = [TrainState.create(each, images.shape) for each in chosen]
    losses: list[list[float]] = [[] for _ in chosen]
    for place, evaluation in Stack(list(zip(chosen, states, strict=True)), images):
        losses[place].append(evaluation.loss)
    for each, state, found in zip(chosen, states, losses, strict=True):
        alone = TrainState.create(each, images.shape)
        assert found == [evaluation.loss for evaluation in train(each, images, alone)]
        pairs = zip(alone.generator.parameters(), state.generator.parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_dropped_member_is_trained_no_further(small, images: ImageSet):
    chosen = [small(seed=seed) for seed in (1, 2, 3)]
    states = [TrainState.create(each, images.shape) for each in chosen]
    stack = Stack(list(zip(chosen, states, strict=True)), images)
    told = []
    for place, evaluation in stack:
        told.append((place, evaluation.step))
        if place == 0:  # one that was told, and one that waits to be
            stack.drop(0)
            stack.drop(2)
    assert told == [(0, 2), (1, 2), (1, 4), (1, 5)]
    assert [state.step for state in states] == [2, 5, 2]


def test_the_grid_shows_the_first_of_the_samples_that_variety_is_measured_on():
    config = TrainConfig(features=4, code_size=8, iterations=1, evaluate_every=1, batch_size=8)
    state = TrainState.create(config, (3, 32, 32))
    more = sample(state.judged, config, 256)
    assert len(more) == 256
    assert torch.equal(more[:64], sample(state.judged, config, 64))
