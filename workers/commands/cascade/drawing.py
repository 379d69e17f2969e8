"""Draws a cascade as a picture: tiers from top to bottom, and the ways that pictures take.

All text is in a font whose characters are equally wide, so that its width is known here. A way out
of a tier is a line of its box; what leads to one later tier runs beside the boxes in one lane of
its own, so that no two of them lie on each other.
"""

from collections.abc import Iterator
from textwrap import wrap
from typing import NamedTuple
from unicodedata import east_asian_width
from xml.etree import ElementTree as ET

from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.schemas.cascade.routes import EXIT
from roadstream.sinks.report.markup import printable
from roadstream.workers.commands.cascade import words

# Of 12 px letters, with a margin for fonts that are wider than most.
CHARACTER, LINE = 7.6, 18.0
MARGIN, PADDING, GAP = 24.0, 14.0, 46.0
# Characters in a line of text, before it is broken; of a word, before it is cut.
LONGEST, NARROWEST = 64, 40
PILL, REACH, LANE = 52.0, 30.0, 18.0
MOST_LINES = 4
COLOURS = 6

# Of the page, of boxes, of lines, of text, of what is said beside; and of lanes.
_LIGHT = ("#f6f7f9", "#fff", "#c5ccd5", "#1a2029", "#5b6673")
_DARK = ("#0e1116", "#171b22", "#3a434f", "#e6eaf0", "#9aa6b4")
_LANES_LIGHT = ("#2f6f9f", "#55802a", "#a06c0a", "#8a63b0", "#b8557a", "#4f5b69")
_LANES_DARK = ("#6cb0e0", "#a9cf68", "#e8b454", "#b894de", "#e386a8", "#97a3b1")


def _style(colours: tuple[str, ...], lanes: tuple[str, ...]) -> str:
    """Return colours as CSS; without variables, which not all that shows SVG knows."""
    page, card, line, text, quiet = colours
    rules = [
        f"text {{ fill: {text}; }} text.quiet {{ fill: {quiet}; }} .page {{ fill: {page}; }}",
        f".card {{ fill: {card}; stroke: {line}; }} .rule {{ stroke: {line}; }}",
        f".way {{ stroke: {quiet}; }} .head {{ fill: {quiet}; }}",
        f".pill {{ fill: {page}; stroke: {quiet}; }}",
    ]
    for i, lane in enumerate(lanes):
        rules.append(f".way.g{i} {{ stroke: {lane}; }} .head.g{i} {{ fill: {lane}; }}")
    return "\n".join(rules)


STYLE = f"""
text {{ font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
.name {{ font-weight: 700; }} .way {{ fill: none; stroke-width: 1.5; }}
.late {{ stroke-dasharray: 4 3; }}
{_style(_LIGHT, _LANES_LIGHT)}
@media (prefers-color-scheme: dark) {{
{_style(_DARK, _LANES_DARK)}
}}
"""


class _Row(NamedTuple):
    """A line of text in a box, perhaps with a way out beside it.

    Attributes:
        text: What it says.
        style: Class of the text.
        to: Where the way out leads; ``None`` without one.
        late: Whether it is taken only when time is up.
        indent: How far it stands in.
    """

    text: str
    style: str = ""
    to: str | None = None
    late: bool = False
    indent: float = 0.0


class _Card(NamedTuple):
    """A tier's box.

    Attributes:
        name: Name of the tier.
        members: Its members.
        ways: The ways out; a condition of several lines has its way at the first.
        onward: When a picture goes on to the next tier, if it may.
        top: Its upper edge.
    """

    name: str
    members: list[_Row]
    ways: list[_Row]
    onward: str | None
    top: float

    @property
    def height(self) -> float:
        """Its height: a heading, its members and its ways out."""
        between = PADDING if self.ways else 0.0
        return 2 * PADDING + LINE * (1 + len(self.members) + len(self.ways)) + between

    @property
    def entry(self) -> float:
        """Where ways to it end."""
        return self.top + PADDING + LINE / 2

    def places(self) -> Iterator[tuple[float, _Row]]:
        """Yield its rows, each with the height of its base line."""
        y = self.top + PADDING + LINE
        for row in self.members:
            y += LINE
            yield y, row
        y += PADDING
        for row in self.ways:
            y += LINE
            yield y, row


