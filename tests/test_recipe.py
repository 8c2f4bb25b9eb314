"""Recipes: what they declare, users' files, and recipes of which only a description is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from raygan import recipe
from raygan.data.sources.table import SOURCES
from raygan.errors import ConfigError
from raygan.gan.config import check_names
from raygan.gan.losses import LOSSES
from raygan.gan.nets.norms import NORMS
from raygan.recipe import Description, Parameter, RecipeFile
from raygan.recipes import tables
from raygan.sweep.stopping.rules import RULES

NORM = '''
from typing import Literal
from raygan.recipes import Norm

class Mine(Norm):
    """A norm of mine."""

    name = "mine"
    scale: float = 1.0
    """Factor."""
'''
BUILT_IN = NORMS.names


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    for file in list(recipe._described):
        recipe.enter_described(file, "", [], tables())
    recipe._described.clear()
    recipe.keep_only({})
    assert NORMS.names == BUILT_IN


def file_of(old: str = "", new: str = "", name: str = "mine.py") -> RecipeFile:
    assert old in NORM
    return RecipeFile(name, NORM.replace(old, new) if old else NORM)


def described(name: str = "mine", kind: str = "norm", *parameters: Parameter) -> Description:
    return Description(kind, name, "A norm of mine.", parameters)


def test_a_file_enters_its_recipes() -> None:
    recipe.use([file_of()])
    assert NORMS.names == (*BUILT_IN, "mine")
    assert recipe.parameters(NORMS["mine"]) == {"scale": Parameter("scale", float, 1.0, "Factor.")}
    assert NORMS.make("mine", {"scale": 2, "other": 3}).scale == 2  # type: ignore[attr-defined]
    assert NORMS.heed("scale") == ("mine",)
    assert recipe.file_of(NORMS["mine"]) == file_of()
    assert recipe.file_of(NORMS["bn"]) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('    """A norm of mine."""\n', "", "add a docstring"),
        ("scale: float = 1.0", "scale: float", "its parameter `scale` needs a default"),
        ('    """Factor."""\n', "", "its parameter `scale` needs documentation"),
        ("float = 1.0", "tuple = ()", "`scale` must be a bool, int, float, str or Literal"),
        ("float = 1.0", "Literal[1, 2] = 1", "`scale` must be a bool, int, float, str or Literal"),
        ("float = 1.0", "float = 'big'", r"`scale` \(=big\) must be a number"),
        ("float = 1.0", "int = 1.5", r"`scale` \(=1.5\) must be a whole number"),
        ("float = 1.0", 'Literal["a", "b"] = "c"', r"`scale` \(=c\) must be one of a, b"),
        ('"mine"', '"bn"', "there is a norm of this name; choose another"),
        ('"mine"', '"my norm"', "`name` must be letters, digits"),
        ('"mine"', '"1st"', "`name` must be letters, digits"),
        ('"mine"', '"é"', "`name` must be letters, digits"),
        ('"mine"', '""', "`name` must be letters, digits"),
        ('"mine"', "3", "`name` must be letters, digits"),
        ('"mine"', '"m" * 65', "`name` must be letters, digits"),
        ('    name = "mine"\n', "", "defines no recipe: a subclass of a kind"),
    ],
)
def test_what_a_recipe_declares_wrongly_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^mine.py: .*{message}"):
        recipe.use([file_of(old, new)])
    assert NORMS.names == BUILT_IN
    assert recipe.in_use() == {}


def test_all_recipes_of_a_refused_file_are_taken_out_again() -> None:
    other = NORM[NORM.index("class") :].replace("Mine", "Other").replace('"mine"', '"bn"')
    with pytest.raises(ConfigError, match=r"^mine.py: the norm `bn` \(Other\)"):
        recipe.use([RecipeFile("mine.py", NORM + other)])
    assert NORMS.names == BUILT_IN


def test_a_parameter_has_one_type_among_the_recipes_of_a_kind() -> None:
    other = file_of('"mine"', '"other"', "other.py")
    recipe.use([file_of(), other])
    assert NORMS.heed("scale") == ("mine", "other")
    source = other.source.replace("float = 1.0", "int = 1")
    with pytest.raises(ConfigError, match=r"^other.py: .*`scale` has another type than .* mine"):
        recipe.use([file_of(), RecipeFile("other.py", source)])


def test_a_parameter_with_the_name_of_a_field_or_of_another_kinds_parameter_is_refused() -> None:
    recipe.use([file_of("scale", "features")])
    with pytest.raises(ConfigError, match=r"`features` is a parameter of the norm mine and a fiel"):
        check_names()
    recipe.use([file_of("scale", "dataset")])
    with pytest.raises(ConfigError, match=r"`dataset` is a parameter of the norm mine and an axis"):
        check_names()
    taken = next(iter(LOSSES.parameters()))
    recipe.use([file_of("scale", taken)])
    with pytest.raises(ConfigError, match=rf"`{taken}` is a parameter of .* and .* norm mine|norm"):
        check_names()
    recipe.use([file_of()])
    check_names()


def test_a_parameter_with_the_name_of_a_key_of_its_section_is_refused() -> None:
    rule = NORM.replace("Norm", "StopRule").replace("scale: float = 1.0", "grace: int = 1")
    with pytest.raises(ConfigError, match=r"`grace` has the name of another key of the same sec"):
        recipe.use([RecipeFile("mine.py", rule)])
    assert "mine" not in RULES.names


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "wanted"),
    [
        (bool, [True, False], [0, 1, "true"], "true or false"),
        (int, [0, -3], [True, 1.0, "1", None], "a whole number"),
        (float, [0.5, 3, -1], [True, "1", float("nan"), float("inf"), None], "a number"),
        (str, ["", "a"], [1, None], "a text"),
        (Literal["a", "b"], ["a", "b"], ["c", 1, None], "one of a, b"),
    ],
)
def test_a_value_must_be_of_the_parameters_type(kind, right, wrong, wanted) -> None:
    parameter = Parameter("x", kind, right[0], "")
    for value in right:
        parameter.check(value)
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"^`x` \(=.*\) must be {wanted}$"):
            parameter.check(value)


def test_a_recipe_can_refuse_values() -> None:
    checked = """
    def check_parameters(self):
        if self.scale < 0:
            raise ConfigError(f"`scale` (={self.scale}) must not be negative")
