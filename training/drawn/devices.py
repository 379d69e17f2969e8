"""Draw what closes a lane: cones, drums, barriers and posts."""

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, dimmed, paint

BRIGHT_BODY = (*["orange"] * 8, *["vermilion"] * 5, "red", "yellow", "lime")
BOARDS = (  # ground and stripes
    ("white", "orange"), ("white", "orange"), ("white", "red"), ("white", "red"),
    ("white", "vermilion"), ("yellow", "black"), ("yellow", "red"),
)  # fmt: skip
RUNS = (  # paints of every other block
    ("orange", "white"), ("red", "white"), ("vermilion", "white"), ("orange", "orange"),
    ("vermilion", "vermilion"), ("red", "red"), ("yellow", "black"), ("yellow", "red"),
)  # fmt: skip


def striped_pair(rng: Generator) -> tuple[Colour, Colour]:
    """Choose the paints of a striped board: its ground and its stripes."""
    ground, stripes = BOARDS[int(rng.integers(len(BOARDS)))]
    return paint(rng, ground), paint(rng, stripes)


def lamp(canvas: Canvas, x: float, y: float) -> None:
    """Draw a warning light: a box below a round lens, lit or not."""
    rng, radius = canvas.rng, canvas.rng.uniform(0.07, 0.11)
    on, lens = rng.random() < 0.5, paint(rng, "orange", "amber", "yellow")
    y += 0.12 + radius
    canvas.box((x - 0.08, y - 0.12 - radius, x + 0.08, y), paint(rng, "yellow", "yellow", "black"))
    canvas.disc((x, y), (radius * 1.2, radius * 1.2), paint(rng, "black", "yellow"), 0, 0.8)
    canvas.disc((x, y), (radius, radius), lens, 0.9 if on else 0.2, 1.1 if on else 0.8)
    if on:
        canvas.disc((x, y), (radius / 2, radius / 2), (255, 240, 190), 1.0, 1.3)


# --- cones and drums


def cone(rng: Generator) -> Canvas:
    """Draw a traffic cone with up to three collars."""
    wide, top = rng.uniform(0.13, 0.27), rng.uniform(0.025, 0.055)
    fate = rng.random()
    canvas = Canvas(rng, 3.2 if fate < 0.04 else 1.0, 1.2)
    if fate < 0.04:  # knocked over
        canvas.stand(lean=float(rng.choice([-1, 1])) * rng.uniform(1.3, 1.55))
    else:
        canvas.stand(lean=rng.uniform(-0.5, 0.5) if fate < 0.2 else rng.normal(0, 0.03))
    body = paint(rng, *BRIGHT_BODY)
    _cone_foot(canvas, wide * rng.uniform(1.2, 1.6), body)

    def part(low: float, high: float, colour: Colour, glow: float) -> None:
        bottom, up = (wide + (top - wide) * (level - 0.06) for level in (low, high))
        canvas.column((low, bottom + 0.004 * glow), (high, up + 0.004 * glow), colour, glow)

    part(0.07, 1.0, body, 0.1)
    ring, level = paint(rng, "white", "white", "white", "silver"), rng.uniform(0.3, 0.55)
    for _ in range(int(rng.choice([0, 0, 1, 2, 2, 2, 2, 3]))):
        upper = level + rng.uniform(0.09, 0.24)
        if upper > 0.95:
            break
        part(level, upper, ring, 1.0)
        level = upper + rng.uniform(0.05, 0.14)
    canvas.disc((0, 1.0), (top, 0.3 * top), body, 0, 0.45)
    return canvas


def _cone_foot(canvas: Canvas, edge: float, body: Colour) -> None:
    """Draw the plate under a cone, square or round, black or of the cone's colour."""
    rng, depth = canvas.rng, canvas.rng.uniform(0.05, 0.16)
    colour = paint(rng, "black") if rng.random() < 0.55 else body
    if rng.random() < 0.35:
        canvas.column((0.0, edge), (0.05, edge * 0.95), colour)
        canvas.disc((0, 0.05), (edge * 0.95, max(0.6 * depth, 0.17 * edge)), colour, 0, 0.9)
        return
    twist, back = rng.normal(0, 0.15) * edge, 0.88 * edge
    canvas.poly([(-edge, -0.035), (edge, -0.035), (edge, 0.01), (-edge, 0.01)], colour, 0, 0.55)
    top = [(-edge, 0.0), (edge, 0.0), (back + twist, depth), (twist - back, depth)]
    canvas.poly(top, colour, 0, 0.9)


