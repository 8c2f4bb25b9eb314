"""EfficientNet-Lite0 and its weights."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raygan.errors import ConfigError
from raygan.gan.judge import efficientnet, quality, weights
from tests.gan.judge import disturbances

PACKAGE = pytest.mark.skipif(
    not weights.is_available(), reason="needs raygan[quality]: the weights of EfficientNet-Lite0"
)
VEHICLES = {0: "plane", 1: "car", 8: "ship", 9: "truck"}
"""CIFAR-10's classes that are no animals."""


def installed_in(folder):
    """What stands in for ``find_spec``: a package whose folder is ``folder``."""
    return lambda _: SimpleNamespace(submodule_search_locations=[str(folder)])


@pytest.fixture
def other_file(tmp_path, monkeypatch):
    """Where the package has its file, in a package of its own."""
    file = tmp_path / weights.FILE
    file.parent.mkdir()
    monkeypatch.setattr(weights, "find_spec", installed_in(tmp_path))
    return file


def square(image, side):
    """The middle of a photograph, uint8 [H, W, 3] → [1, 3, side, side] in [0, 1]."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    least = min(pixels.shape[2:])
    top, left = ((length - least) // 2 for length in pixels.shape[2:])
    pixels = pixels[:, :, top : top + least, left : left + least]
    return F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)


def classified(net, state, images):
    with torch.no_grad():
        return (net(images) @ state["_fc.weight"].T + state["_fc.bias"]).argmax(1)


@PACKAGE
def test_photographs_are_recognised():
    from sklearn.datasets import load_sample_image

    state = efficientnet.state()
    net = efficientnet.EfficientNetLite0(state).eval()
    for name, expected in {"china.jpg": 698, "flower.jpg": 985}.items():  # palace; daisy
        assert classified(net, state, square(load_sample_image(name), 224)) == expected


@PACKAGE
def test_features_are_those_of_the_layers_one_by_one():
    """Batch normalisation not folded, padding as TensorFlow's, on an odd side."""
    state = efficientnet.state()
    images = torch.rand(2, 3, 33, 48, generator=torch.Generator().manual_seed(0))

    def layer(x, convolution, norm, stride=1, relu=True):
        weight = state[f"{convolution}.weight"]
        kernel, groups = weight.shape[2], x.shape[1] // weight.shape[1]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        values = [state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *values, eps=1e-3)
        return x.clamp(0, 6) if relu else x

    x = layer((images * 255 - 127) / 128, "_conv_stem", "_bn0", 2)
    for number in range(16):
        name = f"_blocks.{number}"
        before = x
        if number:
            x = layer(x, f"{name}._expand_conv", f"{name}._bn0")
        stride = 2 if number in (1, 3, 5, 11) else 1
        x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride)
        x = layer(x, f"{name}._project_conv", f"{name}._bn2", relu=False)
        x = x + before if x.shape == before.shape else x
    expected = layer(x, "_conv_head", "_bn1").mean((2, 3))
    with torch.no_grad():
        found = efficientnet.EfficientNetLite0(state).eval()(images)
    assert found.shape == (2, efficientnet.FEATURES)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_grey_images_are_three_equal_channels():
    grey = torch.rand(2, 1, 20, 12, generator=torch.Generator().manual_seed(0))
    prepared = efficientnet.prepared(grey)
    assert prepared.shape == (2, 3, 96, 96)
    torch.testing.assert_close(prepared, efficientnet.prepared(grey.repeat(1, 3, 1, 1)))


@PACKAGE
def test_features_do_not_depend_on_the_batch():
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = efficientnet.features(images)
    torch.testing.assert_close(efficientnet.features(images, batch=2), whole, rtol=1e-4, atol=1e-4)


@PACKAGE
def test_the_network_is_loaded_once_per_process():
    device = torch.device("cpu")
    assert efficientnet.network(device) is efficientnet.network(torch.device("cpu"))
    assert not efficientnet.network(device).training


@PACKAGE
def test_a_changed_byte_of_the_weights_is_refused_before_they_are_loaded(
    tmp_path, monkeypatch, request
):
    data = bytearray(weights.read())
    request.getfixturevalue("other_file").write_bytes(data)
    assert weights.read() == data
    data[len(data) // 2] ^= 1
    (tmp_path / weights.FILE).write_bytes(data)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded"))
    quality.check("features")  # cheap: the size only
    with pytest.raises(ConfigError, match=rf"SHA-256 .* instead of {weights.SHA256}; reinstall"):
        efficientnet.state()


@pytest.mark.parametrize(("content", "said"), [(None, "is missing"), (b"12345", "has 5 bytes")])
def test_a_file_that_is_missing_or_of_another_size_is_refused(other_file, content, said):
    if content:
        other_file.write_bytes(content)
    for read in (weights.read, lambda: quality.check("features")):
        with pytest.raises(ConfigError, match=f"{said}.*reinstall"):
            read()


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda _: None)
    assert not quality.is_available()
    with pytest.raises(ConfigError, match=r"pip install 'raygan\[quality\]'"):
        quality.check("features")
    quality.check("wasserstein")
    quality.check("none")


@PACKAGE
@pytest.mark.cluster
@pytest.mark.skipif(
    not disturbances.CIFAR10.is_dir(), reason="needs CIFAR-10's Parquet files; see RAYGAN_CIFAR10"
)
def test_enlarged_photographs_of_cifar10_are_told_apart():
    """Of ImageNet's classes, 0…397 are animals. By chance, the mean of both shares is 0.5."""
    images, classes = disturbances.cifar10(300)
    state = efficientnet.state()
    small = efficientnet.prepared(images.float() / 255)
    found = classified(efficientnet.EfficientNetLite0(state).eval(), state, small)
    vehicles = torch.isin(classes, torch.tensor(list(VEHICLES)))
    shares = [((found > 397) == kind)[vehicles == kind].float().mean() for kind in (True, False)]
    assert sum(shares) / 2 > 0.7
