"""Draw building machines and works lorries."""

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, dimmed, paint
from training.drawn.signs import panel_lamps

Corners = tuple[float, float, float, float]  # left, bottom, right, top
BODIES = (*["yellow"] * 5, *["orange"] * 3, "vermilion", "red", "green", "white")
REAR_BOARDS = (("white", "red"), ("yellow", "red"), ("lime", "red"), ("white", "orange"))


def wheel(canvas: Canvas, x: float, radius: float, rim: Colour) -> None:
    """Draw a wheel that stands on the ground at `x`."""
    rng = canvas.rng
    canvas.disc((x, radius), (radius, radius), paint(rng, "black"))
    canvas.disc((x, radius), (radius * 0.9, radius * 0.9), paint(rng, "black"), 0, 1.4)
    hub = rng.uniform(0.4, 0.6) * radius
    canvas.disc((x, radius), (hub, hub), rim, 0, 0.8)
    canvas.disc((x, radius), (hub * 0.45, hub * 0.45), paint(rng, "black", "grey"))


def _cab(canvas: Canvas, corners: Corners, colour: Colour) -> None:
    """Draw a cab with windows between posts, wider below than above."""
    (x0, y0, x1, y1), rng = corners, canvas.rng
    wide, high = x1 - x0, y1 - y0
    frame = colour if rng.random() < 0.6 else paint(rng, "black")
    glass, inset, top = paint(rng, "glass"), 0.1 * wide, y1 - 0.1 * high
    canvas.poly([(x0, y0), (x1, y0), (x1 - inset, y1), (x0 + inset / 2, y1)], frame)
    canvas.poly([(x0, y0), (x1, y0), (x1, y0 + 0.3 * high), (x0, y0 + 0.3 * high)], colour)
    rise, middle = y0 + rng.uniform(0.25, 0.4) * high, x0 + rng.uniform(0.35, 0.6) * wide
    canvas.poly([(x0 + inset, rise), (middle - 0.03, rise), (middle - 0.03, top),
                 (x0 + 1.2 * inset, top)], glass)  # fmt: skip
    canvas.poly([(middle + 0.03, rise - 0.1), (x1 - inset, rise - 0.1), (x1 - 1.7 * inset, top),
                 (middle + 0.03, top)], glass, 0, rng.uniform(0.8, 2.5))  # fmt: skip
    canvas.box((x0 - 0.04, y1 - 0.02, x1 - inset + 0.06, y1 + 0.07), dimmed(colour, 1.1))
    if rng.random() < 0.5:
        canvas.disc((middle, y1 + 0.15), (0.08, 0.11), paint(rng, "orange"), 0.9, 1.2)


def _plating(canvas: Canvas, corners: Corners, colour: Colour) -> None:
    """Draw seams, a grille and a dark decal on a metal side."""
    (x0, y0, x1, y1), rng = corners, canvas.rng
    thin, dark = 0.02 * (x1 - x0), dimmed(colour, 0.45)
    for x in rng.uniform(x0, x1, int(rng.integers(1, 4))):
        canvas.stroke([(x, y0), (x, y1)], thin, dark)
    left, low = rng.uniform(x0, 0.5 * (x0 + x1)), rng.uniform(y0, 0.5 * (y0 + y1))
    right, high = left + 0.35 * (x1 - x0), low + 0.45 * (y1 - y0)
    if rng.random() < 0.5:
        for y in np.linspace(low, high, 5):
            canvas.stroke([(left, y), (right, y)], 1.5 * thin, paint(rng, "black"))
    else:
        canvas.box((left, low, right, 0.6 * low + 0.4 * high), paint(rng, "black"))


def _facing(canvas: Canvas) -> None:
    rng = canvas.rng
    canvas.texture = 0.06
    turn = float(rng.choice([-1, 1])) * rng.uniform(0.6, 1)
    canvas.stand(squeeze=turn, slope=rng.normal(0, 0.04))


def _beam(
    canvas: Canvas, points: list[tuple[float, float]], widths: tuple[float, float], colour: Colour
) -> None:
    """Draw a steel arm with a lit upper edge."""
    canvas.line(points, widths, colour, 0, 0.82)
    upper = [(x + 0.03, y + 0.12 * widths[0]) for x, y in points]
    canvas.line(upper, (0.6 * widths[0], 0.6 * widths[1]), colour, 0, 1.08)