def drum(rng: Generator) -> Canvas:
    """Draw a banded drum on a rubber ring."""
    canvas = Canvas(rng, 0.9, 1.35)
    canvas.stand(lean=rng.normal(0, 0.03))
    wide, taper = rng.uniform(0.25, 0.34), rng.uniform(0.0, 0.18)
    dark = paint(rng, *BRIGHT_BODY) if rng.random() < 0.93 else paint(rng, "blue", "green")
    bright = paint(rng, "white", "white", "silver")
    if rng.random() < 0.85:
        canvas.column((0.0, wide * 1.22), (0.08, wide * 1.15), paint(rng, "black"))
    bands = int(rng.choice([3, 4, 5, 5, 5, 6, 7]))
    levels = np.linspace(0.06, 1.0, bands + 1)
    levels[1:-1] += rng.normal(0, 0.02, bands - 1)
    first, ribbed = int(rng.random() < 0.2), rng.random() < 0.7
    for i, (low, high) in enumerate(pairwise(levels)):
        r0, r1 = wide * (1 - taper * low), wide * (1 - taper * high)
        white = (i + first) % 2 == 1
        step, colour = (0.95, bright) if white and ribbed else (1.0, bright if white else dark)
        canvas.column((low, r0 * step), (high, r1 * step), colour, 1.0 if white else 0.2)
        if ribbed and not white:
            canvas.column((low, r0), (low + 0.018, r0), dimmed(dark, 0.65), 0.1)
    lid = wide * (1 - taper)
    canvas.disc((0, 1.0), (lid, lid * 0.16), dimmed(dark, 0.9), 0.1)
    if rng.random() < 0.6:
        canvas.line([(-0.1, 1.0), (-0.07, 1.1), (0.07, 1.1), (0.1, 1.0)], (0.04, 0.04), dark, 0.1)
    if rng.random() < 0.35:
        lamp(canvas, rng.uniform(-0.1, 0.1), 1.03)
    return canvas


# --- barriers


def _turned(canvas: Canvas) -> None:
    """Stand a wide object at a random angle to the camera."""
    canvas.stand(squeeze=canvas.rng.uniform(0.4, 1), slope=canvas.rng.normal(0, 0.07))


def boards(rng: Generator) -> Canvas:
    """Draw a barricade: up to three striped boards on two uprights."""
    width, top = rng.uniform(0.6, 2.4), rng.uniform(0.8, 1.5)
    canvas = Canvas(rng, width + 0.6, top + 0.6)
    _turned(canvas)
    half, frame = width / 2, paint(rng, "white", "grey", "black", "orange")
    inset = rng.uniform(0.6, 0.95) * half
    for x in (-inset, inset):
        spread = rng.uniform(0.05, 0.25)
        canvas.line([(x, top), (x + spread, 0.02)], (0.05, 0.05), frame, shade=0.6)
        canvas.line([(x, top), (x - spread * rng.integers(2), 0)], (0.06, 0.06), frame)
        if rng.random() < 0.25:
            canvas.disc((x, 0.07), (0.2, 0.08), paint(rng, "brown", "orange", "grey"), 0, 0.8)
    pair, slant, height = striped_pair(rng), float(rng.choice([-1, 1, 0])), rng.uniform(0.15, 0.32)
    gap, step = height * rng.uniform(1.1, 2), rng.uniform(0.1, 0.28)
    levels = top - gap * np.arange(int(rng.integers(1, 4)))
    for high in levels[levels > height + 0.1]:
        canvas.stripes((-half, high - height, half, high), pair, step, slant, 0.9)
        canvas.box((-half, high - height - 0.02, half, high - height), dimmed(pair[0], 0.4))
    if rng.random() < 0.4:
        for x in (-inset, inset)[: int(rng.integers(1, 3))]:
            lamp(canvas, x, top)
    return canvas


