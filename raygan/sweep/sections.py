"""The sections of a sweep's YAML, made from the configuration classes whose defaults they have."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import fields as dataclass_fields
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
)

from raygan.data.config import DatasetConfig
from raygan.gan.config import FIELDS, TrainConfig
from raygan.sweep.mistakes import LIST, RANGE

Scalar = bool | int | float | str

RESERVED = ("data", "mlartifacts", "mlflow.db")
"""What lies beside the sweeps in a storage folder."""
MOST_TRIALS = 10_000
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class Section(BaseModel):
    model_config = _STRICT


class Range(Section):
    """A range that is searched."""

    min: int | float
    max: int | float
    scale: Literal["log", "linear"] = "linear"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Range:
        if not self.min < self.max:
            raise ValueError(f"`min` (={self.min}) must be below `max` (={self.max})")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"`min` (={self.min}) must be positive on a log scale")
        return self


def _section_of(owner: type, name: str) -> type[Section]:
    """The fields of a configuration dataclass, with its types, defaults and docstrings."""
    hints, docs = get_type_hints(owner), _attribute_docs(owner)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], Field(field.default, description=docs.get(field.name)))
        for field in dataclass_fields(owner)
    }
    return create_model(name, __base__=Section, __doc__=inspect.getdoc(owner), **fields)


def _attribute_docs(owner: type) -> dict[str, str]:
    (definition,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        statement.target.id: " ".join(doc.value.value.split())
        for statement, doc in pairwise(definition.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def _per_field(annotation: Any, what: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        name: (annotation | None, Field(None, description=f"{what} `{name}`")) for name in names
    }


Values = Annotated[list[Scalar], Field(min_length=1, max_length=1000)]


class SearchBase(Section):
    method: Literal["grid", "random", "tpe"] | None = Field(
        None, description="by default `grid` if every field is a list, else `tpe`"
    )
    trials: int | None = Field(
        None, ge=1, le=10_000, description="trials per cell; by default all of a grid"
    )
    seed: int = Field(0, ge=0, description="fixes what random and tpe draw")
    try_first: list[dict[str, Scalar]] = Field([], description="points that are tried first")


if TYPE_CHECKING:  # made from the configuration classes, whose fields no type checker sees here
    Train: TypeAlias = Any
    Dataset: TypeAlias = Any
    Grid: TypeAlias = Any
    Search: TypeAlias = Any
else:
    Train = _section_of(TrainConfig, "Train")
    Dataset = _section_of(DatasetConfig, "Dataset")
    Grid = create_model(
        "Grid",
        __base__=Section,
        __doc__="Axes whose product gives the cells of the sweep.",
        **_per_field(Values, "Values of", FIELDS),
    )
    Search = create_model(
        "Search",
        __base__=SearchBase,
        __doc__="What is explored within each cell: fields of the training configuration.",
        **_per_field(
            Annotated[
                Annotated[Values, Tag(LIST)] | Annotated[Range, Tag(RANGE)],
                Discriminator(lambda value: RANGE if isinstance(value, dict | Range) else LIST),
            ],
            "List or range of",
            (name for name in FIELDS if name != "seed"),
        ),
    )


class Stop(Section):
    """Early stopping on the running reconstruction loss, per cell."""

    rule: Literal["asha", "patience", "none"] = "none"
    grace: int = Field(1000, ge=1, description="iterations before any trial is stopped")
    reduction: int = Field(
        3, ge=2, description="asha: one trial in so many passes each rung (grace · reductionᵏ)"
    )
    patience: int = Field(5000, ge=1, description="patience: iterations without a new lowest loss")


class Scale(Section):
    """What each trial takes, and how many run at once."""

    workers: int = Field(1, ge=1, le=1024, description="Ray Train workers per trial")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPU cores per worker")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs per worker; may be a fraction")
    max_concurrent: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="trials at once; auto: as many as the cluster holds"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Scale:
        if self.gpus_per_worker > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise ValueError(
                f"`gpus_per_worker` (={self.gpus_per_worker}) must be whole if it is above 1"
            )
        if 0 < self.gpus_per_worker < 1 < self.workers:
            raise ValueError(
                f"`gpus_per_worker` (={self.gpus_per_worker}) must be whole if there are several "
                f"`workers` (={self.workers}): they cannot share a GPU"
            )
        return self


class Tracking(Section):
    """Where MLflow is."""

    uri: str | None = Field(
        None,
        description="MLflow server or database; by default $MLFLOW_TRACKING_URI, else SQLite "
        "in the storage folder",
    )
    experiment: str = Field("raygan", min_length=1, max_length=200)
