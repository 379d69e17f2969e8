"""What the documents show can be given as it stands: commands, options, Python, TOML, JSON, YAML.

A block that cannot be checked says so in the line before it: ``<!-- not checked: why -->``.
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from cyclopts import App

from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.streams.kafka.settings import load_kafka_settings
from roadstream.workers.cli import app
from roadstream.workers.demo.render import write_drive
from tests.kits.video_kit import film, tenths
from tests.test_documents import PAGES, ROOT, name_of

_BLOCK = re.compile(
    r"^(?P<unchecked><!-- not checked: .+ -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_CODE = re.compile(r"`([^`\n]+)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
_MODULE = re.compile(r"python -m (roadstream\.bench|training|tests)((?:\.\w+)*)")
# Everything that is shown and is not ours, with its own options.
OTHERS = {
    ".",
    "cd",
    "docker",
    "export",
    "kafka-acls",
    "node",
    "npm",
    "pip",
    "python3",
    "sqlite3",
    "uv",
    ".ci/run",
}
OTHERS_OPTIONS = {
    "--api-server-count",  # vllm serve
    *("--bootstrap-server", "--command-config", "--group", "--resource-pattern-type", "--topic"),
    *("--init", "--ipc", "--scale"),  # docker
    *("--editable", "--no-deps"),  # pip
}
# What rules that are shown alone speak of.
_AROUND = """
[[tiers]]
name = "first"
members = [{ name = "depth", engine = "noop" }, { name = "cones", engine = "cones" }]
[[tiers]]
name = "power"
members = [{ name = "strong", engine = "noop" }]
"""
EXAMPLES = [
    path.read_text("utf-8")
    for path in (ROOT / "examples").rglob("*")
    if path.suffix in {".py", ".toml"}
]
RUN_BY_NAME = [path for room in ("bench", "training") for path in (ROOT / room).rglob("*.py")]
RUN = [ROOT / "README.md", ROOT / "docs/quickstart.md", ROOT / "docs/guide/python.md"]


class Block(NamedTuple):
    """Code that a page shows."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all pages that are in one of these languages, but those marked."""
    shown: list[Block] = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in _BLOCK.finditer(text):
            if found["language"] in languages and not found["unchecked"]:
                line = text.count("\n", 0, found.start()) + 1
                shown.append(Block(page, line, found["language"], found["text"]))
    return shown


def in_lines(page: Path) -> list[str]:
    """Return the code that stands in the lines of a page."""
    return _CODE.findall(_BLOCK.sub("", page.read_text("utf-8")))


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command of a block, without variables set before it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        ends = [i for i, word in enumerate(words) if word in ("&&", "|", ";")]
        for begin, end in zip([-1, *ends], [*ends, len(words)], strict=True):
            command = words[begin + 1 : end]
            while command and re.match(r"[A-Z_]+=", command[0]):
                command = command[1:]
            if command:
                yield command


def command_named(words: list[str]) -> tuple[App, list[str]]:
    """Return the command that the first words name, and what is left of them."""
    found, rest = app, list(words)
    while rest and not rest[0].startswith("-") and rest[0] in list(found):
        found = found[rest.pop(0)]
    return found, rest


def options_of(command: App) -> set[str]:
    """Return the options of a command, or of all that it has."""
    below = [name for name in command if not name.startswith("-")]
    if below:
        return {"--help", "--version"}.union(*(options_of(command[name]) for name in below))
    taken = command.assemble_argument_collection()
    return {"--help", *(name for argument in taken for name in argument.names)}


def check_roadstream(words: list[str]) -> None:
    """Parse a command as the command line does, and see that each option is one."""
    command, rest = command_named(words)
    assert command is not app or set(rest) <= {"--help", "--version"}, words
    assert {word.partition("=")[0] for word in rest if word[:2] == "--"} <= options_of(command)
    app.parse_args(words, exit_on_error=False, print_error=False)


def check_module(text: str) -> None:
    """See that a module of ours is there, and that its folder or file has these options."""
    found = _MODULE.search(text)
    assert found, text
    path = ROOT.joinpath(found[1].removeprefix("roadstream."), *found[2].split(".")[1:])
    sources = list(path.rglob("*.py")) or [path.with_suffix(".py")]
    assert [option for option in _OPTION.findall(text) if not takes(sources, option)] == []


