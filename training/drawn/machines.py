"""Draw building machines and works lorries."""

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, paint
from training.drawn.signs import panel_lamps


def _body(rng: Generator) -> Colour:
    return paint(rng, "yellow", "yellow", "yellow", "orange", "orange", "red", "green", "white")


def _wheel(canvas: Canvas, x: float, radius: float, rim: Colour) -> None:
    canvas.disc((x, radius), (radius, radius), paint(canvas.rng, "black"))
    canvas.disc((x, radius), (radius * 0.5, radius * 0.5), rim, 0, 0.8)
    canvas.disc((x, radius), (radius * 0.2, radius * 0.2), paint(canvas.rng, "black", "grey"))


def _cab(canvas: Canvas, corners: tuple[float, float, float, float], colour: Colour) -> None:
    """Draw a cab with dark windows and a roof, wider below than above."""
    x0, y0, x1, y1 = corners
    glass, inset = paint(canvas.rng, "glass"), 0.1 * (x1 - x0)
    canvas.poly([(x0, y0), (x1, y0), (x1 - inset, y1), (x0 + inset / 2, y1)], colour)
    rise, middle = y0 + 0.35 * (y1 - y0), x0 + 0.5 * (x1 - x0)
    high = y1 - 0.1 * (y1 - y0)
    canvas.poly([(x0 + inset, rise), (middle - 0.03, rise), (middle - 0.03, high),
                 (x0 + 1.2 * inset, high)], glass)  # fmt: skip
    canvas.poly([(middle + 0.03, rise - 0.1), (x1 - inset, rise - 0.1), (x1 - 1.7 * inset, high),
                 (middle + 0.03, high)], glass, 0, 1.3)  # fmt: skip
    canvas.box((x0 - 0.03, y1 - 0.02, x1 - inset + 0.06, y1 + 0.07), colour)
    if canvas.rng.random() < 0.5:
        canvas.disc((middle, y1 + 0.14), (0.08, 0.1), paint(canvas.rng, "orange"), 0.9)


def _facing(canvas: Canvas) -> None:
    rng = canvas.rng
    canvas.stand(
        squeeze=float(rng.choice([-1, 1])) * rng.uniform(0.65, 1), slope=rng.normal(0, 0.04)
    )


def excavator(rng: Generator) -> Canvas:
    """Draw an excavator on tracks with boom, arm and bucket."""
    canvas = Canvas(rng, 8, 5)
    _facing(canvas)
    colour, dark = _body(rng), paint(rng, "black")
    shoulder = (0.2, 1.7)
    elbow = (rng.uniform(1.4, 2.4), rng.uniform(3.2, 4.3))
    wrist = (elbow[0] + rng.uniform(0.3, 1.5), elbow[1] - rng.uniform(1.2, 2.4))
    knee = (0.45 * (shoulder[0] + elbow[0]) - 0.2, 0.62 * elbow[1] + 0.7)
    canvas.line([(-1.7, 0.4), (1.1, 0.4)], (0.8, 0.8), dark)
    canvas.line([(-1.6, 0.4), (1.0, 0.4)], (0.45, 0.45), paint(rng, "grey", "brown"), 0, 0.7)
    for x in np.linspace(-1.5, 0.9, 5):
        canvas.disc((x, 0.35), (0.16, 0.16), dark)
    canvas.box((-1.0, 0.7, 0.5, 1.0), dark)
    canvas.poly(
        [(-2.1, 0.95), (0.8, 0.95), (0.8, 1.5), (-0.4, 1.9), (-2.0, 1.9), (-2.2, 1.4)], colour
    )
    canvas.poly([(-2.1, 0.95), (0.8, 0.95), (0.8, 1.15), (-2.15, 1.15)], colour, 0, 0.65)
    canvas.box((-1.8, 1.3, -0.9, 1.7), dark)
    canvas.line([shoulder, knee, elbow], (0.5, 0.34), colour)
    _cab(canvas, (-0.5, 1.0, 0.6, 2.6), colour)
    canvas.line([(0.6, 1.5), (knee[0] + 0.2, knee[1] - 0.2)], (0.12, 0.1), paint(rng, "grey"))
    canvas.line([elbow, wrist], (0.36, 0.22), colour, 0, 0.9)
    x, y = wrist
    steel = paint(rng, "black", "grey", "brown")
    canvas.poly([(x + 0.15, y + 0.1), (x - 0.2, y + 0.05), (x - 0.8, y - 0.1), (x - 0.6, y - 0.6),
                 (x - 0.1, y - 0.65), (x + 0.2, y - 0.3)], steel)  # fmt: skip
    return canvas


