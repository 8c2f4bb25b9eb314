"""FID and KID as torch-fidelity's own network and functions give them, with random weights."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from raygan.data.images import ImageSet
from raygan.gan.judge import fid as module
from raygan.gan.sampling import FID, codes
from raygan.gan.state import TrainState

pytestmark = pytest.mark.cluster  # InceptionV3 and its 2,048 features take seconds
network_of = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
metric_fid = pytest.importorskip("torch_fidelity.metric_fid")
metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
utils = pytest.importorskip("torch_fidelity.utils")

COUNT, SEED = 6, 3
RANKS = [0, 6, 13, 20, 26, 33]
"""Of the training images that are compared: 6 of 40, evenly spaced."""


class Random(network_of.FeatureExtractorInceptionV3):
    """Their network with random weights, of which each layer passes on what it is given."""

    def load_state_dict(self, _):
        torch.manual_seed(SEED)
        for layer in self.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if isinstance(layer, torch.nn.BatchNorm2d):
                for values in (layer.running_var, layer.weight):
                    torch.nn.init.uniform_(values, 0.5, 1.5)
                for values in (layer.running_mean, layer.bias):
                    torch.nn.init.normal_(values, std=0.1)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    nothing = tmp_path_factory.mktemp("fid") / "nothing.pth"
    torch.save({}, nothing)
    with torch.random.fork_rng():
        return Random("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("fid") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def theirs(monkeypatch):
    """What their functions find when we call them: features of G's images and of real ones."""
    found = []
    extract = utils.get_featuresdict_from_dataset

    def recorded(*given):
        found.append(extract(*given)["2048"])
        return {"2048": found[-1]}

    monkeypatch.setattr(utils, "get_featuresdict_from_dataset", recorded)
    monkeypatch.setattr(module, "COUNT", COUNT)
    return found


def game(small, images, channels):
    """A generator of images with so many channels, images of that kind, and the images that are to
    be compared: uint8 [6, 3, 16, 12] of G, and as many real ones."""
    grey = images.take(torch.arange(60)).permute(0, 2, 3, 1)
    pixels = torch.cat([grey.roll(k, 0) for k in range(channels)], -1).contiguous()
    splits = images.running, images.final
    chosen = ImageSet.of([pixels], *splits, "digest", 0.05)
    generator = TrainState.create(small(norm="bn"), (channels, 16, 12)).generator
    with torch.no_grad():
        fake = generator.eval()(codes(SEED, FID, 0, COUNT, 6, "normal")).mul(255).round().byte()
    real = chosen.take(chosen.train.at(torch.tensor(RANKS)))
    generator.train()
    shown = [each.repeat(1, 3 // channels, 1, 1) for each in (fake, real)]
    return generator, chosen, shown


def frechet(a, b):
    """Heusel et al. 2017, equation 6, in float64; tr √(Σ₁ Σ₂) is the sum of the singular values of
    the product of the two centred sets, which holds if they have fewer images than features, too."""
    a, b = a.double(), b.double()
    one, other = (((x - x.mean(0)) / (len(x) - 1) ** 0.5) for x in (a, b))
    apart = (a.mean(0) - b.mean(0)).square().sum() + one.square().sum() + other.square().sum()
    return float(apart - 2 * torch.linalg.svdvals(one @ other.T).sum())


def kernel_distance(a, b):
    """Bińkowski et al. 2018, the unbiased estimate with the kernel (x·y / 2048 + 1)³, pair by pair."""
    a, b = a.double(), b.double()
    n = len(a)

    def kernel(x, y):
        return float((x.dot(y) / 2048 + 1) ** 3)

    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(n) for j in range(n) if i != j)
    return within / (n * (n - 1)) - 2 * sum(kernel(x, y) for x in a for y in b) / n**2


@pytest.mark.parametrize(("channels", "batch"), [(1, 64), (3, 4)])
def test_features_and_scores_are_those_of_their_network_and_functions(
    small, images, network, weights, theirs, monkeypatch, channels, batch
):
    generator, chosen, shown = game(small, images, channels)
    monkeypatch.setattr(module, "BATCH", batch)
    found = module.fid(generator, 6, chosen, weights, seed=SEED)
    expected = [network(each)[0] for each in shown]
    assert [each.shape for each in theirs] == [(COUNT, 2048)] * 2
    for ours, own in zip(theirs, expected, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-6)
        assert own.std(0).mean() > 1e-3 * own.mean()  # images can be told apart
    statistics = [metric_fid.fid_features_to_statistics(each) for each in theirs]
    own_fid = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    assert found["fid"] == own_fid["frechet_inception_distance"]
    assert found["fid"] == pytest.approx(frechet(*expected), rel=1e-3)
    own_kid = metric_kid.kid_features_to_metric(
        *theirs, kid_subsets=100, kid_subset_size=COUNT, verbose=False
    )
    assert found["kid"] == own_kid["kernel_inception_distance_mean"]
    assert found["kid_std"] == own_kid["kernel_inception_distance_std"]
    assert found["kid"] == pytest.approx(kernel_distance(*expected), rel=1e-3)
    assert (found["n"], found["fid"] > 1, found["kid"] > 0) == (COUNT, True, True)


def test_features_do_not_depend_on_the_batch(small, images, weights, theirs, monkeypatch):
    # of 2,048×2,048 numbers, these would take most of the time
    no_fid = {"frechet_inception_distance": 0.0}
    monkeypatch.setattr("torch_fidelity.metrics.fid_statistics_to_metric", lambda *_: no_fid)
    generator, chosen, _ = game(small, images, 3)
    for batch in (1, 4, COUNT, 64):
        monkeypatch.setattr(module, "BATCH", batch)
        module.fid(generator, 6, chosen, weights, seed=SEED)
    of_g, real = theirs[::2], theirs[1::2]
    for one, other in pairwise(real):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    # a pixel of G may be rounded to its neighbour
    for one, other in pairwise(of_g):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2 * float(one.mean()))
