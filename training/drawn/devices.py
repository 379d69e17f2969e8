"""Draw what closes a lane: cones, drums, barriers and posts."""

from itertools import pairwise

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, paint

RUNS = (  # paints of every other block
    ("orange", "white"), ("red", "white"), ("orange", "orange"), ("yellow", "black"),
    ("red", "red"), ("yellow", "red"), ("white", "white"),
)  # fmt: skip


def _striped_pair(rng: Generator) -> tuple[Colour, Colour]:
    """Choose the two paints of a striped board: most are white with orange or red."""
    dark, bright = [
        ("orange", "white"), ("orange", "white"), ("red", "white"), ("red", "white"),
        ("black", "yellow"), ("red", "yellow"),
    ][int(rng.integers(6))]  # fmt: skip
    return paint(rng, bright), paint(rng, dark)


def lamp(canvas: Canvas, x: float, y: float, radius: float = 0.09) -> None:
    """Draw a warning light on a short stem."""
    canvas.box((x - 0.04, y, x + 0.04, y + 0.08), paint(canvas.rng, "black", "grey"))
    on = canvas.rng.random() < 0.5
    canvas.disc((x, y + 0.08 + radius), (radius, radius), paint(canvas.rng, "yellow", "orange"),
                0.9 if on else 0.2, 1.0 if on else 0.7)  # fmt: skip
    if on:
        canvas.disc((x, y + 0.08 + radius), (radius / 2, radius / 2), (255, 240, 190), 1.0)


# --- cones and drums


def cone(rng: Generator) -> Canvas:
    """Draw a traffic cone with up to three collars."""
    wide, top = rng.uniform(0.14, 0.3), rng.uniform(0.02, 0.05)
    canvas = Canvas(rng, 1.0, 1.2)
    canvas.stand(lean=rng.normal(0, 0.25) if rng.random() < 0.2 else rng.normal(0, 0.03))
    body = paint(rng, "orange", "orange", "orange", "orange", "red", "yellow", "lime")
    plate = paint(rng, "black", "black") if rng.random() < 0.6 else body
    edge = wide * rng.uniform(1.15, 1.5)
    canvas.poly([(-edge, 0.0), (edge, 0), (edge * 0.9, 0.1), (-edge * 0.9, 0.1)], plate, 0, 0.9)
    canvas.poly([(-edge, -0.03), (edge, -0.03), (edge, 0.01), (-edge, 0.01)], plate, 0, 0.55)

    def radius(height: float) -> float:
        return wide + (top - wide) * (height - 0.06)

    canvas.column((0.08, radius(0.08)), (1.0, top), body, 0.1)
    collars = int(rng.choice([0, 1, 2, 2, 2, 3]))
    level = rng.uniform(0.3, 0.5)
    ring = paint(rng, "white", "white", "silver")
    for _ in range(collars):
        upper = min(level + rng.uniform(0.1, 0.25), 0.95)
        canvas.column((level, radius(level) + 0.003), (upper, radius(upper) + 0.003), ring, 1.0)
        level = upper + rng.uniform(0.06, 0.14)
        if level > 0.85:
            break
    canvas.disc((0, 1.0), (top, 0.3 * top), body, 0, 0.5)
    return canvas


