"""Charts as small SVG files, without a library: points and lines over a square of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from training.quality import Bin

COLOURS = ("#1f6feb", "#c2410c", "#15803d", "#7c3aed")
WIDTH, HEIGHT = 480, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 46


@dataclass(frozen=True)
class Series:
    """A line of points (x, y) and its name; ``area`` makes a point's size tell its weight."""

    name: str
    points: Sequence[tuple[float, float]]
    areas: Sequence[float] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows and from where to where."""

    name: str
    low: float = 0.0
    high: float = 1.0

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Series], diagonal: bool = False) -> str:
    """Return an SVG document; ``diagonal`` draws where x and y are equal parts of their axes."""
    parts = [_frame(title, x, y)]
    if diagonal:
        (x1, y1), (x2, y2) = _spot(0, 0), _spot(1, 1)
        parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" '
            'stroke="#888" stroke-dasharray="4 4"/>'
        )
    for place, line in enumerate(lines):
        parts.append(_line(line, x, y, COLOURS[place % len(COLOURS)]))
        parts.append(_legend(line.name, place))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def reliability_chart(plain: Sequence[Bin], by_scene: Sequence[Bin]) -> str:
    """Return the reliability diagram: stated probability against the share that is roadwork."""
    lines = [
        Series(name, [(b.stated, b.observed) for b in bins], [b.share for b in bins])
        for name, bins in (("every picture the same", plain), ("every scene the same", by_scene))
    ]
    title = "Reliability: the larger a point, the more pictures say so"
    return chart(title, Axis("stated probability of roadwork"), Axis("is roadwork"), lines, True)


def _spot(x: float, y: float) -> tuple[float, float]:
    """Return the pixel of a point in [0, 1]."""
    return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)


def _frame(title: str, x: Axis, y: Axis) -> str:
    left, bottom = _spot(0, 0)
    right, top = _spot(1, 1)
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{left:g} {top:g}V{bottom:g}H{right:g}" fill="none" stroke="#333"/>',
        _words(f'x="{(left + right) / 2:g}" y="{HEIGHT - 8}"', "middle", x.name),
        _words(f'transform="translate(14 {(top + bottom) / 2:g}) rotate(-90)"', "middle", y.name),
    ]
    for step in range(6):
        across, up = _spot(step / 5, step / 5)
        told = [axis.low + (axis.high - axis.low) * step / 5 for axis in (x, y)]
        parts += [
            f'<path d="M{left:g} {up:g}H{right:g}" stroke="#eee"/>',
            _words(f'x="{across:g}" y="{bottom + 16:g}"', "middle", f"{told[0]:.3g}"),
            _words(f'x="{left - 6:g}" y="{up + 4:g}"', "end", f"{told[1]:.3g}"),
        ]
    return "\n".join(parts)


def _words(where: str, anchor: str, text: str) -> str:
    return f'<text {where} text-anchor="{anchor}">{escape(text)}</text>'


def _line(line: Series, x: Axis, y: Axis, colour: str) -> str:
    spots = [_spot(x.place(a), y.place(b)) for a, b in line.points]
    areas = line.areas or [0.02] * len(spots)
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in spots)
    dots = [
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{2 + 14 * area**0.5:.1f}" fill-opacity="0.6"/>'
        for (a, b), area in zip(spots, areas, strict=True)
    ]
    drawn = f'<path d="M{path}" fill="none" stroke="{colour}"/>' if spots else ""
    return f'<g fill="{colour}">{drawn}{"".join(dots)}</g>'


def _legend(name: str, place: int) -> str:
    x, y = LEFT + 12, TOP + 14 + 16 * place
    return (
        f'<rect x="{x}" y="{y - 9}" width="10" height="10" '
        f'fill="{COLOURS[place % len(COLOURS)]}"/><text x="{x + 15}" y="{y}">{escape(name)}</text>'
    )
