"""FID and KID. They need torch-fidelity (``raygan[fid]``) and its InceptionV3 weights.

Protocol:

- n images of G, in eval mode, from random codes that depend only on the seed;
- n training images, evenly spaced in their order; n is :data:`COUNT`, or the number of training
  images if that is smaller;
- all images are rounded to 8 bits; grey becomes three equal channels;
- torch-fidelity resizes them to 299×299 (bilinear, as TensorFlow 1 does) and computes InceptionV3's
  2,048 pooled features.

FID (Heusel et al. 2017) falls with n, so only values with the same n can be compared. KID
(Bińkowski et al. 2018) is the mean over 100 subsets of at most 1,000 images.
"""

from __future__ import annotations

import hashlib
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from raygan.data.images import ImageSet
from raygan.errors import ConfigError
from raygan.gan.arithmetic import arithmetic
from raygan.gan.config import Latent
from raygan.gan.nets.layers import frozen
from raygan.gan.pixels import as_bytes
from raygan.gan.sampling import FID, codes

COUNT = 10_000
BATCH = 64
SUBSETS, SUBSET_SIZE = 100, 1_000


class _Images(Dataset[Tensor]):
    """uint8 images [3, H, W], the input of torch-fidelity."""

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        image = self._images[index]
        return image.expand(3, *image.shape[1:]).contiguous()


def check(weights: Path | None) -> Path:
    """The file of InceptionV3's weights; raises ConfigError if FID cannot be computed here."""
    if find_spec("torch_fidelity") is None:
        raise ConfigError("--fid needs torch-fidelity: pip install 'raygan[fid]'")
    if weights is None or not weights.is_file():
        given = "is missing" if weights is None else f"(={str(weights)!r}) is not a file"
        raise ConfigError(
            f"--fid-weights {given}: give the InceptionV3 weights of torch-fidelity "
            "(weights-inception-2015-12-05-6726825d.pth, an asset of its release v0.2.0); nothing "
            "is downloaded, and FID is defined for this network only"
        )
    return weights


@arithmetic("fp32")
def fid(
    generator: nn.Module,
    code_size: int,
    images: ImageSet,
    weights: Path,
    *,
    seed: int,
    latent: Latent = "normal",
) -> dict[str, Any]:
    """FID and KID of ``generator`` by the protocol of this module, and the protocol's parameters.

    Raises :class:`~raygan.errors.ConfigError` if ``weights`` are not those of InceptionV3.
    """
    from importlib.metadata import version

    from torch_fidelity import calculate_metrics

    device = next(generator.parameters()).device
    count = min(COUNT, len(images.train))
    ranks = torch.arange(count) * len(images.train) // count
    real = images.take(images.train.at(ranks))
    fake = _samples(generator, codes(seed, FID, 0, count, code_size, latent))
    with tempfile.TemporaryDirectory() as folder:
        clean, digest = _clean(weights, Path(folder))
        try:
            scores = calculate_metrics(
                input1=_Images(fake),
                input2=_Images(real),
                fid=True,
                kid=True,
                kid_subsets=SUBSETS,
                kid_subset_size=min(SUBSET_SIZE, count),
                feature_extractor="inception-v3-compat",
                feature_extractor_weights_path=str(clean),
                batch_size=BATCH,
                cuda=device.type == "cuda",
                cache=False,
                save_cpu_ram=True,  # no other processes: they would read what is in memory
                verbose=False,
            )
        except RuntimeError as error:
            if "state_dict" not in str(error):
                raise
            raise ConfigError(
                f"--fid-weights (={str(weights)!r}) are not those of torch-fidelity's InceptionV3"
            ) from error
    return {
        "fid": scores["frechet_inception_distance"],
        "kid": scores["kernel_inception_distance_mean"],
        "kid_std": scores["kernel_inception_distance_std"],
        "n": count,
        "split": "train",
        "bits": 8,
        "resizer": "bilinear, as TensorFlow 1, to 299×299",
        "weights_sha256": digest,
        "torch_fidelity": version("torch-fidelity"),
        "seed": seed,
    }


def _samples(generator: nn.Module, drawn: Tensor) -> Tensor:
    """G's images of the codes, uint8 [N, C, H, W] on the CPU, the same whatever the batch."""
    device = next(generator.parameters()).device
    with torch.no_grad(), frozen(generator):
        parts = [as_bytes(generator(part.to(device))) for part in drawn.split(BATCH)]
    return torch.cat(parts)


def _clean(weights: Path, folder: Path) -> tuple[Path, str]:
    """A copy of ``weights`` that holds only tensors, and the SHA-256 of the original.

    The copy is needed since torch-fidelity 0.4 unpickles the file without checks.
    """
    data = weights.read_bytes()
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # for a damaged file, the unpickler may raise anything
        raise ConfigError(
            f"--fid-weights (={str(weights)!r}) is not a file of tensors; refused ({error})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ConfigError(
            f"--fid-weights (={str(weights)!r}) must hold tensors by name, those of "
            f"torch-fidelity's InceptionV3; it holds a {type(state).__name__}"
        )
    copy = folder / "weights.pth"
    torch.save(state, copy)
    return copy, hashlib.sha256(data).hexdigest()
