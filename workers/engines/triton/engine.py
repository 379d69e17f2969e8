"""Runs a member on a Triton server: pictures or JPEG files in, one score per picture out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from anyio.from_thread import BlockingPortalProvider
from numpy.typing import NDArray

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.errors import ConfigError, EngineDownError, EngineError, ImageError
from roadstream.schemas.records.votes import Box
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.stages.inference import Engine, EngineResult, Picture, Pictures, Score
from roadstream.streams.clock import Clock, SystemClock
from roadstream.workers.engines.boxes import DETECTOR_OUTPUTS, Detector, from_heat
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.torch.scoring import log_odds
from roadstream.workers.engines.triton.pictures import jpegs

if TYPE_CHECKING:
    from roadstream.workers.engines.triton.requests import Requests

logger = structlog.get_logger()
_LOOP = "loop of the remote engines"


class TritonEngine(Engine):
    """Runs one member on a Triton server.

    The client lives on an event loop in a thread of its own, one per process. Several batches may
    be under way at once, each in the worker thread that called ``infer``.

    Args:
        cascade: The member's.
        member: Its ``model`` is the model's name on the server.
        options: ``shared`` keeps the loop.
        clock: Wall clock for deadlines.
    """

    def __init__(
        self,
        cascade: Cascade,
        member: Member,
        options: EngineOptions,
        clock: Clock | None = None,
    ) -> None:
        self._member, self._folder = member, Path(cascade.folder)
        assert isinstance(member.settings, TritonSettings)
        self._settings = settings = member.settings
        self._where = f"{cascade.name}: member {member.name}"
        self._clock = clock or SystemClock()
        self._loop: BlockingPortalProvider = options.shared.setdefault(
            _LOOP, BlockingPortalProvider()
        )
        self._requests: Requests | None = None
        self.device = f"triton:{settings.url}"
        self.needs_pixels = settings.input == "tensor"
        self.needs_encoded = settings.input == "jpeg"

    def load(self) -> None:
        """Connect, and check that the model is there and takes and gives what the member says.

        Raises:
            ConfigError: It is not there or does not fit.
            EngineDownError: The server is not there in time, and the member requires it.
        """
        from roadstream.workers.engines.triton.requests import Requests
        from roadstream.workers.engines.triton.server import Server, Target

        settings, member = self._settings, self._member
        target = Target(
            member.model or member.name, (member.width, member.height), self._where, self._folder
        )
        portal = self._loop.__enter__()
        try:
            server = portal.call(Server, settings, target)
        except BaseException:
            self._loop.__exit__(None, None, None)
            raise
        self._requests = Requests(portal, server, settings, self._clock, member.name)
        try:
            portal.call(server.wait, settings.wait)
        except EngineDownError as error:
            if settings.required:
                self.close()
                raise
            logger.warning("triton_starts_without", member=member.name, error=str(error))
        except BaseException:
            self.close()
            raise

    def warm_up(self, largest: int = 1) -> None:
        """Run blank pictures, one and ``largest``; nothing if the server may be away and is."""
        blank = Picture(np.zeros((self._member.height, self._member.width, 3), np.uint8))
        try:
            for size in sorted({1, largest}):
                # The first request of a size may make the server compile, or take memory.
                self._infer(Pictures([blank] * size), self._settings.load_timeout)
        except EngineDownError:
            if self._settings.required:
                raise

    def prepare(self, batch: Pictures) -> None:
        """Stack the pictures, or encode those that are no JPEG files."""
        self._data(batch)

    def infer(self, batch: Pictures) -> list[EngineResult]:
        """Return a score per picture; ``expired`` for one whose deadline came first.

        Raises:
            EngineDownError: The server or the model is away, or did not answer in time.
            DeviceMemoryError: The request does not fit into memory, or into a message.
            EngineError: The server refused a request with several pictures; with one, that picture
                has the fault.
        """
        return self._infer(batch, self._settings.timeout)

    def _infer(self, batch: Pictures, timeout: float) -> list[EngineResult]:
        requests = self._requests
        if requests is None:
            raise EngineError("expected load() before infer()")
        data = self._data(batch)
        rows = [row for row in range(len(batch)) if not isinstance(data[row], ImageError)]
        found: list[EngineResult] = [one if isinstance(one, ImageError) else _NONE for one in data]
        deadlines = [_deadline(batch[row]) for row in rows]
        try:
            answers = requests.ask(_chosen(data, rows), deadlines, timeout)
        except ConfigError as error:  # another model has taken its place since
            raise EngineDownError(str(error)) from error
        for row, answer in zip(rows, answers, strict=True):
            found[row] = answer if isinstance(answer, ImageError) else self._score(answer)
        return found

    def close(self) -> None:
        """Hang up; unload the model if that is wanted."""
        requests, self._requests = self._requests, None
        if requests is not None:
            try:
                requests.close()
            finally:
                self._loop.__exit__(None, None, None)

    def _data(self, batch: Pictures) -> NDArray[np.uint8] | list[bytes | ImageError]:
        """Return what goes to the server, one per picture, made once per batch."""
        if self._settings.input == "tensor":
            return batch.stack(self._member.width, self._member.height)
        quality = self._settings.jpeg_quality
        size = (self._member.width, self._member.height)
        return batch.share(("jpeg", quality, size), lambda: jpegs(batch, size, quality))

    def _score(self, answer: dict[str, NDArray[Any]]) -> Score:
        settings = self._settings
        raw = answer[settings.output].astype(np.float64)
        if settings.score == "probability":
            (score,) = log_odds(raw.reshape(1))
        else:
            score = float(raw.reshape(()))
        return Score(score, self._boxes(answer))

    def _boxes(self, answer: dict[str, NDArray[Any]]) -> list[Box]:
        settings = self._settings
        if settings.boxes and settings.kinds:
            found = Detector(settings.kinds, settings.box_threshold)
            return found.boxes(*[answer[name] for name in DETECTOR_OUTPUTS])
        heat = answer.get(settings.heat)
        return [] if heat is None else from_heat(heat.astype(np.float32))


_NONE = Score(float("nan"), [])


def _deadline(picture: Picture) -> float | None:
    return None if picture.head is None else picture.head.deadline_at


def _chosen(
    data: NDArray[np.uint8] | list[bytes | ImageError], rows: Sequence[int]
) -> NDArray[Any]:
    """Return the rows of the data as one array: uint8 [n, H, W, 3], or objects [n]."""
    if isinstance(data, np.ndarray):
        return data
    found = np.empty(len(rows), np.object_)
    found[:] = [data[row] for row in rows]
    return found
