"""Prints cascades as tables."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.workers.commands.cascade import words
from roadstream.workers.observe.terminal import on_one_line, screen

# Columns of a table that no terminal shows: no line of it is folded.
WIDE = 2000


def print_list(cascades: Sequence[Cascade], folder: Path) -> None:
    """Print the cascades that ship, and where their files lie."""
    table = Table("name", "tiers", "members", "description", box=None, pad_edge=False)
    for one in cascades:
        members = sum(len(tier.members) for tier in one.tiers)
        table.add_row(one.name, " → ".join(one.tier_names), f"{members}", _line(one.description))
    _print(table)
    screen().print(f"files: {folder}", soft_wrap=True)


def print_cascade(cascade: Cascade) -> None:
    """Print what a cascade says: itself, its members, and the ways out of its tiers."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    if cascade.description:
        table.add_row("description", _line(cascade.description))
    table.add_row("hash", cascade.hash)
    table.add_row("threshold", f"{cascade.threshold:g}")
    table.add_row("pool", words.pool(cascade.pool))
    screen().print(cascade.name)
    _print(table)
    screen().print()
    _print(_members(cascade))
    screen().print()
    _print(_ways(cascade))


def _members(cascade: Cascade) -> Table:
    columns = ("tier", "member", "engine", "model", "weight", "size", "calibrated", "licence")
    table = Table(*columns, box=None, pad_edge=False)
    for tier in cascade.tiers:
        for place, member in enumerate(tier.members):
            table.add_row(
                tier.name if place == 0 else "",
                member.name,
                member.engine,
                _line(member.model or "–"),
                words.weight(member),
                words.size(member),
                words.calibration(member),
                _line(words.licence(member)),
            )
    return table


def _ways(cascade: Cascade) -> Table:
    table = Table("from", "when", "to", box=None, pad_edge=False)
    for tier in cascade.tiers:
        for place, (when, to) in enumerate(words.ways(cascade, tier)):
            table.add_row(tier.name if place == 0 else "", _line(when), f"→ {to}")
        if (said := _said(tier)) is not None:
            table.add_row("", said, "")
    return table


def _said(tier: Tier) -> str | None:
    """Return what else a tier says of its pictures."""
    if tier.give_up_after is None:
        return None
    return f"without its votes after {tier.give_up_after:g} s: answered by those so far"


def _line(text: str) -> str:
    return on_one_line(text)


def _print(table: Table) -> None:
    screen(None if sys.stdout.isatty() else WIDE).print(table)
