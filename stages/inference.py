"""The inference port: what an engine promises, and how a bad picture harms no neighbour."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple, TypeVar, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import DeviceMemoryError, EngineDownError, EngineError, ImageError
from roadstream.schemas.records.bounds import MOST_COORDINATE, MOST_TAG, MOST_TAGS, TAG_NAME
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import NO_EVIDENCE, NO_TAGS, Box, Evidence
from roadstream.stages.decoding.decode import resize

T = TypeVar("T")
Pixels = NDArray[np.uint8]
_NO_PIXELS: Pixels = np.zeros((0, 0, 3), np.uint8)


class Picture:
    """A picture as engines see it, resized at most once per size however many members want it.

    Attributes:
        pixels: uint8 RGB [H, W, 3], upright; empty if no member of the tier looks at pixels.
        encoded: The file's bytes; ``None`` unless a member of the tier asks for them.
        head: Who it is, for engines that mind its deadline or session.
        evidence: What earlier tiers found in it; a member asks for its part by its settings:
            ``picture.evidence.only(settings.evidence)``.
        focal: Focal length as a multiple of its width, as its file says it; only read for rules.
    """

    __slots__ = ("_sizes", "encoded", "evidence", "focal", "head", "pixels")

    def __init__(
        self,
        pixels: Pixels = _NO_PIXELS,
        encoded: bytes | memoryview | None = None,
        head: Head | None = None,
        evidence: Evidence = NO_EVIDENCE,
    ) -> None:
        self.pixels, self.encoded, self.head = pixels, encoded, head
        self.evidence = evidence
        self.focal: float | None = None
        self._sizes: dict[tuple[int, int], Pixels] = {}

    @property
    def identity(self) -> bytes | str:
        """What tells it from others; empty without a head."""
        return "" if self.head is None else self.head.content_hash or self.head.image_id

    def at(self, width: int, height: int) -> Pixels:
        """Return it stretched to ``width`` × ``height``: uint8 RGB [height, width, 3]."""
        found = self._sizes.get((width, height))
        if found is None:
            found = self._sizes[width, height] = resize(self.pixels, width, height)
        return found

    def smallest(self) -> Pixels:
        """Return the smallest that has been made of it; empty if nobody looks at pixels."""
        made = [one for one in (*self._sizes.values(), self.pixels) if one.size]
        return min(made, key=lambda one: one.size, default=_NO_PIXELS)

    def keep_only(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Let go of the pixels but at these sizes, (width, height)."""
        for size in sizes:
            self.at(*size)
        self.pixels = _NO_PIXELS


