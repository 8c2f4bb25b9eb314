"""``raygan evaluate``: final tests of the generators of a sweep or a trial, in this process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from raygan import own_recipes, recipe
from raygan.checkpoints import best_and_last
from raygan.errors import CheckpointError, ConfigError, DataError, RayganError
from raygan.folder import FINAL, final_fid, trial_folder
from raygan.gan.config import Quality, recipe_tables
from raygan.gan.judge.final_config import PER_IMAGE, SearchProtocol
from raygan.records import WHOLE, TrialRecord
from raygan.report.finals import protocol, read_quality
from raygan.shown import MOST_MESSAGE, say, shown, text_cell
from raygan.storage import Storage
from raygan.sweep.cluster.job import Job, job_of
from raygan.sweep.cluster.preparing import data_folder
from raygan.sweep.commands.look import open_sweep
from raygan.sweep.session import final_tests
from raygan.sweep.session.final_making import Here, load_generator, make_quality
from raygan.sweep.session.progress import FinalProgress
from raygan.sweep.session.terminal import text_table
from raygan.sweep.spec import plan
from raygan.sweep.spec.sweep_spec import NAME, SweepSpec, load
from raygan.sweep.study import stored_sweep
from raygan.sweep.study.cell import best, verdict_records
from raygan.sweep.study.prepared import PreparedSet


@click.command()
@click.argument("name")
@click.option(
    "--storage",
    default="results",
    show_default=True,
    help="Where the sweep is stored; not needed if NAME is its YAML file.",
)
@click.option("--steps", type=int, help="RMSProp steps per image; by default the sweep's.")
@click.option("--images", type=int, help="How many of the final images; by default the sweep's.")
@click.option(
    "--restarts", type=int, help="Code searches from random codes for each audited image."
)
@click.option(
    "--audited", type=int, help="How many images are audited: tested from random codes, too."
)
@click.option(
    "--protocol",
    type=click.Choice(get_args(SearchProtocol)),
    help="Whose gradient a code search follows (`final.protocol`); by default the sweep's.",
)
@click.option(
    "--which", type=click.Choice(final_tests.GENERATORS), help="Which generator; by default both."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the tests run; auto: on a GPU if there is one.",
)
@click.option(
    "--recipe",
    "recipes",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Your own file of recipes that the sweep uses; not needed if NAME is its YAML file.",
)
@click.option(
    "--fid", is_flag=True, help="Also compute FID and KID; needs raygan[fid] and its weights."
)
@click.option(
    "--fid-weights",
    type=click.Path(path_type=Path),
    help="File of torch-fidelity's InceptionV3 weights; nothing is downloaded.",
)
@click.option(
    "--quality",
    is_flag=True,
    help="Also measure the quality of samples: feature energy distance, recall and coverage with "
    "raygan[quality], else the sliced Wasserstein distance. `--steps 0`: nothing else.",
)
def evaluate(
    name: str,
    storage: str,
    which: str | None,
    device: str,
    recipes: tuple[Path, ...],
    fid: bool,
    fid_weights: Path | None,
    quality: bool,
    **budget: Any,
) -> None:
    """Test the best and the last generator on the final held-out images.

    NAME is a sweep, or SWEEP/TRIAL. For a sweep, the replicates are tested, or the best trial of
    each cell if there are none. Results are stored under trials/TRIAL/final. A generator that has
    been tested with the same budget is not tested again.
    """
    try:
        try:
            weights = _fid_weights(fid_weights, asked=fid)
            if name.endswith((".yaml", ".yml")):
                load(Path(name))  # its recipes are used
            elif recipes:
                recipe.use([recipe.read(path) for path in recipes])
            kind = _quality() if quality else "none"
            failed = _evaluate(name, storage, which, device, budget, weights, kind)
        except OSError as error:
            raise ConfigError(f"`storage` (={storage!r}) cannot be used ({error})") from error
    except RayganError as error:
        click.secho(shown(f"error: {error}", MOST_MESSAGE, lines=True), fg="red", err=True)
        sys.exit(2)
    sys.exit(3 if failed else 0)


def _fid_weights(weights: Path | None, *, asked: bool) -> Path | None:
    from raygan.gan.judge.fid import check

    if asked:
        return check(weights)
    if weights is not None:
        raise ConfigError(f"--fid-weights (={str(weights)!r}) needs --fid: give both, or neither")
    return None


def _evaluate(
    name: str,
    storage: str,
    which: str | None,
    device: str,
    budget: dict[str, Any],
    weights: Path | None,
    quality: Quality,
) -> int:
    """Make the tests; returns how many failed."""
    name, _, wanted = (name, "", "") if name.endswith((".yaml", ".yml")) else name.partition("/")
    sweep, spec = open_sweep(name, storage)
    own_recipes.check_unchanged(sweep)
    prepared = stored_sweep.stored_data(sweep, spec)
    known = stored_sweep.stored_records(sweep, spec)
    tested = [_trial(wanted, known, sweep)] if wanted else _of_sweep(spec, known)
    if prepared is None or not tested:
        raise ConfigError(f"no trial of {spec.name!r} has a result yet; run the sweep first")
    config = replace(spec.final_config(), **{k: v for k, v in budget.items() if v is not None})
    if config.steps == 0 and quality == "none":
        raise ConfigError("`final.steps` is 0, so there is no final test: give --steps")
    for record in tested:
        for key, table in recipe_tables().items():
            recipe.require_code(table[str(record.config[key])])
    names = final_tests.GENERATORS if which is None else (which,)
    _see_checkpoints(sweep, tested, names)
    wanted_sets = {prepared.of(record.dataset).folder for record in tested}
    prepared = replace(
        prepared,
        sets={
            label: replace(images, folder=_where(sweep, images))
            for label, images in prepared.sets.items()
            if images.folder in wanted_sets
        },
    )
    gpus = _gpus(device)
    jobs = {
        record.id: replace(job_of(plan.of_record(record), spec, sweep, prepared), gpus=gpus)
        for record in tested
    }
    tests = final_tests.due(sweep, tested, config, names, "none")
    final_jobs = [final_tests.FinalJob(test, jobs[test.generator.trial]) for test in tests]
    console = Console(width=None if sys.stdout.isatty() else 160)
    if tests:
        say(console, f"Final tests of {len(tests)} generators, {config.steps} steps per image")
    with FinalProgress(spec, sweep, list(known.values()), tests, console):
        failed = final_tests.run(final_jobs, Here(), 1, lambda line: say(console, shown(line)))
    _show(sweep, tested, names)
    if weights is not None:
        for generator in final_tests.generators(sweep, tested, names):
            try:
                _fid(generator, jobs[generator.trial], weights)
            except CheckpointError as error:  # the others can be judged all the same
                click.echo(shown(f"{generator.title}: no FID ({error})"))
                failed += 1
    for test in final_tests.asked(sweep, tested, replace(config, steps=0), names, quality):
        try:
            _measure(sweep, test, jobs[test.generator.trial])
        except RayganError as error:  # the others can be judged all the same
            click.echo(shown(f"{test.generator.title}: no quality of samples ({error})"))
            failed += 1
    return failed


def _quality() -> Quality:
    """The measures of sample quality that this machine has."""
    from raygan.gan.judge.quality import check
    from raygan.gan.judge.sample_quality import best_available

    kind = best_available()
    check(kind)
    return kind


def _measure(sweep: Storage, test: final_tests.PlannedTest, job: Job) -> None:
    """Measure and write the quality of one generator's samples, unless it is there; print it."""
    generator = test.generator
    trial = sweep / trial_folder(generator.trial)
    if not final_tests.is_done(sweep, test):
        state, images, replaced = load_generator(generator, job)
        if replaced:
            click.echo(shown(f"{generator.title}: {replaced}"))
        make_quality(trial, test, state, images)
    measured = read_quality(trial, generator.which[0])
    assert measured is not None
    click.echo(f"{shown(generator)}: {final_tests.describe_quality(measured)}")


