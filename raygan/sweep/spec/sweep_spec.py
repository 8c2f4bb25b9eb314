"""What a sweep's YAML may say, and what it means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
)

from raygan import recipe
from raygan.addresses import check_address, without_secrets
from raygan.data.dataset import DatasetConfig
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError
from raygan.folder import BESIDE_SWEEPS
from raygan.gan.config import CORE, Quality, TrainConfig, check_names, recipe_tables
from raygan.gan.judge.final_config import FinalConfig
from raygan.gan.judge.metrics import METRICS
from raygan.gan.judge.sample_quality import best_available
from raygan.recipe import parameters
from raygan.shown import shown
from raygan.sweep.spec import checks, dry_pass, presets, yaml_loader
from raygan.sweep.spec.mistakes import explain
from raygan.sweep.spec.space import search_method
from raygan.sweep.spec.yaml_sections import (
    DATASET,
    Budget,
    Dataset,
    DeclaredClaim,
    Final,
    Grid,
    Range,
    Replicate,
    Scalar,
    Scale,
    Search,
    SearchBase,
    Section,
    Stop,
    Tracking,
    Train,
    Warmup,
    Weight,
    one_or_several,
    recipe_sections,
)
from raygan.sweep.stopping.rules import RULES

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class SweepSpec(Section):
    """A sweep: one YAML file."""

    name: str = Field(
        pattern=NAME,
        description="name of the sweep, its folder and its runs: letters, digits, '.', '_' and '-'",
    )
    recipes: list[str] = Field(
        [],
        max_length=100,
        description="files with recipes of your own, such as `my_norm.py`; paths are relative to "
        "this file",
    )
    preset: str | None = Field(
        None,
        description="supplies values of training keys that this file does not give: "
        f"{', '.join(f'`{name}`' for name in presets.PRESETS)}, as in the published code of the "
        "paper's authors",
        json_schema_extra={"enum": [*presets.PRESETS, None]},
    )
    dataset: Dataset = Dataset()
    grid: Grid = Grid()
    search: Search = Search()
    stop: Stop = Stop()
    warmup: Warmup | None = Field(
        None,
        description="retry of a trial that fails in its first iterations, not the same as "
        "`train.warmup`; by default none",
    )
    replicate: Replicate = Replicate()
    claims: list[DeclaredClaim] = Field(
        [],
        max_length=100,
        description="claims that are declared before the first trial: they are tested together "
        "(Holm), and all other differences are exploratory",
    )
    final: Final = Final()
    train: Train = Train()
    scale: Scale = Scale()
    budget: Budget = Budget()
    storage: str = Field(
        "results",
        min_length=1,
        max_length=1000,
        description="folder or address, such as `s3://bucket/raygan`, that holds all sweeps",
    )
    tracking: Tracking = Tracking()

    @pydantic.model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> SweepSpec:
        if ".." in self.name or self.name in BESIDE_SWEEPS:
            raise ValueError(
                f"`name` (={self.name!r}) must not contain '..' and must not be one of "
                f"{', '.join(BESIDE_SWEEPS)}"
            )
        self.train_config()
        self.final_config()
        checks.check(self)
        if not (info.context or {}).get("known"):
            self.datasets()
            checks.check_new(self)
        return self

    @property
    def listed(self) -> list[Any]:
        """The data sets as the YAML lists them; empty if ``dataset`` is a mapping."""
        return self.dataset if isinstance(self.dataset, list) else []

    @property
    def labels(self) -> list[str]:
        """What each data set is called, in the order of the YAML."""
        if not self.listed:
            return [str(self.dataset.name)]
        return [str(one.label or one.name) for one in self.listed]

    @property
    def only_label(self) -> str:
        """What the only data set is called; empty if there are several."""
        return "" if len(self.labels) > 1 else self.labels[0]

    def label_of(self, values: Mapping[str, Scalar]) -> str:
        """The label of the data set of the cell with these values of the grid's axes."""
        return str(values.get(DATASET, self.labels[0]))

    def datasets(self) -> dict[str, DatasetConfig]:
        """The data sets by label, in the order of the YAML.

        Raises :class:`~raygan.errors.ConfigError`, for one of a list with its place there.
        """
        if not self.listed:
            return {self.labels[0]: DatasetConfig.of(**self.dataset.model_dump())}
        found: dict[str, DatasetConfig] = {}
        for number, (label, one) in enumerate(zip(self.labels, self.listed, strict=True)):
            try:
                found[label] = DatasetConfig.of(**one.model_dump(exclude={"label", "train"}))
            except ConfigError as error:
                text = str(error).replace(" or by `--set dataset.path=…`", "")
                raise ConfigError(f"`{DATASET}.{number}`: {text}") from error
        return found

    def own_train(self, label: str | None = None) -> dict[str, Any]:
        """The training fields that the data set ``label``, or the only one, has for itself."""
        if not self.listed or (label is None and len(self.listed) > 1):
            return {}
        one = self.listed[0 if label is None else self.labels.index(label)]
        own: dict[str, Any] = one.train.model_dump(exclude_unset=True)
        return own

    def fixed(self, name: str, label: str | None = None) -> Any:
        """The value of a training field that does not vary within the data set ``label``."""
        return self.own_train(label).get(name, getattr(self.train, name))

    def train_config(self, **changes: Any) -> TrainConfig:
        """What every trial has in common, with some fields changed.

        ``changes`` may hold ``dataset``, the label of one of several data sets, whose own fields
        then count.
        """
        own = self.own_train(changes.pop(DATASET, None))
        given = self.train.model_dump(exclude={"checkpoint_every"})
        values = {name: value for name, value in given.items() if name in CORE or value is not None}
        return TrainConfig.of(**{**values, "quality": self.quality(), **own, **changes})

    def quality(self) -> Quality:
        """The measures of sample quality; where the YAML names none, what this machine has."""
        given: Quality | Literal["auto"] = self.train.quality
        return best_available() if given == "auto" else given

    def final_config(self) -> FinalConfig:
        """The final test of the replicates."""
        return FinalConfig(**self.final.model_dump())

    def axes(self) -> dict[str, list[Scalar]]:
        """The grid's axes: the data sets, if there are several, and then fields in the order of
        the training configuration's."""
        several: dict[str, list[Scalar]] = {DATASET: [*self.labels]} if len(self.labels) > 1 else {}
        return several | _given(self.grid)

    def space(self) -> dict[str, list[Scalar] | Range]:
        """The searched fields, in the order of the training configuration's fields."""
        own = SearchBase.model_fields
        return {name: value for name, value in _given(self.search).items() if name not in own}

    def stopping(self) -> Stop:
        """Early stopping, with the rule that is used where the YAML names none."""
        rule = self.stop.rule or ("median" if self.space() else "none")
        return self.stop.model_copy(update={"rule": rule})

    def resolved(self) -> dict[str, Any]:
        """Everything that the sweep will use, defaults included, as plain values."""
        resolved = self.model_dump(mode="json", exclude_none=True)
        for name in self.axes().keys() | self.space().keys():
            resolved["train"].pop(name, None)  # it stands where it varies
        resolved["train"]["quality"] = self.quality()
        resolved["train"] = self._with_parameters(resolved["train"])
        if self.recipes:
            resolved["recipes"] = [Path(path).name for path in self.recipes]
        else:
            del resolved["recipes"]
        rule = resolved["stop"]["rule"] = self.stopping().rule or "none"
        _complete(resolved["stop"], RULES, rule)
        if RULES[rule].never:
            resolved["stop"].pop("grace", None)
        images = resolved[DATASET] if self.listed else [resolved[DATASET]]
        for one in images:
            _complete(one, SOURCES, one["name"])
        for label, one in zip(self.labels, images if self.listed else [], strict=False):
            one["label"] = label
            if not one["train"]:
                del one["train"]
        if search_method(self) == "grid":
            del resolved["search"]["seed"]
        # an earlier version let them stand in addresses
        for section, name in ((resolved, "storage"), (resolved["tracking"], "uri"),
                              *((one, "path") for one in images)):  # fmt: skip
            if name in section:
                section[name] = without_secrets(section[name])
        return resolved

    def _with_parameters(self, train: dict[str, Any]) -> dict[str, Any]:
        """``train`` with the parameters of the recipes that the sweep may use, and no others."""
        varied = self.axes().keys() | self.space().keys()
        for key, table in recipe_tables().items():
            used = checks.possible(self, key)
            for name, owners in table.parameters().items():
                defaults = {p.default for owner, p in owners.items() if owner in used}
                if not defaults:
                    train.pop(name, None)
                elif len(defaults) == 1 and name not in varied:
                    train.setdefault(name, defaults.pop())
        for owners in METRICS.parameters().values():
            for parameter in owners.values():
                train.setdefault(parameter.name, parameter.default)
        return train


