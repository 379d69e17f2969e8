"""Draw people: workers in hi-vis clothes and pedestrians in ordinary ones."""

from typing import NamedTuple

import numpy as np

from training.drawn.canvas import Canvas, Colour, paint
from training.drawn.lettering import write

Joint = tuple[float, float]
THIGH, SHIN, UPPER_ARM, FOREARM = 0.43, 0.45, 0.29, 0.27  # metres
HIP = 0.93  # height of the hips of one who stands


class Outfit(NamedTuple):
    """What a figure wears; `bands` are reflective strips, without a helmet there is hair."""

    top: Colour
    sleeves: Colour
    forearms: Colour
    trousers: Colour
    helmet: Colour | None = None
    bands: Colour | None = None
    leg_bands: bool = False


class Pose(NamedTuple):
    """How a figure stands: the trunk's lean in radians, the hips' height in metres, a tool."""

    lean: float = 0.0
    hip: float = HIP
    tool: str | None = None  # "shovel" or "paddle"


class _Figure:
    """A figure that is being drawn: its measures and the way it faces."""

    def __init__(self, canvas: Canvas, outfit: Outfit, pose: Pose) -> None:
        rng = canvas.rng
        self.canvas, self.outfit, self.pose = canvas, outfit, pose
        self.facing = float(rng.choice([-1.0, 1.0]))
        self.bulk = rng.uniform(0.9, 1.25)
        self.half = self.bulk * rng.uniform(0.14, 0.22)  # half a back's width: less from the side
        self.lean = pose.lean * self.facing
        self.hip = (-0.25 * np.sin(self.lean), pose.hip)

    def trunk(self, across: float, along: float) -> Joint:
        """Return a point of the trunk: -1..1 from flank to flank, metres up from the hips."""
        sine, cosine = np.sin(self.lean), np.cos(self.lean)
        x = self.hip[0] + across * self.half * cosine + along * sine
        return (float(x), float(self.hip[1] - across * self.half * sine + along * cosine))

    def legs(self) -> None:
        canvas, outfit, rng = self.canvas, self.outfit, self.canvas.rng
        shoes, stride = paint(rng, "black", "brown"), abs(rng.normal(0, 0.15)) + 0.07
        if self.pose.hip < HIP:
            stride += 0.12
        for side in (-1, 1):
            hip = self.trunk(0.45 * side, 0)
            foot = (side * stride + rng.normal(0, 0.03), 0.07)
            knee = _bend(hip, foot, self.facing)
            shade = 0.95 - 0.15 * side * self.facing
            canvas.line([hip, knee, foot], (0.19 * self.bulk, 0.12), outfit.trousers, 0, shade)
            toe = (foot[0] + 0.12 * self.facing * rng.random(), foot[1] - 0.025)
            canvas.line([foot, toe], (0.11, 0.09), shoes)
            if outfit.leg_bands and outfit.bands is not None:
                for share in (0.25, 0.55):
                    x, y = np.add(knee, share * np.subtract(foot, knee))
                    canvas.stroke([(x - 0.07, y), (x + 0.07, y)], 0.045, outfit.bands, 1.0)

    def torso(self) -> None:
        canvas, top, bands = self.canvas, self.outfit.top, self.outfit.bands
        flanks = [(-0.85, -0.1), (0.85, -0.1), (0.82, 0.2), (1, 0.43), (0.45, 0.55)]
        outline = [*flanks, *[(-across, along) for across, along in flanks[:1:-1]]]
        canvas.poly([self.trunk(*spot) for spot in outline], top, 0.15)
        side = self.facing
        shadow = [(-0.25 * side, -0.1), (-0.85 * side, -0.1), (-side, 0.43), (-0.5 * side, 0.5)]
        canvas.poly([self.trunk(*spot) for spot in shadow], top, 0.15, 0.78)
        if bands is None:
            return
        rings = (0.0, 0.16) if canvas.rng.random() < 0.6 else (0.08,)
        lines = [[(-0.83, along), (0.83, along)] for along in rings]
        crossed = -1 if canvas.rng.random() < 0.25 else 1  # behind, straps may cross
        lines += [[(0.5 * crossed * across, rings[-1]), (0.5 * across, 0.53)] for across in (-1, 1)]
        for line in lines:
            canvas.stroke([self.trunk(*spot) for spot in line], 0.05, bands, 1.0)

    def arm(self, side: int, swing: float, elbow: float) -> Joint:
        """Draw an arm and return the hand; angles in radians from straight down."""
        outfit, upper = self.outfit, swing + self.lean
        start = self.trunk(0.9 * side, 0.45)
        bent = (start[0] + UPPER_ARM * np.sin(upper), start[1] - UPPER_ARM * np.cos(upper))
        lower = upper + elbow * self.facing
        hand = (bent[0] + FOREARM * np.sin(lower), bent[1] - FOREARM * np.cos(lower))
        shade, wide = 0.9 + 0.12 * side * self.facing, 0.13 * self.bulk
        self.canvas.line([start, bent], (wide, 0.9 * wide), outfit.sleeves, 0.1, shade)
        self.canvas.line([bent, hand], (0.85 * wide, 0.65 * wide), outfit.forearms, 0.1, shade)
        glove = paint(self.canvas.rng, "skin", "skin", "skin", "yellow", "black")
        self.canvas.disc(hand, (0.05, 0.05), glove)
        return hand

    def tool(self, hand: Joint) -> None:
        canvas, (x, y) = self.canvas, hand
        if self.pose.tool == "paddle":
            canvas.line([(x, y - 0.3), (x, y + 0.75)], (0.035, 0.035), paint(canvas.rng, "silver"))
            face = paint(canvas.rng, "red", "orange", "lime")
            canvas.disc((x, y + 0.85), (0.25, 0.25), face, 0.9)
            word = str(canvas.rng.choice(["STOP", "SLOW"]))
            write(canvas, (x - 0.2, y + 0.7, x + 0.2, y + 1.0), word, (250, 250, 250), 0.9)
        elif self.pose.tool == "shovel":
            end = (x + self.facing * canvas.rng.uniform(0.1, 0.5), 0.1)
            handle = np.add(hand, 0.4 * np.subtract(hand, end))
            canvas.line([(float(handle[0]), float(handle[1])), end], (0.035, 0.035),
                        paint(canvas.rng, "brown", "yellow"))  # fmt: skip
            canvas.line([end, (end[0] + 0.08 * self.facing, 0.03)], (0.18, 0.2),
                        paint(canvas.rng, "grey"))  # fmt: skip

    def head(self) -> None:
        canvas, rng, helmet = self.canvas, self.canvas.rng, self.outfit.helmet
        neck, skin = self.trunk(0, 0.52), paint(self.canvas.rng, "skin")
        tilt = 0.6 * self.lean
        x, y = neck[0] + 0.14 * np.sin(tilt), neck[1] + 0.14 * np.cos(tilt)
        face = self.facing * float(rng.integers(2))
        canvas.line([neck, (x, y)], (0.11, 0.12), skin, shade=0.75)
        back = rng.random() < 0.3
        hair = paint(rng, "black", "brown")
        canvas.disc((x, y), (0.085, 0.115), hair if back else skin)
        if helmet is None:
            canvas.disc((x - 0.02 * face, y + 0.05), (0.09, 0.08), hair)
            return
        turns = np.linspace(0, np.pi, 9)
        dome = [(x + 0.12 * np.cos(t), y + 0.03 + 0.12 * np.sin(t)) for t in turns]
        canvas.poly(dome, helmet, 0.15)
        brim = [(x - 0.11 + 0.03 * face, y + 0.03), (x + 0.11 + 0.05 * face, y + 0.03)]
        canvas.line(brim, (0.03, 0.03), helmet, 0.1, 0.75)


