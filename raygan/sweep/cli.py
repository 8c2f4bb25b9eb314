"""``python -m raygan.sweep`` and ``raygan sweep``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from raygan.errors import RayganError
from raygan.sweep import plan
from raygan.sweep.spec import SweepSpec, load, search_method, smoke

_SET_HELP = "Override a key of the YAML, such as train.features=16; may be repeated."
_ADDRESS_HELP = "Ray cluster: auto or host:port; by default $RAY_ADDRESS, else this machine."


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help=_SET_HELP)
@click.option("--dry-run", is_flag=True, help="Print plan and resolved YAML; start nothing.")
@click.option("--smoke-test", is_flag=True, help="Run the same sweep, shrunk to a minute.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of the YAML, for editors.")
@click.option("--address", metavar="ADDRESS", help=_ADDRESS_HELP)
@click.option("--fresh", is_flag=True, help="Start anew beside a sweep of this name: name-2, …")
@click.option("--retry-failed", is_flag=True, help="Run the failed trials again, too.")
@click.option("--verbose", is_flag=True, help="Show Ray's own log and the workers' output.")
def main(
    file: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    smoke_test: bool,
    schema: bool,
    address: str | None,
    fresh: bool,
    retry_failed: bool,
    verbose: bool,
) -> None:
    """Run the sweep that FILE describes, or go on with it where it stopped.

    Exit codes: 0 done, 2 wrong configuration (nothing was started), 3 too many trials failed,
    4 budget reached, 130/143 interrupted (the same command goes on).
    """
    if schema:
        click.echo(json.dumps(SweepSpec.model_json_schema(), indent=1))
        return
    if file is None:
        raise click.UsageError("name the sweep's YAML file, such as sweeps/quickstart.yaml")
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        spec = load(file, overrides)
        if smoke_test:
            spec = smoke(spec)
        if dry_run:
            show_plan(spec, console)
            return
        from raygan.sweep.run import Options, run

        code = run(spec, console, Options(address, verbose, fresh, retry_failed))
    except RayganError as error:
        Console(stderr=True, width=console.width).print(
            f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2)
    sys.exit(code)


def show_plan(spec: SweepSpec, console: Console) -> None:
    """Print cells, trials and resources, and the resolved YAML."""
    from raygan.sweep.state import dump

    cells, each = plan.cells(spec), plan.trials_per_cell(spec)
    table = Table(box=None, pad_edge=False)
    for name in ("cell", "trials", "iterations each", "search"):
        table.add_column(name)
    for cell in cells:
        config = spec.train_config(**cell.values)
        table.add_row(cell.name, str(each), str(config.iterations), _describe_search(spec))
    console.print(table)
    scale = spec.scale
    steps = each * sum(spec.train_config(**cell.values).iterations for cell in cells)
    console.print(
        f"{len(cells)} cells × {each} trials = {len(cells) * each} trials, at most {steps:,} "
        f"iterations; early stopping: {spec.stop.rule}\n"
        f"each trial: {scale.workers} workers × ({scale.cpus_per_worker:g} CPUs, "
        f"{scale.gpus_per_worker:g} GPUs); at once: {scale.max_concurrent}\n",
        highlight=False,
    )
    console.print(dump(spec), highlight=False, markup=False, soft_wrap=True, end="")


def _describe_search(spec: SweepSpec) -> str:
    def words(values: object) -> str:
        if isinstance(values, list):
            return "[" + ", ".join(map(plan.format_value, values)) + "]"
        low, high = plan.format_value(values.min), plan.format_value(values.max)  # type: ignore[attr-defined]
        return f"{low}…{high} {values.scale}"  # type: ignore[attr-defined]

    fields = ", ".join(f"{name} {words(values)}" for name, values in spec.space().items())
    return f"{search_method(spec)}: {fields}" if fields else "none"
