"""What the README and the documentation say is run: Python blocks, commands, printed output, names, quotes of code."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.util
import inspect
import pkgutil
import re
import shlex
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
import yaml
from loops import for_each, loop_over
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import equipoise
from equipoise.cli.app import app
from equipoise.config import MOVED, TrainConfig, components
from equipoise.core.grammar import parse
from equipoise.core.types import component
from equipoise.losses import penalties
from equipoise.metrics.registry import METRICS
from equipoise.models.zoo import ZOO
from equipoise.recipes import available, load

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "equipoise"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"^<<< ", re.MULTILINE)


class Block(NamedTuple):
    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    found = [Block(*match.group("language", "title", "text")) for match in FENCE.finditer(page.read_text("utf-8"))]
    return [block for block in found if not QUOTED.search(block.text)]


def given(page: str) -> dict[str, object]:
    """The names an example may use without making them: somebody's own networks and a batch of theirs."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 128), nn.LeakyReLU(0.2))
    D = nn.Sequential(copy.deepcopy(body), nn.Linear(128, 1))
    G = nn.Sequential(nn.Linear(100, 28 * 28), nn.Tanh(), nn.Unflatten(1, (1, 28, 28)))
    real, z, y = torch.rand(8, 1, 28, 28) * 2 - 1, torch.randn(8, 100), torch.arange(8)
    names = {"body": body, "D": D, "G": G, "real": real, "fake": G(z), "y": y, "z": z, "nimg": 1000}
    if page == "sanify":
        sound = {"y": torch.randn(8, 1, 30), "y_hat": torch.randn(8, 1, 30)}
        networks = {"MyDiscriminator": lambda: D, "MultiPeriodDiscriminator": MultiPeriodDiscriminator}
        names |= {"D": AuxiliaryClassifier(body), "x": real} | networks | sound
    return names


class AuxiliaryClassifier(nn.Module):
    """x -> logits and class scores, as AC-GAN's discriminator."""

    def __init__(self, body):
        super().__init__()
        self.body, self.adv, self.aux = body, nn.Linear(128, 1), nn.Linear(128, 10)

    def forward(self, x):
        h = self.body(x)
        return self.adv(h), self.aux(h)


class MultiPeriodDiscriminator(nn.Module):
    """Two waves -> logits of each, feature maps of each, as lists over discriminators; HiFi-GAN's way to call one."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList(nn.Conv1d(1, 4, 5, stride) for stride in (2, 3))
        self.last = nn.ModuleList(nn.Conv1d(4, 1, 3) for _ in self.first)

    def forward(self, y, y_hat):
        lists = [], [], [], []
        for first, last in zip(self.first, self.last, strict=True):
            for i, wave in enumerate((y, y_hat)):
                features = [torch.relu(first(wave))]
                features.append(last(features[0]))
                lists[i].append(features[1].flatten(1))
                lists[2 + i].append(features)
        return lists


@contextmanager
def module_of(page: Path) -> Iterator[types.ModuleType]:
    """The module that a page's Python blocks are run in, one after the other."""
    module = types.ModuleType(f"examples_of_{page.stem}")
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    try:
        yield module
    finally:
        del sys.modules[module.__name__]


def execute(block: Block, module: types.ModuleType, page: str, folder: Path) -> None:
    """Run a Python block, the given names made anew; one with a title is also written to that file, for commands."""
    vars(module).update(given(page))
    exec(compile(block.text, f"{page}.md", "exec"), vars(module))
    if block.title is not None:
        (folder / block.title).write_text(block.text, "utf-8")


def equipoise_command(arguments: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), arguments
    return result.exit_code, result.output


def check_commands(text: str) -> None:
    """Each `equipoise train` is run, as a dry run. Of other commands, the options must exist."""
    for line in text.splitlines():
        command = shlex.split(line.rpartition("&& ")[2], comments=True)
        if "equipoise" not in command:
            continue
        arguments = command[command.index("equipoise") + 1 :]
        if arguments[0] == "train":
            code, said = equipoise_command([*arguments, "--dry-run"])
            assert code == 0, f"{line}\n{said}"
        else:
            names = arguments[:2] if arguments[0] == "data" else arguments[:1]
            code, known = equipoise_command([*names, "--help"])
            assert code == 0, line
            for option in arguments:
                assert not option.startswith("--") or option in known, f"{line}: no option {option}"


def check_session(text: str) -> None:
    """Each `$ equipoise ...` prints exactly the lines below it."""
    for part in text.split("$ ")[1:]:
        line, _, expected = part.partition("\n")
        arguments = shlex.split(line)
        assert arguments[0] == "equipoise"
        assert equipoise_command(arguments[1:])[1].strip() == expected.strip()


