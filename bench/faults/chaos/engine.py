"""An engine that misbehaves as the picture tells it to: the grey level of its corner is an order.

Levels below ``FIRST_SHADE`` are poison of one kind each; all others are ordinary pictures, whose
score is an exact function of the level, so that every answer can be told beforehand.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Final, cast

from roadstream.bench.faults.chaos.controls import Controls
from roadstream.schemas.cascade.model import Member
from roadstream.stages.inference import Engine, Picture, Pictures, Score

RAISES: Final = 1
NOT_A_NUMBER: Final = 2
WRONG_COUNT: Final = 3
BATCH_TOO_LARGE: Final = 4
KILLS_PROCESS: Final = 5
SLEEPS: Final = 6
WRONG_SHAPE: Final = 7
INFINITE: Final = 8
OUT_OF_MEMORY: Final = 9
POISON: Final = {
    "raises": RAISES,
    "nan": NOT_A_NUMBER,
    "wrong-count": WRONG_COUNT,
    "batch-too-large": BATCH_TOO_LARGE,
    "kills-process": KILLS_PROCESS,
    "sleeps": SLEEPS,
    "wrong-shape": WRONG_SHAPE,
    "infinite": INFINITE,
    "out-of-memory": OUT_OF_MEMORY,
}
SLOPES: Final = {"left": 0.0625, "right": 0.05, "last": 0.125}
FIRST_SHADE, LAST_SHADE = 32, 224
# A picture of this kind needs a batch at most so large.
SMALL_BATCH = 2
SLEEP_SECONDS = 1.5


class ChaosEngine(Engine):
    """Scores a shade by ``slope · (level − 128)``, and obeys poison.

    Args:
        member: Its name tells the slope, so that the members of a cascade differ.
        controls: What the campaign asks of this process.
        sleep: Takes the seconds that a picture wants it to sleep.
    """

    def __init__(
        self, member: Member, controls: Controls, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._slope = SLOPES.get(member.name, 1 / 16)
        self._controls, self._sleep = controls, sleep

    def load(self) -> None:
        """Nothing to load."""

    def warm_up(self, largest: int = 1) -> None:
        """Nothing to warm: a blank picture would be an order."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return the scores, unless a picture or the campaign wants otherwise."""
        levels = [_level(picture) for picture in batch]
        self._controls.point("in-model")
        if pause := self._controls.number("slow-model"):
            time.sleep(pause * len(levels))
        most = self._controls.number("memory")
        if most and len(levels) > most:
            raise MemoryError(f"no room for {len(levels)} pictures")
        self._obey(levels)
        scores = [self._score(level) for level in levels]
        return scores[:-1] if WRONG_COUNT in levels else scores

    def _obey(self, levels: list[int]) -> None:
        if KILLS_PROCESS in levels:
            os.kill(os.getpid(), signal.SIGKILL)
        if SLEEPS in levels:
            self._sleep(SLEEP_SECONDS)
        if RAISES in levels:
            raise RuntimeError("this model cannot stand this picture")
        if OUT_OF_MEMORY in levels or (BATCH_TOO_LARGE in levels and len(levels) > SMALL_BATCH):
            raise MemoryError(f"no room for {len(levels)} pictures")

    def _score(self, level: int) -> Score:
        if level == NOT_A_NUMBER:
            return Score(float("nan"), [])
        if level == INFINITE:
            return Score(float("inf"), [])
        if level == WRONG_SHAPE:
            return Score(cast("float", [1.0, 2.0]), [])
        return Score(self._slope * (level - 128), [])

    def close(self) -> None:
        """Nothing to give back."""


def _level(picture: Picture) -> int:
    """Return the grey of the corner; only a picture of one grey may be poison."""
    pixels = picture.at(8, 8)
    level = int(pixels[0, 0, 0])
    poisonous = level < FIRST_SHADE and bool((pixels == level).all())
    return level if poisonous else max(level, FIRST_SHADE)
