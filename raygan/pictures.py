"""The pictures of a trial's evaluations: written by its worker, and read for reports and MLflow.

They are encoded once, as WebP of a bounded width, by a thread of the worker. Earlier versions
stored PNG.

Whoever can write into a sweep's storage could have put any file there. A picture is opened as what
its name says, WebP or PNG, and only if it is no larger than raygan writes them: none of Pillow's
other readers is tried, of which one starts a program, and no header makes much memory be reserved.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from typing import TYPE_CHECKING

from PIL import Image

from raygan.background import Background
from raygan.errors import RayganError
from raygan.folder import (
    IMAGES,
    PICTURES,
    RECONSTRUCTIONS,
    SAMPLES,
    earlier_picture_file,
    picture_file,
    step_of_picture,
    trial_folder,
)
from raygan.retries import patiently
from raygan.shown import shown
from raygan.storage import Storage

if TYPE_CHECKING:
    from raygan.gan.train import Evaluation

MOST_BYTES = 64 * 2**20
"""Bytes of a file that are read."""
MOST_PIXELS = 64 * 2**20
"""Pixels of a picture that are decoded: 192 MiB as RGB."""
MOST_WAITING = 64 * 2**20
"""Bytes of pictures that wait in a worker's memory; the training waits before there are more."""

WEBP = ".webp"


class PictureError(RayganError):
    """A stored picture is damaged, of another kind or too large; the message says which and why."""


class Album:
    """Encodes and writes the pictures of a trial's evaluations, on two threads: all of them, in
    the order of the evaluations.

    They wait in memory, encoded, while the storage is slow, full or away.
    """

    def __init__(self, trial: Storage, most: int = MOST_WAITING) -> None:
        """``most``: bytes that wait at most, unless one evaluation alone has more."""
        self._trial, self._most = trial, most
        self._encoding, self._writing = Background(None), Background(None)
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, evaluation: Evaluation) -> None:
        """Write the pictures of ``evaluation`` soon; waits while too many bytes wait.

        Raises what writing earlier ones has raised.
        """
        size = evaluation.samples.nbytes + evaluation.reconstructions.nbytes
        with self._changed:
            if not self._has_room(size):
                said = f"the training waits until pictures are written ({self._bytes >> 20} MiB)"
                with contextlib.suppress(OSError):  # the log may lie on the same disk
                    print(f"{self._trial.uri}/{IMAGES}: {said}", flush=True)
            self._changed.wait_for(lambda: self._has_room(size))
            self._bytes += size
        self._encoding.put(lambda: self._encode(evaluation, size))

    def wait(self) -> None:
        """Return when all are written; raises what writing them has raised."""
        self._encoding.wait()
        self._writing.wait()

    def _has_room(self, size: int) -> bool:
        return self._bytes == 0 or self._bytes + size <= self._most

    def _encode(self, evaluation: Evaluation, size: int) -> None:
        from raygan.gan.picture_grid import grid_webp

        waiting = 0
        try:
            files = {
                picture_file(SAMPLES, evaluation.step): grid_webp(evaluation.samples),
                picture_file(RECONSTRUCTIONS, evaluation.step): grid_webp(
                    evaluation.reconstructions, columns=8
                ),
            }
            waiting = sum(map(len, files.values()))
            self._writing.put(lambda: self._write(files, waiting))
        finally:
            self._now_waits(waiting - size)

    def _write(self, files: dict[str, bytes], size: int) -> None:
        try:
            for name, content in files.items():
                what = f"{self._trial.uri}/{name} cannot be written"
                patiently(lambda n=name, c=content: self._trial.write(n, c), what)  # type: ignore[misc]
        finally:
            self._now_waits(-size)

    def _now_waits(self, more: int) -> None:
        with self._changed:
            self._bytes += more
            self._changed.notify_all()


def stored(sweep: Storage, trial: str) -> dict[int, dict[str, str]]:
    """Names of a trial's pictures by iteration, ascending, and kind; raises OSError.

    A WebP is preferred to a PNG of the same evaluation.
    """
    found: dict[int, dict[str, str]] = {}
    home = f"{trial_folder(trial)}/{IMAGES}"
    for name in sweep.files(home):  # sorted: .png comes before .webp
        for kind in PICTURES:
            if (step := step_of_picture(kind, name)) is not None:
                found.setdefault(step, {})[kind] = f"{home}/{name}"
    return dict(sorted(found.items()))


def read_evaluation(sweep: Storage, trial: str, kind: str, step: int) -> Image.Image | None:
    """The picture of a trial's evaluation after ``step`` iterations; see :func:`read`."""
    home = trial_folder(trial)
    picture = read(sweep, f"{home}/{picture_file(kind, step)}")
    return picture or read(sweep, f"{home}/{earlier_picture_file(kind, step)}")


def read(storage: Storage, name: str) -> Image.Image | None:
    """The stored picture ``name`` in RGB, or None if there is none.

    Raises :class:`PictureError` if it cannot be shown, and OSError if it cannot be read.
    """
    data = _content(storage, name)
    if data is None:
        return None
    kind = "WebP" if name.endswith(WEBP) else "PNG"
    try:
        # of a WebP before it is opened: Pillow reserves its memory then
        width, height = size_of_webp(data) if kind == "WebP" else (0, 0)
        if width * height <= MOST_PIXELS:
            with Image.open(io.BytesIO(data), formats=[kind.upper()]) as opened:
                width, height = opened.size
                if width * height <= MOST_PIXELS:
                    return opened.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"{shown(name)} (no whole {kind})") from error
    except Exception as error:  # whatever rubbish leads Pillow to
        reason = shown(error, 200) or type(error).__name__
        raise PictureError(f"{shown(name)} ({reason})") from error
    size, most = f"{width:,} × {height:,} pixels", f"{MOST_PIXELS:,}"
    raise PictureError(f"{shown(name)} ({size}; at most {most} are shown)")


def read_webp(storage: Storage, name: str) -> bytes | None:
    """The bytes of the stored WebP ``name``, not decoded, or None if there is none.

    Raises :class:`PictureError` if it is not whole, and OSError if it cannot be read.
    """
    data = _content(storage, name)
    try:
        if data is not None:
            size_of_webp(data)
    except Image.UnidentifiedImageError as error:
        raise PictureError(f"{shown(name)} (no whole WebP)") from error
    return data


def size_of_webp(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP as raygan writes it: one lossy picture, and nothing else.

    Raises :class:`PIL.UnidentifiedImageError` for anything else, also if its end is missing.
    """
    # RIFF, length, WEBP, VP8, length, 3 bytes, 9d 01 2a, width, height: 14 bits each
    whole = len(data) >= 30 and int.from_bytes(data[4:8], "little") + 8 == len(data)
    if not (whole and data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8 "
            and data[23:26] == b"\x9d\x01\x2a"):  # fmt: skip
        raise Image.UnidentifiedImageError("not a lossy WebP")
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _content(storage: Storage, name: str) -> bytes | None:
    data = storage.read(name, MOST_BYTES + 1)
    if data is not None and len(data) > MOST_BYTES:
        raise PictureError(f"{shown(name)} (more than {MOST_BYTES >> 20} MiB)")
    return data