def excavator(rng: Generator) -> Canvas:
    """Draw an excavator on tracks with boom, arm and bucket."""
    canvas = Canvas(rng, 9, 6)
    _facing(canvas)
    colour, dark, rear = paint(rng, *BODIES), paint(rng, "black"), -rng.uniform(1.2, 2.4)
    elbow = (rng.uniform(1.3, 3.0), rng.uniform(2.4, 4.6))
    wrist = (elbow[0] + rng.uniform(-0.4, 1.6), elbow[1] - rng.uniform(1.2, 2.2))
    knee = (0.45 * (0.2 + elbow[0]) - 0.2, 0.55 * elbow[1] + rng.uniform(0.7, 1.3))
    canvas.line([(rear + 0.4, 0.4), (1.1, 0.4)], (0.8, 0.8), dark)
    canvas.line([(rear + 0.5, 0.4), (1.0, 0.4)], (0.5, 0.5), paint(rng, "grey", "brown"), 0, 0.7)
    for x in np.linspace(rear + 0.5, 1.0, 6):
        canvas.disc((x, 0.33), (0.15, 0.15), dark, 0, 1.3)
    canvas.box((rear + 0.8, 0.7, 0.5, 1.0), dark)
    canvas.poly([(rear, 0.95), (0.8, 0.95), (0.8, 1.5), (-0.4, 1.9), (rear + 0.1, 1.9),
                 (rear - 0.1, 1.4)], colour)  # fmt: skip
    canvas.poly([(rear, 0.95), (0.8, 0.95), (0.8, 1.15), (rear, 1.15)], colour, 0, 0.6)
    canvas.box((rear + 0.05, 1.82, -0.4, 1.92), dimmed(colour, 1.15))
    _plating(canvas, (rear + 0.1, 1.15, -0.5, 1.75), colour)
    _beam(canvas, [(0.3, 1.6), knee, elbow], (0.55, 0.34), colour)
    canvas.line([(0.7, 1.5), (knee[0] + 0.3, knee[1] - 0.15)], (0.13, 0.09), paint(rng, "silver"))
    _cab(canvas, (-0.5, 1.0, 0.6, rng.uniform(2.5, 2.9)), colour)
    canvas.line([(knee[0] + 0.3, knee[1] + 0.3), (elbow[0] + 0.1, elbow[1] + 0.25)],
                (0.12, 0.09), paint(rng, "silver", "black"))  # fmt: skip
    _beam(canvas, [(elbow[0] - 0.05, elbow[1] + 0.25), wrist], (0.36, 0.22), colour)
    _bucket(canvas, wrist)
    return canvas


def _bucket(canvas: Canvas, wrist: tuple[float, float]) -> None:
    (x, y), size = wrist, canvas.rng.uniform(0.8, 1.3)
    shape = [(0.15, 0.1), (-0.2, 0.05), (-0.8, -0.1), (-0.6, -0.6), (-0.1, -0.65), (0.2, -0.3)]
    steel = paint(canvas.rng, "black", "grey", "brown", "yellow")
    canvas.poly([(x + size * dx, y + size * dy) for dx, dy in shape], steel)
    canvas.poly([(x + size * dx, y + size * dy) for dx, dy in shape[2:5]], steel, 0, 0.6)


def loader(rng: Generator) -> Canvas:
    """Draw a wheel loader from the side with its bucket in front."""
    canvas = Canvas(rng, 6.8, 3.6)
    _facing(canvas)
    colour, dark, lift = paint(rng, *BODIES), paint(rng, "black"), rng.uniform(0.2, 1.6)
    rear, radius = -rng.uniform(1.5, 2.8), rng.uniform(0.5, 0.8)
    canvas.poly([(rear, 0.7), (-0.2, 0.7), (-0.2, 1.6), (rear + 0.1, 1.5)], colour)
    canvas.poly([(rear, 0.6), (1.2, 0.6), (1.2, 1.0), (rear, 0.9)], dark)
    _plating(canvas, (rear + 0.1, 0.95, -0.6, 1.45), colour)
    _cab(canvas, (-0.8, 1.1, 0.5, rng.uniform(2.4, 2.9)), colour)
    _beam(canvas, [(0.4, 1.5), (1.3, 1.1 + 0.5 * lift), (2.0, lift)], (0.32, 0.25), colour)
    steel = paint(rng, "grey", "black", "yellow", "brown")
    canvas.poly([(1.9, lift - 0.1), (3.0, lift - 0.2), (2.5, lift + 0.1), (2.35, lift + 0.7),
                 (1.9, lift + 0.75)], steel)  # fmt: skip
    canvas.poly([(1.9, lift - 0.1), (3.0, lift - 0.2), (2.4, lift + 0.05)], steel, 0, 0.5)
    for x in (rear + radius + 0.1, 0.9):
        wheel(canvas, x, radius, colour)
    return canvas


