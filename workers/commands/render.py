"""``roadstream render``: a synthetic drive to try things with."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from schemas.errors import UsageError
from workers.commands.common import console


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
    from streams.sources.synthetic import write_drive

    if frames < 1:
        raise UsageError(f"--frames: expected 1 or more, got {frames}")
    write_drive(folder, frames=frames, seed=seed)
    console().print(f"{frames} pictures and labels.csv: {folder}", highlight=False, soft_wrap=True)
