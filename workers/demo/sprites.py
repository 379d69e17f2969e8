"""Draw the things of a synthetic drive, each once: cones, signs, machines, cars, trees, houses."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from roadstream.workers.demo.canvas import BLACK, Canvas, Colour, Sprite

ORANGE: Colour = (244, 96, 22)
WHITE: Colour = (240, 240, 236)
RED: Colour = (206, 32, 34)
YELLOW: Colour = (240, 180, 30)
LIME: Colour = (206, 242, 60)
GREY: Colour = (128, 130, 132)


def cone() -> Sprite:
    """A 75 cm traffic cone: orange, two white bands, dark base."""
    c = Canvas(0.8, 0.8, 240)
    c.polygon([(-0.17, 0.06), (0.17, 0.06), (0.035, 0.76), (-0.035, 0.76)], ORANGE)
    for low, high in ((0.30, 0.43), (0.52, 0.62)):
        half = [0.17 - (0.135 / 0.70) * (y - 0.06) for y in (low, high)]
        c.polygon([(-half[0], low), (half[0], low), (half[1], high), (-half[1], high)], WHITE)
    c.round_off(-0.17, 0.17)
    c.polygon([(-0.23, 0.015), (0.23, 0.015), (0.2, 0.075), (-0.2, 0.075)], (50, 44, 42))
    c.grain(0.03, 1)
    return c.sprite("cone")


def drum() -> Sprite:
    """A metre-high channelising drum: orange and white rings."""
    c = Canvas(1.05, 1.1, 200)
    rings = ((0.08, ORANGE), (0.28, WHITE), (0.45, ORANGE), (0.62, WHITE), (0.78, ORANGE))
    for bottom, colour in rings:
        half = 0.29 - 0.06 * bottom
        c.box(-half, bottom, half, min(bottom + 0.24, 0.98), colour)
    c.box(-0.08, 0.98, 0.08, 1.05, ORANGE)
    c.round_off(-0.29, 0.29, 0.55)
    c.polygon([(-0.36, 0.01), (0.36, 0.01), (0.31, 0.09), (-0.31, 0.09)], BLACK)
    c.grain(0.035, 2)
    return c.sprite("drum")


def barrier() -> Sprite:
    """A striped red and white barrier on two feet, with warning lamps."""
    c = Canvas(3.1, 1.35, 120)
    for x in (-0.95, 0.95):
        c.box(x - 0.04, 0.02, x + 0.04, 1.08, GREY)
        c.polygon([(x - 0.22, 0.0), (x + 0.22, 0.0), (x + 0.16, 0.1), (x - 0.16, 0.1)], BLACK)
    for low in (0.32, 0.78):
        _stripes(c, (-1.2, low, 1.2, low + 0.26), RED)
    for x in (-1.05, 1.05):
        c.ellipse(x, 1.16, 0.1, 0.1, (250, 176, 40))
        c.ellipse(x, 1.16, 0.055, 0.055, (255, 226, 130))
    c.grain(0.025, 3)
    return c.sprite("barrier", 0.35)


def _stripes(c: Canvas, box: tuple[float, float, float, float], colour: Colour) -> None:
    """Fill a box with slanted stripes of a colour and white."""
    x1, y1, x2, y2 = box
    tilt = y2 - y1
    c.box(x1, y1, x2, y2, WHITE)
    step = 0.34
    for k in range(int((x2 - x1) / step) + 2):
        left = x1 + k * step - tilt
        corners = [(left, y1), (left + step / 2, y1), (left + step / 2 + tilt, y2)]
        corners.append((left + tilt, y2))
        c.polygon([(float(np.clip(x, x1, x2)), y) for x, y in corners], colour)


def panel() -> Sprite:
    """A guide post: an upright board with slanted red stripes."""
    c = Canvas(0.7, 1.15, 230)
    c.polygon([(-0.2, 0.0), (0.2, 0.0), (0.16, 0.1), (-0.16, 0.1)], BLACK)
    c.box(-0.125, 0.1, 0.125, 1.1, WHITE)
    for k in range(4):
        y = 0.06 + 0.28 * k
        corners = [(-0.125, y + 0.16), (0.125, y), (0.125, y + 0.14), (-0.125, y + 0.3)]
        c.polygon([(x, float(np.clip(v, 0.1, 1.1))) for x, v in corners], RED)
    c.grain(0.03, 4)
    return c.sprite("post", 0.4)


def work_sign(words: Sequence[str]) -> Sprite:
    """An orange diamond on a post, black border and words."""
    c = Canvas(1.7, 2.75, 130)
    c.box(-0.035, 0.0, 0.035, 1.4, (96, 98, 100))
    y, outer, inner = 1.95, 0.78, 0.71
    for reach, colour in ((outer, ORANGE), (inner, BLACK), (inner - 0.035, ORANGE)):
        c.polygon([(0, y - reach), (reach, y), (0, y + reach), (-reach, y)], colour)
    for k, word in enumerate(words):
        c.text(word, 0, y + 0.24 * ((len(words) - 1) / 2 - k), 0.15)
    c.grain(0.015, 5)
    return c.sprite("work_sign", 0.25)


def triangle_sign() -> Sprite:
    """A warning triangle with a digging worker, on a post."""
    c = Canvas(1.3, 2.6, 130)
    c.box(-0.035, 0.0, 0.035, 1.6, (96, 98, 100))
    for reach, colour in ((0.0, RED), (0.11, (250, 208, 40))):
        c.polygon(
            [
                (-0.58 + reach * 1.7, 1.45 + reach),
                (0.58 - reach * 1.7, 1.45 + reach),
                (0, 2.48 - reach * 2),
            ],
            colour,
        )
    c.ellipse(-0.04, 2.02, 0.055, 0.055, BLACK)
    c.line([(-0.05, 1.96), (0.0, 1.78), (-0.12, 1.62)], 0.06, BLACK)
    c.line([(0.0, 1.78), (0.07, 1.62)], 0.06, BLACK)
    c.line([(-0.04, 1.92), (0.16, 1.74), (0.24, 1.66)], 0.035, BLACK)
    c.ellipse(0.24, 1.63, 0.1, 0.05, BLACK)
    return c.sprite("work_sign", 0.25)


def worker(seed: int) -> Sprite:
    """A worker in a high-visibility vest and helmet."""
    rng = np.random.default_rng(seed)
    vest = (ORANGE, LIME)[seed % 2]
    trousers: Colour = ((40, 48, 70), (220, 96, 30))[int(rng.integers(2))]
    c = Canvas(1.3, 1.9, 150)
    reach = float(rng.uniform(0.1, 0.35))
    for side in (-1, 1):
        c.polygon(
            [(side * 0.03, 0.92), (side * 0.19, 0.92), (side * 0.22, 0.04), (side * 0.08, 0.04)],
            trousers,
        )
        c.box(side * 0.15 - 0.08, 0.0, side * 0.15 + 0.09, 0.08, BLACK)
    c.line([(-0.2, 1.38), (-0.34, 1.12), (-0.2 - reach * 0.3, 0.92)], 0.11, vest)
    c.line([(0.2, 1.38), (0.34, 1.14), (0.25 + reach, 0.98)], 0.11, vest)
    c.polygon([(-0.22, 0.86), (0.22, 0.86), (0.25, 1.46), (-0.25, 1.46)], vest)
    silver: Colour = (226, 230, 228)
    c.box(-0.225, 1.0, 0.225, 1.06, silver)
    for x in (-0.14, 0.14):
        c.box(x - 0.03, 1.0, x + 0.03, 1.46, silver)
    c.box(-0.21, 0.45, -0.07, 0.51, silver)
    c.box(0.07, 0.45, 0.21, 0.51, silver)
    c.ellipse(0, 1.6, 0.105, 0.13, (206, 160, 130))
    c.ellipse(0, 1.69, 0.14, 0.1, (YELLOW, WHITE)[int(rng.integers(2))])
    c.line([(0.28 + reach, 1.35), (0.2 + reach, 0.06)], 0.04, (120, 88, 56))
    c.round_off(-0.35, 0.35, 0.3)
    c.grain(0.05, seed)
    return c.sprite("worker")


def excavator() -> Sprite:
    """A yellow excavator seen from the side, its arm bent."""
    c = Canvas(8.8, 4.2, 56)
    c.polygon([(-2.3, 0.15), (1.3, 0.15), (1.65, 0.5), (1.3, 0.9), (-2.3, 0.9)], (44, 44, 46))
    c.ellipse(-2.25, 0.52, 0.42, 0.4, (44, 44, 46))
    for x in (-2.2, -1.35, -0.5, 0.35, 1.15):
        c.ellipse(x, 0.5, 0.27, 0.27, (92, 90, 84))
    c.box(-1.2, 0.9, 0.4, 1.1, (60, 58, 54))
    c.polygon(
        [(-2.6, 1.1), (0.4, 1.1), (0.4, 1.75), (-0.5, 1.95), (-2.4, 1.95), (-2.75, 1.6)], YELLOW
    )
    c.polygon([(-0.5, 1.1), (0.9, 1.1), (0.9, 2.1), (0.65, 2.95), (-0.5, 2.95)], YELLOW)
    c.polygon([(-0.34, 1.85), (0.76, 1.85), (0.56, 2.8), (-0.34, 2.8)], (74, 96, 108))
    c.polygon([(-0.3, 2.1), (0.2, 2.75), (0.0, 2.75), (-0.3, 2.4)], (150, 176, 186))
    c.line([(0.85, 1.5), (2.3, 3.75), (3.35, 2.75)], 0.36, (214, 156, 24))
    c.line([(3.3, 2.85), (3.0, 1.35)], 0.26, YELLOW)
    c.line([(1.5, 2.25), (2.5, 3.2)], 0.11, (190, 194, 196))
    c.polygon([(2.6, 1.4), (3.3, 1.45), (3.35, 0.75), (2.75, 0.35), (2.45, 0.8)], (66, 62, 58))
    c.box(-2.3, 1.35, -0.7, 1.48, (60, 52, 36))
    c.ellipse(0.1, 3.03, 0.13, 0.1, (255, 150, 20))
    c.grain(0.045, 7)
    return c.sprite("machine", 0.55)


def car(colour: Colour, *, oncoming: bool) -> Sprite:
    """A car from behind, or from the front when it comes towards us."""
    c = Canvas(2.6, 1.6, 130)
    for x in (-0.68, 0.68):
        c.box(x - 0.13, 0.0, x + 0.13, 0.4, (22, 22, 24))
    dark = _mix(colour, BLACK, 0.35)
    c.polygon(
        [(-0.86, 0.2), (0.86, 0.2), (0.9, 0.62), (0.84, 0.95), (-0.84, 0.95), (-0.9, 0.62)], colour
    )
    c.polygon([(-0.84, 0.93), (0.84, 0.93), (0.62, 1.43), (-0.62, 1.43)], dark)
    c.polygon([(-0.6, 1.4), (0.6, 1.4), (0.52, 1.48), (-0.52, 1.48)], colour)
    c.polygon([(-0.7, 0.98), (0.7, 0.98), (0.55, 1.36), (-0.55, 1.36)], (44, 54, 64))
    c.polygon([(-0.66, 1.0), (-0.1, 1.0), (0.16, 1.36), (-0.52, 1.36)], (92, 108, 120))
    c.box(-0.87, 0.2, 0.87, 0.4, _mix(colour, BLACK, 0.55))
    lamp: Colour = (250, 250, 226) if oncoming else (186, 20, 24)
    for side in (-1, 1):
        c.polygon(
            [(side * 0.56, 0.66), (side * 0.87, 0.64), (side * 0.86, 0.84), (side * 0.62, 0.82)],
            lamp,
        )
    c.box(-0.26, 0.46, 0.26, 0.58, (226, 226, 220))
    if oncoming:
        c.box(-0.48, 0.62, 0.48, 0.74, (30, 30, 32))
    c.round_off(-0.9, 0.9, 0.25)
    c.grain(0.012, 8)
    return c.sprite("car", 0.75, 0.74 if oncoming else None)


def lorry(colour: Colour) -> Sprite:
    """A box lorry from behind."""
    c = Canvas(3.4, 3.6, 70)
    for x in (-0.95, 0.95):
        c.box(x - 0.22, 0.0, x + 0.22, 0.8, (20, 20, 22))
    c.box(-1.25, 0.75, 1.25, 3.5, colour)
    c.line([(0, 0.78), (0, 3.48)], 0.03, _mix(colour, BLACK, 0.4))
    for x in (-0.35, 0.35):
        c.line([(x, 0.78), (x, 3.48)], 0.025, GREY)
    c.box(-1.22, 0.5, 1.22, 0.66, (58, 58, 60))
    for side in (-1, 1):
        c.box(side * 1.0 - 0.16, 0.53, side * 1.0 + 0.16, 0.64, (200, 24, 24))
    c.round_off(-1.25, 1.25, 0.15)
    c.grain(0.02, 9)
    return c.sprite("car", 0.75)


def tree(seed: int) -> Sprite:
    """A broad-leaved tree or a conifer, by seed."""
    rng = np.random.default_rng(100 + seed)
    c = Canvas(7.0, 8.6, 28)
    leaf: Colour = ((62, 92, 42), (80, 108, 48), (52, 80, 46), (104, 112, 52))[seed % 4]
    c.polygon([(-0.22, 0), (0.22, 0), (0.12, 4.0), (-0.12, 4.0)], (74, 60, 46))
    if seed % 4 == 2:
        for k in range(26):
            y = 1.3 + 7.0 * k / 26
            half = 2.1 * (1 - k / 27) * float(rng.uniform(0.8, 1.1))
            shade = _mix(leaf, BLACK, float(rng.uniform(0, 0.35)))
            c.polygon([(-half, y - 0.45), (half, y - 0.45), (0, y + 0.75)], shade)
    else:
        for _ in range(170):
            angle, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
            x, y = 2.7 * r * np.cos(angle), 5.3 + 2.8 * r * np.sin(angle)
            light = 0.45 - 0.09 * (y - 2.5) + 0.05 * x + float(rng.uniform(-0.16, 0.16))
            shade = _mix(leaf, BLACK, float(np.clip(light, 0, 0.6)))
            size = float(rng.uniform(0.2, 0.62))
            c.ellipse(float(x), float(y), size, size * 0.8, shade)
    c.grain(0.09, seed)
    return c.sprite("tree", 0.45)


def house(seed: int) -> Sprite:
    """A house with a pitched roof and windows."""
    rng = np.random.default_rng(200 + seed)
    wall: Colour = ((214, 204, 188), (188, 120, 92), (228, 222, 208), (172, 168, 160))[seed % 4]
    roof: Colour = ((124, 62, 48), (82, 80, 84), (104, 72, 58))[seed % 3]
    c = Canvas(13.0, 8.6, 24)
    c.box(-5.4, 0, 5.4, 5.0, wall)
    c.polygon([(-6.0, 4.8), (6.0, 4.8), (4.4, 8.3), (-4.4, 8.3)], roof)
    c.box(3.0, 7.2, 3.8, 8.5, (120, 84, 74))
    for y in (0.9, 3.0):
        for x in (-4.0, -1.6, 1.6, 4.0):
            c.box(x - 0.65, y, x + 0.65, y + 1.35, (232, 232, 228))
            lit = rng.uniform() < 0.15
            c.box(x - 0.53, y + 0.1, x + 0.53, y + 1.25, (196, 180, 130) if lit else (66, 78, 90))
            c.line([(x, y + 0.1), (x, y + 1.25)], 0.07, (226, 226, 222))
    c.box(-0.5, 0, 0.5, 2.1, (96, 64, 46))
    c.grain(0.03, seed)
    return c.sprite("house", 0.2)


def post(kind: str) -> Sprite:
    """A delineator, a street lamp or a speed sign."""
    if kind == "delineator":
        c = Canvas(0.4, 1.0, 200)
        c.box(-0.06, 0, 0.06, 0.95, WHITE)
        c.box(-0.06, 0.66, 0.06, 0.82, BLACK)
        return c.sprite(kind, 0.3)
    if kind == "speed":
        c = Canvas(1.0, 2.7, 160)
        c.box(-0.03, 0, 0.03, 1.9, GREY)
        for radius, colour in ((0.36, RED), (0.29, WHITE)):
            c.ellipse(0, 2.25, radius, radius, colour)
        c.text("60", 0, 2.25, 0.22)
        return c.sprite(kind, 0.25)
    c = Canvas(3.6, 8.2, 40)
    c.line([(0, 0), (0, 7.6), (-0.3, 7.95), (-1.5, 8.05)], 0.13, (120, 124, 128))
    c.box(-1.7, 7.96, -1.1, 8.12, (150, 152, 154))
    return c.sprite(kind, 0.0)


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    """Blend two colours; ``share`` in [0, 1] is the second's."""
    r, g, b = (round(a * (1 - share) + z * share) for a, z in zip(one, other, strict=True))
    return r, g, b