def loader_ahead(rng: Generator) -> Canvas:
    """Draw a loader or skid-steer that shows its front with a wide bucket, or its back."""
    canvas = Canvas(rng, 3.0, 3.4)
    canvas.texture = 0.06
    canvas.stand(squeeze=rng.uniform(0.8, 1.1), slope=rng.normal(0, 0.03))
    colour, dark, top = paint(rng, *BODIES), paint(rng, "black"), rng.uniform(2.1, 3.0)
    for x in (-0.85, 0.85):
        canvas.line([(x, 0.25), (x, 1.0)], (0.5, 0.5), dark)
    canvas.poly([(-0.75, 0.5), (0.75, 0.5), (0.7, 1.4), (-0.7, 1.4)], colour, 0, 0.85)
    _plating(canvas, (-0.6, 0.7, 0.6, 1.3), colour)
    canvas.poly([(-0.72, 1.3), (0.72, 1.3), (0.6, top), (-0.6, top)], colour)
    canvas.poly([(-0.6, 1.4), (0.6, 1.4), (0.5, top - 0.15), (-0.5, top - 0.15)],
                paint(rng, "glass"), 0, rng.uniform(0.7, 2))  # fmt: skip
    for x in (-0.55, 0.55):
        canvas.disc((x, top + 0.02), (0.09, 0.07), paint(rng, "white", "amber"), 0.8, 1.2)
    if rng.random() < 0.65:
        low, half = rng.uniform(0, 0.8), rng.uniform(1.0, 1.3)
        for x in (-0.6, 0.6):
            _beam(canvas, [(x, 1.6), (x, low + 0.4)], (0.2, 0.2), colour)
        steel = paint(rng, "grey", "black", "yellow", "brown")
        canvas.poly([(-half, low), (half, low), (half, low + 0.6), (-half, low + 0.6)], steel)
        canvas.box((-half, low, half, low + 0.12), dimmed(steel, 0.5))
        canvas.box((-half, low + 0.54, half, low + 0.62), dimmed(steel, 1.3))
    else:
        _rear_stripes(canvas, (-0.7, 0.5, 0.7, 0.75))
    return canvas


def roller(rng: Generator) -> Canvas:
    """Draw a road roller with one or two steel drums."""
    canvas = Canvas(rng, 4.6, 3.2)
    _facing(canvas)
    colour, steel = paint(rng, *BODIES), paint(rng, "silver", "grey")
    canvas.poly([(-1.7, 0.75), (1.6, 0.75), (1.7, 1.2), (0.3, 1.4), (-1.6, 1.5)], colour)
    canvas.poly([(-1.7, 0.75), (1.6, 0.75), (1.6, 0.9), (-1.7, 0.9)], colour, 0, 0.6)
    _plating(canvas, (-1.6, 0.95, -0.5, 1.4), colour)
    if rng.random() < 0.5:
        _cab(canvas, (-0.7, 1.2, 0.5, rng.uniform(2.4, 2.8)), colour)
    else:
        roof = rng.uniform(2.2, 2.6)
        for x in (-0.9, 0.2):
            canvas.line([(x, 1.3), (x, roof)], (0.07, 0.07), paint(rng, "black"))
        canvas.box((-1.1, roof - 0.04, 0.5, roof + 0.08), colour)
        canvas.box((-0.6, 1.3, -0.2, 1.75), paint(rng, "black"))
    tyre = rng.random() < 0.5
    for x, radius in ((1.25, rng.uniform(0.5, 0.7)), (-1.2, rng.uniform(0.5, 0.7))):
        if x < 0 and tyre:
            wheel(canvas, x, radius, colour)
            continue
        canvas.disc((x, radius), (radius, radius), steel, 0, 1.0)
        canvas.disc((x, radius), (radius * 0.88, radius * 0.88), steel, 0, 0.8)
        _beam(canvas, [(x, radius), (x - 0.3 * np.sign(x), 1.15)], (0.24, 0.24), colour)
    return canvas


def _striped(canvas: Canvas, corners: Corners, step: float, slant: float) -> None:
    """Draw a striped board whose two halves slant away from each other."""
    rng, (x0, y0, x1, y1) = canvas.rng, corners
    ground, stripes = REAR_BOARDS[int(rng.integers(len(REAR_BOARDS)))]
    pair, middle = (paint(rng, ground), paint(rng, stripes)), (x0 + x1) / 2
    canvas.stripes((x0, y0, middle, y1), pair, step, slant, 1.0)
    canvas.stripes((middle, y0, x1, y1), pair, step, -slant, 1.0)