def folder_of_photos(place: Path) -> Path:
    """The folder of the examples: `data=photos`."""
    (place / "photos").mkdir()
    return place / "photos"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Image.new("RGB", (40, 40)).save(folder_of_photos(tmp_path) / "a.png")
    monkeypatch.setattr("equipoise.train.choosing.images_per_second", lambda *_: 100.0)  # it would take seconds
    with module_of(page) as module:
        for block in blocks(page):
            match block.language:
                case "python":
                    execute(block, module, page.stem, tmp_path)
                case "bash":
                    check_commands(block.text)
                case "console":
                    check_session(block.text)
                case "yaml":
                    (tmp_path / str(block.title)).write_text(block.text, "utf-8")
                case language:
                    assert language == "text", f"a {language} block is neither run nor marked as text"


def test_there_are_examples_to_run():
    """So that a change of the fences' form does not silently empty the test above."""
    languages = [block.language for page in PAGES for block in blocks(page)]
    assert languages.count("python") >= 20
    assert languages.count("bash") >= 20
    assert "console" in languages


def test_the_two_commands_are_the_same_everywhere():
    marked = re.findall(r"<!-- ci: (\w+) -->\n```bash\n(.+)\n```", (ROOT / "README.md").read_text("utf-8"))
    commands = dict(marked)
    assert list(commands) == ["run", "test"]
    assert commands["run"].count(" && ") == commands["test"].count(" && ") == 1
    for command in commands.values():
        assert f"```bash\n{command}\n```" in (ROOT / "docs" / "index.md").read_text("utf-8")


def test_links_of_the_readme_lead_somewhere():
    """Those of docs/ are checked when it is built."""
    targets = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


# ---- names -----------------------------------------------------------------------------------------------


def text_block(page: str, beginning: str) -> str:
    found = [b.text for b in blocks(ROOT / "docs" / page) if b.language == "text" and b.text.startswith(beginning)]
    assert len(found) == 1
    return found[0]


def test_signatures_in_the_design_are_the_signatures():
    home, checked = "", 0
    for line in text_block("design.md", "equipoise.losses.objective").splitlines():
        module, name, parameters = re.match(r"(?:(equipoise\.[\w.]+))? +([\w.]+)\(([\w, ]*)\)", line).groups()
        home = module or home
        found = pkgutil.resolve_name(f"{home}:{name}")
        assert list(inspect.signature(found).parameters) == parameters.split(", "), line
        checked += 1
    assert checked > 20


# ---- quotes of code --------------------------------------------------------------------------------------


