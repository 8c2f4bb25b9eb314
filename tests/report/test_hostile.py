"""Records full of hostile text, in every table, report and message.

No control character, no markup and no formula comes out, and nothing is lost of the numbers.
"""

from __future__ import annotations

import csv
import io
import re
import types
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner
from rich.console import Console

from raygan.cli import main
from raygan.records import TrialRecord
from raygan.report import make, tables
from raygan.report.evidence import CellResults, Evidence
from raygan.report.figures import drawings
from raygan.report.make import Report
from raygan.report.overview import overview_png
from raygan.report.sheets import sheets
from raygan.report.tabular import csv_bytes, table_of
from raygan.storage import Storage
from raygan.sweep.commands import evaluate
from raygan.sweep.session import conclude, progress, publish, terminal
from raygan.sweep.session.session import Options, Session
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from raygan.sweep.study import stored_sweep as state
from raygan.sweep.study.study import Study
from raygan.tracking.mlflow_tracker import Lag
from tests.report.builders import evidence, trial
from tests.report.hostile import EVIL, is_plain
from tests.sweep.prepared import one_set


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take long, and have a test of their own."""
    monkeypatch.setattr(make, "drawings", lambda _: [])


@pytest.fixture
def console() -> Console:
    return Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)


def printed(console: Console) -> str:
    return console.file.getvalue()


def evil(losses: list[float], outcome: str | None = "ok", *, seed: int = 1, kind="replicate"):
    found = trial("bn", losses, outcome, seed=seed, kind=kind)
    found.title = found.reason = found.cell = EVIL
    found.params = {EVIL: EVIL}
    return found


@pytest.fixture
def records() -> list[TrialRecord]:
    ended = [evil([0.03] * 5 + [0.02 + seed / 1e3], seed=seed) for seed in (1, 2, 3)]
    return [
        *ended,
        evil([0.05], "failed", seed=4),
        evil([0.05], EVIL, seed=5),
        evil([], None, seed=6),
    ]


@pytest.fixture
def hostile(records) -> Evidence:
    cell = CellResults(EVIL, {"norm": EVIL}, records, records[:5], records[0])
    other = CellResults(
        f"+{EVIL}", {"norm": "wn"}, [trial("wn", [0.04] * 6)], [], trial("wn", [0.04] * 6)
    )
    facts = {EVIL: EVIL}
    return evidence(cell, other, baseline=0.05, data=facts, versions=facts, yaml=f"a: {EVIL}\n")


@pytest.fixture
def study(tmp_path, records) -> Study:
    sweep = spec.validate(parse(f"name: norms\ngrid: {{norm: [bn]}}\nstorage: {tmp_path}", "x"))
    found = Study(sweep, Storage(str(tmp_path / "norms")))
    found.records = {record.id: record for record in records}
    found.running = {records[-1].id: 0.0}
    return found


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found, self.words = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)

    def handle_data(self, data):
        self.words += data


def test_tables_show_the_text_itself(console, records):
    terminal.show_trials(console, records, [EVIL], {"digits": 0.05})
    terminal.show_replicates(console, {EVIL: records})
    text = printed(console)
    assert is_plain(text)
    for words in ("[red]x[/red]", ":bomb:", "\\x1b]0;title", "\\u202egpj"):
        assert words in "".join(text.split())
    assert "0.03000" in text


def test_report_has_no_control_character_and_no_element_of_others(tmp_path, hostile, no_figures):
    report = Report.of(Storage(str(tmp_path)), hostile)
    page, markdown = report.html(), report.markdown()
    assert is_plain(page)
    assert is_plain(markdown)
    assert is_plain(report.verdict)
    elements = Elements(page)
    assert "b" not in elements.found
    assert "&lt;|" in elements.words  # what was written, not what it would mean
    outside = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))
    assert not re.findall(r"(?<!\\)(?:<b|&lt|!\[p\])", outside)


def test_description_in_mlflow_is_no_markup(hostile):
    note = publish.note("all of " + EVIL, hostile, has_model=True)
    assert is_plain(note)
    assert not re.findall(r"(?<!\\)(?:<b|&lt|!\[p\])", note)


def test_csv_files_hold_no_formula(hostile):
    for sheet in sheets(hostile):
        text = csv_bytes(sheet.arrow()).decode()
        assert is_plain(text)
        for row in list(csv.DictReader(io.StringIO(text))):
            for name, value in row.items():
                number = next(str(c.type) != "string" for c in sheet.columns if c.name == name)
                assert number or not value.startswith(("=", "+", "-", "@")), (sheet.key, name)


def test_csv_changes_no_number():
    rows = [
        {"a": -1.5, "b": -3, "c": text} for text in ("-1", " =1", "a=1", "", None, "a\n\tb", "'x")
    ]
    written = list(csv.DictReader(io.StringIO(csv_bytes(table_of(rows)).decode())))
    assert {(row["a"], row["b"]) for row in written} == {("-1.5", "-3")}
    assert [r["c"] for r in written] == ["'-1", "' =1", "a=1", "", "", "a\\n\\tb", "'x"]


def test_rows_of_all_trials_as_csv_hold_no_formula(tmp_path, records):
    text = csv_bytes(tables.results_table(Storage(str(tmp_path)), records)).decode()
    assert is_plain(text)
    (row, *_) = csv.DictReader(io.StringIO(text))
    assert row["title"].startswith("'=HYPERLINK")


def test_figures_draw_the_text_itself(tmp_path, hostile, records):
    drawn = {drawing.key: drawing for drawing in drawings(hostile)}
    assert all(is_plain(drawing.svg) for drawing in drawn.values())
    curves = drawn["curves"]
    assert "[red]x[/red]" in "".join(Elements(curves.svg).words.split())
    png = overview_png(Storage(str(tmp_path)), EVIL, records, {EVIL: records[0]}, {"digits": 0.05})
    assert png.startswith(b"\x89PNG")


def test_figures_take_a_formula_and_a_letter_without_a_glyph_as_text(tmp_path):
    name = "$\\frac{$ \u65e5"
    record = trial(name, [0.04] * 6)
    drawn = drawings(evidence(CellResults(name, {}, [record], [], record)))
    assert len(drawn) > 1
    assert all("$\\frac{$ \u65e5" in drawing.svg for drawing in drawn)
    record.title = name
    overview_png(Storage(str(tmp_path)), name, [record], {name: record}, {"digits": 0.05})


def test_progress_shows_the_text_itself(console, study, records):
    tracker = types.SimpleNamespace(last_error=EVIL, behind=Lag())
    live = progress.Progress(study, console, tracker)
    console.print(live._render())
    for event in ("started", "evaluated", "paused", "ended"):
        live._line(event, records[0])
    text = printed(console)
    assert is_plain(text)
    assert text.count("[red]x[/red]") > 5
    assert ":bomb:" in text


@pytest.fixture
def session(console, study) -> Session:
    return Session(study.spec, study.storage, study.storage, Options(), console, None, None)


def test_end_of_a_sweep_shows_the_text_itself(console, study, session):
    conclude._explain_failures(session, study)
    session.warn(f"The tables cannot be written ({EVIL})")
    conclude._say_behind(session, types.SimpleNamespace(last_error=EVIL))
    tracker = types.SimpleNamespace(uri=f"http://{EVIL}", experiment=EVIL)
    conclude._say_where(session, study, tracker)
    text = printed(console)
    assert is_plain(text)
    assert "[red]x[/red]" in text


def test_many_reasons_of_failures_are_counted(console, study, session):
    for number in range(50):
        record = evil([], "failed", seed=10 + number)
        record.reason = f"node {number} is lost " + "again and again " * 60
        study.records[f"bn-{number}"] = record
    conclude._explain_failures(session, study)
    lines = printed(console).splitlines()
    assert len(lines) == conclude.MOST_CAUSES + 3
    assert lines[-2] == f"  and {50 + 1 - conclude.MOST_CAUSES} more reasons"
    assert lines[-1].endswith("norms/trials/TRIAL/record.json, under `reason`")
    assert all(re.search(r"again…|and… ", line) for line in lines[2:-2])


def test_table_of_final_tests_shows_the_text_itself(study, records, capsys, monkeypatch):
    found = {"step": 1, "loss": 0.1, "images": 1, "steps": 1, "audited": 0}
    monkeypatch.setattr(evaluate.final_tests, "read", lambda folder, which: found)
    evaluate._show(study.storage, records[:1], ["best"])
    text = capsys.readouterr().out
    assert is_plain(text)
    assert "[red]x[/red]" in text
    assert "0.10000" in text


@pytest.fixture
def stored(tmp_path) -> Storage:
    """A storage with a sweep whose records have hostile titles and reasons."""
    sweep = Storage(str(tmp_path / "norms"))
    read = spec.validate(parse(f"name: norms\nstorage: {tmp_path}\ngrid: {{norm: [bn]}}", "x"))
    state.store(sweep, read, one_set(id="1", digest="d", baseline=0.05))
    (cell,) = plan.cells(read)
    for index, outcome in enumerate(("ok", "failed", None)):
        record = trial("bn", [0.04] * 6, outcome)
        record.id, record.cell, record.index = f"bn-00{index}", cell.name, index
        # a record with another title than its values make, or half a surrogate pair, is refused
        record.title, record.params, record.reason = "bn", {}, EVIL.replace("\ud800", "")
        record.notes = [record.reason]
        record.save(sweep)
    return Storage(str(tmp_path))


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["results"], ["report"], ["results", "--format", "csv"],
     ["results", "--format", "json"]],
)  # fmt: skip
def test_commands_show_the_text_itself(stored, arguments, no_figures):
    done = CliRunner().invoke(main, [*arguments, "norms", "--storage", stored.uri])
    assert done.exit_code == 0, done.output
    assert is_plain(done.output)
    if arguments == ["results"]:
        assert "[red]x[/red]" in done.output
        assert tables.WHOLE_REASONS not in done.output


def test_errors_of_commands_show_the_text_itself(stored, tmp_path):
    file = tmp_path / "bad.yaml"
    for text in ('name: a\n"\\e[2J\\u202E[red]": 1\n', f'name: a\n"{"x" * 60_000}": {{}}\n'):
        file.write_text(text)
        done = CliRunner().invoke(main, ["sweep", str(file)])
        assert done.exit_code == 2
        assert is_plain(done.output)
        assert len(done.output) < 1000
    missing = str(tmp_path / "\x1b[2J.yaml")
    for arguments in (["sweep", missing], ["status", missing], ["status", "a\x1b[2J"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 2
        assert is_plain(done.output)
        assert "\\x1b[2J" in done.output


def test_a_long_reason_ends_after_a_word_and_is_found_in_full(console, tmp_path, no_figures):
    record = trial("bn", [0.05], "failed")
    record.reason = "words of Ray " * 40
    terminal.show_trials(console, [record], ["bn"], {})
    text = " ".join(printed(console).split())
    assert re.search(r"(words|of|Ray)… \(\d+ more characters\)", text)
    assert tables.WHOLE_REASONS in text
    cell = CellResults("bn", {}, [record], [], None)
    markdown = Report.of(Storage(str(tmp_path)), evidence(cell)).markdown()
    assert "TRIAL/record.json, under" in markdown
    assert re.search(r"(words|of|Ray)… ", markdown)


def test_what_does_not_fit_into_a_terminal_is_broken_not_cut():
    console = Console(width=40, file=io.StringIO())
    record = trial("bn", [0.05], "failed")
    record.reason = "no space left on " + "/folder" * 20
    terminal.show_trials(console, [record], ["bn"], {})
    table = printed(console).partition("Reconstruction loss:")[0]
    assert table.count("…") == 0
    assert "".join(table.split()).count("f") >= 20


def test_report_that_cannot_be_made_is_told_in_one_line(study, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise TypeError(EVIL)

    monkeypatch.setattr(conclude, "make_report", fail)
    assert conclude._report(study, {}) is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("the report cannot be written (TypeError: =HYPERLINK(1)\\x1b]0;")
    assert "`raygan report norms --storage " in line
    assert is_plain(caplog.text)