"""
    recipe.use([RecipeFile("mine.py", "from raygan.recipes import ConfigError" + NORM + checked)])
    with pytest.raises(ConfigError, match=r"`scale` \(=-1\) must not be negative"):
        NORMS.make("mine", {"scale": -1})


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"`norm` \(='mine'\) must be one of .*bn.*`recipes`"):
        NORMS["mine"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("mine.py", b"#" * 2**20 + b"#", "is larger than 1 MiB"),
        ("mine.py", b"#" * (2**20 - 1) + "é".encode() * 2, "is larger than 1 MiB"),
        ("mine.py", b"\xff", r"is not a text in UTF-8 \(invalid start byte\)"),
        ("mine.txt", b"", "a file of recipes is named in letters, .* and ends with .py"),
        ("my norm.py", b"", "a file of recipes is named in letters, .* and ends with .py"),
        ("1.py", b"", "a file of recipes is named in letters, .* and ends with .py"),
        ("mine.py", None, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, name, data, message) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=rf"{name}: {message}"):
        recipe.read(tmp_path / name)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NORM + "# é\n" + "#" * 900_000)
    read = recipe.read(tmp_path / "mine.py")
    assert (read.name, read.source) == ("mine.py", NORM + "# é\n" + "#" * 900_000)
    assert read.digest != file_of().digest
    assert len(read.digest) == 64


def test_use_replaces_and_removes_files() -> None:
    recipe.use([file_of()])
    before, revision = NORMS["mine"], recipe.revision()
    recipe.use([file_of()])
    assert NORMS["mine"] is before  # the file did not run again
    assert recipe.revision() == revision
    recipe.use([file_of("1.0", "2.0")])
    assert NORMS.make("mine", {}).scale == 2.0  # type: ignore[attr-defined]
    assert recipe.revision() > revision
    recipe.use([file_of('"mine"', '"other"', "other.py")])
    assert NORMS.names == (*BUILT_IN, "other")
    recipe.keep_only({})
    assert NORMS.names == BUILT_IN


def test_ensure_keeps_other_files() -> None:
    other = file_of('"mine"', '"other"', "other.py")
    recipe.use([other])
    recipe.ensure([file_of()])
    recipe.ensure([file_of("1.0", "2.0")])
    assert list(recipe.in_use()) == ["other.py", "mine.py"]
    assert NORMS.make("mine", {}).scale == 2.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Mine(Norm):", "class Mine(Norm)", "mine.py:5: SyntaxError: expected ':'"),
        ("class Mine", "1 / 0\nclass Mine", "mine.py:5: ZeroDivisionError: division by zero"),
        ("class Mine", "import no_such\nclass Mine", "mine.py:5: ModuleNotFoundError: No module"),
        ("class Mine", "raise SystemExit(3)\nclass Mine", "mine.py:5: SystemExit: 3"),
    ],
)
def test_an_error_in_a_file_names_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}"):
        recipe.use([file_of(old, new)])


def test_blame_names_the_last_line_of_the_users_own() -> None:
    recipe.use([RecipeFile("mine.py", NORM + "\ndef fails(f):\n    f()\n")])
    file, (made,) = recipe.in_use()["mine.py"]
    fails = sys.modules[made.__module__].fails

    def ours() -> None:
        raise ValueError("bad \x1b[31m\nvalue")

    with pytest.raises(ValueError, match=r"bad") as raised:
        fails(ours)
    blamed = recipe.blame(raised.value, [file])
    assert blamed is not None
    assert blamed.startswith("mine.py:13: ValueError: bad")
    assert "\x1b" not in blamed
    assert "\n" not in blamed
    assert recipe.blame(raised.value, []) is None
    with pytest.raises(ConfigError, match=r"^mine.py:13: ValueError"), recipe.blamed():
        fails(ours)
    with pytest.raises(ValueError, match=r"bad"), recipe.blamed():
        ours()


def test_a_described_recipe_checks_values_but_has_no_code() -> None:
    scale = Parameter("scale", float, 1.0, "Factor.")
    recipe.enter_described("mine.py", "0" * 64, [described("mine", "norm", scale)], tables())
    assert recipe.parameters(NORMS["mine"]) == {"scale": scale}
    assert recipe.describe(NORMS["mine"]) == described("mine", "norm", scale)
    with pytest.raises(ConfigError, match=r"`scale` \(=big\) must be a number"):
        NORMS.make("mine", {"scale": "big"})
    with pytest.raises(ConfigError, match=r"the code of the norm `mine` is needed: name its file"):
        recipe.require_code(NORMS["mine"])
    recipe.require_code(NORMS["bn"])
    recipe.use([file_of()])  # the code takes the description's place
    recipe.require_code(NORMS["mine"])
    assert NORMS.names == (*BUILT_IN, "mine")


def test_a_description_of_code_that_is_in_use_changes_nothing() -> None:
    recipe.use([file_of()])
    made = NORMS["mine"]
    recipe.enter_described("mine.py", file_of().digest, [described()], tables())
    assert NORMS["mine"] is made
    recipe.enter_described("mine.py", "1" * 64, [described("older")], tables())  # of another sweep
    assert NORMS.names == (*BUILT_IN, "older")


@pytest.mark.parametrize("digest", ["0" * 64, "1" * 64])
def test_descriptions_of_a_file_replace_those_of_its_other_versions(digest: str) -> None:
    recipe.enter_described("mine.py", "0" * 64, [described()], tables())
    recipe.enter_described(
        "mine.py", digest, [described("mine" if digest[0] == "0" else "new")], tables()
    )
    assert len(NORMS.names) == len(BUILT_IN) + 1


def test_a_description_that_no_recipe_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mine.py: there is no kind of recipe 'spell'"):
        recipe.enter_described("mine.py", "0" * 64, [described("mine", "spell")], tables())
    wrong = Parameter("scale", float, "big", "Factor.")
    with pytest.raises(ConfigError, match=r"`scale` \(=big\) must be a number"):
        recipe.enter_described("mine.py", "0" * 64, [described("mine", "norm", wrong)], tables())
    with pytest.raises(ConfigError, match=r"there is a norm of this name"):
        recipe.enter_described("mine.py", "0" * 64, [described("own"), described("bn")], tables())
    assert NORMS.names == BUILT_IN
    assert "raw" not in SOURCES.names


@pytest.mark.cluster  # a process that has loaded nothing else
def test_a_file_may_be_the_first_to_ask_for_any_kind(tmp_path: Path) -> None:
    kinds = ("Norm", "Architecture", "Loss", "OptimizerRecipe", "Metric", "StopRule", "DataSource")
    text = f"from raygan.recipes import {', '.join(kinds)}\n" + "".join(
        f'class My{kind}({kind}):\n    """Mine."""\n    name = "mine"\n' for kind in kinds
    )
    (tmp_path / "mine.py").write_text(text)
    program = (
        "from pathlib import Path; from raygan import recipe\n"
        "recipe.use([recipe.read(Path('mine.py'))])\n"
        "print(len(recipe.in_use()['mine.py'][1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"{len(kinds)}\n", "")


@pytest.mark.parametrize(
    "name", ["method", "kind", "outcome", "activation", "mixes_images", "trial", "β"]
)
def test_a_parameter_with_a_name_that_means_something_else_is_refused(name: str) -> None:
    text = (
        'from raygan.recipes import Norm\nclass Mine(Norm):\n    """Mine."""\n'
        f'    name = \'mine\'\n    {name}: int = 1\n    """Something."""\n'
    )
    with pytest.raises(ConfigError, match=f"`{name}`"):
        recipe.use([RecipeFile("mine.py", text)])


@pytest.mark.parametrize("name", ["_scale", "__slots__", "__del__"])
def test_a_parameter_that_begins_with_an_underscore_is_refused(name: str) -> None:
    parameter = Parameter(name, str, "x", "Something.")
    with pytest.raises(ConfigError, match=rf"mine.py: mine can have no parameter '{name}'"):
        recipe.enter_described(
            "mine.py", "0" * 64, [described("mine", "norm", parameter)], tables()
        )
    text = (
        'from raygan.recipes import Norm\nclass Mine(Norm):\n    """Mine."""\n'
        '    name = \'mine\'\n    _scale: int = 1\n    """Something."""\n'
    )
    with pytest.raises(ConfigError, match=r"`_scale` must be letters, .* begin with a letter"):
        recipe.use([RecipeFile("mine.py", text)])
    assert NORMS.names == BUILT_IN


def test_nothing_is_left_of_a_description_that_cannot_be_entered(monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("by surprise")

    monkeypatch.setattr(type(NORMS), "add", fail)
    for _ in range(2):  # nor is it taken for entered
        with pytest.raises(RuntimeError, match="by surprise"):
            recipe.enter_described("mine.py", "0" * 64, [described()], tables())
    assert NORMS.names == BUILT_IN


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"two files are called mine.py"):
        recipe.use([RecipeFile("mine.py", "a = 1"), RecipeFile("mine.py", "a = 2")])


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(embedded null byte\)"):
        recipe.read(Path("mine\0.py"))
