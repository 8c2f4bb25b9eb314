"""Text of other people's making (file names, YAML keys, reasons, titles) as it may be shown.

Terminals obey control characters, and readers are misled by characters that change the direction
of text. Everything that raygan prints or writes for people and did not write itself passes here.
"""

from __future__ import annotations

import unicodedata

MOST = 500
"""Characters of a text that are shown by default."""
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories of characters that act instead of being seen."""


def shown(text: object, most: int = MOST, *, lines: bool = False) -> str:
    """``str(text)`` with its control characters made visible, cut to about ``most`` characters.

    ``lines``: line breaks stay; without it, they are escaped as all other control characters
    are: ``\\n``, ``\\x1b``, ``\\u202e``. A text that is cut ends in how much is missing.
    """
    text = str(text)
    left = len(text) - most
    kept = text[:most] if left > 0 else text
    safe = "".join(
        char
        if unicodedata.category(char) not in _HIDDEN or (lines and char == "\n")
        else char.encode("unicode_escape").decode()
        for char in kept
    )
    return f"{safe}… ({left:,} more characters)" if left > 0 else safe
