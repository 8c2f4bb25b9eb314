"""Text of strangers, as it is shown."""

from __future__ import annotations

import pytest
from rich.console import Console

from raygan.shown import duration, say, shown


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


def test_a_long_text_ends_after_a_word() -> None:
    assert shown("out of memory on node", 15) == "out of memory… (8 more characters)"
    assert shown("out of memory", 13) == "out of memory"
    assert shown("a " + "x" * 1234, 1000).startswith("a " + "x" * 998 + "…")


def test_colors_of_a_terminal_are_removed() -> None:
    assert shown("\x1b[36mray::train()\x1b[39m failed") == "ray::train() failed"


def test_a_message_is_printed_as_it_is() -> None:
    console = Console(width=20, force_terminal=True)
    with console.capture() as capture:
        say(console, f"[red]a\x1b[2J :smile: {'x' * 40}\nb")
    assert capture.get() == f"[red]a\\x1b[2J :smile: {'x' * 40}\nb\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (89, "89s"), (91, "2m"), (7500, "2h05m"), (11100, "3h05m"), (198000, "2d07h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