def draw(cascade: Cascade) -> bytes:
    """Return a picture of a cascade as SVG, in UTF-8, that needs nothing else to be shown."""
    made: bytes = ET.tostring(_Drawing(cascade).root, encoding="utf-8", xml_declaration=True)
    return made


class _Drawing:
    """A picture in the making.

    Args:
        cascade: What is drawn.
    """

    def __init__(self, cascade: Cascade) -> None:
        self.root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        ET.SubElement(self.root, "title").text = _legible(f"cascade {cascade.name}")
        ET.SubElement(self.root, "style").text = STYLE
        self._page = ET.SubElement(self.root, "rect", {"class": "page"})
        y = self._heading(cascade)
        self._cards: list[_Card] = []
        for tier in cascade.tiers:
            self._cards.append(_card(cascade, tier, y + GAP))
            y = self._cards[-1].top + self._cards[-1].height
        self._left, self._right = MARGIN, MARGIN + _width(self._cards)
        used = {row.to for card in self._cards for row in card.ways}
        aims = [card for card in self._cards if card.name in used]
        first = self._right + REACH + PILL + LANE
        self._lanes = {card.name: (first + i * LANE, i) for i, card in enumerate(aims)}
        for card in self._cards:
            self._box(card)
        for card in aims:
            self._aim(card)
        self._onward()
        self._text(MARGIN, y + GAP - LINE / 2, f"exit: {_ending(cascade)}", "quiet")
        self._resize(first + len(aims) * LANE + MARGIN, y + GAP + MARGIN)

    def _heading(self, cascade: Cascade) -> float:
        y = MARGIN + LINE / 2
        self._text(MARGIN, y, cascade.name, "name")
        lines = [*_broken(cascade.description), f"{cascade.hash}, pool: {words.pool(cascade.pool)}"]
        if cascade.snapshot.without:
            lines += _broken(f"without {', '.join(cascade.snapshot.without)}")
        for line in lines:
            y += LINE
            self._text(MARGIN, y, line, "quiet")
        return y

    def _box(self, card: _Card) -> None:
        self._shape("rect", "card", x=self._left, y=card.top, rx=8.0,
                    width=self._right - self._left, height=card.height)  # fmt: skip
        self._text(self._left + PADDING, card.top + PADDING + LINE / 2 + 4, card.name, "name")
        rule = card.top + 1.9 * PADDING + LINE * (1 + len(card.members))
        if card.ways:
            self._shape("line", "rule", x1=self._left, x2=self._right, y1=rule, y2=rule)
        for y, row in card.places():
            self._text(self._left + PADDING + row.indent, y, row.text, row.style)
            if row.to is not None:
                self._leave(y - 4, row)

    def _leave(self, y: float, row: _Row) -> None:
        """Draw a way out of a box: to an exit beside it, or into a lane."""
        late = " late" if row.late else ""
        if row.to == EXIT:
            end = self._right + REACH
            self._line(f"way{late}", (self._right, y), (end, y))
            self._head("head", end, y, 1)
            self._shape("rect", "pill", x=end, y=y - 7.5, width=PILL, height=15.0, rx=7.5)
            self._text(end + PILL / 2 - 2 * CHARACTER + 1, y + 4, EXIT, "")
        else:
            x, number = self._lanes[str(row.to)]
            self._line(f"way g{number % COLOURS}", (self._right, y), (x, y))

    def _aim(self, card: _Card) -> None:
        """Draw the lane of what leads to a tier."""
        x, number = self._lanes[card.name]
        begins = [y - 4 for one in self._cards for y, row in one.places() if row.to == card.name]
        colour = f"g{number % COLOURS}"
        self._line(f"way {colour}", (x, min(begins)), (x, card.entry), (self._right, card.entry))
        self._head(f"head {colour}", self._right, card.entry, -1)
        for y in begins:
            self._shape("circle", f"head {colour}", cx=x, cy=y, r=3.0)

    def _onward(self) -> None:
        """Draw where pictures begin, and the ways from each tier to the next."""
        x, before = self._left + 4 * PADDING, self._cards[0].top - GAP + PADDING
        said: str | None = "pictures"
        for card in self._cards:
            if said is not None:
                self._line("way", (x, before), (x, card.top))
                self._shape("polygon", "head", points=f"{x - 5},{card.top - 8} {x + 5},"
                            f"{card.top - 8} {x},{card.top}")  # fmt: skip
                self._text(x + PADDING, (before + card.top) / 2 + 4, said, "quiet")
            before, said = card.top + card.height, card.onward

    def _line(self, style: str, *points: tuple[float, float]) -> None:
        self._shape("polyline", style, points=" ".join(f"{x:g},{y:g}" for x, y in points))

    def _head(self, style: str, x: float, y: float, way: int) -> None:
        """Draw an arrow's head that points to the right, or to the left for a ``way`` of −1."""
        back = x - 8 * way
        self._shape("polygon", style, points=f"{back:g},{y - 5:g} {back:g},{y + 5:g} {x:g},{y:g}")

    def _shape(self, kind: str, style: str, **numbers: float | str) -> None:
        said = {name: n if isinstance(n, str) else f"{n:g}" for name, n in numbers.items()}
        ET.SubElement(self.root, kind, {"class": style, **said})

    def _text(self, x: float, y: float, text: str, style: str) -> None:
        place = {"x": f"{x:g}", "y": f"{y:g}", "class": style}
        ET.SubElement(self.root, "text", place).text = _legible(text)

    def _resize(self, width: float, height: float) -> None:
        texts = self.root.iter("text")
        ends = [float(one.get("x", 0)) + _wide(one.text or "") + MARGIN for one in texts]
        width = max(width, *ends)
        size = {"width": f"{width:g}", "height": f"{height:g}"}
        self.root.attrib |= {**size, "viewBox": f"0 0 {width:g} {height:g}"}
        self._page.attrib |= size


