"""The inference port: what an engine promises, and how a bad picture harms no neighbour."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DeviceMemoryError, EngineError, ImageError
from schemas.records import Box
from stages.decode import resize

Pixels = NDArray[np.uint8]


class Picture:
    """A decoded picture, resized at most once per size however many members want it.

    Attributes:
        pixels: uint8 RGB [H, W, 3], upright.
    """

    __slots__ = ("_sizes", "pixels")

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self._sizes: dict[tuple[int, int], Pixels] = {}

    def at(self, width: int, height: int) -> Pixels:
        """Return it stretched to ``width`` × ``height``: uint8 RGB [height, width, 3]."""
        found = self._sizes.get((width, height))
        if found is None:
            found = self._sizes[width, height] = resize(self.pixels, width, height)
        return found


class Score(NamedTuple):
    """A member's finding for one picture: a finite raw score, and boxes if it has them."""

    raw: float
    boxes: list[Box]


class Engine(ABC):
    """Runs one member. One call at a time; calls block and are made in a worker thread.

    Lifecycle: ``load`` once, ``warm_up`` once, ``infer`` often, ``close`` once.
    """

    needs_pixels = True

    @abstractmethod
    def load(self) -> None:
        """Read weights and take device memory.

        Raises:
            ConfigError: The weights are not there or are not what the member says.
        """

    def warm_up(self) -> None:
        """Run once on a blank picture, so that the first real batch is not slow."""
        self.infer([Picture(np.zeros((64, 64, 3), np.uint8))])

    @abstractmethod
    def infer(self, batch: Sequence[Picture]) -> list[Score]:
        """Return one score per picture, in order.

        Raises:
            DeviceMemoryError: The batch does not fit into memory; a smaller one may.
            Exception: Anything; the caller isolates the picture that causes it.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back; closing twice is fine."""


Finding = Score | ImageError | DeviceMemoryError


class Findings(NamedTuple):
    """What came of a batch.

    Attributes:
        found: Per picture its score, its fault, or that not even it alone fits into memory.
        runs: Calls of the engine that it took.
        tries: Calls of the engine with a picture that has no score, by its position; 1 if absent.
        fits: Largest batch that fitted into memory, if one did not; else ``None``.
    """

    found: list[Finding]
    runs: int
    tries: dict[int, int]
    fits: int | None


def infer_isolated(engine: Engine, batch: Sequence[Picture]) -> Findings:
    """Infer a batch so that a picture that breaks the engine harms none of its neighbours.

    A batch that raises, or that gets another number of scores than it has pictures, is halved until
    the culprit stands alone: at most 2·⌈log₂ n⌉ extra runs per culprit. A batch that does not fit
    into memory is halved likewise, which blames nobody. A score that is none fails its own picture.
    At most 2·n − 1 runs in all.
    """
    found: list[Finding] = []
    tries: dict[int, int] = {}
    runs = fits = 0
    crowded = False
    pending = [(0, len(batch), 1)] if batch else []
    while pending:
        begin, end, attempt = pending.pop()
        runs += 1
        part = batch if end - begin == len(batch) else batch[begin:end]
        try:
            found += _scored(engine, part)
            fits = max(fits, end - begin)
        except Exception as error:
            out_of_memory = is_out_of_memory(error)
            if end - begin > 1:
                crowded = crowded or out_of_memory
                middle = (begin + end) // 2
                pending += [(middle, end, attempt + 1), (begin, middle, attempt + 1)]
                continue
            tries[begin] = attempt
            found.append(_does_not_fit(error) if out_of_memory else _fault(error))
    return Findings(found, runs, tries, max(1, fits) if crowded else None)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell an error of too little memory, of host or device, from a fault of the data.

    PyTorch's is told by its name and OpenCV's by its code, as neither library is imported here.
    """
    if isinstance(error, DeviceMemoryError | MemoryError):
        return True
    kind = type(error)
    if kind.__module__.partition(".")[0] == "cv2":
        return getattr(error, "code", None) == _CV2_NO_MEMORY
    return any(base.__name__ == "OutOfMemoryError" for base in kind.__mro__)


_CV2_NO_MEMORY = -4


def _scored(engine: Engine, batch: Sequence[Picture]) -> Sequence[Finding]:
    """Run the engine once.

    Raises:
        Exception: What the engine raises, or `EngineError` for another number of scores.
    """
    scores = engine.infer(batch)
    if not isinstance(scores, list):
        raise EngineError(f"expected a list of {len(batch)} scores, got {type(scores).__name__}")
    if len(scores) != len(batch):
        raise EngineError(f"expected {len(batch)} scores, got {len(scores)}")
    if set(map(type, scores)) == {Score}:
        raws, boxes = zip(*scores, strict=True)
        # A sum is finite only if all that it adds up are.
        if set(map(type, raws)) == {float} and isfinite(sum(raws)) and not any(boxes):
            return scores
    return [_checked(score) for score in scores]


def _checked(score: object) -> Finding:
    """Return a score in exactly the types that a record can carry, or a fault that says why not."""
    try:
        if not isinstance(score, Score):
            raise EngineError(f"expected a Score, got {type(score).__name__}")
        raw = float(score.raw)
        if not isfinite(raw):
            raise EngineError(f"expected a finite score, got {raw}")
        if not isinstance(score.boxes, list):
            raise EngineError(f"expected a list of boxes, got {type(score.boxes).__name__}")
        return Score(raw, [_box(box) for box in score.boxes])
    except Exception as error:
        return _fault(error)


def _box(box: object) -> Box:
    if not isinstance(box, Box):
        raise EngineError(f"expected a Box, got {type(box).__name__}")
    numbers = [float(n) for n in (box.x1, box.y1, box.x2, box.y2, box.confidence)]
    if not all(isfinite(number) for number in numbers):
        raise EngineError(f"expected a box of finite numbers, got {numbers}")
    x1, y1, x2, y2, confidence = numbers
    return Box(x1, y1, x2, y2, confidence, _line(str(box.label)))


def _fault(error: Exception) -> ImageError:
    name = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
    return ImageError("model_failed", _line(f"{name}{error}"))


def _does_not_fit(error: Exception) -> DeviceMemoryError:
    said = _line(str(error)) or type(error).__name__
    return DeviceMemoryError(f"model_failed: not even one picture fits into memory: {said}")


def _line(text: str) -> str:
    """Return what a model said as one short line that UTF-8 can carry."""
    return " ".join(text[:4000].split())[:500].encode("utf-8", "replace").decode()
