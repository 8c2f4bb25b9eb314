"""The documentation: its examples run, its links lead somewhere, its generated pages are current."""

from __future__ import annotations

import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from raygan import recipe
from raygan.cli import main
from raygan.gan import contract
from raygan.gan.config import TrainConfig
from raygan.gan.judge.metrics import measure
from raygan.gan.train_command import _parser
from raygan.sweep.commands.data_command import main as data
from raygan.sweep.spec import sweep_spec as spec
from raygan.sweep.spec.yaml_loader import parse
from tests.clusters import wait_until
from tests.report.chromium import PROGRAM, Chromium

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "infra/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
PAGES = [page for page in PAGES if page.name != "report.md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
NO_CLUSTER = {"init", "prepare", "info"}
"""Commands that start neither Ray nor a server; so does ``--dry-run``."""


RECIPES = ROOT / "docs" / "guides" / "recipes"


@pytest.fixture(autouse=True)
def no_recipes_are_left() -> Iterator[None]:
    yield
    recipe.use([])


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _lines(page: Path) -> list[str]:
    """The command lines of the page's shell examples."""
    text = "\n".join(_blocks(page, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _spans(page: Path) -> list[str]:
    """The page's `code` outside of examples, each on one line."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def _command(line: str) -> tuple[str, click.Command | None, list[str]] | None:
    """Name, command and arguments of a line that runs raygan; None of any other line.

    The training core has no click command.
    """
    words = shlex.split(line.rpartition(" -- ")[2].replace("…", ""), comments=True)
    words = [word.removeprefix(".venv/bin/") for word in words]
    if words[:1] == ["raygan"]:
        name = words[1] if words[1:] and not words[1].startswith("-") else ""
        return (name, main.commands[name], words[2:]) if name else ("", main, words[1:])
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    rest = words[words.index(module) + 1 :] if module else []
    if module == "raygan.sweep":
        return "sweep", main.commands["sweep"], rest
    if module == "raygan.data":
        return rest[0], data.commands[rest[0]], rest[1:]
    return ("train", None, rest) if module == "raygan.gan.train" else None


def _parse(command: click.Command | None, words: list[str]) -> dict[str, object]:
    """What the command makes of the words; raises click's error or ends if it refuses them."""
    if command is None:
        return vars(_parser().parse_args(words))
    try:
        return command.make_context("raygan", list(words)).params
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
        return {}


def _runs(line: str) -> bool:
    """Whether the line needs neither a cluster nor a network, and is done at once."""
    found = _command(line)
    return found is not None and (found[0] in NO_CLUSTER or "--dry-run" in found[2])


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_yaml_examples_are_valid_sweeps(page: Path) -> None:
    for number, text in enumerate(_blocks(page, "yaml")):
        found = parse(text, f"{_named(page)}, example {number}")
        found.data.setdefault("name", "example")  # a part of a sweep
        recipe.use(recipe.read(RECIPES / name) for name in found.data.get("recipes", ()))
        assert spec.validate(found).name


def test_the_recipes_of_the_guide_are_its_files() -> None:
    shown = _blocks(ROOT / "docs" / "guides" / "recipes.md", "python")
    assert sorted(shown) == sorted(path.read_text() for path in RECIPES.glob("*.py"))


@pytest.mark.parametrize(
    "checks",
    [
        contract.IN_ONE_PROCESS,
        pytest.param(contract.ALL, marks=[pytest.mark.cluster, pytest.mark.soak]),
    ],
    ids=["quick", "all"],
)
@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("instance_norm.py", {"norm": "instance"}),
        ("instance_norm.py", {"norm": "instance", "architecture": "resnet"}),
        ("sharpness.py", {"norm": "vanilla"}),
        ("shallow.py", {"architecture": "shallow", "norm": "bn"}),
        ("shallow.py", {"architecture": "shallow", "norm": "wn"}),
    ],
)
def test_the_recipes_of_the_guide_keep_the_contract(file: str, values, checks) -> None:
    recipe.use([recipe.read(RECIPES / file)])
    config = TrainConfig.of(**values)
    passed = list(contract.checked(config, (1, 16, 16), checks))
    assert passed == [name for name, _ in checks]


def test_sharpness_compares_samples_with_held_out_images() -> None:
    recipe.use([recipe.read(RECIPES / "sharpness.py")])
    images = contract.noise_images((1, 16, 16))
    held_out = images.take(images.running) / 255
    assert measure({}, held_out, images, 0)[0]["val/sharpness"] == pytest.approx(1)
    flat = measure({}, held_out.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16), images, 0)
    assert flat[0]["val/sharpness"] == 0


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{_named(page)}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{_named(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_command_lines_are_accepted_by_their_commands(page: Path) -> None:
    for line in _lines(page):
        if (target := re.match(r"make ([a-z-]+)", line)) is not None:
            assert target[1] in TARGETS, f"{_named(page)}: {line}"
        for path in re.findall(r"(?<!/)\bsweeps/[\w./-]+\w", line):
            assert (ROOT / path).exists(), path
        if (found := _command(line)) is None:
            assert "raygan" not in line.partition("#")[0].replace("raygan_driver", ""), (
                f"{_named(page)}: {line}"
            )
            continue
        name, command, words = found
        given = _parse(command, words)
        shipped = ROOT / str(given.get("file"))
        if name == "sweep" and shipped.is_file():
            assert spec.load(shipped, given["overrides"]).name, line  # type: ignore[arg-type]


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_commands_in_the_text_are_accepted_by_their_commands(page: Path) -> None:
    options = {
        option
        for command in (*main.commands.values(), *data.commands.values())
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for span in _spans(page):
        if page.parent.name != "infra" and (option := re.match(r"--[a-z-]+", span)) is not None:
            assert option[0] in options, f"{_named(page)}: {span}"
        if (script := re.match(r"python (tests/bench/\w+\.py)", span)) is not None:
            source = (ROOT / script[1]).read_text()
            for option in re.findall(r"--([a-z-]+)", span):
                assert f'"--{option}"' in source or f'("{option}", ' in source, span
        if (found := _command(span)) is not None:
            try:
                _parse(found[1], found[2])
            except click.MissingParameter:  # `raygan evaluate --fid`
                continue


RUN = [page for page in PAGES if any(map(_runs, _lines(page)))]


def test_the_pages_whose_command_lines_run_are_found() -> None:
    assert {"README.md", "tutorial.md", "budgets.md", "images.md"} <= {page.name for page in RUN}


@pytest.mark.parametrize("page", RUN, ids=_named)
def test_command_lines_that_need_no_cluster_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(16):
        Image.effect_noise((80, 72), 20 + number).save(photographs / f"{number}.png")
    shutil.copytree(ROOT / "sweeps", "sweeps")
    examples = [text.replace("/data/", f"{tmp_path}/") for text in _blocks(page, "yaml")]
    for text in examples:
        if (name := re.match(r"name: ([\w-]+)\n", text)) is not None:
            Path(f"{name[1]}.yaml").write_text(text)
    # what a page calls sweep.yaml is its first example
    whole = [text for text in examples if text.startswith("name:")]
    Path("sweep.yaml").write_text(whole[0] if whole else Path("sweeps/quickstart.yaml").read_text())
    prepared = ""
    for line in filter(_runs, _lines(page)):
        name, command, words = _command(line) or ("", None, [])
        assert command is not None
        words = [word.replace("/data/", f"{tmp_path}/") for word in words]
        words = [prepared if word == "PATH" else word for word in words]
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        prepared = done.stdout.split()[-1] if name == "prepare" else prepared


def test_help_lists_every_command() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert all(f"  {name} " in done.output for name in main.commands)


def test_generated_pages_are_current() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for name, text in pages.items():
        written = (ROOT / "docs" / "reference" / name).read_text()
        assert written == text, f"{name} is out of date: run `make docs`"


@pytest.mark.parametrize("name", ["yaml.md", "commands.md"])
def test_every_key_and_option_has_a_meaning(name: str) -> None:
    column = {"yaml.md": -2, "commands.md": 2}[name]
    rows = [
        re.split(r"(?<!\\)\|", line)
        for line in (ROOT / "docs" / "reference" / name).read_text().splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 40
    assert [row[1] for row in rows if not row[column].strip()] == []


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_keys_and_code_that_a_page_names_exist(page: Path) -> None:
    sections = spec.spec_class().model_fields
    for span in _spans(page):
        if (key := re.match(r"(\w+)\.(\w+)\b", span)) is not None and key[1] in sections:
            owner = (
                type(sections[key[1]].default)
                if key[1] in ("train", "grid", "search")
                else sections[key[1]].annotation
            )
            options = [owner, *get_args(owner)]
            fields = [name for one in options for name in getattr(one, "model_fields", ())]
            assert key[2] in fields, f"{_named(page)}: {span}"
        elif (code := re.match(r"raygan(\.[A-Za-z]\w*)+", span)) is not None:
            pkgutil.resolve_name(code[0])


@pytest.mark.cluster
def test_python_examples_run(tmp_path: Path) -> None:
    code = _blocks(ROOT / "docs" / "guides" / "python.md", "python")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 ")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of the built documentation, which a thread serves."""
    built = tmp_path / "site"
    command = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", str(built)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=built)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.cluster  # builds the documentation and starts a browser
@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")
def test_the_start_page_opens_in_a_browser_and_is_searched_without_another_host(
    site: str, tmp_path: Path
) -> None:
    with Chromium(tmp_path / "profile") as page:
        page.open(f"{site}index.html")
        assert page.evaluate("document.title") == "raygan"
        pictures = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
        assert pictures
        assert all(pictures)
        tabs = "[...document.querySelectorAll('nav.md-tabs a')].map(a => a.innerText.trim())"
        assert {"Start", "Tutorial", "Guides", "Reference", "Method", "FAQ"} <= set(
            page.evaluate(tabs)
        )
        page.evaluate(
            "(() => {const box = document.querySelector('input.md-search__input');"
            "box.focus(); box.value = 'collapse';"
            "box.dispatchEvent(new Event('input', {bubbles: true}));"
            "box.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true, key: 'e'}))})()"
        )
        links = "[...document.querySelectorAll('a.md-search-result__link')].map(a => a.href)"
        found = wait_until(lambda: page.evaluate(links), "results of the search")
    assert any("method/collapse.html" in link for link in found)
    for event in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert page.named(event) == []
    assert page.named("Network.loadingFailed") == []
    requests = {request["request"]["url"] for request in page.named("Network.requestWillBeSent")}
    assert f"{site}search/search_index.json" in requests
    assert [url for url in requests if not url.startswith((site, "data:"))] == []


def test_the_readme_names_every_make_target_and_shipped_sweep_rightly() -> None:
    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"`?make ([a-z-]+)`?", readme)) <= TARGETS | {"and"}
    shipped = {path.name for path in (ROOT / "sweeps").glob("*.yaml")}
    assert set(re.findall(r"`sweeps/([\w-]+\.yaml)`", readme)) == shipped
    assert len(readme.splitlines()) <= 150
