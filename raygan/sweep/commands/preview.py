"""``--dry-run`` and ``--calibrate``: what a sweep will do and cost, before it starts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter
from rich.console import Console

from raygan import own_recipes, records, retries, stored
from raygan.addresses import first_line, is_address
from raygan.errors import ConfigError, RayganError, ResourceError
from raygan.folder import SPEC_FILE, SPEEDS_FILE
from raygan.gan.speed import Speed
from raygan.records import TrialRecord
from raygan.report.words import listed
from raygan.shown import duration, say, text_cell
from raygan.storage import Storage, usable
from raygan.sweep.session.terminal import command_of, text_table
from raygan.sweep.spec import checks, plan, presets, scales
from raygan.sweep.spec.space import search_method
from raygan.sweep.spec.sweep_spec import SweepSpec
from raygan.sweep.study import looks, stored_sweep
from raygan.sweep.study.estimate import STARTUP_SECONDS, Cost, Work, estimate
from raygan.sweep.study.power import parse_sd, say_power
from raygan.sweep.study.prepared import Prepared

MOST_YAML = 200_000
"""Most characters of the resolved YAML that are shown; no YAML that raygan reads has more."""
CALIBRATION_SECONDS = 5.0
"""Seconds for which each cell is trained to measure its speed."""
FEATURES_SECONDS = 2.0
"""Seconds that the features of one evaluation's samples take on a CPU core
(``tests/bench/quality.py``)."""


class _Speed(BaseModel):
    """A :class:`~raygan.gan.speed.Speed` in :data:`SPEEDS_FILE`."""

    model_config = stored.STRICT

    iterations_per_second: Annotated[float, Field(ge=1e-9, le=1e12)]
    evaluation_seconds: Annotated[float, Field(ge=-1e12, le=1e12)]


_SPEEDS = TypeAdapter(dict[str, _Speed])


def show_plan(
    spec: SweepSpec,
    console: Console,
    address: str | None,
    *,
    calibrate: bool,
    sd: str | None = None,
    offline: bool = False,
) -> None:
    """Print cells, trials, resources, estimate and power, and the resolved YAML.

    With ``calibrate``, each cell is trained for some seconds first, and its speed is kept. ``sd``:
    spread of the loss between seeds, such as 3%. ``offline``: nothing will be copied to MLflow.
    """
    spread = None if sd is None else parse_sd(sd)
    sweep, away = _folder(spec)
    spec = _as_run(spec, sweep)
    checks.check_quality(spec)
    why_not = None
    if calibrate:
        if sweep is None:
            raise ConfigError(f"{away}; --calibrate needs it")
        at_once = _calibrate(spec, sweep, address)
    else:
        at_once, why_not = _at_once(spec, address)
    try:
        known = [] if sweep is None else _known(sweep)
        speeds = {} if sweep is None else _speeds(spec, sweep, known)
    except OSError as error:
        raise ConfigError(f"`storage` (={spec.storage!r}) cannot be used ({error})") from error
    cells = plan.cells(spec)
    searches, replicates = plan.trials_per_cell(spec), plan.replicates_per_cell(spec)
    works = [_work(spec, cell, speeds.get(cell.name)) for cell in cells]
    names = ("cell", "search", "replicates", "iterations each", "images/s", "trial-hours")
    table = text_table((*names, "searched"), ("cell", "searched"))
    for cell, work in zip(cells, works, strict=True):
        config = spec.train_config(**cell.values)
        cost, _ = _estimate(spec, [work], 1)
        images = config.d_steps * config.batch_size
        speed = work.speed and work.speed.iterations_per_second * images
        table.add_row(
            text_cell(cell.name),
            str(searches),
            str(replicates),
            f"{config.iterations:,}",
            f"{speed:.0f}" if speed else "?",
            f"≤ {cost.trial_hours:.2f}" if cost.trial_hours is not None else "?",
            text_cell(_describe_search(spec), MOST_YAML),
        )
    console.print(table)
    total = len(cells) * (searches + replicates)
    tell = partial(say, console)
    most = "at most " if spec.replicate.until else ""
    tell(
        f"{len(cells)} cells × ({searches} trials + {replicates} replicates) = {most}{total} trials"
    )
    if spec.replicate.until:
        numbers = listed([str(seeds) for seeds, _ in looks.looks(spec)], "or")
        tell(f"seeds: {numbers}, until every comparison is settled")
    if (limited := plan.all_settings(spec)) is not None:
        tell(limited)
    tell(
        f"early stopping: {spec.stopping().rule}; retry of early failures: "
        f"{'none' if spec.warmup is None else f'{spec.warmup.iterations} iterations warm-up'}"
    )
    if spec.preset is not None:
        others = presets.differences(spec)
        tell(f"preset {spec.preset}: {', '.join(others) or 'nothing differs from it'}")
    for line in _datasets(spec):
        tell(line)
    *firsts, last = scales.described(spec)
    for line in firsts:
        tell(line)
    tell(f"{last}; at once: {at_once or 'none'}")
    if why_not is not None:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        tell(f"on {where}: {why_not}")
    _say_cost(spec, works, at_once or 1, tell)
    _say_final_tests(spec, works, tell)
    _say_quality(spec, cells, tell)
    say_power(spec, known, spread, tell)
    if offline:
        command = f"raygan sync {spec.name}" if sweep is None else command_of("sync", sweep)
        tell(f"MLflow: nothing is copied to it (--offline); later: {command}")
    if away is not None:
        tell(f"{away}: what is stored there is not taken into account")
    console.print()
    say(console, stored_sweep.dump(spec).rstrip("\n"), most=MOST_YAML)


def _say_quality(spec: SweepSpec, cells: Sequence[plan.Cell], tell: Callable[[str], None]) -> None:
    """How often the quality of samples is measured, and what that costs."""
    kind = spec.quality()
    if kind == "none":
        return
    configs = [spec.train_config(**cell.values) for cell in cells]
    trials = plan.trials_per_cell(spec) + plan.replicates_per_cell(spec)
    count = trials * sum(math.ceil(one.iterations / one.evaluate_every) for one in configs)
    text = f"sample quality: {kind}, at most {count:,} evaluations"
    if kind == "features":
        text += (
            f", about {FEATURES_SECONDS:g} s each on a CPU core; `train: {{quality: wasserstein}}` "
            "takes a fifth of that"
        )
    tell(text)


def _datasets(spec: SweepSpec) -> list[str]:
    """A line on each data set, if there are several."""
    lines = []
    for label, config in spec.datasets().items() if spec.listed else ():
        sides = config.shape()
        where = f", {config.path}" if config.path else ""
        size = f", {sides[0]}×{sides[1]} pixels" if sides else ""
        own = ", ".join(f"{k} {plan.format_value(v)}" for k, v in spec.own_train(label).items())
        lines.append(f"data set {label}: {config.name}{where}{size}{f'; {own}' if own else ''}")
    return lines


def _say_cost(
    spec: SweepSpec, works: list[Work], at_once: int, tell: Callable[[str], None]
) -> None:
    most, expected = _estimate(spec, works, at_once)
    budget = spec.budget
    about = f"; about {expected.iterations:,.0f} with early stopping by ASHA" if (
        expected and expected.iterations < most.iterations) else ""  # fmt: skip
    tell(f"iterations: at most {most.iterations:,.0f}{about}")
    if most.wall_hours is None:
        tell(
            "time, GPU-hours and cost: unknown; --calibrate measures each cell's speed for some "
            "seconds"
        )
    else:
        tell(f"at most:    {_hours(most)}")
        if about and expected:
            tell(
                f"about:      {_hours(expected)} (more if the ranks of trials stay the same "
                "between rungs)"
            )
    tell(
        f"budget:     {', '.join(f'{key} {value}' for key, value in budget.caps.items()) or 'none'}"
    )


def _say_final_tests(spec: SweepSpec, works: list[Work], tell: Callable[[str], None]) -> None:
    """Print the cost of the final tests, in evaluations and, if speeds are known, in hours."""
    final = spec.final_config()
    cells = plan.cells(spec)
    generators = 2 * sum(work.replicates for work in works)
    if not (generators and final.steps):
        return
    sizes = {label: _final_sizes(spec, label) for label in spec.labels}
    evaluations = max(each for _, each in sizes.values())
    took = ""
    # a speed without a calibration has evaluations and training in one number
    if all(work.speed is not None and work.speed.evaluation_seconds > 0 for work in works):
        # one worker makes a final test, but all workers of a trial share an evaluation
        each = [
            2 * work.replicates * work.speed.evaluation_seconds * spec.scale.of(cell.values).most
            * sizes[spec.label_of(cell.values)][1]
            for cell, work in zip(cells, works, strict=True)
            if work.speed
        ]  # fmt: skip
        hours = sum(each) / 3600
        took = f"; in addition, {hours:.2f} worker-hours"
    tell(
        f"final tests: at most {generators} generators, on up to "
        f"{max(images for images, _ in sizes.values())} images; each takes as "
        f"long as about {evaluations:,.0f} evaluations{took}"
    )


def _final_sizes(spec: SweepSpec, label: str) -> tuple[int, float]:
    """At most how many images a final test on the data set ``label`` has, and as how many
    evaluations it takes."""
    final, dataset = spec.final_config(), spec.datasets()[label]
    running, held_out = dataset.held_out(dataset.source.known_count)
    images = min(final.images or held_out, held_out)
    searches = images + (final.restarts + 1) * min(final.audited, images)
    return images, searches * final.steps / (running * spec.fixed("reconstruction_steps", label))


def _hours(cost: Cost) -> str:
    assert cost.wall_hours is not None
    money = "" if cost.usd is None else f", ${cost.usd:,.2f}"
    gpus = f", {cost.gpu_hours:.2f} GPU-hours" if cost.gpu_hours else ""
    return f"{duration(cost.wall_hours * 3600)}, {cost.trial_hours:.2f} trial-hours{gpus}{money}"


def _estimate(spec: SweepSpec, works: list[Work], at_once: int) -> tuple[Cost, Cost | None]:
    price = spec.budget.usd_per_gpu_hour
    return estimate(works, spec.stopping(), at_once=at_once, usd_per_gpu_hour=price)


def _work(spec: SweepSpec, cell: plan.Cell, speed: Speed | None) -> Work:
    config, scale = spec.train_config(**cell.values), spec.scale.of(cell.values)
    return Work(
        trials=plan.trials_per_cell(spec),
        replicates=plan.replicates_per_cell(spec),
        iterations=config.iterations,
        evaluate_every=config.evaluate_every,
        speed=speed,
        gpus=scale.gpus,
        weight=scales.weight(scale, scales.of(spec)),
    )


def _folder(spec: SweepSpec) -> tuple[Storage | None, str | None]:
    """The sweep's folder; None, and why, if its storage is elsewhere and not reached from here."""
    try:
        with retries.once():
            sweep = Storage(spec.storage) / spec.name
            sweep.read(SPEC_FILE, 1)
        return sweep, None
    except (ConfigError, OSError) as error:
        cause = error.__cause__ if isinstance(error, ConfigError) else error
        if not isinstance(cause, OSError):
            raise
        problem = f"`storage` (={spec.storage!r}) cannot be used ({first_line(cause)})"
        if not is_address(spec.storage):
            raise ConfigError(problem) from error
        return None, problem