@pytest.mark.parametrize("block", blocks("sh", "console"), ids=lambda block: block.name)
def test_commands_that_are_shown_are_there_with_their_options(block: Block) -> None:
    for words in commands(block):
        program = words[0].removeprefix(".venv/bin/")
        if program == "roadstream":
            check_roadstream(words[1:])
        elif program == "python" and words[1] == "-m":
            check_module(" ".join(["python", *words[1:]]))
        elif program == "python":
            assert (ROOT / words[1]).exists() or f"{words[1]}:" in block.page.read_text(), words
        elif program == "make":
            pass  # tests/test_documents.py
        else:
            assert program in OTHERS, words
        check_installation(words)


def check_installation(words: list[str]) -> None:
    """See that the extras and folders are there that are to be installed."""
    assert [word for word in words if word[:2] == "./" and not (ROOT / word).exists()] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        for names in re.findall(r"^(?:\.|roadstream)\[([\w,]+)\]", word):
            assert set(names.split(",")) <= set(extras), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_that_the_prose_names_are_there(page: Path) -> None:
    ours = options_of(app)
    for code in in_lines(page):
        if code.startswith("roadstream ") and "[" not in code:
            command, rest = command_named(code.replace("|", " ").split()[1:])
            assert command is not app or rest == ["--help"], code
            assert set(_OPTION.findall(code)) <= options_of(command), code
        elif _MODULE.search(code):
            check_module(code)
        elif code.partition(" ")[0] in OTHERS:
            continue
        else:
            unknown = set(_OPTION.findall(code)) - ours - OTHERS_OPTIONS
            assert {option for option in unknown if not takes(RUN_BY_NAME, option)} == set(), code


def takes(sources: list[Path], option: str) -> bool:
    """Return whether modules that are run by name take an option: by argparse, or by cyclopts."""
    if option == "--help":
        return True
    parameter = rf'"{option}"|^    {option[2:].replace("-", "_")}: '
    return any(re.search(parameter, source(path), re.MULTILINE) for path in sources)


@cache
def source(path: Path) -> str:
    return path.read_text("utf-8")


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_python_that_is_shown_compiles(block: Block) -> None:
    compile(block.text, block.name, "exec")


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.name)
def test_toml_that_is_shown_is_a_cascade_or_settings_or_an_example(
    block: Block, tmp_path: Path
) -> None:
    text = block.text
    if any(text in example for example in EXAMPLES):
        return
    found = tomllib.loads(text)
    if found.keys() <= {"rules", "exploration"}:
        parse_cascade(f"name = 'shown'\n{text}{_AROUND}".encode(), block.name)
        return
    if "tiers" not in found:
        (tmp_path / "kafka.toml").write_text(text)
        load_kafka_settings(tmp_path / "kafka.toml")
        return
    tier = '[[tiers]]\nname = "shown"\n' if isinstance(found["tiers"], dict) else ""
    name = "" if "name" in found else 'name = "shown"\n'
    parse_cascade(f"{name}{tier}{text}".encode(), block.name)


@pytest.mark.parametrize("block", blocks("json", "yaml"), ids=lambda block: block.name)
def test_json_and_yaml_that_are_shown_can_be_read(block: Block) -> None:
    assert (json.loads if block.language == "json" else yaml.safe_load)(block.text)


@pytest.mark.parametrize(
    "block",
    [block for block in blocks("python", "toml") if block.page.parent.name == "extend"],
    ids=lambda block: block.name,
)
def test_what_looks_like_an_example_is_one_that_is_tried(block: Block) -> None:
    tried = any(block.text in example for example in EXAMPLES)
    assert tried or block.text.count("\n") < 15


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_that_is_shown_runs(page: Path, tmp_path: Path) -> None:
    write_drive(tmp_path / "drive", 2, width=640, height=360)
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "drive" / "frame_000.jpg").read_bytes())
    film(tmp_path / "clip.mp4", tenths(2))
    shown = [block for block in blocks("python") if block.page == page]
    assert shown
    for block in shown:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block.text],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