def _fid(generator: final_tests.Generator, job: Job, weights: Path) -> None:
    """Compute and write one generator's FID, beside its final test."""
    from raygan.gan.judge.fid import fid

    state, images, replaced = load_generator(generator, job)
    if replaced:
        click.echo(shown(f"{generator.title}: {replaced}"))
    config = state.config
    scores = fid(
        state.judged,
        config.code_size,
        images,
        weights,
        seed=config.seed,
        latent=config.latent,
    )
    described = {**scores, "step": state.step, "checkpoint": generator.checkpoint}
    written = json.dumps(described, indent=1)
    for which in generator.which:
        Storage(job.folder).write(final_fid(which), written.encode())
    click.echo(
        f"{shown(generator)}: FID {scores['fid']:.3f}, KID "
        f"{scores['kid']:.5f} ± {scores['kid_std']:.5f} ({scores['n']} samples against as many "
        "training images)"
    )


def _where(sweep: Storage, prepared: PreparedSet) -> str:
    """Where a data set of the sweep lies: below the storage in which the sweep lies now.

    Only the last part of the stored path is used. The rest is wrong if the sweep was moved, and is
    not trusted, since the sweep may be somebody else's.
    """
    from raygan.data.manifest import is_prepared

    name = prepared.folder.rstrip("/").rpartition("/")[2]
    folder = data_folder(Storage(sweep.parent))
    if re.fullmatch(NAME, name) and is_prepared(f"{folder}/{name}"):
        return f"{folder}/{name}"
    raise DataError(
        f"{folder} does not hold the sweep's prepared images ({shown(name)!r}): if the sweep was "
        f"moved, move them there, too, or run `raygan sweep`, which prepares them again"
    )