class Pictures(Sequence[Picture]):
    """A batch, with what its members share: what one has made, the others take.

    A part of it (``batch[a:b]``) is a batch of its own, which shares nothing with it.

    Args:
        pictures: The pictures.
        sizes: Width and height that members are given them at, by name, where it is not the usual.
    """

    def __init__(
        self, pictures: Sequence[Picture], sizes: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        self._pictures, self._sizes = pictures, sizes or {}
        self._shared: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._pictures)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> "Pictures": ...
    def __getitem__(self, index: int | slice) -> "Picture | Pictures":
        """Return a picture, or a part as a batch of its own."""
        if isinstance(index, slice):
            return Pictures(self._pictures[index], self._sizes)
        return self._pictures[index]

    def size_for(self, member: Member) -> tuple[int, int]:
        """Return the width and height at which a member is given these pictures."""
        return self._sizes.get(member.name, (member.width, member.height))

    def share(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` returned when it was first asked for by that key."""
        try:
            found: T = self._shared[key]
        except KeyError:
            found = self._shared[key] = make()
        return found

    def stack(self, width: int, height: int) -> Pixels:
        """Return all of them stretched to one size: uint8 RGB [N, height, width, 3]."""
        return self.share(
            ("stack", width, height),
            lambda: np.stack([picture.at(width, height) for picture in self._pictures]),
        )


class Score(NamedTuple):
    """A member's finding for one picture.

    Attributes:
        raw: The score, finite; a log-odds of roadwork wherever the model allows it.
        boxes: What it found, if it tells places.
        text: What it read or reasoned, if it does.
        tags: What it says of the picture in a word each, such as ``weather``: ``rain``.
    """

    raw: float
    boxes: list[Box]
    text: str = ""
    tags: Mapping[str, str] = NO_TAGS


class DepthMap(msgspec.Struct, frozen=True, eq=False):
    """How far away is what a picture shows: for the rules of its tier, on no record.

    Attributes:
        metres: Floats [height, width] over the whole upright picture, at most ``MOST_DEPTHS`` per
            side; NaN, infinite or not above 0 where the depth is not known, but not everywhere.
        focal: Focal length that goes with it, as a multiple of the picture's width; ``None`` if
            the member does not tell it.
    """

    metres: NDArray[np.floating[Any]]
    focal: float | None = None


class Abstained(NamedTuple):
    """A member gives no vote on a picture, and nobody is at fault.

    Attributes:
        reason: Why: it saw nothing to judge by. Empty where the tags are all that it has to say.
        tags: As of a ``Score``. A member that gives some has done its part, and is not missing.
        depth: What it measured, if it measures depth and a rule goes by it.
    """

    reason: str = ""
    tags: Mapping[str, str] = NO_TAGS
    depth: DepthMap | None = None


EngineResult = Score | Abstained | ImageError


class Engine(ABC):
    """Runs one member. Calls block and are made in worker threads.

    It is made of the cascade, the member and the ``EngineOptions`` of its process. One that another
    distribution brings may have ``traits``, which say of it what the table of
    ``roadstream.schemas.engines`` says of ours: an ``EngineTraits``.

    Lifecycle: ``load`` once, ``warm_up`` once, ``prepare`` and ``infer`` often, ``close`` once.
    ``infer`` is called by one thread at a time for engines on one local device; while it runs,
    another thread may ``prepare`` the next batch.

    Attributes:
        needs_pixels: Whether it looks at ``Picture.pixels``.
        only_at_size: Whether it looks at pictures at the size that the cascade gives it, and no
            other, so that a large one need not be kept.
        needs_encoded: Whether it looks at ``Picture.encoded``.
        device: What it occupies while it infers: ``cpu``, ``cuda:0``, or a name of its own if it
            runs elsewhere. Known after ``load``.
        version: What else tells its votes apart, such as the version of a prompt: shown in every
            vote behind the member's ``model_version``. Known after ``load``.
    """

    needs_pixels = True
    only_at_size = False
    needs_encoded = False
    device = "cpu"
    version = ""

    @abstractmethod
    def load(self) -> None:
        """Read weights and take device memory.

        Raises:
            ConfigError: The weights are not there or are not what the member says.
        """

    def warm_up(self, largest: int = 1) -> None:
        """Get ready for batches of up to ``largest``, so that the first real one is not slow."""
        self.infer(Pictures([Picture(np.zeros((64, 64, 3), np.uint8))]))

    def prepare(self, batch: Pictures) -> None:
        """Do what needs no turn on the device: resize, stack, copy to it, by ``batch.share``.

        ``infer`` gets the same batch next, or, unprepared, other batches of some of its pictures.
        """
        del batch

    @abstractmethod
    def infer(self, batch: Pictures) -> Sequence[EngineResult]:
        """Return a list of one finding per picture, in order.

        Raises:
            DeviceMemoryError: The batch does not fit into memory; a smaller one may.
            EngineDownError: The engine is away, whatever the pictures.
            Exception: Anything; the caller isolates the picture that causes it.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back; closing twice is fine."""


Finding = Score | Abstained | ImageError | EngineError


class Findings(NamedTuple):
    """What came of a batch.

    Attributes:
        found: Per picture its score, why there is none, its fault, or that the engine is away or
            that not even it alone fits into memory.
        runs: Calls of the engine that it took.
        tries: Calls of the engine with a picture that has no score, by its position; 1 if absent.
        fits: Largest batch that fitted into memory, if one did not; else ``None``.
    """

    found: list[Finding]
    runs: int
    tries: dict[int, int]
    fits: int | None


def infer_isolated(
    engine: Engine, batch: Pictures, before: Callable[[], None] = lambda: None
) -> Findings:
    """Infer a batch so that a picture that breaks the engine harms none of its neighbours.

    A batch that raises, or that gets another number of scores than it has pictures, is halved until
    the culprit stands alone: at most 2·⌈log₂ n⌉ extra runs per culprit. A batch that does not fit
    into memory is halved likewise, which blames nobody. An engine that is away is not asked again.
    A score that is none fails its own picture. At most 2·n − 1 runs in all.

    Args:
        engine: The engine.
        batch: The pictures.
        before: Called before every run.
    """
    found: list[Finding] = []
    tries: dict[int, int] = {}
    runs = fits = 0
    crowded = False
    pending = [(0, len(batch), 1)] if batch else []
    while pending:
        begin, end, attempt = pending.pop()
        runs += 1
        before()
        part = batch if end - begin == len(batch) else batch[begin:end]
        try:
            found += _scores(engine.infer(part), len(part))
            fits = max(fits, end - begin)
        except EngineDownError as error:
            found += [_away(error)] * (len(batch) - begin)
            break
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


def is_late(finding: object) -> bool:
    """Return whether an engine gave a picture back as its deadline had passed."""
    return isinstance(finding, ImageError) and finding.fault == "expired"


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
_TAG_NAME = re.compile(TAG_NAME)
_ROUNDING = 1e-5
# Characters of a vote's text: reasoning of a few hundred words.
MAX_TEXT = 4000
MOST_DEPTHS = 1024


def _scores(scores: object, count: int) -> Sequence[Finding]:
    """Return what an engine gave for so many pictures, checked.

    Raises:
        EngineError: It is no list of so many.
    """
    if not isinstance(scores, list):
        raise EngineError(f"expected a list of {count} scores, got {type(scores).__name__}")
    if len(scores) != count:
        raise EngineError(f"expected {count} scores, got {len(scores)}")
    if set(map(type, scores)) == {Score}:
        raws, boxes, texts, tags = zip(*scores, strict=True)
        # A sum is finite only if all that it adds up are.
        plain = set(map(type, raws)) == {float} and isfinite(sum(raws))
        bare = texts.count("") == tags.count(NO_TAGS) == count
        if plain and bare and not any(boxes):
            return scores
    return [_checked(score) for score in scores]


def _checked(score: object) -> Finding:
    """Return a score in exactly the types that a record can carry, or a fault that says why not."""
    try:
        if isinstance(score, ImageError):
            return score
        if isinstance(score, Abstained):
            return Abstained(_line(str(score.reason)), _tags(score.tags), _depth(score.depth))
        if not isinstance(score, Score):
            raise EngineError(f"expected a Score, got {type(score).__name__}")
        raw = float(score.raw)
        if not isfinite(raw):
            raise EngineError(f"expected a finite score, got {raw}")
        if not isinstance(score.boxes, list):
            raise EngineError(f"expected a list of boxes, got {type(score.boxes).__name__}")
        boxes = [_box(box) for box in score.boxes]
        return Score(raw, boxes, _text(str(score.text)), _tags(score.tags))
    except Exception as error:
        return _fault(error)


def _box(box: object) -> Box:
    if not isinstance(box, Box):
        raise EngineError(f"expected a Box, got {type(box).__name__}")
    numbers = [float(n) for n in (box.x1, box.y1, box.x2, box.y2, box.confidence)]
    if not all(isfinite(number) for number in numbers):
        raise EngineError(f"expected a box of finite numbers, got {numbers}")
    x1, y1, x2, y2, confidence = numbers
    if max(map(abs, (x1, y1, x2, y2))) > MOST_COORDINATE:
        raise EngineError(f"expected a box in widths and heights of the picture, got {numbers}")
    # Sums of products of 32-bit floats leave [0, 1] by their last digits.
    if not -_ROUNDING <= confidence <= 1.0 + _ROUNDING:
        raise EngineError(f"expected a confidence in [0, 1], got {confidence}")
    confidence = min(max(confidence, 0.0), 1.0)
    return Box(x1, y1, x2, y2, confidence, _line(str(box.label)))


def _depth(depth: object) -> DepthMap | None:
    if depth is None:
        return None
    if not isinstance(depth, DepthMap):
        raise EngineError(f"expected a DepthMap, got {type(depth).__name__}")
    metres: object = depth.metres
    if not isinstance(metres, np.ndarray) or metres.dtype.kind != "f":
        got = metres.dtype.name if isinstance(metres, np.ndarray) else type(metres).__name__
        raise EngineError(f"expected a depth map of floats, got {got}")
    if metres.ndim != 2 or not 1 <= min(metres.shape) <= max(metres.shape) <= MOST_DEPTHS:
        expected = f"a depth map [height, width] of 1 to {MOST_DEPTHS} per side"
        raise EngineError(f"expected {expected}, got {list(metres.shape)}")
    if not (np.isfinite(metres) & (metres > 0)).any():
        got = ", ".join(f"{value:g}" for value in np.unique(metres)[:3])
        raise EngineError(f"expected a depth map with depths in it, got nothing but {got}")
    return DepthMap(metres, None if depth.focal is None else float(depth.focal))


def _tags(tags: object) -> Mapping[str, str]:
    if not isinstance(tags, Mapping):
        raise EngineError(f"expected tags by name, got {type(tags).__name__}")
    if len(tags) > MOST_TAGS:
        raise EngineError(f"expected at most {MOST_TAGS} tags, got {len(tags)}")
    return {_tag_name(name): _tag_value(name, value) for name, value in tags.items()}


def _tag_name(name: object) -> str:
    if isinstance(name, str) and _TAG_NAME.fullmatch(name):
        return str(name)
    if not isinstance(name, str):
        got = type(name).__name__
    else:
        got = repr(name) if len(name) <= MOST_TAG else f"{len(name)} characters"
    raise EngineError(f"expected a tag's name of 1 to 64 letters, digits, - and _, got {got}")


def _tag_value(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise EngineError(f"expected a text as tag {name}, got {type(value).__name__}")
    if len(value) > MOST_TAG:
        raise EngineError(f"expected at most {MOST_TAG} characters as tag {name}, got {len(value)}")
    return _line(value)


def _fault(error: Exception) -> ImageError:
    name = "" if isinstance(error, EngineError) else f"{type(error).__name__}: "
    return ImageError("model_failed", _line(f"{name}{error}"))


def _away(error: EngineDownError) -> EngineDownError:
    return EngineDownError(f"model_failed: {_line(str(error))}")


def _does_not_fit(error: Exception) -> DeviceMemoryError:
    said = _line(str(error)) or type(error).__name__
    return DeviceMemoryError(f"model_failed: not even one picture fits into memory: {said}")


def _text(text: str) -> str:
    """Return what a model wrote, bounded, and as UTF-8 can carry it."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def _line(text: str) -> str:
    """Return what a model said as one short line that UTF-8 can carry."""
    return " ".join(text[:4000].split())[:500].encode("utf-8", "replace").decode()
