"""The subcommands of ``roadstream cascade`` that look at cascade files."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from roadstream.cascades import FOLDER
from roadstream.schemas.cascade.doubts import doubts
from roadstream.schemas.cascade.loading import examine, load_cascade, shipped_cascades
from roadstream.schemas.errors import ConfigError
from roadstream.sinks.files.atomic import atomic_file
from roadstream.workers.commands.cascade.drawing import draw
from roadstream.workers.commands.cascade.tables import print_cascade, print_lacks, print_list
from roadstream.workers.commands.cascade.tags import given_by
from roadstream.workers.commands.common import Without
from roadstream.workers.observe.terminal import on_one_line

WRONG = 2

cascade = App(
    name="cascade",
    help="List, show and check cascades.\n\n"
    "A cascade is a TOML file that says which models judge a picture, in which order, and when "
    "it goes on to the next (docs/guide/cascades.md). Some ship with Roadstream, and are known by "
    "name.",
)

Given = Annotated[
    str, Parameter(name="FILE", help="A cascade file, or the name of a shipped cascade.")
]


@cascade.command(name="list")
def list_() -> None:
    """List the cascades that ship with Roadstream."""
    print_list([load_cascade(name) for name in shipped_cascades()], FOLDER)


@cascade.command
def show(
    file: Given,
    *,
    toml: Annotated[bool, Parameter(negative="", help="Print the file itself.")] = False,
) -> None:
    """Show what a cascade says: its tiers, members and routes."""
    loaded = load_cascade(file, option="FILE")
    if toml:
        sys.stdout.buffer.write(loaded.snapshot.text)
    else:
        print_cascade(loaded)


@cascade.command
def check(
    file: Given,
    *,
    svg: Annotated[
        Path | None,
        Parameter(help="File for a picture of the cascade: its tiers, and the ways through them."),
    ] = None,
    without: Without = None,
) -> int:
    """Check a cascade file: name all mistakes at once, or show what it says.

    Each mistake is one line on standard error: the file, the key, what was expected there and what
    was found. Where there is none, tables show what the file says, and what this machine lacks for
    it (libraries, a GPU, checkpoints, licences to be accepted), with what may stand in. Nothing is
    loaded for it, and nothing goes over the network.

    Exit status: 0 if the file can be used, whatever this machine lacks; 2 if it has mistakes.
    """
    try:
        loaded, mistakes = examine(file, without=without or (), option="FILE")
    except ConfigError as error:
        loaded, mistakes = None, [error]
    if loaded is None:
        for mistake in mistakes:
            _say(str(mistake))
        return WRONG
    print_cascade(loaded)
    print_lacks(loaded)
    for doubt in doubts(loaded, partial(given_by, loaded)):
        _say(f"warning: {file}: {doubt}")
    if svg is not None:
        with atomic_file(svg) as picture:
            picture.write(draw(loaded))
    return 0


def _say(line: str) -> None:
    print(on_one_line(line), file=sys.stderr)  # noqa: T201 (this is the command line)
