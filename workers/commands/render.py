"""``roadstream render``: a synthetic drive to try things with."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from roadstream.workers.observe.terminal import console
from roadstream.workers.service.option_checks import MOST_SHOWN, check_number


def render(
    folder: Path,
    *,
    frames: Annotated[int, Parameter(help="Pictures to render.")] = 60,
    seed: Annotated[int, Parameter(help="Another seed is another drive.")] = 1,
) -> None:
    """Render a short synthetic drive into FOLDER, with labels.csv beside the pictures.

    The pictures are drawn, not photographed: they show that everything works, and nothing about how
    good a cascade is on real roads.
    """
    from roadstream.workers.demo.render import write_drive

    check_number("--frames", frames, 1, MOST_SHOWN, "pictures")
    check_number("--seed", seed, 0, 2**63 - 1, "a number")
    write_drive(folder, frames=frames, seed=seed)
    console().print(f"{frames} pictures and labels.csv: {folder}", soft_wrap=True)