def _speeds(spec: SweepSpec, sweep: Storage, known: list[TrialRecord]) -> dict[str, Speed]:
    """Speed of each cell: of the sweep's own trials, or else as calibrated."""
    speeds = sweep.read_kept(SPEEDS_FILE, _parse_speeds) or {}
    for cell in plan.cells(spec):
        mine = [r for r in known if r.cell == cell.name and r.outcome in ("ok", "stopped")]
        seconds = sum(max(0.0, record.seconds - STARTUP_SECONDS) for record in mine)
        if seconds > 0:
            speeds[cell.name] = Speed(_steps(mine) / seconds, 0.0)  # evaluations are in it
    return speeds


def _as_run(spec: SweepSpec, sweep: Storage | None) -> SweepSpec:
    """``spec`` as the sweep command would run it now."""
    if sweep is None:
        checks.check_fair(spec)
        checks.check_names(spec)
        return spec
    try:
        own_recipes.check_unchanged(sweep)
        before = stored_sweep.stored_spec(sweep)
    except (RayganError, OSError):
        return spec  # the sweep command reports the error
    checks.check_names(spec, before)
    if before is None:
        checks.check_fair(spec)
        return spec
    return stored_sweep.with_defaults_of(spec, before)


def _known(sweep: Storage) -> list[TrialRecord]:
    """The trials of an earlier run."""
    try:
        return list(records.load_all(sweep).values())
    except RayganError:
        return []  # the sweep command reports the error


