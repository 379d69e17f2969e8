"""Draw what is not roadwork but looks a little like it."""

from numpy.random import Generator

from training.drawn.canvas import Canvas, paint
from training.drawn.figure import Outfit, Pose, draw_figure
from training.drawn.lettering import ordinary_text, write


def bollard(rng: Generator) -> Canvas:
    """Draw a permanent bollard or a marker post of the roadside."""
    canvas = Canvas(rng, 0.5, 1.2)
    canvas.stand(lean=rng.normal(0, 0.02))
    radius, body = rng.uniform(0.05, 0.14), paint(rng, "grey", "white", "green", "silver", "black")
    canvas.column((0, radius), (1, radius * rng.uniform(0.8, 1)), body)
    if rng.random() < 0.6:
        level = rng.uniform(0.6, 0.8)
        band = paint(rng, "white", "silver", "black", "red", "yellow")
        canvas.column(
            (level, radius * 1.02), (level + rng.uniform(0.05, 0.15), radius * 1.02), band, 0.9
        )
    canvas.disc((0, 1), (radius, radius * rng.uniform(0.2, 0.8)), body)
    return canvas


def _post(canvas: Canvas, low: float) -> None:
    canvas.box((-0.03, 0, 0.03, low + 0.4), paint(canvas.rng, "silver", "grey"))


def warning(rng: Generator) -> Canvas:
    """Draw a red-rimmed triangle with a bar, a bend, a cross or an animal."""
    canvas, low = Canvas(rng, 1.5, 2.6), rng.uniform(0.4, 1.4)
    canvas.stand(rng.normal(0, 0.03), rng.uniform(0.6, 1))
    _post(canvas, low)
    flip, ink, y = float(rng.choice([-1, 1])), paint(rng, "black"), low + 0.4
    for r, colour in ((0.72, paint(rng, "red")), (0.53, paint(rng, "white"))):
        canvas.poly(
            [(-0.87 * r, y - flip * r / 2), (0.87 * r, y - flip * r / 2), (0, y + flip * r)],
            colour,
            0.8,
        )
    kind = rng.integers(4 if flip > 0 else 1)
    if kind == 1:
        canvas.box((-0.04, y - 0.05, 0.04, y + 0.25), ink)
        canvas.disc((0, y - 0.14), (0.05, 0.05), ink)
    elif kind == 2:
        canvas.line([(0, y - 0.18), (0, y), (0.1, y + 0.08), (0.1, y + 0.2)], (0.06, 0.06), ink)
    elif kind == 3:
        canvas.line([(-0.2, y - 0.18), (0.0, y + 0.2)], (0.06, 0.06), ink)
        canvas.line([(0.2, y - 0.18), (0.0, y + 0.2)], (0.06, 0.06), ink)
    return canvas


def round_sign(rng: Generator) -> Canvas:
    """Draw a speed limit, a ban or a blue order."""
    canvas, low = Canvas(rng, 1.2, 2.8), rng.uniform(1, 1.8)
    canvas.stand(rng.normal(0, 0.03), rng.uniform(0.6, 1))
    _post(canvas, low)
    y, blue = low + 0.4, rng.random() < 0.4
    canvas.disc((0, y), (0.4, 0.4), paint(rng, "blue") if blue else paint(rng, "red"), 0.8)
    if blue:
        canvas.line([(0, y - 0.2), (0, y + 0.2)], (0.1, 0.1), paint(rng, "white"), 0.8)
    else:
        canvas.disc((0, y), (0.3, 0.3), paint(rng, "white"), 0.8)
        limit = str(rng.integers(2, 13) * 10)
        write(canvas, (-0.22, y - 0.2, 0.22, y + 0.2), limit, paint(rng, "black"))
    return canvas


def guide(rng: Generator) -> Canvas:
    """Draw a blue, green or white direction sign, or a shop's orange or red board."""
    canvas, low = Canvas(rng, 2.2, 3.2), rng.uniform(0.5, 1.8)
    canvas.stand(squeeze=rng.uniform(0.6, 1), slope=rng.normal(0, 0.03))
    _post(canvas, low)
    width, height = rng.uniform(0.4, 1), rng.uniform(0.3, 1.2)
    ground = paint(rng, "blue", "green", "white", "orange", "red")
    canvas.box((-width, low, width, low + height), paint(rng, "white"), 0.5)
    canvas.box((-width + 0.03, low + 0.03, width - 0.03, low + height - 0.03), ground, 0.5)
    ink = paint(rng, "white") if sum(ground) < 600 else paint(rng, "black")
    inner = (-0.85 * width, low + 0.08, 0.85 * width, low + height - 0.08)
    write(canvas, inner, ordinary_text(rng), ink)
    return canvas


