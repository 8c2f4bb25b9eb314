import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from raygan.folder import HTML, MARKDOWN, REPORT_FOLDER
from raygan.report import cell_figures, course_figures, figures, forest_figure, make, sheets
from raygan.report.claim import Claim, PlanEntry
from raygan.report.drawing import COLORS
from raygan.report.evidence import CellResults
from raygan.report.finals import read_all
from raygan.report.ladder import Agreement
from raygan.report.make import Report
from raygan.report.questions import not_asked
from raygan.report.tabular import Column, Sheet
from raygan.storage import Storage
from tests.report.builders import STEPS, cell, evidence, finals, qualities, searched_cell, trial
from tests.report.chromium import PROGRAM, Chromium

EXTREMES = [f"{which}-{how}" for which in ("best", "last") for how in ("hardest", "easiest")]
EVIL = '<script>alert("1")</script>|`*_'


def png(side: int = 600) -> bytes:
    sink = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(sink, format="PNG")
    return sink.getvalue()


def made_up():
    """A sweep of three cells with everything that a report may show."""
    searched = [trial("bn", [0.03] * 6, lr=1e-3), trial("bn", [0.05], "stopped", lr=1e-5)]
    slow = [trial("vanilla", [0.02] * 5 + [0.014], seed=seed, kind="replicate") for seed in (1, 2)]
    lost = trial("vanilla", [0.05, 0.04], "diverged", seed=3, kind="replicate")
    cells = (
        CellResults("vanilla", {"norm": "vanilla"}, [*slow, lost], [*slow, lost], slow[0]),
        cell("bn", [0.012, 0.0125, 0.0118], searched),
        cell("wn", [0.0108, 0.0112, 0.011], [trial("wn", [0.02] * 6, lr=1e-3)]),
    )
    return evidence(
        *cells,
        baseline=0.05,
        finals=finals({"vanilla": 0.96, "bn": 0.8, "wn": 0.98}, *cells),
        qualities=qualities(*cells),
        data={"images": EVIL},
        yaml=f"name: made-up\nnote: {EVIL}\n",
        search_method="random",
        claims=(Claim("lower", "wn", "bn"),),
        plans=(PlanEntry("2026-11-26T10:00:00+00:00", "ab" * 32),),
        rule=Agreement(0.6, 4),
    )


def store_pictures(storage: Storage) -> None:
    picture = png()
    for record in made_up().records:
        for point in record.history:
            for kind in ("samples", "reconstructions"):
                name = f"{kind}-{int(point['step']):09d}.png"
                storage.write(f"trials/{record.id}/images/{name}", picture)
        for name in EXTREMES:
            storage.write(f"trials/{record.id}/final/{name}.png", picture)


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> Storage:
    """Where the made-up sweep has left its pictures."""
    found = Storage(str(tmp_path_factory.mktemp("sweep")))
    store_pictures(found)
    return found


@pytest.fixture(scope="module")
def report(storage) -> Report:
    made = Report.of(storage, made_up())
    made.write(storage)
    return made


FIGURES = ["cells", "comparisons", "rq1", "rq2", "curves", "budget", "worsening", "rates"]
"""In the order of the page."""
SHOWN = 4
"""Pictures of samples per cell: iterations 10, 20, 40 and 60 of 60."""


