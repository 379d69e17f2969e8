"""Draw what is not roadwork but shares colours, shapes or places with it."""

import numpy as np
from numpy.random import Generator

from training.drawn.canvas import Canvas, Colour, dimmed, paint
from training.drawn.figure import Outfit, Pose, draw_figure
from training.drawn.lettering import ordinary_text, write
from training.drawn.machines import wheel

CAR_PAINTS = ("red", "vermilion", "orange", "yellow", "white", "silver", "grey", "blue", "black")


# --- posts and signs


def bollard(rng: Generator) -> Canvas:
    """Draw a permanent bollard or a marker post of the roadside."""
    canvas = Canvas(rng, 0.5, 1.2)
    canvas.stand(lean=rng.normal(0, 0.02))
    radius, body = rng.uniform(0.04, 0.14), paint(rng, "grey", "white", "green", "silver", "black")
    canvas.column((0, radius), (1, radius * rng.uniform(0.8, 1)), body)
    if rng.random() < 0.6:
        level, around = rng.uniform(0.6, 0.8), radius * 1.02
        band = paint(rng, "white", "silver", "black", "yellow")
        canvas.column((level, around), (level + rng.uniform(0.05, 0.15), around), band, 0.9)
    canvas.disc((0, 1), (radius, radius * rng.uniform(0.2, 0.8)), body)
    return canvas


def _sign_post(rng: Generator, width: float) -> tuple[Canvas, float]:
    """Return a canvas with a post in it, and where the sign's face begins."""
    low = rng.uniform(0.5, 2.0)
    canvas = Canvas(rng, width, low + 1.5)
    canvas.texture = 0.02
    canvas.stand(rng.normal(0, 0.03), rng.uniform(0.6, 1), rng.normal(0, 0.02))
    if rng.random() < 0.85:
        canvas.box((-0.03, 0, 0.03, low + 0.4), paint(rng, "silver", "grey", "brown"))
    return canvas, low


def _pictogram(canvas: Canvas, y: float, ink: Colour) -> None:
    """Draw a mark, a bend, a crossing, a fork or somebody who walks around (0, y)."""
    kind = int(canvas.rng.integers(5))
    if kind == 0:
        canvas.box((-0.04, y - 0.08, 0.04, y + 0.22), ink)
        canvas.disc((0, y - 0.17), (0.05, 0.05), ink)
        return
    pictograms: list[list[list[tuple[float, float]]]] = [
        [[(0, -0.2), (0, 0), (0.1, 0.08), (0.1, 0.22)]],
        [[(-0.15, -0.15), (0.15, 0.18)], [(0.15, -0.15), (-0.15, 0.18)]],
        [[(0, -0.2), (0, 0.22)], [(0, 0), (0.17, 0.1)]],
        [[(-0.1, -0.2), (0, 0), (0.1, -0.2)], [(0, 0), (0, 0.12)], [(-0.1, 0), (0, 0.1), (0.1, 0)]],
    ]
    for stroke in pictograms[kind - 1]:
        canvas.stroke([(px, y + py) for px, py in stroke], 0.06, ink)
    if kind == 4:
        canvas.disc((0, y + 0.2), (0.05, 0.05), ink)


def warning(rng: Generator) -> Canvas:
    """Draw a red-rimmed triangle, upright with any pictogram but works, or upside down."""
    canvas, low = _sign_post(rng, 1.6)
    flip, y, size = float(rng.choice([-1, 1, 1])), low + 0.4, rng.uniform(0.5, 0.56)
    for r, colour in ((0.72, paint(rng, "red")), (size, paint(rng, "white"))):
        feet = y - flip * r / 2
        canvas.poly([(-0.87 * r, feet), (0.87 * r, feet), (0, y + flip * r)], colour, 0.8)
    if flip > 0:
        _pictogram(canvas, y, paint(rng, "black"))
    return canvas


def diamond(rng: Generator) -> Canvas:
    """Draw the yellow diamond of a lasting danger."""
    canvas, low = _sign_post(rng, 1.6)
    y, ink, ground = low + 0.6, paint(rng, "black"), paint(rng, "yellow")
    for r, colour in ((0.6, ink), (0.57, ground), (0.54, ink), (0.51, ground)):
        canvas.poly([(0, y - r), (r, y), (0, y + r), (-r, y)], colour, 0.7)
    _pictogram(canvas, y, ink)
    return canvas


