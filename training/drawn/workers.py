"""Draw people who work on the road."""

from numpy.random import Generator

from training.drawn.canvas import Canvas, paint
from training.drawn.figure import Outfit, draw_figure


def worker(rng: Generator) -> Canvas:
    """Draw a worker in a hi-vis vest, jacket or suit, upright or bent."""
    canvas = Canvas(rng, 1.4, 1.9)
    canvas.stand(squeeze=rng.uniform(0.8, 1.1))
    vest = paint(rng, "orange", "orange", "lime", "lime", "yellow", "red")
    sleeves = vest if rng.random() < 0.5 else paint(rng, "cloth", "navy", "grey", "white")
    suit = rng.random() < 0.3
    outfit = Outfit(
        top=vest,
        sleeves=sleeves,
        trousers=vest if suit else paint(rng, "navy", "black", "cloth", "brown"),
        helmet=paint(rng, "white", "yellow", "orange", "blue", "white", "red")
        if rng.random() < 0.85
        else None,
        bands=paint(rng, "silver", "white") if rng.random() < 0.9 else None,
        leg_bands=suit or rng.random() < 0.2,
    )
    bend = rng.uniform(0.5, 1.2) if rng.random() < 0.3 else rng.uniform(0, 0.2)
    draw_figure(canvas, outfit, bend)
    return canvas
