"""How videos are sampled; apart from what reads them, so that options need no decoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from roadstream.schemas.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are sampled.

    Attributes:
        encode: Turns RGB uint8 [H, W, 3] into a picture file's bytes; called once per picture.
        fps: Pictures per second of video; ``None`` takes the keyframes, and one picture in 10 s
            where they are farther apart.
        stream: The video stream to be taken, by its number in the file; ``None`` for the largest.
    """

    encode: "Callable[[npt.NDArray[np.uint8]], bytes]"
    fps: float | None = None
    stream: int | Literal["all"] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no rate.

        Raises:
            UsageError: ``fps`` is not above 0.
        """
        if self.fps is not None and not self.fps > 0:
            raise UsageError(f"pictures per second of video: expected more than 0, got {self.fps}")
