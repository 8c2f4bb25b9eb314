"""Users' recipes in a sweep's folder: kept, described, and never run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from raygan import own_recipes, recipe
from raygan.errors import ConfigError, RayganError
from raygan.folder import RECIPES_FILE, SPEC_FILE, recipe_file
from raygan.gan.nets.norms import NORMS
from raygan.recipe import Parameter, RecipeFile
from raygan.storage import Storage

NORM = '''
from typing import Literal
from raygan.recipes import Norm

class Mine(Norm):
    """A norm of mine."""

    name = "mine"
    scale: float = 1.0
    """Factor."""
    groups: int = 2
    """Groups."""
    centred: bool = False
    """Whether it is centred."""
    mode: Literal["full", "half"] = "half"
    """Which."""
    label: str = "a"
    """A text."""
'''
FILE = RecipeFile("mine.py", NORM)
BUILT_IN = NORMS.names


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    recipe.keep_only({})
    assert NORMS.names == BUILT_IN


@pytest.fixture
def sweep(tmp_path: Path) -> Storage:
    """A sweep that was begun with :data:`FILE`, read by a process that has no recipes."""
    storage = Storage(str(tmp_path / "mine"))
    recipe.use([FILE])
    own_recipes.store(storage)
    recipe.use([])
    return storage


def test_another_process_knows_the_recipes_by_their_description(sweep: Storage) -> None:
    own_recipes.enter(sweep)
    made = NORMS["mine"]
    assert made.described_only
    assert made.__doc__ == "A norm of mine."
    assert list(recipe.parameters(made).values()) == [
        Parameter("scale", float, 1.0, "Factor."),
        Parameter("groups", int, 2, "Groups."),
        Parameter("centred", bool, False, "Whether it is centred."),
        Parameter("mode", Literal["full", "half"], "half", "Which."),
        Parameter("label", str, "a", "A text."),
    ]
    with pytest.raises(ConfigError, match=r"`mode` \(=none\) must be one of full, half"):
        NORMS.make("mine", {"mode": "none"})
    own_recipes.enter(sweep)  # once more changes nothing
    assert NORMS["mine"] is made


def test_two_sweeps_with_a_recipe_of_one_name_are_read_in_turn(sweep: Storage, tmp_path) -> None:
    other = Storage(str(tmp_path / "other"))
    recipe.use([RecipeFile("theirs.py", NORM.replace("A norm of mine", "A norm of theirs"))])
    own_recipes.store(other)
    for storage, doc in ((sweep, "mine"), (other, "theirs"), (sweep, "mine")):
        own_recipes.enter(storage)
        assert NORMS["mine"].__doc__ == f"A norm of {doc}."


def test_code_that_is_in_use_is_not_replaced_by_its_description(sweep: Storage) -> None:
    recipe.use([FILE])
    own_recipes.enter(sweep)
    assert not NORMS["mine"].described_only


def test_the_text_is_kept_as_it_is(sweep: Storage) -> None:
    assert sweep.read(recipe_file("mine.py")) == NORM.encode()


def test_a_changed_file_is_refused(sweep: Storage) -> None:
    own_recipes.check_unchanged(sweep)  # the file is not in use
    recipe.use([FILE])
    own_recipes.check_unchanged(sweep)
    recipe.use([RecipeFile("mine.py", NORM + "# a comment\n")])
    with pytest.raises(
        ConfigError, match=r"^mine.py has changed since the sweep 'mine' began: res"
    ):
        own_recipes.check_unchanged(sweep)
    recipe.use([RecipeFile("other.py", NORM)])
    own_recipes.check_unchanged(sweep)


def test_another_set_of_files_is_refused(sweep: Storage) -> None:
    sweep.write(SPEC_FILE, b"name: mine")
    recipe.use([FILE, RecipeFile("more.py", NORM.replace('"mine"', '"more"'))])
    with pytest.raises(ConfigError, match=r"began with other files of recipes \(mine.py\) than"):
        own_recipes.check_unchanged(sweep)


def test_a_sweep_without_recipes_is_read_without_those_of_another(
    sweep: Storage, tmp_path: Path
) -> None:
    plain = Storage(str(tmp_path / "plain"))
    plain.write(SPEC_FILE, b"name: plain")
    own_recipes.enter(sweep)
    own_recipes.enter(plain)
    assert NORMS.names == BUILT_IN


def test_a_sweep_without_own_recipes_keeps_no_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "none"))
    own_recipes.store(storage)
    assert not (tmp_path / "none").exists()
    own_recipes.enter(storage)
    own_recipes.check_unchanged(storage)
    assert NORMS.names == BUILT_IN


def changed(sweep: Storage, change) -> bytes:
    content = json.loads(sweep.read(RECIPES_FILE))
    change(content[0])
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda sweep: sweep.read(RECIPES_FILE)[:-20],
        lambda sweep: b"\xff",
        lambda sweep: b"{}",
        lambda sweep: changed(sweep, lambda file: file.update(file="a/../b")),
        lambda sweep: changed(sweep, lambda file: file.update(sha256="0")),
        lambda sweep: changed(sweep, lambda file: file["recipes"][0].update(kind=3)),
        lambda sweep: changed(sweep, lambda file: file["recipes"][0].update(name="a b")),
        lambda sweep: changed(sweep, lambda f: f["recipes"][0]["parameters"][0].update(type="x")),
    ],
)
def test_a_damaged_description_is_refused_in_one_line(sweep: Storage, damage) -> None:
    damaged = damage(sweep)
    for path in Path(sweep.uri).glob(f"*{RECIPES_FILE}*"):
        path.write_bytes(damaged)  # its backup, too
    with pytest.raises(RayganError) as raised:
        own_recipes.enter(sweep)
    assert RECIPES_FILE in str(raised.value)
    assert "\n" not in str(raised.value)
    assert NORMS.names == BUILT_IN


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["recipes"][0].update(kind="spell"),
        lambda file: file["recipes"][0].update(name="bn"),
        lambda file: file["recipes"][0].update(doc=""),
        lambda file: file["recipes"][0]["parameters"][0].update(default="big"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="__class__"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="__classcell__"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="__slots__"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="__del__"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="_parameters"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="_scale"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="described_only"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="check_map"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="a.b"),
        lambda file: file["recipes"][0]["parameters"][0].update(name="class"),
        lambda file: file["recipes"][0]["parameters"].append(file["recipes"][0]["parameters"][0]),
        lambda file: file["recipes"][0]["parameters"][3].update(type=[]),
    ],
)
def test_a_description_that_no_recipe_can_have_is_refused(sweep: Storage, change) -> None:
    forged = changed(sweep, change)
    for path in Path(sweep.uri).glob(f"*{RECIPES_FILE}*"):
        path.write_bytes(forged)
    with pytest.raises(RayganError) as raised:
        own_recipes.enter(sweep)
    assert "\n" not in str(raised.value)
    assert NORMS.names == BUILT_IN


def test_nothing_of_a_stored_file_is_run(sweep: Storage, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"from pathlib import Path; Path({str(marker)!r}).touch()\n{NORM}"
    sweep.write(recipe_file("mine.py"), code.encode())
    hostile = changed(sweep, lambda file: file["recipes"][0].update(doc=code[:9000]))
    for path in Path(sweep.uri).glob(f"*{RECIPES_FILE}*"):
        path.write_bytes(hostile)
    own_recipes.enter(sweep)
    NORMS.make("mine", {})
    assert not marker.exists()
    recipe.use([RecipeFile("mine.py", code)])  # the test could see it
    assert marker.exists()
