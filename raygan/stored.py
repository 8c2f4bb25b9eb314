"""The one reader of JSON that a sweep has stored: bounded and of the right types, or refused.

The files may be cut off, of another version, or from somebody else: whatever stands in them, they
are either what they are taken for or damaged, which is a ValueError with the reason in one line.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from raygan.shown import shown
from raygan.storage import MOST_BYTES as MOST_BYTES

T = TypeVar("T")

MOST = 1e39
"""The largest number that a metric may be: a float32's."""

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
"""For the ``__pydantic_config__`` of what is stored: no number from a text, and no NaN."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of things, or of iterations."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Metric = Annotated[float, Field(ge=-MOST, le=MOST)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.=+-]+$", max_length=255)]
"""An identifier: nothing that acts in a terminal, a path or a query."""


def parse(kind: TypeAdapter[T], data: bytes) -> T:
    """``data``, a JSON document, as a ``kind``; raises ValueError, saying why not.

    Depth is bounded by pydantic's parser, at 200 levels.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES // 2**20} MiB")
    try:
        return kind.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            shown(f"{where}: {first['msg']}" if where else first["msg"], 200)
        ) from None
