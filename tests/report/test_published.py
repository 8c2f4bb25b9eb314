"""The study that is published with the project: its report says what today's rules say."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from raygan.cli import main
from raygan.folder import MARKDOWN

STUDY = Path(__file__).resolve().parents[2] / "docs" / "paper-small"


@pytest.mark.cluster
def test_the_published_report_is_made_from_the_published_records(tmp_path):
    with tarfile.open(STUDY / "records.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    run = CliRunner().invoke(main, ["report", "paper-small", "--storage", str(tmp_path)])
    assert run.exit_code == 0, run.output
    made, published = (
        _words((folder / MARKDOWN).read_text()) for folder in (tmp_path / "paper-small", STUDY)
    )
    assert made == published


def _words(report: str) -> str:
    """The report without the pictures, which are not among the records, and without what tells
    where and by which version it was made."""
    text = re.sub(r"^## (Samples over|Reconstructions|Hardest and)[^#]*", "", report, flags=re.M)
    return re.sub(r"^- report made by: .*$", "", text, flags=re.M)
