"""The sections of a sweep's YAML, made from the configuration classes whose defaults they have."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeAlias,
    get_args,
    get_type_hints,
)

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
)

from raygan.data.dataset import DatasetConfig
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError
from raygan.gan.config import (
    Quality,
    TrainConfig,
    parameter_tables,
    recipe_tables,
    varied_fields,
)
from raygan.gan.interval import CHECKPOINT_EVERY, in_seconds, interval
from raygan.gan.judge.final_config import FinalConfig
from raygan.recipe import Scalar, Table, attribute_docs, revision
from raygan.records import DATASET
from raygan.shown import shown
from raygan.sweep.spec import yaml_loader
from raygan.sweep.spec.mistakes import LIST, NUMBER, RANGE, SECTION, message
from raygan.sweep.stopping.rules import RULES

MOST_TRIALS = 10_000
MOST_SEEDS = 1000
"""Of one setting."""
MOST_DATASETS = 20
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
    hints, docs = get_type_hints(owner), attribute_docs(owner)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], Field(field.default, description=docs.get(field.name)))
        for field in dataclass_fields(owner)
        if field.name != "parameters"
    }
    return create_model(name, __base__=Section, __doc__=inspect.getdoc(owner), **fields)


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
        None,
        ge=1,
        le=10_000,
        description="trials per cell, each with another setting; by default all of a grid",
    )
    seed: int = Field(0, ge=0, description="fixes the random choices of `random` and `tpe`")
    try_first: list[dict[str, Scalar]] = Field(
        [], description="points of the search space that are tried first"
    )
    repeats: int | None = Field(
        None,
        ge=3,
        le=100,
        description="the whole search is repeated so many times in each cell, with other seeds; "
        "each repeat has its own replicates; by default it is not repeated",
    )


if TYPE_CHECKING:  # made from the configuration classes, whose fields no type checker sees here
    Train: TypeAlias = Any
    Dataset: TypeAlias = Any
    NamedDataset: TypeAlias = Any
    OwnTrain: TypeAlias = Any
    Final: TypeAlias = Any
    Grid: TypeAlias = Any
    Search: TypeAlias = Any
else:

    class Train(_section_of(TrainConfig, "Train")):
        __doc__ = TrainConfig.__doc__

        checkpoint_every: int | str = Field(
            CHECKPOINT_EVERY,
            description="time (`90s`, `5m`, `1h`) or iterations between two checkpoints; one more "
            "is written after the last iteration, and one when the sweep is stopped. A trial whose "
            "worker was killed repeats the training since its last checkpoint. The numbers do not "
            "depend on this key, and it may be changed when a sweep is resumed",
        )

        quality: Literal["auto", *get_args(Quality)] = Field(
            "auto",
            description=attribute_docs(TrainConfig)["quality"].rstrip(".") + "; ``auto``: "
            "``features`` if the machine that starts the sweep has ``raygan[quality]``, else "
            "``wasserstein``. All trials have the same measures",
        )

        @pydantic.field_validator("checkpoint_every")
        @classmethod
        def _check_interval(cls, every: int | str) -> int | str:
            try:
                interval(every)
            except ConfigError as error:
                raise ValueError(str(error)) from error
            return every

    Dataset = _section_of(DatasetConfig, "Dataset")

    class OwnTrain(Section):
        """Fields of the training configuration that one data set changes."""

    class NamedDataset(Dataset):
        """One of several data sets."""

        label: str | None = Field(
            None,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$",
            description="what the data set is called in cells, tables and the report: letters, "
            "digits, '.' and '-'; by default its `name`",
        )

    Final = _section_of(FinalConfig, "Final")

    class Grid(Section):
        """Lists of values; each combination of them is a cell."""

    class Search(SearchBase):
        """The search space of each cell: fields of the training configuration."""


_LIST_OR_RANGE: Any = Annotated[
    Annotated[Values, Tag(LIST)] | Annotated[Range, Tag(RANGE)],
    Discriminator(lambda value: RANGE if isinstance(value, dict | Range) else LIST),
]


def recipe_sections() -> Mapping[str, type[Section]]:
    """The sections that recipes add to, with all recipes that are in the tables.

    ``dataset``: the only data set; ``dataset.*``: one of several.
    """
    return _recipe_sections(revision())


@lru_cache(maxsize=8)
def _recipe_sections(_: int) -> Mapping[str, type[Section]]:
    tables = recipe_tables()
    named = {
        name: _named(table, Train.model_fields[name].default, _doc(Train, name))
        for name, table in tables.items()
    }
    own: dict[str, Any] = {}
    for table in parameter_tables():
        own |= _own_parameters(table)
    searched = [name for name in varied_fields() if name != "seed"]
    source = {"name": _named(SOURCES, "digits", _doc(Dataset, "name")), **_own_parameters(SOURCES)}
    train = _extended(Train, {**named, **own})
    own_train = _extended(OwnTrain, {name: _without_none(train, name) for name in searched})
    changes = Field(
        default_factory=own_train,
        description="fields of [`train`](#train) for this data set alone, such as "
        "`{code_size: 128, iterations: 50000}`: none that `grid` or `search` has, and not `seed`, "
        "`quality` or `checkpoint_every`",
    )
    return {
        "train": train,
        "grid": _extended(Grid, _per_field(Values, "Values of", varied_fields())),
        "search": _extended(Search, _per_field(_LIST_OR_RANGE, "List or range of", searched)),
        "stop": _extended(
            Stop, {"rule": _named(RULES, None, _doc(Stop, "rule")), **_own_parameters(RULES)}
        ),
        DATASET: _extended(Dataset, source),
        f"{DATASET}.*": _extended(NamedDataset, {**source, "train": (own_train, changes)}),
    }


def one_or_several(only: type[Section], several: type[Section]) -> Any:
    """The type of ``dataset``: a mapping, or a list of them."""
    listed: Any = Annotated[list[several], Field(min_length=1, max_length=MOST_DATASETS)]  # type: ignore[valid-type]
    return Annotated[
        Annotated[only, Tag(SECTION)] | Annotated[listed, Tag(LIST)],
        Discriminator(lambda value: LIST if isinstance(value, list) else SECTION),
    ]


def _extended(base: type[Section], fields: dict[str, Any]) -> type[Section]:
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)


def _without_none(section: type[Section], name: str) -> Any:
    """A field as in ``section``, left out by default; a value must be given."""
    field = section.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    # of a Literal, the arguments are words
    kind = kinds[0] if NoneType in get_args(field.annotation) else field.annotation
    return kind, Field(
        None,
        description=field.description,
        json_schema_extra=lambda schema: schema.pop("default"),
    )


def _doc(section: type[Section], name: str) -> str:
    return section.model_fields[name].description or ""


def _named(table: Table[Any], default: str | None, what: str) -> Any:
    """The field that names a recipe of ``table``."""
    each = "; ".join(f"`{recipe.name}`: {_in_short(recipe)}" for recipe in table)
    names: Any = Literal[table.names]
    text = f"{what.rstrip('.')}. {each}."
    return names if default else names | None, Field(default, description=text)


def _in_short(recipe: type) -> str:
    """What a recipe is, from the first paragraph of its docstring."""
    first = (inspect.getdoc(recipe) or "").split("\n\n")[0]
    return " ".join(first.split()).rstrip(".")


def _own_parameters(table: Table[Any]) -> dict[str, Any]:
    """The parameters of all recipes of ``table``; None: the recipe's default."""
    made: dict[str, Any] = {}
    for name, owners in table.parameters().items():
        kind = next(iter(owners.values())).type
        docs = "; ".join(
            f"`{table.key}: {owner}`: {p.doc.rstrip('.')} (default {_yaml_word(p.default)})"
            for owner, p in owners.items()
        )
        made[name] = (kind | None, Field(None, description=docs))
    return made


