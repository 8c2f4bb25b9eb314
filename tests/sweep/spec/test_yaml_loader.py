import string
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raygan.errors import ConfigError
from raygan.gan.config import TrainConfig
from raygan.sweep.spec import plan
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import MAX_BYTES, MAX_DEPTH, parse, parse_value
from raygan.sweep.study import stored_sweep as state


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("2", 2),
        ("-3", -3),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("'1e-4'", "1e-4"),
        ("inf", "inf"),
        (".nan", ".nan"),
        ("[1, 2.5, wn]", [1, 2.5, "wn"]),
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "results #1",
        "a: b",
        "*x",
        "&x",
        "!x",
        "- a",
        "a, b",
        "| a",
        "on",
        "%TEMP%",
        "~/up",
        "s3://b/#1",
    ],
)
def test_text_on_the_command_line_stays_as_it_is(text):
    assert parse_value(text) == parse_value(f" {text} ") == text


@pytest.mark.parametrize("text", ["'results' #1", "[1, 2] # 3", '"a" b', "{a: 1} #", "[1] [2]"])
def test_text_behind_a_quoted_value_is_refused(text):
    with pytest.raises(ConfigError, match=r"after the closing|not valid YAML"):
        parse_value(text)


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\x1b[31mb", "a\u202eb", "\udcff"])
def test_control_characters_on_the_command_line_are_refused(text):
    for value in (text, f"'{text}", f"[{text}"):
        with pytest.raises(ConfigError) as caught:
            parse_value(value)
        assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 3, "occurs twice"),
        ("a: &x 1\nb: *x", 1, "anchors and aliases"),
        ("a: 1\nb: !!python/object:os.system x", 2, "tags"),
        ("a: 1\nb: [1, 2", 2, "not valid YAML"),
        ("a: 1\n\tb: 2", 2, "not valid YAML"),
        ("a: 1\n? [x]\n: 1", 2, "a key must be a word"),
        ("a: 1e9999", 1, "too large"),
        ("a: " + "[" * 40 + "]" * 40, 1, f"deeper than {MAX_DEPTH}"),
    ],
)
def test_errors_name_file_and_line(text, line, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        parse(text, "sweep.yaml")
    assert str(caught.value).startswith(f"sweep.yaml:{line}:")


def test_too_large_a_file_is_refused():
    with pytest.raises(ConfigError, match="may have"):
        parse("a: " + "x" * MAX_BYTES, "big.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "a: !{} x",
        "a: 1\n{}: 1\n{}: 2",
        "a: {}1e9999",
        "a: [{}: {}: *",
        "%{}",
        "a: '\\{}",
        "!<{}> a",
    ],
)
@pytest.mark.parametrize("long", ["9" * 9000, "x" * 9000, "\\x1b" * 500])
def test_messages_are_short_whatever_the_file_holds(text, long):
    try:
        parse(text.replace("{}", long), "x.yaml")
    except ConfigError as error:
        assert len(str(error)) < 800


def test_alias_bomb_is_refused_before_it_grows():
    layers = ["a0: &a0 [x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    started = time.process_time()
    with pytest.raises(ConfigError, match="aliases"):
        parse("\n".join(layers), "bomb.yaml")
    assert time.process_time() - started < 5  # CPU time: would be hours if it were expanded


def test_not_utf8_is_refused():
    with pytest.raises(ConfigError, match="UTF-8"):
        parse(b"name: \xff\xfe", "x.yaml")


yamlish = st.text(
    alphabet=string.ascii_letters[:6] + string.digits + " \n:-[]{},#&*!|>'\"%@`?~.e\t", max_size=80
)


@settings(max_examples=300)
@given(st.one_of(yamlish, st.text(max_size=60)))
def test_any_text_is_read_or_refused_in_our_own_words(text):
    try:
        parse(text, "fuzz.yaml")
    except ConfigError as error:
        assert "fuzz.yaml" in str(error)


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.sampled_from("abc")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_data_survives(data):
    assert parse(yaml.safe_dump(data), "x.yaml").data == data


keys = st.sampled_from(
    [*spec.spec_class().model_fields, *TrainConfig().to_dict(), "method", "trials", "try_first", "min",
     "max", "scale", "rule", "grace", "seeds", "top", "usd", "wall_clock", "path", "size", "x"]
)  # fmt: skip
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["bn", "wn", "asha", "tpe", "log", "12h", "0h", "9" * 9 + "d", "../x", "a\0b", ""]
    ),
    st.text(max_size=9),
)
documents = st.dictionaries(
    keys,
    st.recursive(
        values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=6,
)


@settings(max_examples=300)
@given(documents, st.booleans())
def test_any_document_is_a_sweep_or_refused_in_our_own_words(data, named):
    if named:
        data["name"] = "a"
    text = yaml.safe_dump(data, allow_unicode=True)
    try:
        found = spec.validate(parse(text, "fuzz.yaml"))
    except ConfigError as error:
        assert "fuzz.yaml" in str(error)
        return
    # what is accepted can be planned, and means the same when it is read again
    assert plan.cells(found)
    again = spec.validate(parse(state.dump(found), "again.yaml"))
    assert again.resolved() == found.resolved()
