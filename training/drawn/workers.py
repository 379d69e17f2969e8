"""Draw people who work on the road."""

from numpy.random import Generator

from training.drawn.canvas import Canvas, paint
from training.drawn.figure import HIP, Outfit, Pose, draw_figure


def worker(rng: Generator) -> Canvas:
    """Draw a worker in a hi-vis vest, jacket or suit who stands, bends or crouches."""
    canvas = Canvas(rng, 2.4, 2.2)
    canvas.stand(squeeze=rng.uniform(0.8, 1.1))
    vest = paint(rng, *["orange"] * 4, *["lime"] * 4, "yellow", "vermilion")
    suit = rng.random() < 0.25
    sleeves = vest if suit or rng.random() < 0.4 else paint(rng, "cloth", "navy", "grey", "white")
    outfit = Outfit(
        top=vest,
        sleeves=sleeves,
        forearms=sleeves if suit or rng.random() < 0.6 else paint(rng, "skin"),
        trousers=vest if suit else paint(rng, "navy", "black", "cloth", "brown"),
        helmet=paint(rng, "white", "white", "yellow", "orange", "blue", "red", "lime")
        if rng.random() < 0.85
        else None,
        bands=paint(rng, "silver", "silver", "white", "yellow") if rng.random() < 0.9 else None,
        leg_bands=suit or rng.random() < 0.2,
    )
    draw_figure(canvas, outfit, _pose(rng))
    return canvas


def _pose(rng: Generator) -> Pose:
    tool = [None, None, "shovel", "paddle"][int(rng.integers(4))]
    kind = rng.random()
    if kind < 0.15:
        return Pose(rng.uniform(0.2, 0.7), rng.uniform(0.4, 0.6))
    if kind < 0.35:
        return Pose(rng.uniform(0.4, 1.1), rng.uniform(0.75, HIP), tool and "shovel")
    return Pose(rng.uniform(0, 0.15), HIP, tool)