def blocks(rng: Generator) -> Canvas:
    """Draw a run of water-filled blocks that gets smaller into the distance."""
    count, shrink = int(rng.integers(1, 7)), rng.uniform(0.7, 0.98)
    lengths = shrink ** np.arange(count) * rng.uniform(0.9, 1.8)
    canvas = Canvas(rng, float(lengths.sum()) + 0.2, 1.3)
    _turned(canvas)
    paints = [paint(rng, name) for name in RUNS[int(rng.integers(len(RUNS)))]]
    x, horizon, marked = -float(lengths.sum()) / 2, rng.uniform(0.3, 1.2), rng.random() < 0.4
    for i, length in enumerate(lengths):
        ends = [
            (x, horizon * (1 - shrink**i), 0.9 * shrink**i),
            (x + float(length), horizon * (1 - shrink ** (i + 1)), 0.9 * shrink ** (i + 1)),
        ]
        _block(canvas, ends, paints[i % 2], marked)
        x += float(length)
    return canvas


def _block(
    canvas: Canvas, ends: list[tuple[float, float, float]], colour: Colour, marked: bool
) -> None:
    """Draw one block: a steep foot, a flat slope, a wall with ribs, and holes for a fork.

    `ends` are x, bottom and height of its left and its right edge.
    """
    (x0, y0, high0), (x1, y1, high1) = ends

    def face(across: tuple[float, float], up: tuple[float, float]) -> list[tuple[float, float]]:
        corners = [(across[0], up[0]), (across[1], up[0]), (across[1], up[1]), (across[0], up[1])]
        return [
            (x0 + u * (x1 - x0), y0 + u * (y1 - y0) + v * (high0 + u * (high1 - high0)))
            for u, v in corners
        ]

    for low, top, shade in (
        (0, 0.22, 0.72),
        (0.22, 0.42, 1.08),
        (0.42, 0.93, 0.92),
        (0.92, 1, 1.2),
    ):
        canvas.poly(face((0, 0.985), (low, top)), colour, 0.1, shade)
    for u in (0.22, 0.48, 0.74):
        canvas.poly(face((u, u + 0.04), (0.42, 0.92)), dimmed(colour, 0.78), 0.1)
    canvas.poly(face((0.985, 1), (0, 1)), dimmed(colour, 0.3))
    for u in (0.2, 0.64):
        canvas.poly(face((u, u + 0.16), (0, 0.1)), (20, 20, 20))
    if marked:
        canvas.poly(face((0.3, 0.7), (0.6, 0.76)), paint(canvas.rng, "white"), 0.9)


def mesh(rng: Generator) -> Canvas:
    """Draw an orange net hung on posts."""
    fields, step = int(rng.integers(1, 4)), rng.uniform(1.2, 2)
    canvas = Canvas(rng, fields * step + 0.2, 1.4)
    _turned(canvas)
    colour, left = paint(rng, "orange", "orange", "vermilion"), -fields * step / 2
    pitch, thick, sag = rng.uniform(0.05, 0.09), rng.uniform(0.02, 0.04), rng.uniform(0, 0.2, 4)

    def at(x: float, height: float) -> tuple[float, float]:
        field, share = divmod((x - left) / step, 1)
        return (x, height - sag[int(field) % 4] * height * 4 * share * (1 - share))

    xs = np.arange(left, left + fields * step, pitch).tolist()
    for height in np.arange(0.08, 1.02, pitch).tolist():
        canvas.stroke([at(x, height) for x in xs], thick, colour, 0.1)
    for x in xs:
        canvas.stroke([at(x, 0.06), at(x, 1.0)], thick, dimmed(colour, 0.92), 0.1)
    canvas.stroke([at(x, 1.0) for x in xs], 2 * thick, colour, 0.1)
    post = paint(rng, "grey", "brown", "black", "silver", "orange")
    for i in range(fields + 1):
        canvas.line([(left + i * step, 0), (left + i * step, 1.1)], (0.05, 0.05), post)
    return canvas