def chevrons(rng: Generator) -> Canvas:
    """Draw the board that marks a sharp bend."""
    canvas, low = _sign_post(rng, 2.6)
    count, flip = int(rng.integers(1, 4)), float(rng.choice([-1, 1]))
    ground, ink = [("yellow", "black"), ("white", "black"), ("white", "red")][int(rng.integers(3))]
    half, colour = 0.35 * count, paint(rng, ink)
    canvas.box((-half, low, half, low + 0.7), paint(rng, ground), 0.8)
    for i in range(count):
        x = (i - count / 2 + 0.5) * 0.7
        arrow = [
            (-0.22, 0.05),
            (0.02, 0.05),
            (0.28, 0.35),
            (0.02, 0.65),
            (-0.22, 0.65),
            (0.04, 0.35),
        ]
        canvas.poly([(x + flip * px, low + py) for px, py in arrow], colour, 0.5)
    return canvas


def round_sign(rng: Generator) -> Canvas:
    """Draw a speed limit, a ban, a stop sign or a blue order."""
    canvas, low = _sign_post(rng, 1.2)
    y, kind = low + 0.4, int(rng.integers(4))
    if kind == 0:
        canvas.disc((0, y), (0.4, 0.4), paint(rng, "blue"), 0.8)
        canvas.stroke([(-0.15, y - 0.15), (0.15, y + 0.15)], 0.1, paint(rng, "white"), 0.8)
        return canvas
    canvas.disc((0, y), (0.4, 0.4), paint(rng, "red"), 0.8)
    inner = (-0.22, y - 0.2, 0.22, y + 0.2)
    if kind == 1:
        write(canvas, (-0.33, y - 0.2, 0.33, y + 0.2), "STOP", paint(rng, "white"), 0.9)
    elif kind == 2:
        canvas.box((-0.28, y - 0.07, 0.28, y + 0.07), paint(rng, "white"), 0.9)
    else:
        canvas.disc((0, y), (0.3, 0.3), paint(rng, "white"), 0.8)
        write(canvas, inner, str(rng.integers(2, 13) * 10), paint(rng, "black"))
    return canvas


def board(rng: Generator) -> Canvas:
    """Draw a blue, green or white direction sign, or a shop's orange or red board."""
    canvas, low = _sign_post(rng, 2.4)
    width, height = rng.uniform(0.4, 1.1), rng.uniform(0.3, 1.2)
    ground = paint(rng, "blue", "green", "white", "orange", "red", "vermilion")
    light, dark = paint(rng, "white"), paint(rng, "black")
    canvas.box((-width, low, width, low + height), light, 0.5)
    canvas.box((-width + 0.03, low + 0.03, width - 0.03, low + height - 0.03), ground, 0.5)
    inner = (-0.85 * width, low + 0.08, 0.85 * width, low + height - 0.08)
    write(canvas, inner, ordinary_text(rng), light if sum(ground) < 600 else dark, 0.6)
    return canvas


def traffic_light(rng: Generator) -> Canvas:
    """Draw a traffic light."""
    canvas, low = _sign_post(rng, 0.7)
    case, on = paint(rng, "black", "black", "yellow", "green"), int(rng.integers(3))
    canvas.box((-0.17, low, 0.17, low + 1.0), case)
    lit = ((60.0, 255.0, 170.0), (255.0, 190.0, 60.0), (255.0, 60.0, 40.0))
    for i, colour in enumerate(lit):
        y = low + 0.18 + 0.32 * i
        canvas.disc(
            (0, y), (0.12, 0.12), colour if i == on else dimmed(colour, 0.15), float(i == on)
        )
    return canvas


# --- traffic and people


