"""Prints cascades as tables."""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.table import Table

from roadstream.schemas.cascade.model import Cascade, Tier
from roadstream.schemas.cascade.without import check_without
from roadstream.schemas.errors import ConfigError
from roadstream.workers.commands.cascade import words
from roadstream.workers.commands.cascade.lacks import lacks, served
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
    if cascade.snapshot.without:
        table.add_row("left out", ", ".join(cascade.snapshot.without))
    table.add_row("threshold", f"{cascade.threshold:g}")
    table.add_row("pool", words.pool(cascade.pool))
    if cascade.exploration.share:
        share = f"{cascade.exploration.share:.10g} of the archive's pictures pass all tiers"
        table.add_row("exploration", share)
    screen().print(cascade.name)
    _print(table)
    screen().print()
    _print(_members(cascade))
    screen().print()
    _print(_ways(cascade))
    if cascade.rules:
        screen().print()
        _print(_rules(cascade))


def print_lacks(cascade: Cascade) -> None:
    """Print what this machine lacks for a cascade, what stands in, and how to go on without."""
    found, lines = lacks(cascade), [""]
    for one in found:
        instead = f"; instead: {one.instead}" if one.instead else ""
        lines.append(f"lacks: {one.member}: {_line(one.what + instead)}")
    if found:
        lines.append(_going_on(cascade, dict.fromkeys(one.member for one in found)))
    else:
        lines.append("this machine has all that it needs")
    lines += [f"not checked: {name}: {_line(what)}" for name, what in served(cascade)]
    screen().print("\n".join(lines), soft_wrap=True)


def _going_on(cascade: Cascade, members: Collection[str]) -> str:
    try:
        check_without(cascade, members)
    except ConfigError:
        first = cascade.tiers[0]
        needed = ", ".join(one.name for one in first.members if one.name in members)
        return f"it cannot go on without {needed}: the first tier has no other vote"
    return f"to go on without: {' '.join(f'--without {name}' for name in members)}"


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
            past = ", left out: the next tier" if to in cascade.left_out else ""
            table.add_row(tier.name if place == 0 else "", _line(when), f"→ {to}{past}")
        for said in _said(tier):
            table.add_row("", _line(said), "")
    return table


def _rules(cascade: Cascade) -> Table:
    table = Table("rule", "when", "what", box=None, pad_edge=False)
    for one in cascade.rules:
        kind, when, what = words.rule(one)
        table.add_row(kind if one.enabled else f"{kind} (off)", _line(when), _line(what))
    return table


def _said(tier: Tier) -> Iterator[str]:
    """Yield what else a tier says of its pictures."""
    if tier.off_path:
        yield "off the path: only routes lead here"
    if (ensemble := tier.ensemble) is not None and tier.united:
        names = ", ".join(member.name for member in tier.united)
        yield f"one voter of weight {ensemble.weight:g}, {ensemble.agreement:.0%} agreeing: {names}"
    if tier.give_up_after is not None:
        yield f"without its votes after {tier.give_up_after:.10g} s: answered by those so far"


def _line(text: str) -> str:
    return on_one_line(text)


def _print(table: Table) -> None:
    screen(None if sys.stdout.isatty() else WIDE).print(table)
