"""The report of a sweep: ``report.html``, ``report.md``, and its tables and figures as files."""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from raygan.folder import HTML, MARKDOWN, REPORT_FOLDER, report_file
from raygan.report import picture_rows, words
from raygan.report.drawing import Drawing
from raygan.report.evidence import DataSet, Evidence
from raygan.report.family import of_losses
from raygan.report.figures import drawings
from raygan.report.picture_rows import Picture, Strip
from raygan.report.questions import Question, not_asked, questions
from raygan.report.sections import Section, sections
from raygan.report.sheets import sheets
from raygan.report.tabular import Sheet, csv_bytes, parquet_bytes
from raygan.report.verdict import choices, verdict
from raygan.shown import shown
from raygan.storage import Storage
from raygan.version import __version__

EARLIER = ("losses.png", "drawup.png")
"""Figures of earlier versions: what they say does not fit the report of today."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
_CODE = re.compile(r"`([^`\n]+)`")
"""What is YAML or a command in a text of the report."""
_MOST_TEXT = 200_000
"""Characters of one text: a YAML of the largest size, resolved, fits."""


@dataclass(frozen=True)
class Report:
    """What a report says, before it is written."""

    evidence: Evidence
    verdict: str
    questions: list[Question]
    sections: list[Section]
    sheets: list[Sheet]
    drawings: list[Drawing]
    samples: list[Strip]
    reconstructions: list[Strip]
    extremes: list[Strip]

    @property
    def lead(self) -> str:
        """The start of the verdict that says how far each choice may be above the others."""
        said = choices(self.evidence, of_losses(self.evidence))
        sentence = next(filter(None, said), "")
        return sentence if self.verdict.startswith(sentence) else ""

    @property
    def paragraphs(self) -> list[str]:
        """The verdict after :attr:`lead`; the limits on each of several data sets stand by
        themselves."""
        rest = self.verdict.removeprefix(self.lead).strip()
        by_set = choices(self.evidence, of_losses(self.evidence))[1]
        if by_set and rest.startswith(by_set):
            return [by_set, rest.removeprefix(by_set).strip()]
        return [rest]

    @classmethod
    def of(cls, storage: Storage, evidence: Evidence) -> Report:
        """The report of ``evidence``, with the pictures that lie in the sweep's ``storage``."""
        return cls(
            evidence,
            verdict(evidence),
            questions(evidence),
            sections(evidence),
            sheets(evidence),
            drawings(evidence),
            picture_rows.samples(storage, evidence),
            picture_rows.reconstructions(storage, evidence),
            picture_rows.extremes(storage, evidence),
        )

    def html(self) -> str:
        """One file that needs no other: figures and pictures are in it, and no script."""
        environment = _environment(_clean)
        # drawn here; matplotlib escapes the names in it
        environment.filters |= {"svg": Markup, "uri": _uri, "code": _html_code}
        return environment.get_template("report.html.j2").render(self._content())

    def markdown(self) -> str:
        """The same in Markdown, for the files of the report's folder beside it."""
        environment = _environment(markdown)
        environment.filters |= {
            "raw": Markup, "link": _link, "block": _block, "code": _markdown_code,
        }  # fmt: skip
        return environment.get_template("report.md.j2").render(
            self._content(), folder=REPORT_FOLDER
        )

    def write(self, storage: Storage) -> None:
        """Write everything; the two documents last, when what they name is there."""
        for sheet in self.sheets:
            table = sheet.arrow()
            storage.write(report_file(f"{sheet.key}.parquet"), parquet_bytes(table))
            storage.write(report_file(f"{sheet.key}.csv"), csv_bytes(table))
        for drawing in self.drawings:
            storage.write(report_file(f"{drawing.key}.png"), drawing.png)
        for strip in (*self.samples, *self.reconstructions, *self.extremes):
            for picture in strip.pictures:
                if not picture.problem:
                    storage.write(report_file(picture.name), picture.jpeg)
        for name in EARLIER:
            storage.delete(report_file(name))
        storage.write(MARKDOWN, self.markdown().encode())
        storage.write(HTML, self.html().encode())

    def _content(self) -> dict[str, Any]:
        return {
            "evidence": self.evidence,
            "progress": _progress(self.evidence),
            "lead": self.lead,
            "verdict": self.paragraphs,
            "sections": self.sections,
            "sheets": self.sheets,
            "drawings": {drawing.key: drawing for drawing in self.drawings},
            "questions": [question for question in self.questions if question.answer],
            "not_asked": not_asked(self.questions),
            "of_questions": {key for question in self.questions for key in question.sheets},
            "samples": self.samples,
            "reconstructions": self.reconstructions,
            "extremes": self.extremes,
            "facts": _facts(self.evidence),
            "how": _how(self.evidence),
            "command": f"python -m raygan.sweep {self.evidence.name}.yaml",
        }


