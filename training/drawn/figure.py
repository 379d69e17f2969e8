"""Draw people: workers in hi-vis clothes and pedestrians in ordinary ones."""

from typing import NamedTuple

import numpy as np

from training.drawn.canvas import Canvas, Colour, paint

Joint = tuple[float, float]


class Outfit(NamedTuple):
    """What a figure wears; `bands` are reflective strips, `helmet` stands in for hair if None."""

    top: Colour
    sleeves: Colour
    trousers: Colour
    helmet: Colour | None = None
    bands: Colour | None = None
    leg_bands: bool = False


def _limb(start: Joint, angles: tuple[float, float], lengths: tuple[float, float]) -> list[Joint]:
    """Chain two bones from a joint; angles in radians from straight down."""
    joints = [start]
    for angle, length in zip(angles, lengths, strict=True):
        x, y = joints[-1]
        joints.append((x + length * np.sin(angle), y - length * np.cos(angle)))
    return joints


def _head(canvas: Canvas, neck: Joint, lean: float, helmet: Colour | None) -> None:
    skin, hair = paint(canvas.rng, "skin"), paint(canvas.rng, "black", "brown")
    x, y = neck[0] + 0.13 * np.sin(lean), neck[1] + 0.13 * np.cos(lean)
    face = canvas.rng.choice([-1, 0, 0, 1])
    canvas.line([neck, (x, y)], (0.11, 0.12), skin, shade=0.8)
    canvas.disc((x, y), (0.085, 0.115), skin)
    if helmet is None:
        canvas.disc((x - 0.02 * face, y + 0.05), (0.09, 0.08), hair)
        return
    turns = np.linspace(0, np.pi, 9)
    dome = [(x + 0.12 * np.cos(t), y + 0.03 + 0.12 * np.sin(t)) for t in turns]
    canvas.poly(dome, helmet, 0.15)
    canvas.line([(x - 0.11 + 0.03 * face, y + 0.03), (x + 0.11 + 0.05 * face, y + 0.03)],
                (0.03, 0.03), helmet, shade=0.8)  # fmt: skip


def _torso(canvas: Canvas, hip: Joint, lean: float, wide: float, outfit: Outfit) -> Joint:
    """Draw the trunk with its bands and return the middle of the shoulders."""
    up, right = np.array([np.sin(lean), np.cos(lean)]), np.array([np.cos(lean), -np.sin(lean)])
    base = np.array(hip)

    def at(across: float, along: float) -> Joint:
        point = base + across * wide * right + along * up
        return (float(point[0]), float(point[1]))

    outline = [at(-0.85, -0.08), at(0.85, -0.08), at(0.8, 0.2), at(1, 0.45), at(0.5, 0.55),
               at(-0.5, 0.55), at(-1, 0.45), at(-0.8, 0.2)]  # fmt: skip
    canvas.poly(outline, outfit.top, 0.15)
    canvas.poly([at(0.3, -0.08), at(0.85, -0.08), at(1, 0.45), at(0.5, 0.5)], outfit.top, 0.15, 0.8)
    if outfit.bands is not None:
        for along in (0.02, 0.16):
            canvas.line([at(-0.83, along), at(0.83, along)], (0.05, 0.05), outfit.bands, 1.0)
        for across in (-0.45, 0.45):
            canvas.line([at(across, 0.16), at(across, 0.53)], (0.05, 0.05), outfit.bands, 1.0)
    return at(0, 0.5)


def draw_figure(canvas: Canvas, outfit: Outfit, bend: float, x: float = 0.0) -> None:
    """Draw a person about 1.75 m tall at `x`, bent forward by `bend` radians."""
    rng = canvas.rng
    facing, wide = rng.choice([-1.0, 1.0]), rng.uniform(0.15, 0.26)
    stride = rng.normal(0, 0.25)
    lean = bend * facing
    shoes = paint(rng, "black", "brown")
    hip = (x - 0.15 * np.sin(lean), 0.9)
    for side in (-1, 1):
        swing = side * stride
        knee = swing + facing * abs(rng.normal(0, 0.15)) * (1 if bend < 0.4 else -1)
        leg = _limb((hip[0] + side * 0.09, hip[1]), (knee, swing * 0.6), (0.43, 0.45))
        canvas.line(leg, (0.2, 0.13), outfit.trousers, shade=0.95 - 0.12 * side)
        foot = leg[-1]
        canvas.line([foot, (foot[0] + 0.12 * facing * rng.random(), foot[1] - 0.03)],
                    (0.11, 0.09), shoes)  # fmt: skip
        if outfit.leg_bands and outfit.bands is not None:
            (x0, y0), (x1, y1) = leg[1], leg[2]
            for t in (0.2, 0.45):
                px, py = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
                canvas.line([(px - 0.07, py), (px + 0.07, py)], (0.05, 0.05), outfit.bands, 1.0)
    behind, before = rng.permutation([-1, 1])
    arms = rng.normal(0.15, 0.35, 2) + (0.9 * bend if bend > 0.4 else 0)
    shoulder = (hip[0] + 0.48 * np.sin(lean), hip[1] + 0.48 * np.cos(lean))
    for side, swing in zip((behind, before), arms, strict=True):
        if side == before:
            shoulder = _torso(canvas, hip, lean, wide, outfit)
        start = (shoulder[0] + side * wide * 0.95 * np.cos(lean), shoulder[1] - 0.06)
        upper = swing * (facing if abs(bend) > 0.4 else side)
        lower = upper + facing * abs(rng.normal(0.3, 0.5))
        arm = _limb(start, (upper, lower), (0.29, 0.27))
        canvas.line(arm, (0.13, 0.09), outfit.sleeves, 0.1, 0.85)
        canvas.disc(arm[-1], (0.05, 0.05), paint(rng, "skin", "skin", "yellow", "black"))
    neck = (shoulder[0] + 0.05 * np.sin(lean), shoulder[1] + 0.05 * np.cos(lean))
    _head(canvas, neck, lean * 0.6, outfit.helmet)