def car(rng: Generator) -> Canvas:
    """Draw a car or a van from behind or from in front."""
    canvas = Canvas(rng, 2.2, 2.4)
    canvas.stand(squeeze=rng.uniform(0.85, 1.1))
    body, dark, top = paint(rng, *CAR_PAINTS), paint(rng, "black"), rng.uniform(1.35, 2.1)
    narrow = 0.62 if top < 1.7 else 0.78
    for x in (-0.68, 0.68):
        canvas.box((x - 0.13, 0, x + 0.13, 0.4), dark)
    half = [(0.8, 0.2), (0.87, 0.35), (0.9, 0.75), (0.85, 0.93), (narrow, top - 0.08), (0.45, top)]
    canvas.poly([*half, *[(-x, y) for x, y in half[::-1]]], body)
    canvas.poly([(-0.8, 0.2), (0.8, 0.2), (0.87, 0.42), (-0.87, 0.42)], dimmed(body, 0.6))
    pane, high = narrow - 0.07, top - 0.12
    window = [(-0.75, 0.95), (0.75, 0.95), (pane, high), (-pane, high)]
    canvas.poly(window, paint(rng, "glass"), 0, rng.uniform(0.8, 2))
    canvas.stroke([(-0.86, 0.62), (0.86, 0.62)], 0.02, dimmed(body, 0.6))
    canvas.box((-0.25, 0.48, 0.25, 0.6), paint(rng, "white", "yellow"), 0.4)
    lamps: Colour = (255.0, 60.0, 40.0) if rng.random() < 0.6 else paint(rng, "red")
    if rng.random() < 0.3:
        lamps = paint(rng, "white")
        canvas.box((-0.45, 0.64, 0.45, 0.8), dark)
    wide, high = rng.uniform(0.06, 0.16), rng.uniform(0.07, 0.16)
    for x in (-0.72, 0.72):
        canvas.box((x - wide, 0.78 - high, x + wide, 0.78 + high / 2), lamps, 1.0)
    return canvas


def car_beside(rng: Generator) -> Canvas:
    """Draw a car from the side."""
    canvas = Canvas(rng, 4.8, 1.8)
    canvas.stand(squeeze=float(rng.choice([-1, 1])) * rng.uniform(0.6, 1))
    body, top, tail = paint(rng, *CAR_PAINTS), rng.uniform(1.35, 1.7), rng.uniform(-2.0, -1.2)
    canvas.poly([(-2.1, 0.3), (2.1, 0.3), (2.15, 0.7), (1.9, 0.85), (1.0, 0.95), (0.4, top),
                 (-1.1, top), (tail, 0.95), (-2.1, 0.9)], body)  # fmt: skip
    canvas.poly([(-2.1, 0.3), (2.1, 0.3), (2.1, 0.45), (-2.1, 0.45)], body, 0, 0.6)
    glass = [(0.85, 0.95), (0.35, top - 0.08), (-1.0, top - 0.08), (0.7 * tail - 0.2, 0.95)]
    canvas.poly(glass, paint(rng, "glass"))
    canvas.stroke([(-0.3, 0.4), (-0.3, top)], 0.06, body)
    canvas.box((-2.1, 0.7, -1.95, 0.85), paint(rng, "red"), 0.8)
    for x in (-1.3, 1.35):
        wheel(canvas, x, 0.33, paint(rng, "silver", "grey"))
    return canvas


def lorry(rng: Generator) -> Canvas:
    """Draw a plain lorry or bus from behind."""
    canvas = Canvas(rng, 2.8, 3.9)
    canvas.stand(squeeze=rng.uniform(0.8, 1))
    body, top = paint(rng, *CAR_PAINTS), rng.uniform(2.6, 3.5)
    for x in (-0.9, 0.9):
        canvas.box((x - 0.25, 0, x + 0.25, 0.7), paint(rng, "black"))
    canvas.box((-1.15, 0.4, 1.15, 0.8), paint(rng, "black", "grey"))
    canvas.box((-1.2, 0.75, 1.2, top), body)
    if rng.random() < 0.4:
        canvas.box((-1.0, 0.6 * top, 1.0, top - 0.3), paint(rng, "glass"))
    else:
        canvas.stroke([(0, 0.8), (0, top)], 0.04, dimmed(body, 0.5))
    if rng.random() < 0.4:
        write(
            canvas, (-0.9, 1.2, 0.9, 1.9), ordinary_text(rng), paint(rng, "white", "black", "blue")
        )
    for x in (-0.95, 0.95):
        canvas.box((x - 0.15, 0.5, x + 0.15, 0.66), paint(rng, "red"), 0.8)
    return canvas


