"""A trial's pictures in MLflow: which ones, and the names that its UI understands."""

from __future__ import annotations

import io
import re

from PIL import Image

MOST_STEPS = 16
"""Most evaluations of a trial whose pictures MLflow gets; the storage keeps all of them."""
MOST_WIDTH = 512
"""Most pixels of the width in MLflow of a picture that an earlier version has stored as PNG."""
FOLDER = "images"
"""The artifacts that MLflow's UI shows as pictures with a slider for the step."""
SHOWN_TAG = "mlflow.loggedImages"
"""Tag of a run whose pictures the UI looks for."""
_QUALITY = 85
_STEP = re.compile(r"[+%]step[+%](\d+)[+%]")


def is_chosen(step: int, every: int, iterations: int) -> bool:
    """Whether MLflow gets the pictures of the evaluation after ``step`` iterations.

    It gets those of the first and the last one, and others evenly between: at most
    :data:`MOST_STEPS`. ``every``: iterations between two evaluations. A trial that is resumed or
    copied again has the same ones.
    """
    count, number = -(-iterations // every), -(-step // every)
    shares = MOST_STEPS - 1
    return number == 1 or number * shares // count > (number - 1) * shares // count


def encoded(picture: Image.Image) -> bytes:
    """``picture``, stored by an earlier version, as WebP of at most :data:`MOST_WIDTH` pixels of
    width. Others go to MLflow as they are stored."""
    if picture.width > MOST_WIDTH:
        height = max(1, round(picture.height * MOST_WIDTH / picture.width))
        picture = picture.resize((MOST_WIDTH, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY, method=0)
    return buffer.getvalue()


def names(kind: str, step: int) -> tuple[str, str]:
    """Names of a picture's two files in :data:`FOLDER`; the UI shows nothing if one is missing.

    MLflow's own names hold the time and a random number, so that a picture that is sent twice is
    there twice. With these, the second replaces the first.
    """
    name = f"{kind}+step+{step}+timestamp+0+raygan"
    return f"{name}.webp", f"{name}+compressed.webp"


def step_of(name: str) -> int | None:
    """The iteration of a picture's file, as this module or MLflow itself named it."""
    match = _STEP.search(name)
    return int(match[1]) if match else None