def _yaml_word(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Stop(Section):
    """Early stopping on the running reconstruction loss, per cell."""

    rule: str | None = Field(
        None, description="Stop rule, by default `median` where there is a `search`, else `none`"
    )
    grace: int | None = Field(
        None,
        ge=1,
        description="iterations before any trial is stopped; by default 10% of `iterations`",
    )


class Replicate(Section):
    """The best settings of each cell, trained again with fresh seeds and no early stopping."""

    seeds: int = Field(
        0, ge=0, le=MOST_SEEDS, description="fresh seeds per setting; 0: no replicates"
    )
    top: int = Field(1, ge=1, le=100, description="how many of the best settings of each cell")
    until: int | None = Field(
        None,
        ge=2,
        le=MOST_SEEDS,
        description="more seeds, up to so many, until every difference between cells is settled; "
        "by default none",
    )
    resplit: bool = Field(
        False,
        description="each seed also draws its own held-out images, the same in every cell, so that "
        "the intervals are over splits, too",
    )

    @property
    def most(self) -> int:
        """The most seeds of one setting."""
        return max(self.seeds, self.until or 0)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Replicate:
        if self.until is not None and not 0 < self.seeds < self.until:
            raise ValueError(
                f"`until` (={self.until}) must be above `seeds` (={self.seeds}), the seeds of the "
                "first look, which must be at least 3"
            )
        if self.until is not None and self.seeds < 3:
            raise ValueError(
                f"`seeds` (={self.seeds}) must be at least 3 with `until`: fewer settle nothing"
            )
        return self


class Warmup(Section):
    """How a trial that fails in its first iterations is retried, once; not the same as
    `train.warmup`. If a replicate fails so, all seeds of its setting are trained with the warm-up:
    they are trained alike."""

    iterations: int = Field(
        100, ge=1, description="iterations of the retry at the lower learning rate"
    )
    factor: float = Field(
        0.1, gt=0, lt=1, description="factor of the learning rate during these iterations"
    )


SECOND = {"lower": "than", "not_worse": "than", "equivalent": "to"}
"""The kinds of claims, each with the key of the other cell."""
_PERCENT = re.compile(r"\d{1,3}(\.\d{1,6})?%")


def margin(given: str | float) -> float:
    """``5%`` or 0.05 as a share; raises ValueError for what is neither."""
    if isinstance(given, str) and not _PERCENT.fullmatch(given):
        raise ValueError(f"`margin` (={shown(given)!r}) must be like 5% or 0.05")
    return float(given[:-1]) / 100 if isinstance(given, str) else float(given)


class DeclaredClaim(Section):
    """A claim that is declared before the first trial, about cells or values of one axis:
    `{lower: wn, than: bn}`, `{not_worse: wn, than: vanilla, margin: 5%}`, or
    `{equivalent: wn, to: vanilla, margin: 5%}`."""

    lower: Scalar | None = Field(None, description="its loss is lower than that of `than`")
    not_worse: Scalar | None = Field(
        None, description="its loss is at most `margin` higher than that of `than`"
    )
    equivalent: Scalar | None = Field(
        None, description="its loss is within `margin` of that of `to`"
    )
    than: Scalar | None = Field(None, description="the other, for `lower` and `not_worse`")
    to: Scalar | None = Field(None, description="the other, for `equivalent`")
    margin: str | int | float | None = Field(
        None, description="share of the other's loss, such as 5% or 0.05"
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> DeclaredClaim:
        given = self.model_dump(exclude_none=True)
        kinds = [kind for kind in SECOND if kind in given]
        if len(kinds) != 1:
            raise ValueError(f"must have one of {', '.join(SECOND)}")
        kind, second = kinds[0], SECOND[kinds[0]]
        expected = {kind, second} | ({"margin"} if kind != "lower" else set())
        if given.keys() != expected:
            raise ValueError(f"`{kind}` takes {', '.join(sorted(expected - {kind}))}, and no other "
                             "key")  # fmt: skip
        if "margin" in given and not 0 < margin(given["margin"]) < 1:
            raise ValueError(f"`margin` (={given['margin']}) must be above 0% and below 100%, such "
                             "as 5% or 0.05")  # fmt: skip
        return self


class Budget(Section):
    """Limits: once one is reached, no trial starts, and running ones end at their next rung."""

    gpu_hours: float | None = Field(
        None, gt=0, description="GPUs × hours during which trials hold them"
    )
    wall_clock: str | int | float | None = Field(
        None, description="running time of the sweep, interruptions not counted: 90m, 12h, 2d"
    )
    trials: int | None = Field(
        None, ge=1, description="trials that are started, replicates included"
    )
    usd: float | None = Field(
        None, gt=0, description="cost of the GPU-hours; needs `usd_per_gpu_hour`"
    )
    usd_per_gpu_hour: float | None = Field(None, gt=0, description="price of one GPU for an hour")

    @property
    def caps(self) -> dict[str, Any]:
        """The caps that are set."""
        return self.model_dump(exclude_none=True, exclude={"usd_per_gpu_hour"})

    @property
    def seconds(self) -> float | None:
        """``wall_clock`` in seconds."""
        return None if self.wall_clock is None else in_seconds(self.wall_clock)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Budget:
        if self.wall_clock is not None and self.seconds is None:
            raise ValueError(
                f"`wall_clock` (={self.wall_clock!r}) must be a number and s, m, h or d, such as "
                "90m or 12h"
            )
        if self.usd is not None and self.usd_per_gpu_hour is None:
            raise ValueError("`usd` needs a price: add `usd_per_gpu_hour`")
        return self


MOST_WORKERS = 1024


class Widths(Section):
    """How many workers a trial may have. It starts with as many as there is room for, continues
    with fewer if nodes are lost, and with more if there is room again."""

    min: int = Field(1, ge=1, le=MOST_WORKERS, description="fewest workers of a trial")
    max: int = Field(ge=1, le=MOST_WORKERS, description="most workers of a trial")

    @pydantic.model_validator(mode="after")
    def _check(self) -> Widths:
        if not self.min < self.max:
            raise ValueError(f"`min` (={self.min}) must be below `max` (={self.max})")
        return self


_Workers: Any = Annotated[
    Annotated[int, Field(ge=1, le=MOST_WORKERS), Tag(NUMBER)] | Annotated[Widths, Tag(RANGE)],
    Discriminator(lambda value: RANGE if isinstance(value, dict | Widths) else NUMBER),
]
if TYPE_CHECKING:
    Workers: TypeAlias = int | Widths
else:
    Workers = _Workers


class Weight(Section):
    """Resources of the trials of some cells, where they differ from those of all others."""

    workers: Workers | None = Field(None, description="as `scale.workers`")
    cpus_per_worker: float | None = Field(None, gt=0, description="as `scale.cpus_per_worker`")
    gpus_per_worker: float | None = Field(None, ge=0, description="as `scale.gpus_per_worker`")


class Scale(Section):
    """Resources of each trial, and how many trials run at once."""

    workers: Workers = Field(
        1,
        description="Ray Train workers per trial: a number, or `{min: 1, max: 4}`: as many as "
        "there is room for, if their number divides `batch_size`; the curves do not depend on it",
    )
    cpus_per_worker: float = Field(1.0, gt=0, description="CPU cores per worker")
    gpus_per_worker: float = Field(0.0, ge=0, description="GPUs per worker; may be a fraction")
    by: dict[str, dict[str, Weight]] = Field(
        {},
        description="`workers`, `cpus_per_worker` and `gpus_per_worker` of cells that differ, by "
        "axis and value of `grid`: `{architecture: {resnet: {workers: 2}}}`",
    )
    max_concurrent: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="trials at once; auto: as many as fit on the cluster of the cell whose trials "
        "need least",
    )
    autoscaling: bool = Field(
        False, description="the cluster's autoscaler adds nodes for `max_concurrent` trials"
    )
    stalled_after: str = Field(
        "60s",
        description="time without progress (90s, 5m, 1h) after which the workers of a trial are "
        "ended; the trial resumes from its last checkpoint. Waiting for the storage does not count",
    )
    resident: Literal["auto", "never"] = Field(
        "auto",
        description="where a GPU's images are kept; auto: on the GPU, if they take at most half of "
        "the trial's share of its memory",
    )

    @property
    def fewest(self) -> int:
        """The fewest workers of a trial."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def most(self) -> int:
        """The most workers of a trial."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def width(self) -> str:
        """How many workers a trial has, in words."""
        return str(self.most) if self.most == self.fewest else f"{self.fewest} to {self.most}"

    @property
    def gpus(self) -> float:
        """GPUs of a trial with the most workers."""
        return self.most * self.gpus_per_worker

    @property
    def cpus(self) -> float:
        """CPU cores of a trial with the most workers."""
        return self.most * self.cpus_per_worker

    @property
    def stalled_seconds(self) -> float:
        """``stalled_after`` in seconds."""
        seconds = in_seconds(self.stalled_after)
        assert seconds is not None  # it has been checked
        return seconds

    def widths(self, batch_size: int) -> list[int]:
        """How many workers a trial may have: they share a batch evenly. Ascending."""
        return [n for n in range(self.fewest, self.most + 1) if batch_size % n == 0]

    def of(self, values: Mapping[str, Scalar]) -> Scale:
        """The scale of the cell with these values of the grid's axes: without ``by``.

        ``values`` may hold other fields, too. Raises ValueError if two axes set the same key, or if
        what they set does not go together.
        """
        changes: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for axis, weights in self.by.items():
            for word, weight in weights.items():
                if axis not in values or not names(word, values[axis]):
                    continue
                place = f"scale.by.{axis}.{word}"
                for key, given in weight.model_dump(exclude_none=True).items():
                    if key in changes:
                        raise ValueError(
                            f"`{place}` and `{origins[key]}` both set {key} of the same cells; "
                            "remove one"
                        )
                    changes[key], origins[key] = given, place
        if not changes:
            return self.model_copy(update={"by": {}})
        try:
            return Scale.model_validate({**self.model_dump(), "by": {}, **changes})
        except pydantic.ValidationError as error:
            raise ValueError(
                f"`{next(iter(origins.values()))}`: {message(error.errors()[0])}"
            ) from error

    @pydantic.model_validator(mode="after")
    def _check(self) -> Scale:
        if self.gpus_per_worker > 1 and self.gpus_per_worker != int(self.gpus_per_worker):
            raise ValueError(
                f"`gpus_per_worker` (={self.gpus_per_worker}) must be a whole number if it is "
                "above 1"
            )
        if self.autoscaling and self.max_concurrent == "auto":
            raise ValueError("`autoscaling: true` needs a limit: set `max_concurrent` to a number")
        if 0 < self.gpus_per_worker < 1 < self.most:
            raise ValueError(
                f"`gpus_per_worker` (={self.gpus_per_worker}) must be a whole number if there are "
                f"several `workers` (={self.most}): they cannot share a GPU"
            )
        if in_seconds(self.stalled_after) is None:
            raise ValueError(
                f"`stalled_after` (={shown(self.stalled_after)!r}) must be a number and s, m, h or "
                "d, such as 90s or 5m"
            )
        return self


def names(word: str, value: Scalar) -> bool:
    """Whether ``word``, a key of the YAML, is the ``value`` of an axis: its keys are all text."""
    if isinstance(value, str):
        return word == value
    read = yaml_loader.parse_value(word)
    return bool(read == value) and isinstance(read, bool) == isinstance(value, bool)


class Tracking(Section):
    """Where MLflow is."""

    uri: str | None = Field(
        None,
        description="MLflow server or database; by default $MLFLOW_TRACKING_URI, else SQLite "
        "in the storage folder",
    )
    experiment: str = Field(
        "raygan", min_length=1, max_length=200, description="MLflow experiment of the runs"
    )
