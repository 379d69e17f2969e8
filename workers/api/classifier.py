"""``roadstream.open``: a cascade in this process, warm, that judges the pictures it is given.

It is the stream itself, with the workers and the consensus of the commands, on a log in memory. It
runs in a thread with an event loop of its own, so that it can be used from any thread, and beside
any event loop.
"""

import os
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count, takewhile
from typing import Any, TypeAlias, TypeGuard, overload

import anyio
import msgspec
import numpy as np
from anyio import CapacityLimiter, to_thread
from numpy.typing import NDArray

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import RunError
from roadstream.schemas.records import headers
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import (
    ANSWERS,
    all_topics,
    images,
)
from roadstream.streams.log import Output, Producer, Reader
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.sources.identity import native, owned_id
from roadstream.streams.sources.scan import scan_picture
from roadstream.workers.api.loop_thread import EndedError, LoopThread
from roadstream.workers.service.deciding import build_consensus, persistent, trim_log
from roadstream.workers.service.loading import EnginePool
from roadstream.workers.service.option_checks import MOST_MEBIBYTES, MOST_WORKERS, check_number
from roadstream.workers.service.runtime import TierWorkers, WorkOptions

Picture: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[np.uint8]
"""A path, an encoded picture (JPEG, PNG, …), or upright RGB pixels: uint8 [height, width, 3]."""

# Of one call what is on its way at once, pictures and bytes: bounds what the log in memory holds.
WINDOW, WINDOW_BYTES = 128, 256 << 20
INPUT = images("archive")
POLL_RECORDS, POLL_TIMEOUT = 256, 60.0
# Beyond the workers' own time to finish their batches.
CLOSING = 30.0


class InMemoryStream:
    """A cascade's workers and consensus on a log in memory, in one event loop.

    Args:
        cascade: What is judged by.
        options: How the workers run.
    """

    def __init__(self, cascade: Cascade, options: WorkOptions) -> None:
        self._cascade, self._options = cascade, options
        self._log = MemoryLog()
        self._producer: Producer | None = None
        self._asked: dict[str, tuple[list[Answer], anyio.Event]] = {}
        self._serial, self._owner = count(), uuid.uuid4().hex

    async def run(self, ready: Callable[[], object], stopping: anyio.Event) -> None:
        """Load and warm the models, then work until ``stopping`` is set.

        Args:
            ready: Called when pictures may be sent.
            stopping: Set to end it.

        Raises:
            RoadstreamError: A model cannot be loaded; or a worker or the consensus failed.
        """
        cascade, options = self._cascade, self._options
        await self._log.create_topics(all_topics(cascade.tier_names), 1)
        # What members take is learnt as pictures come: somebody waits for this.
        pool = EnginePool(options.threads, learns=False)
        workers = TierWorkers(self._log, cascade, pool, options)
        if not await workers.load(stopping):
            return
        consensus = build_consensus(self._log, cascade)
        deciding = persistent(consensus, "consensus")
        async with (
            self._log.producer() as self._producer,
            self._log.reader(ANSWERS, "end") as answers,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._collect, answers)
            async with anyio.create_task_group() as working:
                working.start_soon(workers.run, stopping)
                working.start_soon(deciding.run, consensus.run, stopping)
                ready()
            tasks.cancel_scope.cancel()

    async def judge(self, image: Image) -> Answer:
        """Return the answer of an image. Its id may be that of others, which were judged before."""
        assert self._producer is not None
        image_id = owned_id(f"{self._owner}/{next(self._serial)}", image.head.image_id)
        head = msgspec.structs.replace(image.head, image_id=image_id, submitted_at=time.time())
        value = codec.encode(Image(head, image.payload))
        answers, answered = self._asked[image_id] = [], anyio.Event()
        try:
            await self._producer.publish([Output(INPUT, head.key, value, 0, headers.IMAGE)])
            del value, image  # the log has them, until they are answered
            await answered.wait()
        finally:
            del self._asked[image_id]
        return answers[0]

    async def _collect(self, reader: Reader) -> None:
        while True:
            polled = await reader.poll(max_records=POLL_RECORDS, timeout=POLL_TIMEOUT)
            for records in polled.values():
                for record in records:
                    answer = codec.decode_answer(record.value or b"")
                    if (asked := self._asked.get(answer.head.image_id)) is not None:
                        asked[0].append(answer)
                        asked[1].set()
            await self._trim(reader)

    async def _trim(self, reader: Reader) -> None:
        """Let go of what everybody is done with."""
        for partition, position in reader.positions.items():
            self._log.truncate(ANSWERS, partition, position)
        await trim_log(self._log, self._cascade.tier_names)


