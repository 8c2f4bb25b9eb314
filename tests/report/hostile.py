"""Text that means harm wherever it is shown, and how to see that it did none."""

from __future__ import annotations

import unicodedata

EVIL = (
    "=HYPERLINK(1)\x1b]0;title\x07\x1b[2J\u202egpj \u200b[red]x[/red][link=http://evil]y[/] :bomb: "
    "$\\frac{ <b>&lt;|`*_ ![p](http://evil) \u65e5\r\n\t+z\x00\ud800"
)


def is_plain(text: str) -> bool:
    """Whether no character of ``text`` acts instead of being seen, but for line breaks."""
    return not [
        c
        for c in text
        if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
    ]