class Links(HTMLParser):
    """Where a page would load anything from, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found, self.elements = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.found += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]


def test_report_and_all_its_files_are_written(storage, report):
    files = storage.files(REPORT_FOLDER)
    for sheet in report.sheets:
        table = pq.read_table(storage.local / REPORT_FOLDER / f"{sheet.key}.parquet")
        assert table.num_rows == len(sheet.rows) > 0, sheet.key
        if sheet.key != "ended_early":
            written = pyarrow.csv.read_csv(storage.local / REPORT_FOLDER / f"{sheet.key}.csv")
            assert (written.num_rows, written.column_names) == (table.num_rows, table.column_names)
    markdown = (storage.local / MARKDOWN).read_text()
    linked = re.findall(rf"\]\({REPORT_FOLDER}/([^)]+)\)", markdown)
    assert {f"{key}.png" for key in FIGURES} <= set(linked) <= set(files)
    assert len([name for name in linked if "samples" in name]) == 3 * SHOWN
    assert (storage.local / HTML).stat().st_size < 5_000_000


def test_both_documents_have_the_same_words(report):
    plain = report.markdown().replace("\\", "")
    page = report.html().replace("&#39;", "'").replace("<code>", "`").replace("</code>", "`")
    parts = report.lead, report.verdict.removeprefix(report.lead).strip()
    asked = [question.answer for question in report.questions if question.answer]
    assert len(asked) == 2
    for words in (*parts, not_asked(report.questions), *asked,
                  *(section.answer for section in report.sections)):  # fmt: skip
        assert words in plain
        assert words in page
    # YAML is code in both
    assert "<code>train: {quality: features}</code>" in report.html()
    assert "`train: {quality: features}`" in report.markdown()


def test_the_papers_questions_come_after_the_verdict_and_before_the_sections(report):
    for text in (report.html().replace("&#39;", "'"), report.markdown()):
        order = [
            text.index(word) for word in (
                report.lead[:20], "The paper's four questions", "RQ1: Does batch",
                "Speed, final loss, stability", "Speed: Which",
            )
        ]  # fmt: skip
        assert order == sorted(order)
        assert text.count("RQ1: BN against no normalisation") >= 1


def test_figures_of_an_earlier_version_are_removed(tmp_path):
    home = Storage(str(tmp_path))
    for name in ("drawup.png", "mine.png"):
        home.write(f"{REPORT_FOLDER}/{name}", b"")
    Report.of(home, evidence(cell("bn", [0.01]))).write(home)
    assert "drawup.png" not in home.files(REPORT_FOLDER)
    assert "mine.png" in home.files(REPORT_FOLDER)


MOST_READING = 220
"""Characters of the line that says how to read a figure or table."""


def test_each_figure_says_in_one_line_above_it_how_to_read_it(report):
    page, plain = report.html().replace("&#39;", "'"), report.markdown().replace("\\", "")
    assert [drawing.key for drawing in report.drawings] == FIGURES
    for drawing in report.drawings:
        title, line = drawing.title, drawing.caption
        assert "better" in line
        assert len(line) <= MOST_READING, drawing.key
        assert f"<figcaption><b>{title}.</b> {line}</figcaption><svg" in page
        assert f"**{title}.** {line}\n\n![{title}]({REPORT_FOLDER}/{drawing.key}.png)" in plain


def test_each_table_and_strip_says_in_one_line_under_its_title_how_to_read_it(report):
    page, plain = report.html().replace("&#39;", "'"), report.markdown().replace("\\", "")
    heading = r"<h[24]>([^<]+)</h[24]>"
    folded = r"(?:<details><summary>\d+ rows</summary>)?"
    found = dict(re.findall(rf'{heading}\n?{folded}\n?<p class="dim">([^<]+)</p>', page))
    sections = re.findall(rf"{heading}(.*?)(?=<h[24]>|$)", page, flags=re.DOTALL)
    titles = [title for title, text in sections if "<table" in text or "strip" in text]
    assert len(titles) == len([sheet for sheet in report.sheets if sheet.rows]) + 3  # strips
    for title in titles:
        line = found[title]
        assert re.search(r"\b(better|best)\b|saved more|Confirmed", line), title
        assert len(line) <= MOST_READING, title
        assert f"## {title}\n\n{line}\n\n" in plain


def test_trials_without_an_end_loss_are_marked_above_the_axes(report, monkeypatch):
    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.append((a, k)) or plot(*a, **k))
    found = made_up()
    course_figures.rates_tried(Figure(), found, found.cells)
    levels = [a[2] for a, k in drawn if "transform" in k]
    assert len(levels) == 2  # one early-stopped, one diverged
    assert min(levels) > 1


def test_page_needs_nothing_but_itself(report):
    page = report.html()
    links = Links(page)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "script" not in links.elements
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert target in ids


def test_documents_read_each_value_of_a_table_once(report):
    read, told = [], []

    class Row(dict):
        def get(self, name, *default):
            read.append(name)
            return super().get(name, *default)

    columns = [
        Column(name, pa.string(), name, lambda value: told.append(value) or str(value))
        for name in "abc"
    ]
    rows = [Row(a=number, b=None, c="x") for number in range(40)]
    table = Sheet(
        "t", "T", columns, rows, "", only_in_files=[number % 4 == 0 for number in range(40)]
    )
    made = replace(report, sheets=[table])
    assert made.html().count("<td") == made.markdown().count(" x |") * 2 == 60
    assert len(told) == 60
    # to see which columns have a value, at most each again
    assert len(read) <= 60 + len(columns) * 30


def test_names_cannot_become_markup(tmp_path):
    record = trial("wn", [0.01] * 6, kind="replicate")
    stopped = trial("wn", [0.01], "failed")
    stopped.reason = stopped.title = EVIL
    nasty = CellResults(EVIL, {"norm": EVIL}, [record, stopped], [record], record)
    report = Report.of(Storage(str(tmp_path)), evidence(nasty, made_up().cells[1], yaml=EVIL))
    assert "script" not in Links(report.html()).elements
    markdown = report.markdown()
    assert EVIL in markdown  # in the block of code, as it is
    outside = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))
    assert "<script" not in outside.replace("\\<", "")


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [searched_cell("wn", {})],
        [cell("bn", [None, None]), searched_cell("wn", {1e-4: "failed"})],
    ],
)
def test_without_any_finished_trial_there_is_a_report_all_the_same(tmp_path, cells):
    storage = Storage(str(tmp_path))
    Report.of(storage, evidence(*cells, finished=False)).write(storage)
    assert "There is no verdict" in (tmp_path / HTML).read_text()
    assert pq.read_table(tmp_path / REPORT_FOLDER / "cells.parquet").num_rows == len(cells)


def test_damaged_pictures_are_named_and_results_of_the_final_test_passed_over(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(make, "drawings", lambda _: [])
    known, storage = made_up(), Storage(str(tmp_path))
    store_pictures(storage)
    home = f"trials/{known.cells[2].best.id}"
    storage.write(f"{home}/images/samples-{STEPS:09d}.png", b"no picture")
    storage.write(f"{home}/final/best.json", b"{")
    storage.write(f"{home}/final/last.json", json.dumps({"loss": 0.2}).encode())
    storage.write(f"{home}/final/best-hardest.png", b"no picture")
    tests = read_all(storage, known.records).tests
    assert tests == {known.cells[2].best.id: {"last": {"loss": 0.2}}}
    report = Report.of(storage, known)
    report.write(storage)
    damaged = [
        picture
        for strip in (*report.samples, *report.reconstructions, *report.extremes)
        for picture in strip.pictures
        if picture.problem
    ]
    names = [f"{home}/images/samples-{STEPS:09d}.png", f"{home}/final/best-hardest.png"]
    assert [picture.problem for picture in damaged] == [
        f"picture damaged: {name} (no whole PNG)" for name in names
    ]
    page, markdown = report.html(), report.markdown().replace("\\", "")
    for name in names:
        assert f"picture damaged: {name}" in page
        assert f"| picture damaged: {name}" in markdown
    for picture in damaged:
        assert picture.name not in markdown
        assert picture.name not in storage.files(REPORT_FOLDER)
    assert {len(strip.pictures) for strip in (*report.samples, *report.extremes)} == {SHOWN}


def test_a_picture_with_an_odd_name_is_linked_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "drawings", lambda _: [])
    known, storage = evidence(cell("bn", [0.01])), Storage(str(tmp_path))
    record = known.cells[0].best
    record.id = "a](x) [b"
    storage.write(f"trials/{record.id}/final/best-hardest.png", png(8))
    assert "](report/a%5D%28x%29%20%5Bb-best-hardest.jpg)" in Report.of(storage, known).markdown()


def test_rate_of_collapse_has_its_interval():
    found = evidence(cell("bn", [0.01, 0.011, "collapsed", "collapsed", "diverged"]))
    sheet = sheets.cells(found)
    row = sheet.rows[0]
    assert (row["failed"], row["collapsed"], row["ended"]) == (3, 2, 5)
    assert row["collapsed_words"] == "2 of 5 (40%, 95% CI 12–77%)"
    assert (row["collapsed_low"], row["collapsed_high"]) == pytest.approx((0.118, 0.769), abs=1e-3)


def test_more_cells_than_colours_show_the_best_ones(monkeypatch):
    monkeypatch.setattr(cell_figures, "losses", lambda *_: False)  # they show all cells
    monkeypatch.setattr(forest_figure, "forest", lambda *_: False)
    cells = [cell(f"c{number}", [0.01 + number / 1000] * 3) for number in range(12)]
    (curves,) = figures.drawings(evidence(*cells))
    assert ">c7<" in curves.svg
    assert ">c8<" not in curves.svg
    assert "8 best of 12 cells" in curves.caption


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio of two colours #rrggbb."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_of_curves_are_seen_in_both_themes(report):
    page = report.html()
    cards = re.findall(r"--card: (#\w{6})", page)
    assert len(cards) == 2
    for card in cards:
        assert all(_contrast(color, card) >= 3 for color in COLORS), card


@pytest.mark.cluster  # a process of its own
def test_report_takes_neither_ray_nor_mlflow_nor_torch():
    code = """