class Classifier:
    """A warm cascade: call it with a picture for its answer, or with many for theirs, in order.

    Threads may share it: what several ask at a time is judged in common batches. It holds its
    models until ``close``, or the end of a ``with`` block. After a fork only the parent may use it.

    Attributes:
        cascade: What it judges by.
    """

    def __init__(self, cascade: Cascade, options: WorkOptions) -> None:
        self.cascade, self._pid = cascade, os.getpid()
        stream = InMemoryStream(cascade, options)
        self._judge, self._thread = stream.judge, LoopThread(stream.run)
        patience = options.limits.drain_timeout + CLOSING
        self._close = weakref.finalize(self, self._thread.stop, patience)
        try:
            self._thread.start()
        except BaseException:
            self._close()
            raise

    @overload
    def __call__(self, pictures: Picture) -> Answer: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, pictures: Iterable[Picture]) -> list[Answer]: ...
    def __call__(self, pictures: Picture | Iterable[Picture]) -> Answer | list[Answer]:
        """Judge pictures; wait for the answers.

        Args:
            pictures: One, or an iterable of them. A path is that of a file; an array has pixels
                uint8 [height, width, 3] in RGB.

        Returns:
            The answer of one picture; of an iterable a list, in its order. What cannot be read has
            an answer with the status ``failed``, whose ``error`` says why.

        Raises:
            TypeError: It is no picture: an array of other pixels, say.
            RunError: The classifier is closed, or its workers have failed.
        """
        if not _are_many(pictures):
            with self._sending() as send:
                return send(pictures).result()
        return list(self._many(pictures))

    def _many(self, pictures: Iterable[Picture]) -> Iterator[Answer]:
        pending: deque[tuple[Future[Answer], int]] = deque()
        held = 0
        with self._sending() as send:
            try:
                for picture in pictures:
                    size = _size(picture)
                    while len(pending) >= WINDOW or (pending and held + size > WINDOW_BYTES):
                        future, answered = pending.popleft()
                        held -= answered
                        yield future.result()
                    pending.append((send(picture), size))
                    held += size
                while pending:
                    yield pending.popleft()[0].result()
            finally:
                for future, _ in pending:
                    future.cancel()

    @contextmanager
    def _sending(self) -> Iterator[Callable[[Any], "Future[Answer]"]]:
        """Yield what sends a picture, and say what has happened where the thread ends meanwhile."""
        if os.getpid() != self._pid:
            raise RunError("a classifier works in the process that opened it; open one after fork")
        try:
            yield lambda picture: self._thread.call(self._judge, as_image(picture))
        except (EndedError, CancelledError):
            failure = self._thread.failure
            said = "is closed" if failure is None else f"has failed: {failure}"
            raise RunError(f"the classifier {said}") from failure

    def close(self) -> None:
        """End its workers and let go of the models; what is being judged fails. Fine if closed."""
        self._close()

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncClassifier:
    """A ``Classifier`` for coroutines of any event loop, which it never blocks.

    Args:
        classifier: What it stands for; shared with nobody else.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier, self._waiting = classifier, CapacityLimiter(WINDOW)
        self.cascade = classifier.cascade

    @overload
    async def __call__(  # type: ignore[overload-overlap]
        self, pictures: Picture
    ) -> Answer: ...
    @overload
    async def __call__(self, pictures: Iterable[Picture]) -> list[Answer]: ...
    async def __call__(self, pictures: Picture | Iterable[Picture]) -> Answer | list[Answer]:
        """Judge pictures; see ``Classifier``.

        Cancelled, it does not wait for the answers, and asks for no more.
        """
        left = threading.Event()
        if _are_many(pictures):
            pictures = takewhile(lambda _: not left.is_set(), pictures)
        try:
            return await to_thread.run_sync(
                self._classifier, pictures, abandon_on_cancel=True, limiter=self._waiting
            )
        finally:
            left.set()


@asynccontextmanager
async def aopen_classifier(
    cascade: str | os.PathLike[str] = "lite",
    *,
    without: Collection[str] = (),
    threads: int = 1,
    decode_memory: int = 512,
) -> AsyncIterator[AsyncClassifier]:
    """Load a cascade into this process, and warm it, for coroutines; see ``open_classifier``."""
    load = partial(
        open_classifier, cascade, without=without, threads=threads, decode_memory=decode_memory
    )
    classifier = await to_thread.run_sync(load)
    try:
        yield AsyncClassifier(classifier)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(classifier.close)


def open_classifier(
    cascade: str | os.PathLike[str] = "lite",
    *,
    without: Collection[str] = (),
    threads: int = 1,
    decode_memory: int = 512,
) -> Classifier:
    """Load a cascade into this process, and warm it.

    Args:
        cascade: The name of one that ships, or the path of a cascade file.
        without: Members and tiers of it to leave out, by name.
        threads: Threads of each model call, as of ``roadstream work``.
        decode_memory: Most MiB that decoding one picture may take.

    Raises:
        ConfigError: The cascade, or one of its models, is not what it should be.
        UsageError: A number is out of its bounds.
    """
    check_number("threads", threads, 1, MOST_WORKERS, "threads")
    check_number("decode_memory", decode_memory, 1, MOST_MEBIBYTES, "MiB")
    # A hang is the caller's to judge: nothing here may end the process.
    options = WorkOptions(threads=threads, max_memory=decode_memory << 20, hang_timeout=0)
    return Classifier(load_cascade(os.fspath(cascade), without=without), options)


def _are_many(pictures: Any) -> TypeGuard[Iterable[Picture]]:
    if isinstance(pictures, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray):
        return False
    # An open file is an iterable of its lines, which nobody means by it.
    return isinstance(pictures, Iterable) and not hasattr(pictures, "read")


def _size(picture: Any) -> int:
    """Return the bytes that a picture takes until it is answered; a path takes next to none."""
    if isinstance(picture, bytes | bytearray):
        return len(picture)
    return picture.nbytes if isinstance(picture, memoryview | np.ndarray) else 0


def as_image(picture: Any) -> Image:
    """Return the record of a picture that somebody in this process has.

    Raises:
        TypeError: It is no picture.
    """
    if isinstance(picture, str | os.PathLike):
        return scan_picture(native(picture))
    if isinstance(picture, np.ndarray):
        return _inline(_as_file(picture))
    if isinstance(picture, bytes | bytearray | memoryview):
        return _inline(bytes(picture))
    raise TypeError(
        "expected a path, the bytes of a picture file or a uint8 array [height, width, 3], "
        f"got {type(picture).__name__}"
    )


def _inline(data: bytes) -> Image:
    return Image(Head(image_id="picture"), Inline(data))


def _as_file(pixels: NDArray[Any]) -> bytes:
    """Return pixels as a PPM file: they are in it as they are."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise TypeError(
            "expected pixels as uint8 [height, width, 3] in RGB, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
