"""An engine that reads its score off a picture's grey level, and pictures for it."""

import functools
import io
import os
import signal
import threading

import numpy as np
from PIL import Image as Pillow

from roadstream.stages.inference import Engine, Pictures, Score

KILLER = 12
"""Grey level at which the engine kills its process, as a crash in a device library does."""

POISON = 13
"""Grey level at which the engine breaks."""

NONSENSE = 14
"""Grey level for which the engine gives no number."""

GIANT = 15
"""Grey level of a picture that does not fit into memory, not even alone."""


@functools.cache
def picture(level: int) -> bytes:
    """Return a PNG of one grey level."""
    target = io.BytesIO()
    Pillow.fromarray(np.full((8, 8), level, np.uint8)).save(target, "PNG")
    return target.getvalue()


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's, which is no MemoryError either."""


class GreyEngine(Engine):
    """Gives log-odds of ``(level − 128) / 16``, so that 128 is a coin toss.

    Attributes:
        batches: Grey levels of each batch that it was given.
        gate: Batches wait while it is closed.
        reached: Set once a batch waits at, or went through, the gate.
        broken: Raises on everything while true.
        fits: Largest batch that fits into memory.
        patience: Seconds that a batch waits at a closed gate.
    """

    def __init__(self, scale: float = 16.0) -> None:
        self._scale = scale
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.broken = False
        self.fits = 1 << 30
        self.patience = 30.0

    def load(self) -> None:
        """Nothing to load."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Return a score per picture; break if one of them is poison."""
        levels = [int(one.at(8, 8)[0, 0, 0]) for one in batch]
        self.batches.append(levels)
        self.reached.set()
        assert self.gate.wait(timeout=self.patience)
        if KILLER in levels:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.broken:
            raise RuntimeError("broken")
        if len(batch) > self.fits or GIANT in levels:
            raise OutOfMemoryError("no room on the device")
        if POISON in levels:
            raise RuntimeError("poison")
        return [
            Score(float("nan") if level == NONSENSE else (level - 128) / self._scale, [])
            for level in levels
        ]

    def close(self) -> None:
        """Nothing to give back."""
