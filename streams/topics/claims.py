"""Whose a log's topics are: read from the topic ``cascades``, and said there."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

import structlog

from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import OutputError, UsageError
from roadstream.schemas.records import headers
from roadstream.schemas.records.claims import (
    Begun,
    CascadeVersion,
    Claim,
    Claims,
    Roll,
    ServiceTime,
    Told,
    decode_told,
)
from roadstream.schemas.topics import ANSWERS, CASCADES
from roadstream.streams.log import Log, Output, Polled

logger = structlog.get_logger()

_HEADERS: dict[type[Told], headers.Headers] = {
    Claim: headers.CLAIM,
    Begun: headers.BEGUN,
    CascadeVersion: headers.VERSION,
    Roll: headers.ROLL,
    ServiceTime: headers.SERVICE_TIME,
}


class _UncheckedError(UsageError):
    """This client may not do with the topic what it takes to know the owner."""


async def claim_topics(log: Log, cascade: Cascade, now: float, *, adopt: bool = False) -> None:
    """Take a log's topics for a cascade, unless they are another one's.

    A client that may not read or write the topic ``cascades`` goes on with a warning: to work
    beside a neighbour is what the check is to prevent, not to work.

    Args:
        log: The log, open.
        cascade: Whose they are to be. Only its name counts: another version is the same cascade.
        now: Seconds since the epoch.
        adopt: Whether to take them over from the cascade that has them.

    Raises:
        UsageError: They are another cascade's, or ``adopt`` is not allowed.
        LogUnavailableError: The log does not answer.
    """
    try:
        owner = (await read_claims(log)).owner
        if owner is None or (adopt and owner != cascade.name):
            claim = Claim(
                cascade=cascade.name, cascade_hash=cascade.hash, claimed_at=now, adopts=adopt
            )
            await tell(log, claim)
            owner = (await read_claims(log)).owner
    except (_UncheckedError, OutputError) as error:
        if adopt:
            raise UsageError(f"cannot adopt: {error}") from None
        logger.warning("owner_unchecked", topic=log.real_name(CASCADES), reason=str(error))
        return
    _check(log, owner, cascade)


async def check_owner(log: Log, cascade: Cascade) -> None:
    """Check that a log's topics are not another cascade's, without claiming them.

    Raises:
        UsageError: They are.
        LogUnavailableError: The log does not answer.
    """
    with suppress(OutputError):  # whoever claims says so
        if CASCADES in await log.partition_counts([CASCADES]):
            _check(log, (await read_claims(log)).owner, cascade)


def _check(log: Log, owner: str | None, cascade: Cascade) -> None:
    if owner is not None and owner != cascade.name:
        raise UsageError(
            f"the topics here ({log.real_name(ANSWERS)}, …) belong to cascade {owner!r}, not to "
            f"{cascade.name!r}: give that one with --cascade, or choose other topics with "
            "--namespace NAME or ROADSTREAM_NAMESPACE; if it was renamed on purpose, take them "
            "over with `roadstream topics adopt`"
        )


async def tell(log: Log, one: Told) -> None:
    """Append to the topic.

    Raises:
        OutputError: The log does not allow it.
        LogUnavailableError: The log does not answer.
    """
    async with log.producer() as producer:
        await producer.publish(
            [Output(CASCADES, one.key, codec.encode(one), 0, _HEADERS[type(one)])]
        )


async def make_topic(log: Log) -> None:
    """Make the topic where there is none.

    Raises:
        UsageError: It cannot be made.
        OutputError: It may not be described or made.
        LogUnavailableError: The log does not answer.
    """
    if CASCADES not in await log.partition_counts([CASCADES]):
        try:
            await log.create_topics([CASCADES], 1)
        except UsageError as error:
            raise _UncheckedError(str(error)) from None


async def read_claims(log: Log) -> Claims:
    """Read the topic from its beginning to its end; make it where there is none.

    Raises:
        UsageError: It cannot be made.
        OutputError: It may not be read, described or made.
        LogUnavailableError: The log does not answer.
    """
    await make_topic(log)
    told: list[Claim | Begun] = []
    unread: list[int] = []
    async with log.reader(CASCADES, "beginning") as reader:
        ends = await reader.ends()
        while not _at(reader.positions, ends):
            told += _told(await reader.poll(max_records=500, timeout=1.0), unread)
    if unread:
        topic = log.real_name(CASCADES)
        logger.warning("unreadable_claims", topic=topic, records=len(unread), first=unread[0])
    return Claims(told)


def _at(positions: Mapping[int, int], ends: Mapping[int, int]) -> bool:
    return all(positions[p] >= end for p, end in ends.items())


def _told(polled: Polled, unread: list[int]) -> Iterator[Claim | Begun]:
    """Yield what says whose the topics are; versions, which may be large, are not kept."""
    for records in polled.values():
        for record in records:
            if record.value is None:  # compaction's
                continue
            try:
                told = decode_told(record.value)
            except codec.UNREADABLE:  # a stranger's, or of a later version
                unread.append(record.offset)
                continue
            if isinstance(told, Claim | Begun):
                yield told