def _complete(section: dict[str, Any], table: recipe.Table[Any], used: str) -> None:
    """Give ``section`` all parameters of the recipe ``used``, and none of the others."""
    own = parameters(table[used])
    for name in table.parameters():
        if name in own:
            section.setdefault(name, own[name].default)
        else:
            section.pop(name, None)


def spec_class() -> type[SweepSpec]:
    """:class:`SweepSpec` with the recipes that are in the tables, and their parameters."""
    return _spec_class(recipe.revision())


@lru_cache(maxsize=8)
def _spec_class(_: int) -> type[SweepSpec]:
    made = dict(recipe_sections())
    several = made.pop(f"{DATASET}.*")
    sections: dict[str, Any] = {name: (section, section()) for name, section in made.items()}
    sections[DATASET] = (
        one_or_several(made[DATASET], several),
        Field(made[DATASET](), description="the images: a mapping, or a list of several data sets"),
    )
    return create_model("SweepSpec", __base__=SweepSpec, __doc__=SweepSpec.__doc__, **sections)


def _given(section: BaseModel) -> dict[str, Any]:
    return {
        name: getattr(section, name)
        for name in section.model_dump(exclude_unset=True)
        if getattr(section, name) is not None
    }


def load(path: Path, overrides: Iterable[str] = ()) -> SweepSpec:
    """Read a sweep from ``path``, with ``key=value`` overrides.

    Raises :class:`~raygan.errors.ConfigError`: file, line, what is wrong, the nearest key.
    """
    document = _document(path)
    for override in overrides:
        _override(document, override)
    files = _recipe_files(document, path.parent)
    recipe.keep_only({file.name: file.digest for file in files})
    recipe.use(files)
    check_names()
    try:
        presets.complete(document.data)
    except ConfigError as error:
        raise ConfigError(f"{document.where(('preset',))}: {error}") from error
    with recipe.blamed():
        spec = validate(document)
    try:
        with recipe.blamed():
            dry_pass.check(spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return spec


def place(path: Path) -> tuple[str, str]:
    """Name and storage of the sweep in ``path``, whose recipes are not run.

    Raises :class:`~raygan.errors.ConfigError` if the file is no sweep.
    """
    document = _document(path)
    data = document.data if isinstance(document.data, dict) else {}
    name, storage = data.get("name"), data.get("storage", SweepSpec.model_fields["storage"].default)
    if isinstance(name, str) and isinstance(storage, str):
        return name, storage
    spec = load(path)  # which says what is wrong
    return spec.name, spec.storage


def _document(path: Path) -> yaml_loader.Document:
    try:
        with path.open("rb") as file:
            text = file.read(yaml_loader.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return yaml_loader.parse(text, str(path))


def _recipe_files(document: yaml_loader.Document, folder: Path) -> list[recipe.RecipeFile]:
    """The files that the YAML names under ``recipes``; raises ConfigError."""
    paths = document.data.get("recipes") if isinstance(document.data, dict) else None
    if not isinstance(paths, list):
        return []  # validate says what is wrong
    files: dict[str, recipe.RecipeFile] = {}
    for number, path in enumerate(paths):
        where = document.where(("recipes", number))
        if not isinstance(path, str):
            continue
        try:
            check_address(path, "recipes")
            file = recipe.read(folder / Path(path).expanduser())
        except (ConfigError, RuntimeError) as error:
            raise ConfigError(f"{where}: {error}") from error
        if file.name in files:
            raise ConfigError(f"{where}: two files are called {file.name}; rename one")
        files[file.name] = file
    return list(files.values())


def validate(document: yaml_loader.Document, *, known: bool = False) -> SweepSpec:
    """Check parsed YAML; raises :class:`~raygan.errors.ConfigError`.

    ``known``: it was accepted before, perhaps by an earlier version that refused less; what only
    people who write a YAML have to be told passes.
    """
    if not isinstance(document.data, dict):
        raise ConfigError(f"{document.name}: must be a mapping with at least the key `name`")
    if not known:  # before anything else: nothing that follows may repeat a secret
        _check_addresses(document.data, (), document)
    try:
        return spec_class().model_validate(document.data, context={"known": known})
    except ValidationError as error:
        raise ConfigError(explain(document, error, _keys())) from error


def _check_addresses(data: Any, path: yaml_loader.Path, document: yaml_loader.Document) -> None:
    """Refuse secrets in all that may be an address, wherever it stands."""
    if isinstance(data, dict):
        for key, value in data.items():
            _check_address(str(key), "key", document.where((*path, key)))
            _check_addresses(value, (*path, key), document)
    elif isinstance(data, list):
        for number, value in enumerate(data):
            _check_addresses(value, (*path, number), document)
    elif isinstance(data, str):
        _check_address(data, shown(".".join(map(str, path))), document.where(path))


def _check_address(text: str, name: str, where: str) -> None:
    try:
        check_address(text, name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _override(document: yaml_loader.Document, override: str) -> None:
    key, equals, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    label = f"--set {shown(key.strip())}=…"
    # a key may be a value of an axis, such as in scale.by.code_size.16
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_+-]+", part) for part in parts):
        given = shown(without_secrets(override))
        raise ConfigError(f"--set {given!r}: must be key=value, such as train.features=16")
    target = document.data
    if not isinstance(target, dict):
        return  # validate says so
    for part in parts[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if isinstance(target, list) and part == DATASET:
            raise ConfigError(
                f"{label}: `{DATASET}` is a list of data sets here; change the YAML, or give the "
                f"whole list: --set '{DATASET}=[{{name: …}}, …]'"
            )
        if not isinstance(target, dict):
            raise ConfigError(f"{label}: `{shown(part)}` is not a section")
    try:
        value = yaml_loader.parse_value(text)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
    document.overrides[parts] = label  # the value may hold a secret
    _check_addresses(value, parts, document)
    target[parts[-1]] = value
    document.overrides[parts] = shown(f"--set {override}")


def _keys() -> dict[str, list[str]]:
    """Allowed keys per section, for suggestions; the top level is the section ''."""
    top = spec_class().model_fields
    sections: dict[str, type[Section]] = {"train": Train}  # suggested before grid and search
    sections |= {"warmup": Warmup, "claims.*": DeclaredClaim, "scale.by": Weight}
    for name, field in top.items():
        if isinstance(field.default, Section):
            sections[name] = type(field.default)
    several = recipe_sections()[f"{DATASET}.*"]
    own: Any = several.model_fields["train"].annotation
    sections |= {f"{DATASET}.*": several, f"{DATASET}.*.train": own}
    return {"": list(top), **{name: list(made.model_fields) for name, made in sections.items()}}


def smoke(spec: SweepSpec) -> SweepSpec:
    """The same cells, shrunk to a minute: tiny networks, 20 iterations, one trial and one
    replicate per cell."""
    small: dict[str, Any] = {
        "iterations": 20,
        "evaluate_every": 10,
        "reconstruction_steps": 5,
        "features": 8,
        "features_d": None,
        "code_size": 16,
    }
    varied = spec.axes().keys() | spec.space().keys()
    data = spec.model_dump(exclude_unset=True)
    data["name"] = f"{spec.name[:58]}-smoke"
    data["train"] = {**data.get("train", {}), **{k: v for k, v in small.items() if k not in varied}}
    for one in data[DATASET] if spec.listed else ():
        one["train"] = {k: v for k, v in one.get("train", {}).items() if k not in small}
    data.get("stop", {}).pop("grace", None)
    if spec.space():
        search = data.setdefault("search", {})
        search["trials"] = 1
        search.pop("repeats", None)
    if spec.replicate.seeds:
        data["replicate"] = {"seeds": 1}
    if spec.final.steps:
        small_test = {"steps": 10, "images": 16, "restarts": 1, "audited": 4}
        data["final"] = {**small_test, "protocol": spec.final.protocol}
    return validate(yaml_loader.Document("--smoke-test", data), known=True)
