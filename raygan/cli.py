"""The ``raygan`` command."""

import click

from raygan import __version__
from raygan.sweep import commands
from raygan.sweep.cli import main as sweep
from raygan.sweep.evaluate import evaluate
from raygan.sweep.starter import init
from raygan.sweep.ui import ui
from raygan.sweep.watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Fair, large-scale comparison of GAN training recipes on Ray."""


main.add_command(init, "init")
main.add_command(sweep, "sweep")
main.add_command(commands.status, "status")
main.add_command(commands.stop, "stop")
main.add_command(commands.results, "results")
main.add_command(evaluate, "evaluate")
main.add_command(commands.report, "report")
main.add_command(ui, "ui")
main.add_command(watch, "watch")


if __name__ == "__main__":
    main(prog_name="python -m raygan.cli")
