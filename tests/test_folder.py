"""The tree of files is drawn once, no other module spells a name of it, and the pages agree."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import raygan
from raygan import folder
from tests.tree import PATHS, strange

HOME = Path(raygan.__file__).parent
PAGE = HOME.parent / "docs" / "reference" / "files.md"
MODULES = sorted(p for p in HOME.rglob("*.py") if p.name != "folder.py")

ID, STEP = "bn-000", 20
TRIAL = {
    folder.RECORD_FILE,
    folder.history_file(50),
    folder.OF_RAY_TRAIN,
    *(folder.picture_file(kind, STEP) for kind in folder.PICTURES),
    *(
        f"{folder.checkpoint_folder(STEP, '0a')}/{file}"
        for file in (
            folder.checkpoint_file(STEP),
            folder.checksum_file(folder.checkpoint_file(STEP)),
        )
    ),
    *(
        name(which)
        for which in ("best", "last")
        for name in (
            folder.final_result,
            folder.final_losses,
            folder.final_fid,
            folder.final_quality,
            folder.final_progress,
        )
    ),
    *(folder.final_picture(w, how) for w in ("best", "last") for how in folder.EXTREMES),
}
SWEEP = {
    folder.RECIPES_FILE, folder.recipe_file("my_norm.py"), folder.SPEC_FILE, folder.PLAN_FILE, folder.DATA_FILE, folder.SPEEDS_FILE, folder.RESULTS,
    folder.CURVES, folder.SUMMARY, folder.OVERVIEW, folder.HTML, folder.MARKDOWN,
    folder.report_file("cells.csv"), folder.JOURNAL_FILE, folder.LOCK_FILE, folder.STOP_FILE,
    folder.CLOCK_FILE, folder.UNSYNCED_FILE, f"{folder.TUNE}/x", *(f"{folder.trial_folder(ID)}/{name}" for name in TRIAL),
}  # fmt: skip
SET = {folder.MANIFEST, folder.shard_file(0), folder.shard_note(0)}
ALL = {
    *(f"STORAGE/norms/{name}" for name in SWEEP),
    *(f"STORAGE/{folder.DATA}/digits-0a/{name}" for name in SET),
    f"STORAGE/{folder.MLFLOW_DATABASE}",
    f"STORAGE/{folder.MLFLOW_ARTIFACTS}/x",
    f"OUT/{folder.DATA}/digits-0a/{folder.MANIFEST}",
    f"OUT/{folder.CHECKPOINTS}/{folder.checkpoint_file(STEP)}",
    f"OUT/{folder.CHECKPOINTS}/{folder.checksum_file(folder.checkpoint_file(STEP))}",
    *(f"OUT/{folder.last_picture(kind)}" for kind in folder.PICTURES),
}
"""A path of each kind, made by the module's names and functions."""


def test_each_name_and_function_stands_in_the_tree():
    assert strange(ALL) == set()


def test_each_line_of_the_tree_has_a_name_or_a_function():
    assert [line for line, kind in PATHS.items() if not any(map(kind.fullmatch, ALL))] == []


def test_no_file_is_taken_for_another():
    assert folder.step_of_checkpoint(folder.checkpoint_file(10**10)) == 10**10
    assert folder.step_of_checkpoint(folder.checksum_file(folder.checkpoint_file(1))) is None
    assert folder.step_of_picture("samples", "samples-000000020.png") == 20
    assert folder.step_of_picture("samples", "samples-000000020.webp") == 20
    assert folder.step_of_picture("samples", "samples-000000020.webp.0.tmp") is None
    assert folder.step_of_picture("samples", "reconstructions-000000020.png") is None
    assert folder.is_checkpoint_folder(folder.checkpoint_folder(20, "0a"))
    assert not folder.is_checkpoint_folder(folder.IMAGES)
    assert folder.is_shard(folder.shard_file(7))
    assert not folder.is_shard(folder.shard_note(7))


def test_the_page_shows_the_same_tree():
    drawn = (folder.__doc__ or "").partition("::\n\n")[2]
    shown = re.search(r"```text\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert shown is not None
    assert shown[1].rstrip() == textwrap.dedent(drawn).rstrip()


WHOLE = {value for value in vars(folder).values() if isinstance(value, str) and "." in value}
NAMES = {name for name in WHOLE if re.fullmatch(r"[a-z_]+(\.[a-z]+)+", name)}
"""Names of files, such as ``record.json``."""
SPELLED = re.compile(
    "|".join(
        [
            *(rf"(^|/){re.escape(name)}(?![.\w])" for name in sorted(NAMES)),
            r"(^|/)trials/(?!$)",
            r"(^|/)images/(samples|reconstructions|\{\})",
            r"(^|/)final/.*\.",
            r"checkpoint_(\{\}|\d)",
            r"(^|/)step-\{\}",
            r"-(hardest|easiest|fid|quality|progress)\.",
            r"\{\}\.arrow",
        ]
    )
)
METRICS = {"trials/{}"}
"""Names of metrics in MLflow, which are no paths."""
FOLDERS = {
    folder.DATA, folder.REPORT_FOLDER, folder.TUNE, folder.TRIALS, folder.IMAGES, folder.FINAL,
    folder.CHECKPOINTS,
}  # fmt: skip
METHODS = {"files", "folders", "read", "write", "read_kept", "write_kept", "delete", "rename"}


def _text(node: ast.AST) -> str | None:
    """A text in the code, with ``{}`` where it has values put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "{}" for part in node.values)
    return None


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """All texts of a module but its docstrings: those are for people."""
    inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for value in node.values}  # fmt: skip
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in inside | told and (text := _text(node)) is not None:
            yield node.lineno, text


def _handed_over(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of folders that are joined to a path, or given to a method of the storage."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            name = node.right
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
                and node.func.attr in METHODS):  # fmt: skip
            name = node.args[0]
        if name is not None and FOLDERS & set((_text(name) or "").split("/")):
            yield name.lineno, _text(name) or ""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_no_other_module_spells_a_path(module):
    tree = ast.parse(module.read_text())
    spelled = [found for found in _texts(tree)
               if SPELLED.search(found[1]) and found[1] not in METRICS]  # fmt: skip
    assert spelled == []
    assert list(_handed_over(tree)) == []


@pytest.mark.parametrize(
    "code",
    [
        'storage.read(f"trials/{record.id}/record.json")',
        'read(storage, f"trials/{record.id}/{path}")',
        'sweep / "trials" / name',
        'sweep.folders("trials")',
        'FILE = "lock.json"',
        'name = f"images/samples-{step:09d}.png"',
        'note(f"{storage.uri}/trials/TRIAL/record.json")',
        'path = f"final/{which}.json"',
        'path = f"final/{which}-{kind}.png"',
        'name = f"checkpoint_{step:09d}_x"',
        'name = f"step-{step:09d}.pt"',
    ],
)
def test_a_spelled_path_is_seen(code):
    tree = ast.parse(code)
    assert any(SPELLED.search(text) for _, text in _texts(tree)) or list(_handed_over(tree))