def _rear_stripes(canvas: Canvas, corners: Corners) -> None:
    rng = canvas.rng
    _striped(canvas, corners, rng.uniform(0.12, 0.25), float(rng.choice([-1, 1])))


def lorry_behind(rng: Generator) -> Canvas:
    """Draw a works lorry from behind with stripes, beacons and sometimes an arrow panel."""
    canvas = Canvas(rng, 2.8, 3.8)
    canvas.texture = 0.05
    canvas.stand(squeeze=rng.uniform(0.8, 1), slope=rng.normal(0, 0.02))
    body, dark, top = paint(rng, *BODIES), paint(rng, "black"), rng.uniform(1.5, 2.6)
    for x in (-0.9, 0.9):
        canvas.box((x - 0.25, 0, x + 0.25, 0.7), dark)
    canvas.box((-1.15, 0.42, 1.15, 0.8), paint(rng, "black", "grey"))
    canvas.box((-1.0, 1.2, 1.0, top + 0.35), paint(rng, "white", "orange", "yellow"))
    canvas.box((-0.85, top, 0.85, top + 0.28), paint(rng, "glass"))
    canvas.box((-1.2, 0.8, 1.2, top), body)
    for x in np.linspace(-1.1, 1.1, int(rng.integers(3, 7))):
        canvas.box((x - 0.04, 0.85, x + 0.04, top), dimmed(body, 0.75))
    canvas.box((-1.2, top - 0.08, 1.2, top), dimmed(body, 1.15))
    for x in (-0.95, 0.95):
        canvas.box((x - 0.15, 0.52, x + 0.15, 0.68), paint(rng, "red"), 0.5)
        canvas.disc((x, top + 0.42), (0.1, 0.1), paint(rng, "orange"), 0.9, 1.2)
    if rng.random() < 0.35:
        panel_lamps(canvas, (-0.9, top - 0.3, 0.9, top + 0.7))
    _rear_stripes(canvas, (-1.15, 0.85, 1.15, 0.85 + rng.uniform(0.15, 0.6)))
    return canvas


def lorry_beside(rng: Generator) -> Canvas:
    """Draw a tipper lorry from the side, its bed flat or raised, with a load or without."""
    canvas = Canvas(rng, 7.5, 4.2)
    _facing(canvas)
    bed, front = paint(rng, *BODIES), paint(rng, "orange", "yellow", "white", "red")
    dark, raised = paint(rng, "black"), float(rng.choice([0, 0, 0.8]))
    canvas.box((-3.2, 0.7, 3.0, 1.0), dark)
    _striped(canvas, (-3.2, 0.72, 1.5, 1.0), 0.25, 1.0)
    canvas.poly([(1.6, 0.6), (3.2, 0.6), (3.25, 1.6), (2.9, 2.7), (1.6, 2.7)], front)
    canvas.poly([(1.9, 1.65), (3.05, 1.65), (2.8, 2.5), (1.9, 2.5)], paint(rng, "glass"))
    canvas.poly([(1.6, 0.6), (3.2, 0.6), (3.2, 0.9), (1.6, 0.9)], front, 0, 0.6)
    if rng.random() < 0.4:
        heap = [(-2.8, 2.0), (1.2, 2.0 + raised), (0.4, 2.4 + raised), (-1.5, 2.6)]
        canvas.poly(heap, paint(rng, "brown", "grey"))
    side = [(-3.2, 1.05), (1.4, 1.05 + raised), (1.5, 2.2 + raised), (-3.3, 2.1)]
    canvas.poly(side, bed)
    canvas.poly([(-3.2, 1.05), (1.4, 1.05 + raised), (1.4, 1.2 + raised), (-3.2, 1.2)], bed, 0, 0.6)
    for share in np.linspace(0.06, 0.94, int(rng.integers(4, 8))):
        x, lift = -3.2 + 4.6 * share, raised * share
        canvas.stroke([(x, 1.1 + lift), (x, 2.1 + lift)], 0.1, dimmed(bed, 0.7))
    canvas.disc((2.2, 2.8), (0.14, 0.12), paint(rng, "orange"), 0.9, 1.2)
    for x in (-2.4, -1.2, 2.3):
        wheel(canvas, x, 0.52, paint(rng, "grey", "silver"))
    return canvas
