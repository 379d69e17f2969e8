"""Draw road-work objects as cut-outs, to be pasted into pictures that a detector learns from.

All that is drawn here is this code's own: no picture, font or mesh of anybody else is used.
"""

from collections.abc import Callable

from numpy.random import Generator

from training.drawn import devices, lookalikes, machines, signs, workers
from training.drawn.canvas import Canvas, Pixels

Drawing = Callable[[Generator], Canvas]

DRAWINGS: dict[str, tuple[Drawing, ...]] = {
    "cone": (devices.cone,),
    "drum": (devices.drum,),
    "barrier": (devices.boards, devices.blocks, devices.mesh, devices.fence),
    "post": (devices.panel, devices.delineator),
    "work_sign": (signs.diamond, signs.triangle, signs.arrow_board, signs.plate, signs.frame),
    "worker": (workers.worker,),
    "machine": (
        machines.excavator, machines.excavator, machines.loader, machines.loader_ahead,
        machines.roller, machines.lorry_behind, machines.lorry_beside,
    ),
}  # fmt: skip
KINDS = tuple(DRAWINGS)


def draw(kind: str, rng: Generator, *, night: bool = False) -> Pixels:
    """Draw a random object of one of `KINDS`.

    Returns uint8 RGBA [height, width, 4], 160 to 240 pixels on its longer side and cut tight.
    With `night` only lamps and what sends headlights back can be seen. A generator in the same
    state draws the same object. Raises ValueError for an unknown kind.
    """
    if kind not in DRAWINGS:
        raise ValueError(f"expected a kind out of {', '.join(KINDS)}, got {kind!r}")
    return _choose(DRAWINGS[kind], rng).finish(night)


def draw_lookalike(rng: Generator, *, night: bool = False) -> Pixels:
    """Draw something that is not roadwork but shares colours or shapes with it, as `draw` does."""
    return _choose(lookalikes.DRAWINGS, rng).finish(night)


def _choose(drawings: tuple[Drawing, ...], rng: Generator) -> Canvas:
    return drawings[int(rng.integers(len(drawings)))](rng)