import sys
class Nothing:
    def find_spec(name, *_):
        if name.partition(".")[0] in ("ray", "mlflow", "torch"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing)
import raygan, raygan.report.make
print(raygan.results.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "results\n", done.stderr


@pytest.mark.cluster  # a process of its own
@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_report_opens_in_a_browser_without_a_complaint_in_both_themes_and_on_a_phone(
    storage, tmp_path
):
    Report.of(storage, made_up()).write(storage)
    url = (storage.local / HTML).as_uri()
    seen = {}
    with Chromium(tmp_path / "profile") as browser:
        for theme, width in (("light", 1280), ("dark", 390)):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                         deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
            features = [{"name": "prefers-color-scheme", "value": theme}]
            browser.call("Emulation.setEmulatedMedia", features=features)
            browser.open(url)
            color = "getComputedStyle(document.querySelector('#curves-figure_1 text')).fill"
            seen[theme] = browser.evaluate(
                f"[getComputedStyle(document.body).backgroundColor, {color}]"
            )
            images = browser.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
            assert len(images) == 3 * (
                SHOWN + 2 + len(EXTREMES)
            )  # 2: best and last reconstructions
            assert all(images)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.named("Log.entryAdded") == browser.named("Runtime.consoleAPICalled") == []
    assert browser.named("Runtime.exceptionThrown") == []
    requests = {request["request"]["url"] for request in browser.named("Network.requestWillBeSent")}
    assert {r for r in requests if not r.startswith("data:")} == {url}
    assert seen["light"][0] != seen["dark"][0]
    assert seen["light"][1] != seen["dark"][1]