def drum(rng: Generator) -> Canvas:
    """Draw a banded drum on a rubber ring."""
    canvas = Canvas(rng, 0.9, 1.3)
    canvas.stand(lean=rng.normal(0, 0.04))
    wide, taper = rng.uniform(0.24, 0.34), rng.uniform(0.0, 0.12)
    dark = paint(rng, "orange", "orange", "orange", "orange", "red", "yellow", "blue")
    bright = paint(rng, "white", "white", "silver")
    base = paint(rng, "black")
    canvas.column((0.0, wide * 1.25), (0.09, wide * 1.2), base)
    bands = int(rng.integers(3, 7))
    levels = np.linspace(0.08, 1.0, bands + 1) + np.append(rng.normal(0, 0.015, bands), 0)
    first = int(rng.integers(2))
    for i, (low, high) in enumerate(pairwise(levels)):
        r0, r1 = wide * (1 - taper * low), wide * (1 - taper * high)
        white = (i + first) % 2 == 1
        step = 0.94 if white else 1.0
        canvas.column(
            (low, r0 * step), (high, r1 * step), bright if white else dark, 1.0 if white else 0.3
        )
    canvas.disc((0, 1.0), (wide * (1 - taper), 0.05), dark, 0.1, 0.8)
    if rng.random() < 0.6:
        canvas.box((-0.08, 1.0, 0.08, 1.08), dark, 0.1)
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
    canvas = Canvas(rng, width + 0.3, top + 0.4)
    _turned(canvas)
    half, boards = width / 2, int(rng.integers(1, 4))
    frame = paint(rng, "white", "grey", "black", "orange")
    inset = rng.uniform(0.6, 0.95) * half
    for x in (-inset, inset):
        spread = rng.uniform(0.05, 0.25)
        canvas.line([(x, top), (x + spread, 0.02)], (0.05, 0.05), frame, shade=0.6)
        canvas.line([(x, top), (x - spread * rng.integers(2), 0)], (0.06, 0.06), frame)
    colours, slant = _striped_pair(rng), float(rng.choice([-1, 1, 1, 0]))
    height = rng.uniform(0.15, 0.3)
    gap = height * rng.uniform(1.2, 2)
    for i in range(boards):
        high = top - i * gap
        canvas.stripes(
            (-half, high - height, half, high), colours, rng.uniform(0.1, 0.25), slant, 0.9
        )
    if rng.random() < 0.4:
        for x in (-inset, inset)[: int(rng.integers(1, 3))]:
            lamp(canvas, x, top)
    return canvas


def blocks(rng: Generator) -> Canvas:
    """Draw a run of water-filled blocks that gets smaller into the distance."""
    count = int(rng.integers(1, 6))
    shrink = rng.uniform(0.75, 0.98)
    canvas = Canvas(rng, 1.2 * count, 1.3)
    _turned(canvas)
    paints = [paint(rng, name) for name in RUNS[int(rng.integers(len(RUNS)))]]
    x, size, waist = -0.6 * count, 1.0, rng.uniform(0.5, 0.9)
    for i in range(count):
        colour, right, low = paints[i % 2], x + size, 0.35 * (1 - size)
        high = low + size * 0.9
        mid = low + 0.35 * size
        canvas.poly([(x, low), (right, low), (right, mid), (x, mid)], colour, 0.1, 0.75)
        canvas.poly([(x, mid), (right, mid), (right - 0.03, high), (x + 0.03, high)], colour, 0.1)
        canvas.poly([(x + 0.03, high - 0.07 * size), (right - 0.03, high - 0.07 * size),
                     (right - 0.04, high), (x + 0.04, high)], colour, 0.1, 1.15)  # fmt: skip
        for slot in (0.25, 0.65):
            canvas.box(
                (x + slot * size, low, x + (slot + 0.14) * size, low + 0.08 * size), (20, 20, 20)
            )
        if waist < 0.7:
            canvas.box(
                (x + 0.2 * size, mid + 0.1, right - 0.2 * size, mid + 0.25 * size),
                paints[1 - i % 2],
                0.6,
            )
        x, size = right + 0.01, size * shrink
    return canvas


