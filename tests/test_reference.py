"""The reference of the site leaves nothing out: commands, options, fields, the API, errors."""

from typing import Any, get_args

import msgspec
import pytest

import roadstream
from docs.tools import reference
from roadstream.schemas import errors
from roadstream.schemas.codec import SCHEMAS
from roadstream.workers.cli import app
from tests.test_shown_code import options_of

PAGES = reference.pages()


@pytest.mark.parametrize("name", [name for name in app if not name.startswith("-")])
def test_every_command_and_option_is_told(name: str) -> None:
    page = PAGES["reference/commands.md"]
    _, found, section = page.partition(f"## roadstream {name}\n")

    assert found
    options = options_of(app[name]) - {"--help", "--version"}
    assert [option for option in options if option not in section] == []


def test_each_command_is_listed_with_what_it_does_and_tells_all_that_its_help_does() -> None:
    page = PAGES["reference/commands.md"]

    assert "* [`topics`](#roadstream-topics): Make the topics" in page
    assert "Ctrl-C" in page.partition("## roadstream evaluate")[0]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_told(name: str) -> None:
    page = PAGES["reference/fields.md"] + PAGES["reference/cascade.md"]
    kind: Any = SCHEMAS[name]
    section = page.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]

    for field in msgspec.structs.fields(kind):
        assert f"| `{field.encode_name}` |" in section


def test_every_public_name_is_told() -> None:
    told = PAGES["reference/python.md"]

    assert [n for n in roadstream.__all__ if f"## {n}\n" not in told] == ["Picture"]
    assert "*<class" not in told


def test_every_error_and_fault_is_told() -> None:
    told = PAGES["reference/errors.md"]
    raised = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]

    assert [
        e for e in raised if f"`{e.__name__}` | {getattr(e, 'exit_status', 0)} |" not in told
    ] == []
    assert [fault for fault in get_args(errors.ImageFault) if f"`{fault}`" not in told] == []


def test_what_a_field_takes_is_told_with_its_bounds() -> None:
    told = PAGES["reference/cascade.md"]

    assert "| `weight` | number (≥ 0, ≤ 1000000000.0) | `1.0` | Weight of its vote" in told
    assert "| `tiers` | array of [Tier](#tier) (at least 1) |" in told
