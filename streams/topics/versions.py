"""The versions of a log's cascade, and which of them new images begin with: the topic ``cascades``.

A process says which version it was started with before it works by it, so whoever meets a version
on a record finds it here. What a version is, its record says whole, but for its weights: those must
lie on the host that is to judge by it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

import anyio
import structlog

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import cascade_of
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import LogUnavailableError, OutputError, UsageError
from roadstream.schemas.records.claims import CascadeVersion, Roll, ServiceTime, Told, decode_told
from roadstream.schemas.topics import CASCADES
from roadstream.streams.log import Log, Polled, Reader, Record
from roadstream.streams.topics.claims import make_topic, tell
from roadstream.streams.topics.service_times import ServiceTimes

logger = structlog.get_logger()

# Of a thousand versions in an hour, few are in use at a time.
MOST_HELD = 64
_POLL = 500
# Seconds that a record which is there may take to come.
_TRIES = 10
# Seconds until the topic is looked for again where there is none, or it may not be read.
_ASKED_AGAIN = 5.0


class Versions:
    """What the topic says, as far as it was read.

    Args:
        log: The log, open.

    Attributes:
        roll: By which versions images are judged that begin now; ``None`` where nobody has rolled.
        latest: Hash of the version that was told of last; ``None`` without any.
        service_times: What its tiers take.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.roll: Roll | None = None
        self.latest: str | None = None
        self.service_times = ServiceTimes()
        # Where each version's record stands; it may be said again, and is then compacted away.
        self._places: dict[str, int] = {}
        self._position = 0
        self._held: OrderedDict[str, Cascade] = OrderedDict()

    async def refresh(self) -> None:
        """Read on to the end.

        Raises:
            LogUnavailableError: The log does not answer.
            OutputError: The topic may not be read or described.
        """
        if CASCADES not in await self._log.partition_counts([CASCADES]):
            return
        before = self._position
        async with self._log.reader(CASCADES, {0: before}) as reader:
            end = (await reader.ends()).get(0, 0)
            if end < before:  # it was made anew
                self._start_over()
                await self.refresh()
                return
            while reader.positions[0] < end:
                self._take(await reader.poll(max_records=_POLL, timeout=1.0), reader)

    async def follow(self, heard: Callable[[], object]) -> None:
        """Read what comes, until it is cancelled.

        A log that does not answer is asked again later, and so is a topic that is not there or may
        not be read, which is said once.

        Args:
            heard: Called whenever a version or a roll came.
        """
        said = False
        while True:
            try:
                if CASCADES in await self._log.partition_counts([CASCADES]):
                    await self._follow(heard)
            except LogUnavailableError:
                pass  # who works tells of it
            except OutputError as error:
                if not said:
                    said = True
                    topic = self._log.real_name(CASCADES)
                    logger.warning("versions_unread", topic=topic, reason=str(error))
            await anyio.sleep(_ASKED_AGAIN)

    async def _follow(self, heard: Callable[[], object]) -> None:
        async with self._log.reader(CASCADES, {0: self._position}) as reader:
            if reader.positions[0] < self._position:  # it was made anew
                self._start_over()
            while True:
                if self._take(await reader.poll(max_records=_POLL, timeout=1.0), reader):
                    heard()

    def _start_over(self) -> None:
        self.roll = self.latest = None
        self._places, self._position = {}, 0

    def _take(self, polled: Polled, reader: Reader) -> bool:
        """Take note of records; return whether one tells of a version or a roll."""
        noted = [self._note(record) for records in polled.values() for record in records]
        self._position = max(self._position, reader.positions[0])
        return any(noted)

    def _note(self, record: Record) -> bool:
        told = _told(record)
        if isinstance(told, CascadeVersion):
            self.latest = told.snapshot.hash
            self._places[told.snapshot.hash] = record.offset
        elif isinstance(told, Roll):
            self.roll = told
        elif isinstance(told, ServiceTime):
            self.service_times.hear(told, time.time())
        return isinstance(told, CascadeVersion | Roll)

    async def cascade(self, version: str) -> Cascade | None:
        """Return the cascade of a version; ``None`` if nobody has told of it.

        Raises:
            LogUnavailableError: The log does not answer.
            OutputError: The topic may not be read.
            ConfigError: This process cannot take it: it has an engine that is not installed here.
        """
        if (held := self._held.get(version)) is not None:
            self._held.move_to_end(version)
            return held
        if version not in self._places:
            await self.refresh()
        if version not in self._places:
            return None
        found = await self._read(version)
        if found is None:  # it was said again since, and compacted
            self._start_over()
            await self.refresh()
            found = await self._read(version)
        return None if found is None else self._hold(cascade_of(found.snapshot))

    def _hold(self, cascade: Cascade) -> Cascade:
        self._held[cascade.hash] = cascade
        while len(self._held) > MOST_HELD:
            self._held.popitem(last=False)
        return cascade

    async def _read(self, version: str) -> CascadeVersion | None:
        offset = self._places.get(version)
        if offset is None:
            return None
        async with self._log.reader(CASCADES, {0: offset}) as reader:
            for _ in range(_TRIES):
                for records in (await reader.poll(max_records=1, timeout=1.0)).values():
                    for record in records:
                        told = _told(record)
                        if isinstance(told, CascadeVersion) and told.snapshot.hash == version:
                            return told
                        return None
        raise LogUnavailableError(f"{self._log.real_name(CASCADES)}: no record comes")

    async def register(self, cascade: Cascade, now: float) -> None:
        """Tell of a version, unless it was told of before.

        Args:
            cascade: As ``load_cascade`` returned it.
            now: Seconds since the epoch.

        Raises:
            LogUnavailableError: The log does not answer.
            UsageError: The topic cannot be made.
            OutputError: The log does not allow it, or the record is too large for the topic.
        """
        await make_topic(self._log)
        await self.refresh()
        if cascade.hash not in self._places:
            await tell(self._log, CascadeVersion(snapshot=cascade.snapshot, told_at=now))
            await self.refresh()
        self._hold(cascade)


def _told(record: Record) -> Told | None:
    """Return what a record tells; ``None`` if it cannot be read, which who claims topics says."""
    try:
        told: Told = decode_told(record.value or b"")
    except codec.UNREADABLE:
        return None
    return told


async def register_version(log: Log, cascade: Cascade, now: float) -> None:
    """Tell of the version that a process is started with; one that may not goes on with a warning.

    Raises:
        LogUnavailableError: The log does not answer.
    """
    if not cascade.hash:  # made in memory, by a test or a benchmark
        return
    try:
        await Versions(log).register(cascade, now)
    except (OutputError, UsageError) as error:
        logger.warning("version_untold", version=cascade.hash, reason=str(error))
