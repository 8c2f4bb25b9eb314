"""Messages about a YAML: how long they become, and what of it they repeat."""

from __future__ import annotations

import pytest

from raygan.errors import ConfigError
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.mistakes import MOST
from raygan.sweep.spec.yaml_loader import parse
from tests.report.hostile import EVIL, is_plain


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        spec.validate(parse(text, "bad.yaml"))
    return str(caught.value)


def test_the_first_mistakes_are_named_and_the_others_counted():
    lines = message("name: a\n" + "".join(f"key{n}: 1\n" for n in range(300))).splitlines()
    assert len(lines) == MOST + 1
    assert lines[0].startswith("bad.yaml:2: unknown key `key0`; allowed here: ")
    assert lines[-1] == "and 280 more mistakes"


def test_as_many_as_are_named_are_not_counted():
    lines = message("name: a\n" + "".join(f"key{n}: 1\n" for n in range(MOST))).splitlines()
    assert len(lines) == MOST
    assert "more mistakes" not in lines[-1]


def test_a_long_explanation_is_cut():
    text = message(f"name: a\ngrid: {{seed: {[*range(999), 1]}}}")
    assert "`grid.seed` holds a value twice; remove one: [0, 1, 2" in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "name: a\n{}: 1",
        "name: a\ntrain: {{{}: 1}}",
        "name: a\ntrain: {{lr: {}}}",
        "name: {}",
        "name: a\nstop: {{rule: {}}}",
        "name: a\nsearch: {{lr: [0.1], try_first: [{{{}: 1}}]}}",
        "name: a\nsearch: {{trials: 3, lr: {{min: 1, max: 2, scale: {}}}}}",
        "name: a\ngrid: {{norm: [{}]}}",
    ],
)
@pytest.mark.parametrize("given", [EVIL, EVIL + "x" * 9000, "x" * 9000])
def test_hostile_keys_and_values_are_shown_plainly_and_cut(text, given):
    quoted = "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in given)
    found = message(text.format(f'"{quoted}"'))
    assert is_plain(found)
    assert len(found) < 2000
