"""What a sweep knows of its images, as tests give it."""

from __future__ import annotations

from raygan.sweep.study.prepared import Prepared, PreparedSet


def one_set(*, id: str = "", label: str = "digits", **fields: object) -> Prepared:
    """A sweep's only data set: ``label``, with these ``fields`` of a PreparedSet."""
    return Prepared(id=id, sets={label: PreparedSet(**fields)})