def _environment(finalize: Callable[[object], str]) -> Environment:
    return Environment(
        loader=PackageLoader("raygan.report"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def _progress(evidence: Evidence) -> str:
    ended = sum(record.outcome is not None for record in evidence.records)
    total = max(evidence.expected_trials or 0, len(evidence.records))
    state = "finished" if evidence.finished else "not finished"
    on = f" on {len(evidence.parts)} data sets" if evidence.several else ""
    cells = f"{words.times(len(evidence.cells), 'cell')}{on}"
    return f"{cells}, {ended} of {total} trials ended, {state}."


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    facts = [
        (f"{label}: {name}" if label else name, value)
        for label, one in evidence.sets.items()
        for name, value in _described(one).items()
    ]
    versions = evidence.versions or {"code that trained": "not recorded"}
    known = [value for _, value in facts]
    facts += [
        (name.removeprefix("version."), value)
        for name, value in versions.items()
        if value not in known and not name.startswith("mlflow.")
    ]
    facts += [(name, f"{value:.2f}") for name, value in evidence.spent.items()]
    facts.append(("report made by", f"raygan {__version__}"))
    return [(name, str(value)) for name, value in facts]


def _described(one: DataSet) -> dict[str, Any]:
    facts = dict(one.described)
    if one.baseline is not None:
        facts["loss of the mean training image"] = words.loss(one.baseline)
    return facts


def _how(evidence: Evidence) -> str:
    commit = evidence.versions.get("git_commit")
    at = f" of commit {commit}" if commit else ""
    return (
        f"Save the resolved YAML below as {evidence.name}.yaml. With the code{at} and images of "
        f"the same {'digests' if len(evidence.sets) > 1 else 'digest'}, run:"
    )


def _uri(picture: Picture) -> Markup:
    data = base64.b64encode(picture.jpeg).decode()
    return Markup(f"data:image/jpeg;base64,{data}")  # noqa: S704 - base64


def _link(name: str) -> Markup:
    return Markup(quote(name))  # noqa: S704 - percent-encoded


def _clean(value: object) -> str:
    """Text without control characters; what is HTML already passes."""
    return value if isinstance(value, Markup) else shown(value, _MOST_TEXT, lines=True)


def markdown(value: object) -> Markup:
    """One line of text that says in Markdown what it is; what is Markdown already passes."""
    if isinstance(value, Markup):
        return value
    text = shown(" ".join(str(value).split()), _MOST_TEXT)
    return Markup(_SPECIAL.sub(r"\\\1", text))  # noqa: S704 - escaped


def _html_code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(_clean(text)))))  # noqa: S704 - escaped


def _markdown_code(text: str) -> Markup:
    line = shown(" ".join(text.split()), _MOST_TEXT)
    parts = _CODE.split(line)  # text and code in turns
    marked = [f"`{part}`" if i % 2 else _SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts)]
    return Markup("".join(marked))  # noqa: S704 - escaped


def _block(text: str) -> Markup:
    indented = textwrap.indent(shown(text, _MOST_TEXT, lines=True), "    ", lambda _: True)
    return Markup(indented)  # noqa: S704 - a block of code
