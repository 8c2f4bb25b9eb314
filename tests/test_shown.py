"""Text of strangers, as it is shown."""

from __future__ import annotations

import pytest

from raygan.shown import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain – ünïcode ✓", "plain – ünïcode ✓"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("gpj.\u202egnp", "gpj.\\u202egnp"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x85\u2028\u200b\ud800", "\\x85\\u2028\\u200b\\ud800"),
        ("", ""),
        (3, "3"),
    ],
)
def test_control_characters_are_made_visible(text: object, expected: str) -> None:
    assert shown(text) == expected


def test_line_breaks_may_stay() -> None:
    assert shown("a\nb\rc", lines=True) == "a\nb\\rc"


def test_a_long_text_says_how_much_is_missing() -> None:
    assert shown("x" * 1234, 1000) == "x" * 1000 + "… (234 more characters)"
    assert shown("x" * 1000, 1000) == "x" * 1000
