"""FID and KID: what torch-fidelity is given, and what is said where it cannot be used."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from raygan.errors import ConfigError
from raygan.gan.judge import fid as module
from raygan.gan.judge.fid import check, fid


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    return path


@pytest.fixture
def package(monkeypatch):
    """Stands in for torch-fidelity; what it was given."""
    given: dict = {}

    def calculate_metrics(**options):
        given.update(options)
        path = options["feature_extractor_weights_path"]
        given["state"] = torch.load(path, weights_only=True)
        if "fc.weight" not in given["state"]:
            raise RuntimeError("Error(s) in loading state_dict: missing keys")
        names = ("frechet_inception_distance", "kernel_inception_distance_mean",
                 "kernel_inception_distance_std")  # fmt: skip
        return dict(zip(names, (12.5, 0.01, 0.001), strict=True))

    stand_in = SimpleNamespace(calculate_metrics=calculate_metrics, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch_fidelity", stand_in)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.4.0")
    return given


def test_package_gets_as_many_samples_as_training_images_in_8_bits(fresh, images, weights, package):
    generator = fresh(norm="bn").generator
    found = fid(generator, 6, images, weights, seed=3)
    assert (found["fid"], found["kid"], found["n"], found["bits"]) == (12.5, 0.01, 40, 8)
    assert found["split"] == "train"
    for images_given in (package["input1"], package["input2"]):
        assert len(images_given) == 40
        assert images_given[7].shape == (3, 16, 12)
        assert images_given[7].dtype == torch.uint8
        assert torch.equal(images_given[7][0], images_given[7][2])
    real = images.take(images.train.at(torch.arange(40)))
    assert torch.equal(package["input2"][7][:1], real[7])
    assert package["kid_subset_size"] == 40
    assert not package["cache"]
    assert package["save_cpu_ram"]  # or torch-fidelity starts four processes that read the images
    assert generator.training


def test_samples_are_the_same_whatever_the_batch(fresh, monkeypatch):
    generator = fresh(norm="bn").generator
    codes = torch.randn(10, 6, generator=torch.Generator().manual_seed(3))
    whole = module._samples(generator, codes)
    monkeypatch.setattr(module, "BATCH", 3)
    assert (module._samples(generator, codes).int() - whole.int()).abs().max() <= 1


def test_the_seed_and_the_distribution_decide_the_samples(fresh, images, weights, package):
    generator, found, codes = fresh(norm="bn").generator, [], []
    generator.register_forward_pre_hook(lambda _, given: codes.append(given[0]))
    for given in ({"seed": 3}, {"seed": 3}, {"seed": 4}, {"seed": 3, "latent": "uniform"}):
        codes.clear()
        fid(generator, 6, images, weights, **given)
        found.append(torch.cat(codes))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert [bool(each.abs().max() > 1) for each in found] == [True, True, True, False]
    assert found[3].abs().max() > 0.9


def test_weights_of_another_network_are_refused(fresh, images, tmp_path, package):
    torch.save({"layer": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="are not those of torch-fidelity's InceptionV3"):
        fid(fresh().generator, 6, images, tmp_path / "other.pth", seed=3)


@pytest.mark.parametrize("held", [torch.zeros(2), {1: torch.zeros(2)}])
def test_weights_without_names_are_refused(fresh, images, tmp_path, package, held):
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="must hold tensors by name, those of torch-fid"):
        fid(fresh().generator, 6, images, tmp_path / "other.pth", seed=3)
    assert not package


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def test_nothing_in_the_weights_is_run(fresh, images, tmp_path, package, capsys):
    torch.save({"fc.weight": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="is not a file of tensors; refused"):
        fid(fresh().generator, 6, images, tmp_path / "bad.pth", seed=3)
    assert "run" not in capsys.readouterr().out
    assert not package


@pytest.mark.usefixtures("package")
def test_missing_weights_are_named(tmp_path, weights):
    assert check(weights) == weights
    with pytest.raises(ConfigError, match="--fid-weights is missing: give the InceptionV3"):
        check(None)
    with pytest.raises(ConfigError, match=r"nowhere.pth'\) is not a file"):
        check(tmp_path / "nowhere.pth")


def test_missing_package_is_named(monkeypatch, weights):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'raygan\[fid\]'"):
        check(weights)