def mesh(rng: Generator) -> Canvas:
    """Draw an orange net hung on posts."""
    fields = int(rng.integers(1, 4))
    step = rng.uniform(1.2, 2)
    canvas = Canvas(rng, fields * step + 0.2, 1.4)
    _turned(canvas)
    colour, left = paint(rng, "orange", "orange", "red"), -fields * step / 2
    pitch, thick = rng.uniform(0.05, 0.09), rng.uniform(0.02, 0.045)

    def edge(x: float, height: float, sag: float) -> float:
        return height - sag * 4 * ((x - left) / step % 1) * (1 - (x - left) / step % 1)

    xs = np.arange(left, left + fields * step, pitch)
    sag = rng.uniform(0, 0.15)
    for height in np.arange(0.08, 1.02, pitch):
        row = [(float(x), edge(x, height, sag * height)) for x in xs[:: max(1, len(xs) // 12)]]
        canvas.line(row, (thick, thick), colour, 0.1)
    for x in xs:
        canvas.line([(x, 0.06), (x, edge(x, 1.0, sag))], (thick, thick), colour, 0.1, 0.92)
    post = paint(rng, "grey", "brown", "black", "silver")
    for i in range(fields + 1):
        canvas.line([(left + i * step, 0), (left + i * step, 1.1)], (0.05, 0.05), post)
    return canvas


def pedestrian_barrier(rng: Generator) -> Canvas:
    """Draw a plastic fence with a striped band above and slots below."""
    fields, width = int(rng.integers(1, 4)), rng.uniform(0.9, 2)
    canvas = Canvas(rng, fields * width + 0.2, 1.2)
    _turned(canvas)
    colour = paint(rng, "red", "red", "yellow", "blue", "orange", "lime")
    for i in range(fields):
        left = (i - fields / 2) * width
        right = left + width * 0.98
        canvas.box((left, 0.1, right, 0.18), colour)
        canvas.box((left, 0.62, right, 1.0), colour)
        for x in np.linspace(left + 0.03, right - 0.03, int(width / 0.15)):
            canvas.line([(x, 0.1), (x, 0.7)], (0.05, 0.05), colour, 0, 0.85)
        band = (left + 0.06, 0.7, right - 0.06, 0.9)
        canvas.stripes(band, (paint(rng, "white"), paint(rng, "red", "orange")), 0.12, 1, 1.0)
        for x in (left + 0.1, right - 0.1):
            canvas.box((x - 0.12, 0, x + 0.12, 0.08), paint(rng, "black"))
    return canvas


# --- posts


def panel(rng: Generator) -> Canvas:
    """Draw a vertical panel with slanting stripes."""
    wide, top = rng.uniform(0.1, 0.2), rng.uniform(0.9, 1.3)
    canvas = Canvas(rng, 0.7, top + 0.5)
    canvas.stand(lean=rng.normal(0, 0.05), squeeze=rng.uniform(0.6, 1))
    low, foot = rng.uniform(0.1, 0.35), rng.uniform(0.18, 0.32)
    canvas.box((-foot, 0, foot, rng.uniform(0.07, 0.13)), paint(rng, "black", "grey"))
    canvas.box((-0.04, 0.05, 0.04, low + 0.1), paint(rng, "black", "grey", "white"))
    corners = (-wide, low, wide, low + top)
    bright = paint(rng, "white", "white", "white", "yellow")
    colours = bright, paint(rng, "red", "red", "orange")
    canvas.box((corners[0] - 0.015, low - 0.015, corners[2] + 0.015, low + top + 0.015), colours[0])
    canvas.stripes(corners, colours, rng.uniform(0.1, 0.2), float(rng.choice([-1, 1])), 1.0)
    if rng.random() < 0.3:
        lamp(canvas, 0, low + top)
    return canvas


def delineator(rng: Generator) -> Canvas:
    """Draw a slim tube with reflective collars."""
    canvas = Canvas(rng, 0.6, 1.2)
    canvas.stand(lean=rng.normal(0, 0.06))
    radius, body = (
        rng.uniform(0.035, 0.075),
        paint(rng, "orange", "orange", "orange", "red", "lime"),
    )
    foot = paint(rng, "black", "black", "orange")
    canvas.column((0, radius * rng.uniform(2, 4)), (0.06, radius * 2), foot)
    canvas.column((0.05, radius), (1.0, radius * rng.uniform(0.7, 1)), body, 0.1)
    level = rng.uniform(0.5, 0.7)
    for _ in range(int(rng.integers(1, 4))):
        canvas.column(
            (level, radius * 1.04), (level + 0.1, radius * 1.04), paint(rng, "white"), 1.0
        )
        level += 0.14
    if rng.random() < 0.4:
        canvas.disc((0, 1.02), (radius * 1.2, radius), body, 0.1)
    return canvas
