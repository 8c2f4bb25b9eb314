"""Text of other people's making (file names, YAML keys, reasons, titles) as it may be shown.

Terminals obey control characters, and readers are misled by characters that change the direction
of text. Everything that raygan prints or writes for people and did not write itself passes here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

MOST = 500
"""Characters of a text that are shown by default."""
MOST_MESSAGE = 5000
"""Characters of a whole message that are shown; it may have several lines."""
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that act instead of being seen."""
COLORS = re.compile(r"\x1b\[[0-9;]*m")
"""Terminal colours, which Ray puts into the messages of its exceptions."""
_WORD = 40
"""A text is cut at the last space, if that is at most so many characters before the limit."""


def shown(text: object, most: int = MOST, *, lines: bool = False) -> str:
    """``str(text)`` with its control characters made visible, cut to about ``most`` characters.

    ``lines``: line breaks stay; without it, they are escaped as all other control characters
    are: ``\\n``, ``\\x1b``, ``\\u202e``. Terminal colors are removed. A text that is cut ends
    after a word and says how much is missing.
    """
    text = COLORS.sub("", str(text))
    kept = text
    if len(text) > most:
        space = text.rfind(" ", max(0, most - _WORD), most + 1)
        kept = text[: most if space < 1 else space]
    safe = "".join(
        char
        if unicodedata.category(char) not in _HIDDEN or (lines and char == "\n")
        else char.encode("unicode_escape").decode()
        for char in kept
    )
    left = len(text) - len(kept)
    return f"{safe}… ({left:,} more characters)" if left else safe


def text_cell(text: object, most: int = MOST, style: str = "") -> Text:
    """``text`` for a cell of a rich table or another place where rich would obey its markup."""
    return Text(shown(text, most), style)


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 12m, 3h05m, 2d07h."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes}m"
    hours = round(seconds / 3600)
    return (
        f"{minutes // 60}h{minutes % 60:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"
    )


def say(console: Console, text: object, style: str = "", *, most: int = MOST_MESSAGE) -> None:
    """Print a message of one or more lines, without markup and without breaking its lines."""
    message = Text(shown(text, most, lines=True), style)
    console.print(message, highlight=False, soft_wrap=True)