_CAR_COLOURS: tuple[Colour, ...] = (
    (184, 188, 192), (36, 40, 48), (142, 28, 30), (38, 62, 108), (222, 222, 218), (96, 98, 92),
)  # fmt: skip


@cache
def sprites() -> dict[str, tuple[Sprite, ...]]:
    """Return all sprites by kind; drawn on the first call, a quarter of a second."""
    makers: dict[str, list[Callable[[], Sprite]]] = {
        "cone": [cone],
        "drum": [drum],
        "barrier": [barrier],
        "post": [panel],
        "work_sign": [
            lambda: work_sign(("ROAD", "WORK", "AHEAD")),
            lambda: work_sign(("ROAD", "WORK")),
            triangle_sign,
        ],
        "machine": [excavator],
    }
    drawn = {kind: tuple(make() for make in some) for kind, some in makers.items()}
    drawn["worker"] = tuple(worker(seed) for seed in range(4))
    drawn["car"] = (*(car(c, oncoming=False) for c in _CAR_COLOURS), lorry((206, 208, 206)))
    drawn["oncoming"] = tuple(car(c, oncoming=True) for c in _CAR_COLOURS)
    drawn["tree"] = tuple(tree(seed) for seed in range(6))
    drawn["house"] = tuple(house(seed) for seed in range(4))
    drawn["roadside"] = (post("delineator"), post("lamp"), post("speed"))
    return drawn
