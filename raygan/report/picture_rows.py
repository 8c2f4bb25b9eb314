"""What generators make: pictures that a sweep has stored, small enough for a report."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from PIL import Image

from raygan.folder import (
    EXTREMES,
    RECONSTRUCTIONS,
    SAMPLES,
    final_picture,
    trial_folder,
)
from raygan.pictures import PictureError, read, stored
from raygan.records import TrialRecord
from raygan.report.evidence import CellResults, Evidence
from raygan.report.finals import GENERATORS, losses_files
from raygan.storage import Storage

MOST_CELLS, LEAST_OF_SET, MOST_STEPS = 6, 3, 5
"""Most cells of all data sets together, but so many of each data set in any case; most steps."""
WIDTH, HEIGHT = 576, 288
"""Pixels, at most."""
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """One picture with what it shows."""

    caption: str
    name: str
    """Names its file."""
    jpeg: bytes
    width: int
    height: int
    problem: str = ""
    """Why there is no picture, if there is none; then ``jpeg`` is empty."""

    @property
    def is_wide(self) -> bool:
        """Whether it takes more room than a square to be seen."""
        return self.width > 1.5 * self.height


@dataclass(frozen=True)
class Strip:
    """The pictures of one cell, side by side."""

    cell: str
    pictures: list[Picture]
    note: str = ""


def samples(storage: Storage, evidence: Evidence) -> list[Strip]:
    """Per cell, samples from the same codes over the iterations, of one run with the same seed."""
    strips = []
    for cell, record in _chosen(evidence):
        known = _known(storage, record, SAMPLES)
        names = [(f"iteration {step:,}", known[step]) for step in _spread(list(known))]
        strips.append(_strip(storage, cell, record, names))
    return [strip for strip in strips if strip.pictures]


def reconstructions(storage: Storage, evidence: Evidence) -> list[Strip]:
    """Per cell, held-out images beside their reconstructions, by the best and by the last
    generator of one run with the same seed."""
    strips = []
    for cell, record in _chosen(evidence):
        known = _known(storage, record, RECONSTRUCTIONS)
        best = record.best[0] if record.best else -1
        names = [
            (f"{what}, iteration {step:,}", known[step])
            for what, step in (("best", best), ("last", record.step))
            if step in known
        ]
        strips.append(_strip(storage, cell, record, names))
    return [strip for strip in strips if strip.pictures]


def extremes(storage: Storage, evidence: Evidence) -> list[Strip]:
    """Per cell, the hardest and the easiest images of the final test beside their reconstructions,
    by the best and the last generator of the run that ended lowest."""
    strips = []
    cells = [cell for part in evidence.parts.values() for cell in part.ranked[: _most(evidence)]]
    for cell in cells:
        record = evidence.best_run(cell)
        home = trial_folder(record.id)
        names = [
            (f"{which} generator, {how}", f"{home}/{final_picture(which, how)}")
            for which in GENERATORS
            for how in EXTREMES
        ]
        strip = _strip(storage, cell, record, names)
        note = f"The loss of each image is in {losses_files(record.id)}."
        strips.append(replace(strip, note=note))
    return [strip for strip in strips if strip.pictures]


def _chosen(evidence: Evidence) -> list[tuple[CellResults, TrialRecord]]:
    """One run of each cell, with the seed that most cells of its data set have a result with."""
    most, parts = _most(evidence), evidence.parts.values()
    return [chosen for part in parts for chosen in _of_set(part, most)]


def _most(evidence: Evidence) -> int:
    """Most cells of one data set."""
    sets = len(evidence.parts)
    return MOST_CELLS if sets == 1 else max(LEAST_OF_SET, MOST_CELLS // sets)


def _of_set(evidence: Evidence, most: int) -> list[tuple[CellResults, TrialRecord]]:
    cells = [cell for cell in (evidence.ranked or evidence.cells) if cell.runs][:most]
    seeds = [seed for cell in cells for seed in (evidence.losses(cell) or cell.runs)]
    if not seeds:
        return []
    seed = max(sorted(set(seeds)), key=seeds.count)
    return [(c, c.runs.get(seed) or next(iter(c.runs.values()))) for c in cells]


def _known(storage: Storage, record: TrialRecord, kind: str) -> dict[int, str]:
    """Names of the pictures that there are, by iteration, as far as the record knows them."""
    found = stored(storage, record.id)
    return {
        step: names[kind] for step, names in found.items() if kind in names and step <= record.step
    }


def _spread(steps: list[int]) -> list[int]:
    """At most :data:`MOST_STEPS` of ``steps``: the first, the last, and between by equal ratios."""
    if len(steps) <= MOST_STEPS:
        return steps
    count = len(steps)
    ranks = {round(count ** (k / (MOST_STEPS - 1))) - 1 for k in range(MOST_STEPS)}
    return [steps[rank] for rank in sorted(ranks)]


def _strip(
    storage: Storage, cell: CellResults, record: TrialRecord, names: Iterable[tuple[str, str]]
) -> Strip:
    pictures = []
    for caption, path in names:
        file = f"{record.id}-{PurePosixPath(path).stem}.jpg"
        try:
            image = read(storage, path)
        except (PictureError, OSError) as error:
            problem = f"picture damaged: {error}"
            pictures.append(Picture(caption, file, b"", 0, 0, problem))
            continue
        if image is not None:
            pictures.append(_small(caption, file, image))
    return Strip(
        f"{cell.name}, {record.title.removeprefix(cell.name).strip() or 'as given'}", pictures
    )


def _small(caption: str, file: str, image: Image.Image) -> Picture:
    image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, format="JPEG", quality=QUALITY, optimize=True)
    return Picture(caption, file, sink.getvalue(), image.width, image.height)