def _steps(trials: list[TrialRecord]) -> int:
    return sum(record.step for record in trials)


def _parse_speeds(data: bytes) -> dict[str, Speed]:
    return {
        cell: Speed(**speed.model_dump()) for cell, speed in stored.parse(_SPEEDS, data).items()
    }


def _at_once(spec: SweepSpec, address: str | None) -> tuple[int, str | None]:
    """How many trials the cluster, or this machine, can run at once; if none, why."""
    from raygan.sweep.cluster import tune

    cluster = bool(address or os.environ.get("RAY_ADDRESS"))
    if cluster:
        tune.connect(address, verbose=False)
    try:
        if cluster:
            return tune.concurrency(scales.of(spec), ours=False), None
        import torch

        node = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        return tune.fits(scales.of(spec), [node], ours=True), None
    except ResourceError as error:
        return 0, str(error)
    finally:
        tune.disconnect()


def _calibrate(spec: SweepSpec, sweep: Storage, address: str | None) -> int:
    """Train each cell for some seconds, as many at once as will be; keep what was measured."""
    from raygan.sweep.cluster import nodes, preparing, tasks, tune
    from raygan.sweep.cluster.job import job_of

    ours = tune.connect(address, verbose=False)
    try:
        at_once = nodes.room(scales.of(spec), ours=ours)
        prepared = Prepared(sets=preparing.prepare_on_cluster(spec, Storage(spec.storage)))
        jobs, widths = {}, {}
        for cell in plan.cells(spec):
            config = spec.train_config(**cell.values)
            job = job_of(plan.trial(spec, cell, 0, {}), spec, sweep, prepared)
            widths[cell.name] = job.workers[-1]
            # one worker's share; communication between workers is not measured
            share = replace(config, batch_size=config.batch_size // job.workers[-1])
            jobs[cell.name] = replace(job, config=share.to_dict())
        speeds: dict[str, Speed] = {}
        for name, speed in tasks.measure_speeds(jobs, CALIBRATION_SECONDS).items():
            evaluation = speed.evaluation_seconds / widths[name]
            speeds[name] = Speed(speed.iterations_per_second, evaluation)
    finally:
        tune.disconnect()
    content = {cell: asdict(speed) for cell, speed in speeds.items()}
    with usable(sweep):
        sweep.write(SPEEDS_FILE, json.dumps(content, indent=1).encode())
    return at_once


def _describe_search(spec: SweepSpec) -> str:
    def words(values: object) -> str:
        if isinstance(values, list):
            return "[" + ", ".join(map(plan.format_value, values)) + "]"
        low, high = plan.format_value(values.min), plan.format_value(values.max)  # type: ignore[attr-defined]
        return f"{low}…{high} {values.scale}"  # type: ignore[attr-defined]

    fields = ", ".join(f"{name} {words(values)}" for name, values in spec.space().items())
    return f"{search_method(spec)}: {fields}" if fields else "none"
