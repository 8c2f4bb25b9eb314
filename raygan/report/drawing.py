"""Draws each figure once and saves it as SVG, for light and dark pages, and as PNG for Markdown."""

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
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from raygan.shown import shown

COLORS = (
    "#2f7fd6", "#d9690f", "#1f9d57", "#d6457f", "#8a63d2", "#0f95a5", "#a8743a", "#7d8590",
)  # fmt: skip
"""One for each cell. Each has a contrast of at least 3:1 to a white and to a black page."""
INK = "#010203"
"""Placeholder that is replaced by the page's text colour in the SVG."""
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none",
    "svg.hashsalt": "raygan", "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": INK, "grid.alpha": 0.15,
    "axes.spines.top": False, "axes.spines.right": False, "legend.framealpha": 0,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip
SIZE = (4.7, 3.4)
"""Inches of a figure in a section: width and height."""
BOLD = {"weight": "bold", "size": "large"}
"""Font of the name of a data set above its axes."""
_LEGEND = 66
"""Most characters of a line of a legend."""
_LEGEND_LINE = 0.19
"""Inches of the height of such a line."""
MOST_TICKS = 5
"""Most ticks of an axis with long numbers."""
MARKERS = "osD^vPX*"
"""One for each cell."""
MOST_LABEL, LABEL_WIDTH = 80, 36
"""Most characters of a name in a figure, and of a line of it."""


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    key: str
    title: str
    caption: str
    """How to read it, in one line: what the marks mean, and which direction is better."""
    svg: str
    """An ``svg`` element; its lines and text have the page's text colour."""
    png: bytes
    """The figure on a white background."""


def draw(
    key: str, title: str, caption: str, plot: Callable[[Figure], bool], size: tuple[float, float]
) -> Drawing | None:
    """The figure that ``plot`` draws; None if ``plot`` returns False, since there is nothing to
    draw.

    ``size``: width and height in inches.
    """
    with style(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        if not plot(figure):
            return None
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # the layout is computed already
        figure.savefig(png, format="png", dpi=130, facecolor="white")
    return Drawing(key, title, caption, _inline(svg.getvalue(), key, title), png.getvalue())


def legend(figure: FigureBase, axis: Axes) -> None:
    """Add a legend above ``axis``, in as many columns as fit; a title of the figure becomes that of
    the legend, since both have the same place."""
    if names := axis.get_legend_handles_labels()[1]:
        if title := figure.get_suptitle():
            figure.suptitle("")
        columns = max(1, _LEGEND // (max(map(len, names)) + 8))  # 8: the line before a name
        lines = math.ceil(len(names) / columns) * max(name.count("\n") + 1 for name in names)
        whole = figure.get_figure(root=True)
        assert whole is not None
        whole.set_figheight(whole.get_figheight() + _LEGEND_LINE * (lines - 1))
        figure.legend(loc="outside upper left", ncols=columns, fontsize="small",
                      title=title or None, alignment="left", title_fontproperties=BOLD)  # fmt: skip


@contextmanager
def style(settings: Mapping[Any, Any]) -> Iterator[None]:
    """Use these settings of matplotlib in the block; ``$`` in a text is a dollar sign."""
    with mpl.rc_context({**settings, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # many long names
        yield


def label(name: str, most: int = MOST_LABEL, width: int = LABEL_WIDTH) -> str:
    """A name, broken into lines that fit into a figure."""
    return "\n".join(textwrap.wrap(shown(name, most), width))


def _inline(document: str, key: str, title: str) -> str:
    """The ``svg`` element of ``document``, with the page's text colour and ids that start with
    ``key``."""
    element = document[document.index("<svg") :].replace(INK, "currentColor")
    # a style sheet in the element would apply to the whole page
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{key}-', element)
    element = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{key}-", element)
    # the viewBox defines the proportions, the page defines the size
    element = re.sub(r'\b(width|height)="[\d.]+pt"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def finish(axis: Axes) -> None:
    """Label a log axis of losses with plain numbers, since :func:`style` turns off math text."""
    axis.yaxis.set_major_locator(LogLocator(subs=[1.0, 2.0, 5.0]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    low, high = axis.dataLim.intervaly
    if high < 2 * low:  # a log axis would show fewer than two ticks
        axis.set_yscale("linear")
        axis.yaxis.set_major_locator(MaxNLocator(MOST_TICKS))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.grid(visible=True)
