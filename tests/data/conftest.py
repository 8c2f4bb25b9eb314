"""Encoded images in the layouts that people have."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def encoded(value: int, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """An image (width, height) of a colour that only ``value`` decides."""
    pixels = np.full((size[1], size[0], 3), (value, 255 - value, 7), dtype=np.uint8)
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """:func:`encoded`, for tests."""
    return encoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 24 PNG files in two subfolders, and something that is no image."""
    root = tmp_path / "images"
    for index in range(24):
        file = root / f"class-{index % 2}" / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(10 * index))
    (root / "README.txt").write_text("no image")
    return root


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a process of its own."""

    def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run
