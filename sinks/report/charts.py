"""Where the marks of histograms and ranges stand."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from roadstream.sinks.report.summary import BINS, BinCounts, Durations

HEIGHT = 100.0
WIDTH = 400.0
GAP = 2.0


class Group(NamedTuple):
    """What is counted apart within a bar: its name, and the CSS class of its colour."""

    name: str
    style: str


class Piece(NamedTuple):
    """A group's part of a bar: its top and height, of ``HEIGHT``."""

    style: str
    top: float
    height: float


class Bar(NamedTuple):
    """A bar of a histogram: what it counts, in words, its left end, and its parts from below."""

    title: str
    left: float
    pieces: list[Piece]


class Chart(NamedTuple):
    """A histogram over [0, 1] as stacked bars.

    Attributes:
        tallest: Images in its highest bar, at least 1.
        bars: Those that are not empty.
        groups: From the bottom of a bar to its top.
        width: Of a bar, of ``WIDTH``.
    """

    tallest: int
    bars: list[Bar]
    groups: Sequence[Group]
    width: float = WIDTH / BINS - GAP


class Span(NamedTuple):
    """p50, p90 and p99 on a logarithmic scale from 0 to 100."""

    p50: float
    p90: float
    p99: float


def chart(values: BinCounts, groups: Sequence[Group]) -> Chart:
    """Return the bars of a histogram."""
    tallest = max((sum(counts.values()) for counts in values.bins), default=0) or 1
    places = [place for place, counts in enumerate(values.bins) if counts]
    return Chart(tallest, [_bar(values, groups, place, tallest) for place in places], groups)


def _bar(values: BinCounts, groups: Sequence[Group], place: int, tallest: int) -> Bar:
    counts, top = values.bins[place], HEIGHT
    pieces = []
    for group in groups:
        if counts[group.name]:
            height = counts[group.name] / tallest * HEIGHT
            top -= height
            pieces.append(Piece(group.style, top, height))
    named = ", ".join(f"{counts[name]:,} {name}" for name, _ in groups if counts[name])
    title = f"{place / BINS:.2f}–{(place + 1) / BINS:.2f}: {named}"
    return Bar(title, place * WIDTH / BINS + GAP / 2, pieces)


def spans(durations: Collection[Durations]) -> list[Span]:
    """Place percentiles on a common scale: from the least p50 to the largest p99, or ten times."""
    low = min((each.percentile(0.5) for each in durations), default=1e-3)
    high = max(low * 10, *(each.percentile(0.99) for each in durations), 0)
    return [Span(*(_place(time, low, high) for time in each.marks)) for each in durations]


def _place(value: float, low: float, high: float) -> float:
    return 100 * min(max(math.log(max(value, low) / low) / math.log(high / low), 0.0), 1.0)
