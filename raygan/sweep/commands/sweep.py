"""``python -m raygan.sweep`` and ``raygan sweep``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from raygan.errors import ConfigError, RayganError, RunError
from raygan.shown import say
from raygan.sweep.spec.sweep_spec import load, smoke, spec_class

_SET_HELP = "Override a key of the YAML, such as train.features=16; may be repeated."
_ADDRESS_HELP = "Ray cluster: auto or host:port; by default $RAY_ADDRESS, else this machine."


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help=_SET_HELP)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the plan (with an estimate once --calibrate has run) and the resolved YAML; start "
    "nothing.",
)
@click.option(
    "--calibrate", is_flag=True, help="As --dry-run, but measure each cell for some seconds."
)
@click.option(
    "--sd",
    metavar="SHARE",
    help="With --dry-run: spread of the loss between seeds, such as 3%, for the number of seeds.",
)
@click.option("--smoke-test", is_flag=True, help="Run the same cells, shrunk to about a minute.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of the YAML, for editors.")
@click.option("--address", metavar="ADDRESS", help=_ADDRESS_HELP)
@click.option(
    "--fresh", is_flag=True, help="Start a new sweep beside the one of this name, as NAME-2."
)
@click.option("--retry-failed", is_flag=True, help="Run the failed trials again, too.")
@click.option(
    "--offline",
    is_flag=True,
    help="Do not use MLflow; `raygan sync` copies the sweep to it later.",
)
@click.option("--verbose", is_flag=True, help="Show Ray's own log and the workers' output.")
def main(
    file: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    calibrate: bool,
    sd: str | None,
    smoke_test: bool,
    schema: bool,
    address: str | None,
    fresh: bool,
    retry_failed: bool,
    offline: bool,
    verbose: bool,
) -> None:
    """Run the sweep that FILE describes, or resume it.

    Exit codes: 0 done, 1 broken off (the same command resumes), 2 wrong configuration (nothing was
    started), 3 no verdict (more than half of the trials failed, or a cell has no result), 4 budget
    reached, 5 cluster lost (the same command on a new cluster resumes), 130/143 interrupted (the
    same command resumes).
    """
    if schema:
        click.echo(json.dumps(spec_class().model_json_schema(), indent=1))
        return
    if file is None:
        raise click.UsageError("name the sweep's YAML file, such as sweeps/quickstart.yaml")
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        spec = load(file, overrides)
        if sd is not None and not (dry_run or calibrate):
            raise ConfigError("--sd is for --dry-run: add it, or remove --sd")
        if smoke_test:
            spec = smoke(spec)
        if dry_run or calibrate:
            from raygan.sweep.commands.preview import show_plan

            show_plan(spec, console, address, calibrate=calibrate, sd=sd, offline=offline)
            return
        from raygan.sweep.session.run import Options, run

        code = run(spec, console, Options(address, verbose, fresh, retry_failed, offline))
    except RayganError as error:
        say(Console(stderr=True, width=console.width), f"error: {error}", "red")
        sys.exit(1 if isinstance(error, RunError) else 2)
    sys.exit(code)


if __name__ == "__main__":
    main()
