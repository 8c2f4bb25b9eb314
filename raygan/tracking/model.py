"""The generators of a sweep's champions as models in MLflow's registry, loadable without raygan.

Which trials the champions are says :func:`raygan.sweep.session.publish.champions`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raygan.tracking.context import set_defaults

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import nn

ALIAS = "champion"
EXAMPLES = 4
"""Codes in the model's input example."""
READY_SECONDS = 10
_TAG = "raygan.generator"


@dataclass(frozen=True)
class Model:
    """A generator as it is registered."""

    key: str
    """Tells it apart from the sweep's other generators: a trial and its checkpoint."""
    folder: Path
    """What :func:`save_model` has written."""
    description: str = ""
    label: str = ""
    """Of the data set, if the sweep has several: each has a champion."""
    params: dict[str, str] = field(default_factory=dict)


def save_model(generator: nn.Module, code_size: int, shape: tuple[int, ...], folder: Path) -> None:
    """Write ``generator``, in eval mode and on the CPU, as an MLflow model: a ``torch.export``
    program, which holds no pickle and needs no code of raygan.

    It takes codes z, float32 (N, ``code_size``), and gives images, float32 (N, \\*
    ``shape``) in [0, 1].
    """
    set_defaults()
    import mlflow.pytorch
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    single = np.dtype(np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(single, (-1, code_size))]),
        outputs=Schema([TensorSpec(single, (-1, *shape))]),
    )
    example = np.random.default_rng(0).standard_normal((EXAMPLES, code_size), dtype=single)
    with warnings.catch_warnings():
        # torch.export speaks of weights that are views; what is exported lies on the CPU
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            generator.cpu().eval(),
            folder,
            signature=signature,
            input_example=example,
            serialization_format="pt2",
            # named, or else MLflow loads the model in another process to find them
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
        )


def register(
    client: MlflowClient, experiment: str, run: str, name: str, sweep: str, model: Model
) -> None:
    """Register ``model`` as ``name`` under the alias ``champion``; no version is made twice.

    ``sweep`` is the id of the sweep whose parent run is ``run``, in the experiment ``experiment``.
    """
    key = f"{sweep}/{model.key}"
    known = next(
        (v for v in client.search_model_versions(f"name = '{name}'") if v.tags.get(_TAG) == key),
        None,
    )
    version = known or _version(client, experiment, run, name, key, model)
    client.set_registered_model_alias(name, ALIAS, version.version)


def _version(
    client: MlflowClient, experiment: str, run: str, name: str, key: str, model: Model
) -> Any:
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    tags = {_TAG: key}
    logged = client.create_logged_model(
        experiment, ALIAS, source_run_id=run, tags=tags, params=model.params
    )
    client.log_model_artifacts(logged.model_id, str(model.folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        client.create_registered_model(name, description="The best generator of a sweep by raygan.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.create_model_version(
        name,
        # not its address models:/…, which the registry would look up in MLflow's global store
        source=logged.artifact_location,
        run_id=run,
        tags=tags,
        description=model.description,
        await_creation_for=READY_SECONDS,
        model_id=logged.model_id,
    )
