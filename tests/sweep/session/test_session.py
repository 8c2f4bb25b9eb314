"""What one run of a sweep holds."""

import pytest
from rich.console import Console

from raygan.storage import Storage
from raygan.sweep.session.session import Options, Session
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse


@pytest.fixture
def session(tmp_path):
    read = spec.validate(parse(f"{{name: norms, storage: '{tmp_path}'}}", "x"))
    storage = Storage(str(tmp_path))

    def session(**options) -> Session:
        console = Console(width=20, no_color=True)
        return Session(read, storage, storage / "norms", Options(**options), console, None, None)

    return session


def test_what_resumes_a_sweep_names_it_where_the_same_command_would_start_anew(session):
    assert session().again == "the same command"
    assert session(fresh=True).again == "the same command, with `--set name=norms` for --fresh,"


def test_a_message_is_told_as_it_is(session):
    run = session()
    with run.console.capture() as capture:
        run.say("[red]a\x1b[2J" + "x" * 30)
        run.warn(OSError("full"))
    assert capture.get() == "[red]a\\x1b[2J" + "x" * 30 + "\nfull\n"