def _trial(wanted: str, known: dict[str, TrialRecord], sweep: Storage) -> TrialRecord:
    if wanted not in known:
        others = ", ".join(known) or "none"
        raise ConfigError(f"there is no trial {wanted!r} in {sweep.uri} (trials there: {others})")
    return known[wanted]


def _of_sweep(spec: SweepSpec, known: dict[str, TrialRecord]) -> list[TrialRecord]:
    """By cell, the replicates that ran to their end, or its best trial if there are none."""
    tested = []
    for cell in plan.cells(spec):
        mine = [record for record in known.values() if record.cell == cell.name]
        whole = [record for record in verdict_records(spec, cell, mine) if record.outcome in WHOLE]
        lowest = best(spec, cell, mine)
        tested += whole or ([lowest] if lowest else [])
    return tested


def _see_checkpoints(sweep: Storage, tested: list[TrialRecord], which: Iterable[str]) -> None:
    kept = sweep.map(partial(best_and_last, sweep), tested)
    for record, folders in zip(tested, kept, strict=True):
        missing = set(which) - folders.keys()
        if missing:
            raise CheckpointError(
                f"{sweep.uri}/{trial_folder(record.id)} holds no checkpoint of the "
                f"{' and the '.join(sorted(missing))} generator: resume the sweep until its next "
                "evaluation, restore the folder, or test another trial (NAME/TRIAL)"
            )


def _gpus(device: str) -> float:
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ConfigError(
            "--device cuda: PyTorch finds no GPU on this machine; give --device cpu or auto"
        )
    return 1.0 if there and device != "cpu" else 0.0


def _show(sweep: Storage, tested: list[TrialRecord], which: Iterable[str]) -> None:
    names = ("trial", "generator", "iteration", "loss", "images", "steps", "audit")
    table = text_table(names, ("trial", "generator"))
    replaced = []
    asked = [(record, name) for record in tested for name in which]
    read = sweep.map(lambda one: final_tests.read(sweep / trial_folder(one[0].id), one[1]), asked)
    for (record, name), result in zip(asked, read, strict=True):
        if result is not None:
            table.add_row(text_cell(record.title), name, *_cells(result))
            if text := result.get("replaced"):
                replaced.append(f"{record.title}, {name}: {text}")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for line in replaced:
        say(console, line)
    console.print(
        "Loss: mean squared error per pixel in [0, 1], search from z = 0. Audit: by how much "
        "restarts lower the mean loss of the audited images.",
        style="dim",
    )
    say(console, f"Results: {sweep.uri}/{trial_folder('TRIAL')}/{FINAL}")


def _cells(result: dict[str, Any]) -> list[str]:
    gain = (
        f"{1 - result['restarts_loss'] / result['audited_loss']:.2%}" if result["audited"] else ""
    )
    used = protocol(result)
    steps = f"{result['steps']}{'' if used == PER_IMAGE else f' ({used})'}"
    return [str(result["step"]), f"{result['loss']:.5f}", str(result["images"]), steps, gain]
