"""What goes to the processes that train one trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from raygan.folder import trial_folder
from raygan.gan.interval import CHECKPOINT_EVERY

if TYPE_CHECKING:
    from raygan.gan.config import TrainConfig
    from raygan.storage import Storage
    from raygan.sweep.spec.plan import TrialPlan
    from raygan.sweep.spec.sweep_spec import SweepSpec
    from raygan.sweep.study.prepared import Prepared


@dataclass(frozen=True, kw_only=True)
class Job:
    """The training of one trial: all that its processes need, on whichever machine they run.

    All of its values are plain. As Ray passes it on (Tune's ``config`` of a trial, Train's
    ``train_loop_config``), it is a dict of them, :meth:`to_plain`; ``Job(**plain)`` is the way
    back.
    """

    trial: str
    """The trial's id."""
    config: dict[str, Any]
    """The fields of its training configuration: :meth:`train_config` makes it of them."""
    folder: str
    """Folder or address of the trial, for checkpoints and pictures; its name is the trial's id."""
    prepared: str
    """Folder or address of the prepared images."""
    digest: str
    """Of the prepared images: a worker refuses others."""
    split_seed: int | None = None
    """Seed of the trial's own split into training and held-out images; None: the sweep's split."""
    workers: tuple[int, ...] = (1,)
    """How many workers it may have, ascending."""
    cpus: float = 1.0
    """CPUs of each worker."""
    gpus: float = 0.0
    """GPUs of each worker; may be a fraction below 1."""
    recipes: tuple[tuple[str, str], ...] = ()
    """The user's own files of recipes: name and text."""
    checkpoint_every: str | int = CHECKPOINT_EVERY
    """See :func:`raygan.gan.interval.interval`."""
    gpu_share: float = 0.0
    """Share of a GPU's memory, from 0 to 1, that the images may take part of."""
    stalled_after: float = 60.0
    """Seconds without progress after which a worker is ended."""

    def __post_init__(self) -> None:
        # JSON has lists
        files = tuple((name, text) for name, text in self.recipes)
        object.__setattr__(self, "recipes", files)
        object.__setattr__(self, "workers", tuple(self.workers))

    def to_plain(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)

    def train_config(self) -> TrainConfig:
        """How the trial is trained, by the recipes of :attr:`recipes`, which are in use from here
        on; raises :class:`~raygan.errors.ConfigError`."""
        from raygan import recipe
        from raygan.gan.config import TrainConfig

        recipe.use(recipe.RecipeFile(*file) for file in self.recipes)

        return TrainConfig.of(**self.config)


def own_files() -> tuple[tuple[str, str], ...]:
    """The user's own files of recipes that are in use, as name and text."""
    from raygan import recipe

    return tuple((file.name, file.source) for file, _ in recipe.in_use().values())


def job_of(plan: TrialPlan, spec: SweepSpec, sweep: Storage, prepared: Prepared) -> Job:
    """The job of the trial ``plan`` of the sweep ``spec`` that lies in ``sweep``."""
    own_split = spec.replicate.resplit and plan.kind == "replicate"
    scale = spec.scale.of(plan.values)
    images = prepared.of(plan.dataset)
    return Job(
        trial=plan.id,
        config=plan.config.to_dict(),
        folder=f"{sweep.uri}/{trial_folder(plan.id)}",
        prepared=images.folder,
        digest=images.digest,
        split_seed=plan.config.seed if own_split else None,
        recipes=own_files(),
        workers=tuple(scale.widths(plan.config.batch_size)),
        cpus=scale.cpus_per_worker,
        gpus=scale.gpus_per_worker,
        checkpoint_every=spec.train.checkpoint_every,
        gpu_share=scale.gpus_per_worker if scale.resident == "auto" else 0.0,
        stalled_after=scale.stalled_seconds,
    )