@functools.cache
@cache
def hook(name: str) -> types.ModuleType:
    """A hook of the documentation. It keeps its table of networks, which here are few: all of them take 15 seconds."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name == "tables":
        with patch("equipoise.models.zoo.ZOO", FEW_NETWORKS):
            module.networks()
    return module


FEW_NETWORKS = {name: ZOO[name] for name in ("mlp_28", "dcgan_64", "biggan_512")}
MKDOCS = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader=yaml.BaseLoader)
HOOKS = [Path(file).stem for file in MKDOCS["hooks"]]

quoting = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra `docs`")


@quoting
@for_each(PAGES)
def test_quotes_are_found(page):
    """A quote that does not fit the code ends the build of the documentation; here it fails before."""
    text = page.read_text("utf-8")
    for name in HOOKS:
        text = hook(name).on_page_markdown(text)
    assert not QUOTED.search(text)


@quoting
def test_the_loop_is_quoted_line_by_line_in_order_and_whole():
    quote = hook("quote")
    page = (ROOT / "docs" / "loop.md").read_text("utf-8")
    source = ""
    beginnings = {
        "gan": "\n@dataclass",
        "showing": "\nclass Showing",
        "context": "\nclass StepContext",
        "steps": "\ndef step",
        "loop": "\ndef train",
        "opened": "\n@contextmanager",
        "events": "\n@dataclass",
    }  # of other files the page quotes a part
    quotes = [found for found in quote.QUOTE.finditer(page) if Path(found["path"]).stem in beginnings]
    quoted = [quote.quote(*found.group("path", "first", "last")) for found in quotes]
    for file, first in beginnings.items():
        code = (ROOT / "equipoise" / "train" / f"{file}.py").read_text("utf-8")
        source += code[code.index(first) :]
    assert stripped("\n".join(quoted)) == stripped(source)


def stripped(code: str) -> list[str]:
    """Lines without their indentation; blank ones left out."""
    return [line.strip() for line in code.splitlines() if line.strip()]


@quoting
def test_quoting_takes_the_lines_from_first_to_last_or_fails(tmp_path, monkeypatch):
    from mkdocs.exceptions import PluginError

    quote = hook("quote")
    monkeypatch.setattr(quote, "ROOT", tmp_path)
    (tmp_path / "a.py").write_text("zero\n    one\n        two\n    three\nfour\n")
    assert quote.on_page_markdown("x\n<<< a.py | one | three\ny\n") == "x\none\n    two\nthree\ny\n"
    assert quote.on_page_markdown("<<< a.py | two") == "two"
    with pytest.raises(PluginError, match=r"a\.py has no line with 'five'"):
        quote.on_page_markdown("<<< a.py | one | five")


def test_the_tables_of_metrics_have_a_row_for_each():
    page = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(\w+)(?:\(.*?\))?` \| `\w+`.* \| \w+ \| .*\.? \|$", hook("metrics").on_page_markdown(page), re.MULTILINE
    )
    assert sorted(rows) == sorted(METRICS)


def test_a_table_of_components_says_what_their_docstrings_say():
    table = hook("tables").on_page_markdown("x\n<<< components equipoise.losses.penalties\ny").splitlines()
    assert table[:3] == ["x", "| settings | value |", "|---|---|"]
    assert (
        "| `R1(gamma=10.0, every=16)` | gamma/2 ‖grad D(x)‖² on real images (Mescheder et al. 2018, eq. 9). |" in table
    )
    assert len(table) == 4 + len(
        [name for name in penalties.__all__ if dataclasses.is_dataclass(getattr(penalties, name))]
    )


@loop_over(("table", "method"), [("checks", "check"), ("contradictions", "__post_init__")])
def test_the_tables_of_refusals_have_a_row_for_each_reason(table, method):
    """A docstring of another form fails here: `cases` raises."""
    tables = hook("tables")
    classes = tables.owners(method)
    assert len(classes) >= 9
    rows = tables.on_page_markdown(f"<<< {table}").splitlines()[2:]
    assert len(rows) == sum(vars(cls)[method].__doc__.count("Raises ValueError for ") for cls in classes)
    assert {row.split("`")[1] for row in rows} == {cls.__name__ for cls in classes}
    assert all(row.count(". ") <= 2 and len(row.split()) <= 50 for row in rows)  # one or two sentences
    assert f"<<< {table}\n" in (ROOT / "docs" / "config.md").read_text("utf-8")


def test_a_reason_without_the_form_is_no_row():
    class Silent:
        def check(self, cfg):
            """Nobody knows why."""

    with pytest.raises(ValueError, match=r"Silent\.check: expected 'Raises ValueError for CASE"):
        hook("tables").cases(Silent, "check")


def test_the_table_of_moved_fields_has_all_of_them():
    rows = hook("tables").on_page_markdown("<<< moved").splitlines()[2:]
    assert rows == [f"| `{old}` | `{new}` |" for old, new in MOVED.items()]
    assert "\n<<< moved\n" in (ROOT / "docs" / "config.md").read_text("utf-8")


# ---- what the package prints of itself -------------------------------------------------------------------


def test_every_room_has_a_box_with_its_pages_and_all_its_files():
    rooms = hook("rooms")
    pages = rooms.pages_of(MKDOCS["nav"])
    assert set(pages) == set(rooms.order())
    text = rooms.on_page_markdown("<<< rooms", config=MKDOCS)
    boxes = dict(zip(rooms.order(), text.split("??? abstract ")[1:], strict=True))
    files = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    for file in files:
        name = file.relative_to(file.parts[0]).as_posix()
        assert name == "__init__.py" or f"\n    | `{name.removesuffix('__init__.py')}` | " in boxes[file.parts[0]]
    assert "[Penalties](penalties.md)" in boxes["losses"]
    assert '"`losses/` The terms of what players minimise: the loss, and all that is added to it."' in boxes["losses"]


def test_a_file_without_a_docstring_ends_the_build(tmp_path, monkeypatch):
    rooms = hook("rooms")
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(rooms, "PACKAGE", tmp_path / "package")
    with pytest.raises(ValueError, match=r"a\.py has no docstring"):
        rooms.sentence(tmp_path / "a.py")


def test_the_reference_has_a_directive_for_every_module_and_no_other():
    text = hook("rooms").on_page_markdown((ROOT / "docs" / "reference.md").read_text("utf-8"))
    named = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert [name for name in named if importlib.util.find_spec(name) is None] == []
    modules = {info.name for info in pkgutil.walk_packages(equipoise.__path__, "equipoise.") if not info.ispkg}
    left = {name for name in modules if name.split(".")[1] not in ("__main__", "lab", "cli")}
    assert left - set(named) == set()
    assert len(named) == len(set(named))


def test_every_recipe_has_a_row_with_what_the_command_says_and_its_parts():
    text = hook("recipes").on_page_markdown("<<< recipes\n\n<<< papers")
    for name, (home, line) in available().items():
        assert f"| [`{name}`](recipes.md#equipoise.recipes.{home}) | {line}" in text
        assert text.count(f"::: equipoise.recipes.{home}\n") == 1
    row = next(row for row in text.splitlines() if row.startswith("| [`san_digits_conditional`]"))
    assert "`Hinge`" in row
    assert "`Head(conditioning=PerClass, san=true)`" in row
    assert row.endswith("| `Digits`, 28x28 grey | 3.55&nbsp;M, 2.67&nbsp;M | 128 | 2,000 |")
    years = [int(year) for year in re.findall(r"^\| \[.*?(\d{4})\)", text, re.MULTILINE)]
    assert years == sorted(years)


def test_every_field_of_every_component_says_what_it_takes_and_means():
    """A component without a docstring, or a field that no docstring names, fails here."""
    settings = hook("settings")
    text = settings.on_page_markdown("<<< settings")
    for cls in settings.known():
        section = text.partition(f"### `{cls.__name__}`\n")[2].partition("\n### ")[0].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [f.name for f in dataclasses.fields(cls)]
    of_config = settings.on_page_markdown("<<< fields equipoise.config.TrainConfig")
    assert "| `batch_size` | a whole number of 1 or more | `64` | images per update, over all processes. |" in of_config
    assert "| `game.reuse` | true or false | `false` |" in settings.on_page_markdown(
        "<<< fields equipoise.rules.Generation AS game"
    )
    assert set(settings.PAGES) <= {field.name for field in dataclasses.fields(TrainConfig)}


def test_components_and_fields_without_words_end_the_build():
    @component
    class Silent:
        gain: float = 1.0

    @component
    class Named:
        """gain times x."""

        gain: float = 1.0
        other: int = 2

    settings = hook("settings")
    assert settings.meaning(Named, "gain") == "as above"
    with pytest.raises(ValueError, match=r"Named\.other has no line in a docstring: add `other: what it is`"):
        settings.meaning(Named, "other")
    with pytest.raises(ValueError, match="Silent has no docstring"):
        settings.meaning(Silent, "gain")
    with pytest.raises(ValueError, match="Silent has no docstring"):
        hook("tables").first_line(Silent)


def test_a_value_is_shown_as_the_command_line_takes_it():
    cfg = load("ada")[0]
    shown = hook("settings").short(cfg)
    assert parse(shown, components()) == cfg
    assert "R1(gamma=0.00245" in shown


def test_every_command_has_its_parameters():
    text = hook("commands").on_page_markdown("<<< commands")
    for name in ("train", "sample", "data prepare", "sweep"):
        section = text.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        _, said = equipoise_command([*name.split(), "--help"])
        options = set(re.findall(r"--[a-z][a-z-]+", said)) - {"--help"}
        assert options <= set(re.findall(r"--[a-z][a-z-]+", section))


def test_a_table_of_networks_says_what_they_cost():
    table = hook("tables").on_page_markdown("<<< networks").splitlines()
    found = [line for line in table if line.startswith("| `biggan_512` |")]
    assert found == ["| `biggan_512` | 512x512 | 82.5 M, 99.4 M | 115 G, 64.6 G | 87.2 GiB | Brock et al. 2019 |"]
    assert [line.split("`")[1] for line in table[2:]] == list(FEW_NETWORKS)


@quoting
def test_docstrings_in_house_style_become_markdown():
    markdown = hook("docstrings").markdown
    assert markdown("What.\n\nx, y: the one\n    that <w, h>.\nz: other `<w>`.\n\nAfter.") == (
        "What.\n\n- `x, y`: the one\n    that &lt;w, h>.\n- `z`: other `<w>`.\n\nAfter."
    )
    assert markdown("What.\n\n    code <w>\n    x: no field\n\nRaises:\n    ValueError: if <w> is bad.") == (
        "What.\n\n    code <w>\n    x: no field\n\nRaises:\n    ValueError: if &lt;w> is bad."
    )


def test_pictures_are_small():
    """A clone and a page load in seconds: 5 MB of pictures in all, 300 kB an animation."""
    pictures = [path for path in (ROOT / "docs" / "img").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in pictures) < 5_000_000
    assert [path.name for path in pictures if path.suffix == ".gif"] == []
    assert [path.name for path in pictures if path.suffix == ".webp" and path.stat().st_size > 300_000] == []