def pedestrian(rng: Generator) -> Canvas:
    """Draw a person in ordinary clothes, perhaps under an umbrella."""
    canvas = Canvas(rng, 1.8, 2.3)
    canvas.stand(squeeze=rng.uniform(0.8, 1.1))
    top = paint(rng, *["cloth"] * 4, "black", "white", "red", "blue", "green", "navy", "vermilion")
    outfit = Outfit(
        top=top,
        sleeves=top,
        forearms=top if rng.random() < 0.6 else paint(rng, "skin"),
        trousers=paint(rng, "navy", "black", "cloth", "brown"),
    )
    draw_figure(canvas, outfit, Pose(rng.uniform(0, 0.15)))
    if rng.random() < 0.15:
        shade = paint(rng, "red", "orange", "black", "blue", "yellow")
        turns = np.linspace(0, np.pi, 9)
        canvas.poly([(0.6 * np.cos(t), 1.8 + 0.35 * np.sin(t)) for t in turns], shade)
        canvas.poly([(-0.6, 1.8), (0, 1.8), (0, 2.15), (-0.4, 2.05)], shade, 0, 0.8)
    return canvas


# --- things beside the road


def kerb(rng: Generator) -> Canvas:
    """Draw a painted kerb."""
    canvas = Canvas(rng, 4, 1.2)
    canvas.stand(squeeze=rng.uniform(0.3, 1), slope=rng.normal(0, 0.05))
    pair = (paint(rng, "white"), paint(rng, "red", "yellow", "black"))
    top = rng.uniform(0.2, 0.4)
    canvas.stripes((-1.8, 0, 1.8, top), pair, rng.uniform(0.3, 0.6), 0, 0.2)
    lid = [(-1.8, top), (1.8, top), (1.7, top + 0.15), (-1.7, top + 0.15)]
    canvas.poly(lid, paint(rng, "grey", "white"))
    return canvas


def container(rng: Generator) -> Canvas:
    """Draw a bin, a pillar box or a hydrant."""
    canvas = Canvas(rng, 0.9, 1.4)
    body = paint(rng, "red", "vermilion", "orange", "yellow", "green", "blue", "grey", "black")
    wide, top, kind = rng.uniform(0.2, 0.35), rng.uniform(0.8, 1.1), int(rng.integers(3))
    dark = dimmed(body, 0.6)
    if kind == 0:
        canvas.column((0, wide), (top, wide), body)
        canvas.disc((0, top), (wide * 1.08, wide * 0.45), body, 0, 0.9)
        canvas.box((-wide * 0.5, top * 0.7, wide * 0.5, top * 0.76), paint(rng, "black"))
        canvas.box((-wide * 0.4, top * 0.4, wide * 0.4, top * 0.6), paint(rng, "white"))
    elif kind == 1:
        canvas.poly([(-wide * 0.85, 0.05), (wide * 0.85, 0.05), (wide, top), (-wide, top)], body)
        canvas.box((-wide * 0.1, 0.1, wide * 0.05, top), dark)
        canvas.box((-wide * 1.1, top, wide * 1.1, top + 0.08), paint(rng, "black", "grey"))
        for x in (-0.7, 0.7):
            canvas.disc((x * wide, 0.08), (0.08, 0.08), paint(rng, "black"))
    else:
        slim = 0.5 * wide
        canvas.column((0, slim * 1.5), (0.1, slim * 1.5), dark)
        canvas.column((0.1, slim), (top * 0.8, slim), body)
        canvas.line([(-slim * 1.7, top * 0.55), (slim * 1.7, top * 0.55)], (0.14, 0.14), body)
        canvas.column((top * 0.75, slim * 1.25), (top * 0.82, slim * 1.25), dark)
        canvas.disc((0, top * 0.84), (slim, slim * 0.8), body)
    return canvas


DRAWINGS = (
    bollard, warning, diamond, chevrons, round_sign, board, board, traffic_light, car, car,
    car_beside, lorry, pedestrian, pedestrian, kerb, container,
)  # fmt: skip
