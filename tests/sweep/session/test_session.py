"""What one run of a sweep holds."""

from dataclasses import replace

import pytest
from rich.console import Console

from raygan.errors import ConfigError
from raygan.storage import Storage
from raygan.sweep.session import run as running
from raygan.sweep.session.session import Options, Session
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study.prepared import Prepared, PreparedSet


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


@pytest.mark.parametrize(
    ("listed", "which", "is_told"),
    [("{}", "digits", True), ("[{}, {label: b}]", "the data set b (b)", False)],
)
def test_the_earlier_version_is_told_of_only_where_it_can_have_begun_the_sweep(
    session, monkeypatch, listed, which, is_told
):
    read = spec.validate(parse(f"name: a\ndataset: {listed}", "x"))
    known = {label: PreparedSet(digest="d", baseline=0.1) for label in read.labels}
    now = {**known, read.labels[-1]: PreparedSet(digest="e", baseline=0.1)}
    monkeypatch.setattr(running.preparing, "prepare_on_cluster", lambda *_: now)
    with pytest.raises(ConfigError, match="have changed since") as caught:
        running._prepare(replace(session(), spec=read), Prepared(id="1", sets=known))
    assert f"the images of {which} have changed" in str(caught.value)
    assert ("earlier version" in str(caught.value)) == is_told