def fence(rng: Generator) -> Canvas:
    """Draw plastic fences for people on foot: a striped band above, slots or bars below."""
    fields, width = int(rng.integers(1, 4)), rng.uniform(0.9, 2)
    canvas = Canvas(rng, fields * width + 0.2, 1.3)
    _turned(canvas)
    colour = paint(rng, "red", "vermilion", "orange", "yellow", "blue", "white", "white", "white")
    upright, solid = rng.random() < 0.5, rng.random() < 0.4
    pair = (paint(rng, "white"), paint(rng, "red", "vermilion", "orange"))
    step, slant = (
        (width / rng.integers(5, 9), 0.0) if upright else (0.14, float(rng.choice([-1, 1])))
    )
    lit = rng.random() < 0.3
    for i in range(fields):
        left = (i - fields / 2) * width
        right = left + width * 0.98
        canvas.box((left, 0.1, right, 0.72 if solid else 0.18), colour)
        canvas.box((left, 0.66, right, 1.0), colour)
        slots = np.linspace(left + 0.03, right - 0.03, int(width / 0.15))
        for x in slots:
            if solid:
                canvas.box((x + 0.03, 0.22, x + 0.08, 0.6), dimmed(colour, 0.35))
            else:
                canvas.line([(x, 0.1), (x, 0.7)], (0.05, 0.05), colour, 0, 0.85)
        canvas.stripes((left + 0.04, 0.72, right - 0.04, 0.94), pair, step, slant, 1.0)
        for x in (left + 0.1, right - 0.1):
            canvas.box((x - 0.14, 0, x + 0.14, 0.09), paint(rng, "black", "grey"))
        if lit:
            lamp(canvas, left + 0.1, 1.0)
    return canvas


# --- posts


def panel(rng: Generator) -> Canvas:
    """Draw a vertical panel with slanting stripes or an arrowhead."""
    wide, top = rng.uniform(0.1, 0.2), rng.uniform(0.9, 1.3)
    canvas = Canvas(rng, 0.8, top + 0.7)
    canvas.stand(lean=rng.normal(0, 0.05), squeeze=rng.uniform(0.6, 1))
    low, foot = rng.uniform(0.1, 0.35), rng.uniform(0.2, 0.36)
    height = rng.uniform(0.07, 0.13)
    canvas.poly([(-foot, 0), (foot, 0), (0.85 * foot, height), (-0.85 * foot, height)],
                paint(rng, "black", "grey"))  # fmt: skip
    canvas.box((-0.04, 0.05, 0.04, low + 0.1), paint(rng, "black", "grey", "white"))
    bright = paint(rng, "white", "white", "white", "white", "white", "yellow")
    dark = paint(rng, "red", "red", "vermilion", "orange")
    canvas.box((-wide - 0.02, low - 0.02, wide + 0.02, low + top + 0.02), bright, 0.5)
    if rng.random() < 0.15:
        canvas.box((-wide, low, wide, low + top), bright, 1.0)
        tip = wide * float(rng.choice([-1, 1]))
        canvas.poly([(-tip, low + 0.15), (-tip, low + top - 0.15), (tip, low + top / 2)], dark, 1.0)
    else:
        step, slant = rng.uniform(0.12, 0.28), float(rng.choice([-1, 1])) * rng.uniform(0.7, 1.2)
        canvas.stripes((-wide, low, wide, low + top), (bright, dark), step, slant, 1.0)
    if rng.random() < 0.35:
        lamp(canvas, 0, low + top)
    return canvas


def delineator(rng: Generator) -> Canvas:
    """Draw a slim tube with reflective collars."""
    canvas = Canvas(rng, 0.7, 1.2)
    canvas.stand(lean=rng.normal(0, 0.06))
    radius, body = rng.uniform(0.035, 0.09), paint(rng, *BRIGHT_BODY)
    foot, slim = paint(rng, "black", "black", "orange"), rng.uniform(0.65, 1)
    canvas.column((0, radius * rng.uniform(1.8, 3.5)), (0.06, radius * 1.6), foot)
    canvas.column((0.05, radius), (1.0, radius * slim), body, 0.1)
    level, ring = rng.uniform(0.4, 0.7), paint(rng, "white", "white", "silver")
    for _ in range(int(rng.integers(1, 5))):
        upper = level + rng.uniform(0.06, 0.13)
        around = radius * (1 - (1 - slim) * level) + 0.003
        canvas.column((level, around), (min(upper, 0.96), around), ring, 1.0)
        level = upper + 0.05
        if level > 0.85:
            break
    if rng.random() < 0.4:
        canvas.line([(0, 0.98), (0, 1.05)], (radius * 1.2, radius * 1.8), body, 0.1)
    return canvas
