"""The ``raygan`` command."""

import click

from raygan.sweep.commands import look
from raygan.sweep.commands.check import check
from raygan.sweep.commands.evaluate import evaluate
from raygan.sweep.commands.starter import init
from raygan.sweep.commands.sweep import main as sweep
from raygan.sweep.commands.sync import sync
from raygan.sweep.commands.ui import ui
from raygan.sweep.commands.watch import watch
from raygan.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Fair, large-scale comparison of GAN training recipes on Ray."""


main.add_command(init, "init")
main.add_command(sweep, "sweep")
main.add_command(check, "check")
main.add_command(look.status, "status")
main.add_command(look.stop, "stop")
main.add_command(look.results, "results")
main.add_command(evaluate, "evaluate")
main.add_command(look.report, "report")
main.add_command(sync, "sync")
main.add_command(ui, "ui")
main.add_command(watch, "watch")


if __name__ == "__main__":
    main(prog_name="python -m raygan.cli")