def loader(rng: Generator) -> Canvas:
    """Draw a wheel loader with its bucket in front."""
    canvas = Canvas(rng, 6.5, 3.4)
    _facing(canvas)
    colour, dark = _body(rng), paint(rng, "black")
    lift = rng.uniform(0.2, 1.4)
    canvas.poly([(-2.6, 0.7), (-0.2, 0.7), (-0.2, 1.5), (-2.5, 1.6)], colour)
    canvas.poly([(-2.6, 0.7), (1.2, 0.7), (1.2, 1.0), (-2.6, 1.0)], dark)
    _cab(canvas, (-0.7, 1.1, 0.5, 2.7), colour)
    canvas.line([(0.5, 1.4), (1.4, 1.2 + 0.5 * lift), (2.0, lift)], (0.3, 0.25), colour)
    canvas.poly([(1.9, lift - 0.1), (2.9, lift - 0.2), (2.5, lift + 0.1), (2.3, lift + 0.7),
                 (1.9, lift + 0.7)], paint(rng, "grey", "black", "yellow"))  # fmt: skip
    radius = rng.uniform(0.55, 0.75)
    for x in (-1.7, 0.9):
        _wheel(canvas, x, radius, colour)
    return canvas


def roller(rng: Generator) -> Canvas:
    """Draw a road roller with one or two steel drums."""
    canvas = Canvas(rng, 4.4, 3.0)
    _facing(canvas)
    colour, steel = _body(rng), paint(rng, "silver", "grey")
    canvas.poly([(-1.7, 0.75), (1.6, 0.75), (1.7, 1.2), (0.3, 1.4), (-1.6, 1.45)], colour)
    canvas.poly([(-1.7, 0.75), (1.6, 0.75), (1.6, 0.9), (-1.7, 0.9)], colour, 0, 0.6)
    if rng.random() < 0.5:
        _cab(canvas, (-0.6, 1.2, 0.5, 2.5), colour)
    else:
        for x in (-0.9, 0.2):
            canvas.line([(x, 1.4), (x, 2.4)], (0.07, 0.07), paint(rng, "black"))
        canvas.box((-1.1, 2.36, 0.5, 2.46), colour)
    for x, radius in ((1.25, 0.6), (-1.2, rng.choice([0.6, 0.65]))):
        if x < 0 and radius > 0.6:
            _wheel(canvas, x, radius, colour)
        else:
            canvas.disc((x, radius), (radius, radius), steel, 0, 0.9)
            canvas.disc((x, radius), (radius * 0.85, radius * 0.85), steel, 0, 0.7)
            canvas.line([(x, radius), (x - 0.3 * np.sign(x), 1.1)], (0.2, 0.2), colour)
    return canvas


def _rear_stripes(canvas: Canvas, face: tuple[float, float, float, float]) -> None:
    rng = canvas.rng
    colours = [("white", "red"), ("yellow", "red"), ("lime", "red"), ("white", "orange")][
        int(rng.integers(4))
    ]
    pair = (paint(rng, colours[0]), paint(rng, colours[1]))
    canvas.stripes(face, pair, rng.uniform(0.12, 0.25), float(rng.choice([-1, 1])), 1.0)


def tipper(rng: Generator) -> Canvas:
    """Draw a works lorry from behind with stripes, beacons and sometimes an arrow panel."""
    canvas = Canvas(rng, 2.8, 3.8)
    canvas.stand(squeeze=rng.uniform(0.8, 1), slope=rng.normal(0, 0.02))
    body, dark, top = _body(rng), paint(rng, "black"), rng.uniform(1.8, 2.6)
    for x in (-0.9, 0.9):
        canvas.box((x - 0.22, 0, x + 0.22, 0.7), dark)
    canvas.box((-1.15, 0.45, 1.15, 0.8), paint(rng, "black", "grey"))
    canvas.box((-1.0, 1.2, 1.0, top + 0.35), paint(rng, "white", "orange", "yellow"))
    canvas.box((-0.85, top, 0.85, top + 0.28), paint(rng, "glass"))
    canvas.box((-1.2, 0.8, 1.2, top), body)
    for x in np.linspace(-1.1, 1.1, 5):
        canvas.line([(x, 0.85), (x, top)], (0.06, 0.06), body, 0, 0.75)
    for x in (-0.95, 0.95):
        canvas.box((x - 0.15, 0.52, x + 0.15, 0.68), paint(rng, "red"), 0.5)
        canvas.disc((x, top + 0.42), (0.1, 0.1), paint(rng, "orange"), 0.9, 1.1)
    kind = rng.integers(3)
    if kind == 0:
        panel_lamps(canvas, (-0.9, top - 0.3, 0.9, top + 0.7))
    if kind != 1:
        _rear_stripes(canvas, (-1.15, 0.85, 1.15, 0.85 + rng.uniform(0.25, 0.9)))
    return canvas
