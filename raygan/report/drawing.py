"""How figures are drawn: once, as SVG for light and dark pages and as PNG for Markdown."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from raygan.shown import shown

COLORS = (
    "#2f7fd6", "#d9690f", "#1f9d57", "#d6457f", "#8a63d2", "#0f95a5", "#a8743a", "#7d8590",
)  # fmt: skip
"""One per cell; each has a contrast of 3:1 or more with a white and with a black page."""
INK = "#010203"
"""Stands for the page's own text colour until the SVG is written."""
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none",
    "svg.hashsalt": "raygan", "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.15,
    "axes.spines.top": False, "axes.spines.right": False, "legend.framealpha": 0,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
SIZE = (4.7, 3.4)
"""Inches of a figure that stands in a section."""
_LEGEND = 66
"""Characters that fit side by side in a legend."""
_LEGEND_LINE = 0.19
"""Inches of its lines."""
MOST_TICKS = 5
"""Of an axis whose numbers are long."""
MARKERS = "osD^vPX*"
"""One per cell."""
MOST_LABEL, LABEL_WIDTH = 80, 36
"""Characters of a name in a figure, and of a line of it."""


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    key: str
    title: str
    caption: str
    """How to read it, in one line: what its marks are, and which way is better."""
    svg: str
    """An ``svg`` element whose lines and words have the page's text colour."""
    png: bytes
    """On white."""


def draw(
    key: str, title: str, caption: str, plot: Callable[[Figure], bool], size: tuple[float, float]
) -> Drawing | None:
    """What ``plot`` draws into a figure of so many inches; None if it finds nothing to draw."""
    with style(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        if not plot(figure):
            return None
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # it has its layout
        figure.savefig(png, format="png", dpi=130, facecolor="white")
    return Drawing(key, title, caption, _inline(svg.getvalue(), key, title), png.getvalue())


def legend(figure: Figure, axis: Axes) -> None:
    """Name the lines of ``axis`` above it, side by side as far as they fit."""
    if names := axis.get_legend_handles_labels()[1]:
        columns = max(1, _LEGEND // (max(map(len, names)) + 8))  # 8: the line before a name
        lines = math.ceil(len(names) / columns) * max(name.count("\n") + 1 for name in names)
        figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * (lines - 1))
        figure.legend(loc="outside upper left", ncols=columns, fontsize="small")


@contextmanager
def style(settings: Mapping[Any, Any]) -> Iterator[None]:
    """Draw with these settings of matplotlib; a ``$`` in a name is a dollar sign."""
    with mpl.rc_context({**settings, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # many long names
        yield


def label(name: str, most: int = MOST_LABEL, width: int = LABEL_WIDTH) -> str:
    """A name in lines that are short enough for a figure."""
    return "\n".join(textwrap.wrap(shown(name, most), width))


def _inline(document: str, key: str, title: str) -> str:
    """The ``svg`` element alone, in the page's colours, its ids told from other figures'."""
    element = document[document.index("<svg") :].replace(INK, "currentColor")
    # a style sheet in it would hold for the whole page
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{key}-', element)
    element = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{key}-", element)
    # the viewBox says the proportions, the page the size
    element = re.sub(r'\b(width|height)="[\d.]+pt"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def finish(axis: Axes) -> None:
    """Give a log axis of losses plain numbers: :func:`style` takes ``$`` for text."""
    axis.yaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    low, high = axis.dataLim.intervaly
    if high < 2 * low:  # fewer than two of them would be seen
        axis.set_yscale("linear")
        axis.yaxis.set_major_locator(MaxNLocator(MOST_TICKS))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.grid(visible=True)
