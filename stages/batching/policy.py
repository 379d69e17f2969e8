"""The port of batching policies: when the next batch is due, and how many images it holds.

A worker asks its policy whenever images came or a batch ended (``begin_at``); then it waits for a
slot on its devices, and asks what the batch holds only when there is one (``take``). A policy gives
numbers; the worker takes the images, so that none is lost or judged twice whatever a policy does.
See docs/extend/policy.md.
"""

import math
import pkgutil
from abc import ABC, abstractmethod
from bisect import insort
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from roadstream.schemas.errors import ConfigError
from roadstream.schemas.plugins import unlike
from roadstream.stages.batching.latency_model import LatencyModel

# A batch does 90 % of what one without end does from so many times β/α on.
NEARLY_ALL = 9.0


def rounded_up(number: float, most: int) -> int:
    """Return the next whole number, or ``most`` if that is less, or the number is none."""
    return math.ceil(number) if number < most else most


class Queued(msgspec.Struct, order=True, gc=False):
    """An image that waits.

    Attributes:
        deadline_at: Its deadline, wall clock; infinity for an archive image.
        serial: Counts the images of this worker: what came first has the lower one.
        came_at: When it was queued here, wall clock.
        item: The image itself, which is the worker's.
    """

    deadline_at: float
    serial: int
    came_at: float
    item: Any


class ShapeQueue:
    """What waits of one shape of pictures; a policy reads it, and leaves it as it is.

    Attributes:
        live: Images with a deadline, the most urgent first.
        archive: Images without one, the oldest first.
        latency: What batches of them are expected to take.
        most: The largest batch: the tier's ``max_batch``, or less while memory is short.
    """

    def __init__(self, latency: LatencyModel, most: int) -> None:
        self.live: list[Queued] = []
        self.archive: deque[Queued] = deque()
        self.latency, self.most = latency, most

    def __len__(self) -> int:
        return len(self.live) + len(self.archive)

    def insert(self, queued: Queued) -> None:
        """Put a live image in its place (the batcher's)."""
        if self.live and queued < self.live[-1]:
            insort(self.live, queued)
        else:
            self.live.append(queued)

    @property
    def first(self) -> Queued:
        """The image that goes first: the most urgent one, else the oldest. One must wait."""
        return self.live[0] if self.live else self.archive[0]

    @property
    def oldest_at(self) -> float:
        """When the image came that has waited longest; infinity if none waits."""
        live = min([one.came_at for one in self.live], default=math.inf)
        return min(live, self.archive[0].came_at) if self.archive else live


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When a policy is asked, and what it cannot see in the queue.

    Attributes:
        now: Wall clock.
        free_in: Seconds until the devices are expected to be free; a batch is decoded meanwhile.
        running: Batches in flight in this process.
        idle: Seconds for which images have waited while none was.
        more: Whether the last poll left images on the log.
    """

    now: float
    free_in: float = 0.0
    running: int = 0
    idle: float = 0.0
    more: bool = False


class Take(msgspec.Struct, frozen=True, gc=False):
    """What a batch holds. What is more than waits, or than ``ShapeQueue.most``, is cut.

    Attributes:
        size: Images: live ones first, the most urgent ahead; archive images fill the rest.
        live: Live images of these at most; ``None`` for as many as there are.
        skip: Of the live images so many are passed over, from the most urgent on. They stay.
    """

    size: int
    live: int | None = None
    skip: int = 0


class BatchPolicy(ABC):
    """Decides when a batch is due, and how many images it holds.

    A worker has one, made without arguments, and asks it from its event loop: it must not block.
    It is asked about the shape of pictures whose turn it is, and only while some of it wait. Live
    images whose deadline has passed have left the queue by then. Whatever it raises or returns
    amiss ends the process; the images stay on the log.
    """

    def live_came(self, deadlines: Sequence[float], now: float) -> None:  # noqa: B027 (optional)
        """Take note of live images that came, of their deadlines: by default, do nothing."""

    def begin_at(self, queue: ShapeQueue, moment: Moment) -> float:
        """Return from when on a batch is due, wall clock; up to now means at once, the default.

        It is asked again when that time has come, when images came, and when a batch ended. Never
        is no answer: nobody may come after the last image.
        """
        return moment.now

    @abstractmethod
    def take(self, queue: ShapeQueue, moment: Moment) -> Take:
        """Return what the batch holds that begins now: at least one image."""

    def enough(self, queue: ShapeQueue, now: float) -> int:
        """Return from how many images on a batch makes good use of a device.

        Tiers that share one are preferred with such a batch, the most downstream first. By default
        it is 90 % of what batches without end do, or as much as there may be.
        """
        latency = queue.latency
        if latency.alpha <= 0.0:
            return queue.most
        return rounded_up(NEARLY_ALL * latency.beta / latency.alpha, queue.most)

    def ended(self, size: int, seconds: float, now: float) -> None:  # noqa: B027 (optional)
        """Take note of what a batch took, from its beginning: by default, do nothing."""


def load_policy(path: str | None, where: str = "--batch-policy") -> BatchPolicy | None:
    """Return a policy by its import path.

    Args:
        path: ``module:Class``; ``None`` for none.
        where: What names it, for errors.

    Raises:
        ConfigError: It cannot be imported or made, or is no ``BatchPolicy``.
    """
    if path is None:
        return None
    if ":" not in path:
        raise ConfigError(where, "module:Class", repr(path))
    try:
        found = pkgutil.resolve_name(path)
    except (Exception, SystemExit) as error:  # whatever somebody else's module does on import
        raise ConfigError(where, f"{path} to be importable", told(error)) from error
    if (problem := unlike(found, BatchPolicy)) is not None:
        raise ConfigError(where, f"{path} to be a BatchPolicy", problem)
    try:
        policy: BatchPolicy = found()
    except (Exception, SystemExit) as error:
        raise ConfigError(where, f"{path} to be made without arguments", told(error)) from error
    return policy


def told(error: BaseException) -> str:
    """Return what was raised, in a line, and where if that is known."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return text
    return f"{text} ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"