def car(rng: Generator) -> Canvas:
    """Draw a car from behind."""
    canvas = Canvas(rng, 2, 1.7)
    canvas.stand(squeeze=rng.uniform(0.85, 1.1))
    body, dark = (
        paint(rng, "red", "orange", "yellow", "white", "grey", "blue", "lime"),
        paint(rng, "black"),
    )
    for x in (-0.65, 0.65):
        canvas.box((x - 0.12, 0, x + 0.12, 0.4), dark)
    top = rng.uniform(1.3, 1.6)
    canvas.poly([(-0.85, 0.2), (0.85, 0.2), (0.88, 0.85), (0.8, 0.95), (0.6, top), (-0.6, top),
                 (-0.8, 0.95), (-0.88, 0.85)], body)  # fmt: skip
    canvas.poly([(-0.85, 0.2), (0.85, 0.2), (0.86, 0.42), (-0.86, 0.42)], body, 0, 0.6)
    canvas.poly(
        [(-0.7, 0.98), (0.7, 0.98), (0.55, top - 0.08), (-0.55, top - 0.08)], paint(rng, "glass")
    )
    braking = rng.random() < 0.6
    for x in (-0.72, 0.72):
        canvas.box(
            (x - 0.13, 0.7, x + 0.13, 0.88), (255, 60, 40) if braking else paint(rng, "red"), 1.0
        )
    canvas.box((-0.25, 0.5, 0.25, 0.62), paint(rng, "white", "yellow"), 0.4)
    return canvas


def pedestrian(rng: Generator) -> Canvas:
    """Draw a person in ordinary clothes."""
    canvas = Canvas(rng, 1.8, 1.9)
    canvas.stand(squeeze=rng.uniform(0.8, 1.1))
    top = paint(rng, "cloth", "cloth", "black", "white", "red", "blue", "green", "navy")
    outfit = Outfit(
        top=top,
        sleeves=top,
        forearms=top if rng.random() < 0.6 else paint(rng, "skin"),
        trousers=paint(rng, "navy", "black", "cloth", "brown"),
    )
    draw_figure(canvas, outfit, Pose(rng.uniform(0, 0.15)))
    return canvas


def kerb(rng: Generator) -> Canvas:
    """Draw a painted kerb."""
    canvas = Canvas(rng, 4, 0.8)
    canvas.stand(slope=rng.normal(0, 0.1))
    pair = (paint(rng, "white"), paint(rng, "red", "yellow", "black"))
    top = rng.uniform(0.2, 0.4)
    canvas.stripes((-1.8, 0, 1.8, top), pair, rng.uniform(0.3, 0.6), 0, 0.2)
    canvas.poly(
        [(-1.8, top), (1.8, top), (1.7, top + 0.15), (-1.7, top + 0.15)],
        paint(rng, "grey", "white"),
    )
    return canvas


def bin_or_box(rng: Generator) -> Canvas:
    """Draw a bin, a mailbox or a hydrant."""
    canvas = Canvas(rng, 0.9, 1.3)
    body = paint(rng, "red", "orange", "yellow", "green", "blue", "grey", "black")
    wide, top = rng.uniform(0.2, 0.35), rng.uniform(0.8, 1.1)
    if rng.random() < 0.4:
        canvas.column((0, wide), (top, wide), body)
        canvas.disc((0, top), (wide, wide * 0.5), body)
    else:
        canvas.poly([(-wide * 0.85, 0), (wide * 0.85, 0), (wide, top), (-wide, top)], body)
        canvas.box((-wide * 1.1, top, wide * 1.1, top + 0.08), paint(rng, "black", "grey"))
    canvas.box((-wide * 0.5, top * 0.7, wide * 0.5, top * 0.78), paint(rng, "black", "white"))
    return canvas


DRAWINGS = (bollard, warning, round_sign, guide, car, pedestrian, kerb, bin_or_box)