def _bend(hip: Joint, foot: Joint, forward: float) -> Joint:
    """Return where the knee of a leg from `hip` to `foot` is, bent towards `forward`."""
    along = np.subtract(foot, hip)
    reach = min(float(np.hypot(*along)), THIGH + SHIN)
    along = along / np.hypot(*along)
    share = (THIGH**2 - SHIN**2 + reach**2) / (2 * reach)
    out = forward * np.sqrt(max(THIGH**2 - share**2, 0.0))
    return (float(hip[0] + share * along[0] - out * along[1]),
            float(hip[1] + share * along[1] + out * along[0]))  # fmt: skip


def draw_figure(canvas: Canvas, outfit: Outfit, pose: Pose) -> None:
    """Draw a person about 1.75 m tall in the middle of a canvas."""
    rng, figure = canvas.rng, _Figure(canvas, outfit, pose)
    canvas.texture = 0.07
    busy = pose.tool is not None or pose.hip < HIP or rng.random() < 0.3
    near = int(figure.facing)
    angles = rng.normal(0.0, 0.2, 2)
    elbows = rng.uniform(0.7, 1.7, 2) if busy else rng.uniform(0.0, 0.5, 2)
    if pose.lean > 0.4:  # the arms of one who bends hang down or reach forward
        angles += rng.uniform(-0.2, 0.8) * figure.facing - figure.lean
    figure.legs()
    figure.arm(-near, float(angles[0]), float(elbows[0]))
    figure.torso()
    figure.head()
    figure.tool(figure.arm(near, float(angles[1]), float(elbows[1])))
