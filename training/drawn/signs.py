"""Draw the signs of road works: diamonds, triangles, arrow boards and temporary plates."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, dimmed, paint
from training.drawn.devices import lamp
from training.drawn.lettering import works_text, write

Face = tuple[float, float, float, float]  # left, bottom, right, top


def digging_man(canvas: Canvas, x: float, y: float, size: float, ink: Colour) -> None:
    """Draw the pictogram of a man with a shovel and a heap; `size` is its height."""

    def at(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x + flip * px * size, y + py * size) for px, py in points]

    flip = float(canvas.rng.choice([-1, 1, 1]))
    thin, thick = 0.09 * size, 0.17 * size
    canvas.line(at([(-0.35, 0.05), (-0.22, 0.3), (-0.1, 0.5)]), (thin, thick), ink)
    canvas.line(at([(0.1, 0.05), (0.05, 0.3), (-0.1, 0.5)]), (thin, thick), ink)
    canvas.line(at([(-0.1, 0.48), (0.05, 0.78)]), (thick, thick), ink)
    canvas.disc(at([(0.1, 0.92)])[0], (0.1 * size, 0.1 * size), ink)
    canvas.line(at([(0.05, 0.76), (0.2, 0.58), (0.3, 0.48)]), (thin, thin), ink)
    canvas.line(at([(-0.02, 0.62), (0.45, 0.3)]), (0.06 * size, 0.06 * size), ink)
    canvas.poly(at([(0.25, 0), (0.7, 0), (0.6, 0.2), (0.48, 0.28), (0.35, 0.18)]), ink)


def support(canvas: Canvas, bottom: float) -> None:
    """Hold a sign whose face begins at `bottom`: a post, two posts or a folding stand."""
    rng = canvas.rng
    metal, kind = paint(rng, "silver", "grey", "black", "brown"), rng.integers(3)
    if kind == 0:
        canvas.box((-0.03, 0, 0.03, bottom + 0.5), metal)
    elif kind == 1:
        for x in (-0.22, 0.22):
            canvas.box((x - 0.025, 0, x + 0.025, bottom + 0.4), metal)
    else:
        spread = rng.uniform(0.25, 0.5)
        canvas.line([(0, bottom + 0.4), (0, 0.2)], (0.05, 0.05), metal)
        for x in (-spread, spread, 0.6 * spread):
            canvas.line([(0, 0.3), (x, 0)], (0.05, 0.04), metal)
    if rng.random() < 0.2:
        for x in rng.uniform(-0.3, 0.3, 2):  # sandbags
            canvas.line([(x, 0.06), (x + 0.2, 0.05)], (0.12, 0.1), paint(rng, "brown", "grey"))


def _sign_canvas(rng: Generator) -> tuple[Canvas, float]:
    """Return a canvas with a support in it, and where the face begins."""
    low = rng.choice([rng.uniform(0.1, 0.6), rng.uniform(0.8, 1.8)])
    canvas = Canvas(rng, 1.6, low + 1.4)
    canvas.stand(rng.normal(0, 0.04), rng.uniform(0.6, 1), rng.normal(0, 0.03))
    if rng.random() < 0.8:
        support(canvas, low)
    return canvas, low


def diamond(rng: Generator) -> Canvas:
    """Draw an orange diamond with a black line around text or a pictogram."""
    canvas, low = _sign_canvas(rng)
    ground, ink, half = paint(rng, "orange", "orange", "orange", "yellow"), paint(rng, "black"), 0.6
    middle = low + half

    def rhomb(r: float) -> list[tuple[float, float]]:
        return [(0, middle - r), (r, middle), (0, middle + r), (-r, middle)]

    for size, colour, glow in (
        (half, ground, 0.8),
        (half * 0.95, ink, 0.0),
        (half * 0.89, ground, 0.8),
    ):
        canvas.poly(rhomb(size), colour, glow)
    if rng.random() < 0.5:
        write(canvas, (-0.34, middle - 0.27, 0.34, middle + 0.27), works_text(rng), ink)
    else:
        digging_man(canvas, -0.08, middle - 0.26, 0.5, ink)
    if rng.random() < 0.2:
        for x in (-0.15, 0.15):
            canvas.poly(
                [(x, middle + 0.5), (x + 0.12, middle + 0.8), (x - 0.12, middle + 0.85)], ground
            )
    return canvas


def triangle(rng: Generator) -> Canvas:
    """Draw a red-rimmed triangle with a digging man."""
    canvas, low = _sign_canvas(rng)
    rim, ground = paint(rng, "red"), paint(rng, "white", "yellow", "white")

    def face(r: float) -> list[tuple[float, float]]:
        y = low + 0.4
        return [
            (-0.87 * r, y - r / 2),
            (0.87 * r, y - r / 2),
            (0.06 * r, y + r),
            (-0.06 * r, y + r),
        ]

    canvas.poly(face(0.72), rim, 0.8)
    canvas.poly(face(0.72 * rng.uniform(0.68, 0.8)), ground, 0.9)
    digging_man(canvas, -0.06, low + 0.2, 0.42, paint(rng, "black"))
    if rng.random() < 0.3:
        lamp(canvas, 0, low + 1.1)
    return canvas


def arrow_board(rng: Generator) -> Canvas:
    """Draw a dark board with lamps in the shape of an arrow or of chevrons."""
    width, height, low = rng.uniform(1, 2.2), rng.uniform(0.8, 1.2), rng.uniform(0.4, 1.2)
    canvas = Canvas(rng, width + 0.3, low + height + 0.2)
    canvas.stand(squeeze=rng.uniform(0.7, 1), slope=rng.normal(0, 0.04))
    canvas.line([(-0.5, 0.3), (0.5, 0.3)], (0.25, 0.25), paint(rng, "orange", "grey", "yellow"))
    for x in (-0.4, 0.4):
        canvas.disc((x, 0.17), (0.17, 0.17), paint(rng, "black"))
    canvas.box((-0.06, 0.3, 0.06, low + 0.2), paint(rng, "orange", "grey", "silver"))
    panel_lamps(canvas, (-width / 2, low, width / 2, low + height))
    return canvas


def panel_lamps(canvas: Canvas, face: Face) -> None:
    """Draw a dark panel whose lamps show an arrow, chevrons or words."""
    rng, (x0, y0, x1, y1) = canvas.rng, face
    frame = paint(rng, "black", "orange", "yellow", "grey")
    canvas.box((x0 - 0.04, y0 - 0.04, x1 + 0.04, y1 + 0.04), frame)
    canvas.box(face, paint(rng, "black"))
    on = rng.random() < 0.75
    colour = paint(rng, "amber") if on else paint(rng, "grey")
    if on and rng.random() < 0.2:
        inner = (x0 + 0.08, y0 + 0.08, x1 - 0.08, y1 - 0.08)
        write(canvas, inner, works_text(rng), colour, 1.0)
        return
    radius, flip = rng.uniform(0.04, 0.075) * (y1 - y0), rng.choice([-1, 1])
    for u, v in _arrow_lamps(rng):
        centre = ((x0 + x1) / 2 + flip * u * (x1 - x0) * 0.42, (y0 + y1) / 2 + v * (y1 - y0) * 0.36)
        canvas.disc(centre, (radius, radius), colour, float(on), 1.3)
        if on:
            canvas.disc(centre, (radius / 2, radius / 2), (255, 244, 200), 1.0, 1.3)


def _arrow_lamps(rng: Generator) -> list[tuple[float, float]]:
    """Return lamps of an arrow, of two chevrons or of a warning bar, within -1..1."""
    head = [(0.9 - 0.25 * i, side * 0.33 * i) for i in range(4) for side in (-1, 1)]
    shape = rng.integers(4)
    if shape == 0:
        return [(u - shift, v) for shift in (0.0, 0.6, 1.2) for u, v in head[:8]]
    if shape == 1:
        return [(u, 0.0) for u in np.linspace(-0.9, 0.9, 7)] + [(-0.9, 0.5), (-0.9, -0.5)]
    return head + [(u, 0.0) for u in np.linspace(-0.9, 0.7, 7)]


def plate(rng: Generator) -> Canvas:
    """Draw a rectangular orange or yellow board with lines of text or an arrow."""
    canvas, low = _sign_canvas(rng)
    width, height = rng.uniform(0.7, 1.5), rng.uniform(0.35, 0.9)
    ground, ink = paint(rng, "orange", "orange", "yellow"), paint(rng, "black")
    canvas.box((-width / 2, low, width / 2, low + height), ink)
    canvas.box((-width / 2 + 0.02, low + 0.02, width / 2 - 0.02, low + height - 0.02), ground, 0.8)
    inner = (-width / 2 + 0.08, low + 0.06, width / 2 - 0.08, low + height - 0.06)
    if rng.random() < 0.3:
        y, flip = low + height / 2, float(rng.choice([-1, 1]))
        canvas.line([(-0.25 * flip, y), (0.2 * flip, y)], (0.08, 0.08), ink)
        canvas.poly([(0.15 * flip, y - 0.13), (0.15 * flip, y + 0.13), (0.32 * flip, y)], ink)
    else:
        write(canvas, inner, works_text(rng), ink)
    return canvas


def frame(rng: Generator) -> Canvas:
    """Draw a low frame that holds several small signs: a pictogram, a limit and a line of text."""
    width, height, low = rng.uniform(0.9, 1.8), rng.uniform(0.6, 1.0), rng.uniform(0.1, 0.4)
    canvas = Canvas(rng, width + 0.3, low + height + 0.3)
    canvas.stand(rng.normal(0, 0.03), rng.uniform(0.6, 1), rng.normal(0, 0.03))
    half, middle, top = width / 2, low + rng.uniform(0.25, 0.45) * height, low + height
    metal, ink = paint(rng, "grey", "silver", "black"), paint(rng, "black")
    for x in (-0.7 * half, 0.7 * half):
        canvas.line([(x, top), (x * 1.1, 0)], (0.05, 0.05), metal)
    canvas.box((-half - 0.02, low - 0.02, half + 0.02, top + 0.02), ink)
    parts = [
        (-half, middle, -0.02, top),
        (0.02, middle, half, top),
        (-half, low, half, middle - 0.03),
    ]
    for part, glow in zip(parts, (0.8, 0.9, 0.7), strict=True):
        canvas.box(part, paint(rng, "orange", "yellow", "white"), glow)
    size = top - middle
    digging_man(canvas, -half / 2 - 0.1 * size, middle + 0.12 * size, 0.75 * size, ink)
    centre, radius = (half / 2, middle + size / 2), 0.42 * min(size, half)
    canvas.disc(centre, (radius, radius), paint(rng, "red"), 0.8)
    canvas.disc(centre, (0.78 * radius, 0.78 * radius), paint(rng, "white"), 0.9)
    limit = (
        half / 2 - radius / 2,
        centre[1] - radius / 2,
        half / 2 + radius / 2,
        centre[1] + radius / 2,
    )
    write(canvas, limit, str(rng.integers(2, 9) * 10), ink)
    if rng.random() < 0.4:
        canvas.box(parts[2], dimmed(paint(rng, "red"), 0.7), 0.5)
        ink = paint(rng, "white")
    write(canvas, (-0.9 * half, low + 0.02, 0.9 * half, middle - 0.05), _short_text(rng), ink)
    return canvas


def _short_text(rng: Generator) -> str:
    return str(rng.choice(["AHEAD", "ROADWORK", "SLOW", "WORKERS", "DETOUR", "TRAVAUX", "OBRAS"]))