def _card(cascade: Cascade, tier: Tier, top: float) -> _Card:
    ways = list(words.ways(cascade, tier))
    onward, following = None, _following(cascade, tier.name)
    # The line from box to box; where a tier off the path lies between, the way has a lane.
    below = cascade.tiers[cascade.tier_names.index(tier.name) + 1 :][:1]
    goes_on = not any(route.unconditional for route in tier.routes)
    if goes_on and following in [one.name for one in below]:
        onward = ways.pop()[0]
    rows = [row for when, to in ways for row in _way(cascade, when, to)]
    if tier.give_up_after is not None:
        text = f"no votes after {tier.give_up_after:.10g} s: answered without"
        rows.append(_Row(text, "quiet", EXIT, late=True))
    return _Card(tier.name, [_member(one) for one in tier.members], rows, onward, top)


def _way(cascade: Cascade, when: str, to: str) -> Iterator[_Row]:
    there = to
    if to in cascade.left_out:
        when += f" ({to} is left out)"
        there = _following(cascade, to) or EXIT
    first, *more = _broken(when)
    yield _Row(first, to=there)
    yield from (_Row(line, indent=2 * CHARACTER) for line in more)


def _following(cascade: Cascade, name: str) -> str | None:
    """Return the next tier that is there."""
    there = cascade.tier_names
    return next((one for one in cascade.following(name) if one in there), None)


def _member(member: Member) -> _Row:
    about = f"{member.engine}, weight {words.weight(member)}, {words.size(member)}"
    return _Row(f"{member.name}: {about}", "quiet" if member.weight == 0 else "")


def _ending(cascade: Cascade) -> str:
    return f"all votes are pooled; roadwork from a probability of {cascade.threshold:g} on"


def _broken(text: str) -> list[str]:
    lines = wrap(_legible(text), LONGEST)
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]


def _width(cards: list[_Card]) -> float:
    rows = [row for card in cards for row in (*card.members, *card.ways)]
    widest = [row.indent + _wide(_legible(row.text)) for row in rows]
    return 2 * PADDING + max(*widest, *(_wide(card.name) for card in cards), _wide(" " * NARROWEST))


def _wide(text: str) -> float:
    return CHARACTER * sum(2 if east_asian_width(one) in "WF" else 1 for one in text)


def _legible(text: str) -> str:
    """Return a text with escapes for what does not print: XML does not allow all of that."""
    return str(printable(text))
