"""What all clients of one Kafka log share: settings, counters, bounds in time, an orderly end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    PolicyViolationError,
)

from roadstream.schemas.errors import (
    ForbiddenError,
    LogUnavailableError,
    RoadstreamError,
    RunError,
    UsageError,
)
from roadstream.streams.kafka.advertised import misled
from roadstream.streams.kafka.records import tolerate
from roadstream.streams.kafka.rights import forbidden, missing_rights
from roadstream.streams.kafka.security import client_options, refusal
from roadstream.streams.kafka.settings import KafkaSettings
from roadstream.streams.kafka.stats import KafkaStats
from roadstream.streams.log import Operation

# Without a handler, Python's last resort prints aiokafka's warnings to stderr.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

tolerate()

CONNECTING = (KafkaError, OSError, TimeoutError)
"""What connecting fails with."""

UNREACHABLE = 0.5
"""Seconds for leaving a coordinator, or brokers, that do not answer: there is nobody to tell."""


class KafkaLink:
    """How the clients of one log reach Kafka.

    Attributes:
        settings: Where Kafka is, and how patient to be.
        stats: Counters of all the clients.
        proven: Whether a client has connected with these settings before.
        member_ids: Under which id this process is in a group, by group and static name.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings, self.stats = settings, KafkaStats()
        self.proven = False
        self.member_ids: dict[tuple[str, str | None], str] = {}

    def options(self) -> dict[str, Any]:
        """Return the options that every kind of aiokafka's clients takes.

        Raises:
            UsageError: A certificate or the password cannot be read.
        """
        return client_options(self.settings)

    def unavailable(self, problem: str) -> LogUnavailableError:
        """Return the error for Kafka not doing what it should, and count it."""
        self.stats.unavailable += 1
        return LogUnavailableError(problem)

    def failed(
        self, error: BaseException, operation: Operation = "DESCRIBE", name: str = ""
    ) -> RunError:
        """Return the error for one of aiokafka's: forbidden, or Kafka not doing what it should.

        Args:
            error: What came of a request.
            operation: What the request needs.
            name: The topic or group, where the error does not name it.
        """
        if rights := missing_rights(error, operation, name):
            return forbidden(self.settings, rights)
        if isinstance(error, PolicyViolationError | InvalidTopicError):
            return ForbiddenError(f"Kafka refuses topic {name or error}: {error.description}")
        return self.unavailable(f"Kafka at {self.settings.bootstrap_servers}: {error!r}")

    async def cannot_connect(self, reason: BaseException) -> RoadstreamError:
        """Return the error for a connection that failed, with what to do about it.

        Credentials that Kafka refuses are the user's to correct, unless they were good before.
        """
        settings = self.settings
        if rights := missing_rights(reason, "DESCRIBE"):
            return forbidden(settings, rights)
        if (why := await refusal(settings)) is not None:
            return self.unavailable(why) if self.proven else UsageError(why)
        if (why := await misled(settings)) is not None:
            return self.unavailable(why)
        late = isinstance(reason, TimeoutError)
        how = f"nothing came within {settings.connect_timeout:g} s" if late else "cannot connect"
        return self.unavailable(
            f"no Kafka broker answers at {settings.bootstrap_servers} ({how}); "
            "start one with `roadstream broker`"
        )


@contextmanager
def answering(
    link: KafkaLink, extra: float = 0.0, *, operation: Operation = "DESCRIBE", name: str = ""
) -> Iterator[None]:
    """Bound requests by the request timeout and ``extra`` seconds, and translate their errors.

    Args:
        link: Settings and counters.
        extra: Seconds beyond the request timeout.
        operation: The right that the requests need.
        name: On which topic or group, where their errors do not say.

    Raises:
        LogUnavailableError: Kafka did not answer in time, or with an error.
        ForbiddenError: It does not allow this.
    """
    servers, limit = link.settings.bootstrap_servers, link.settings.request_timeout + extra
    try:
        with anyio.fail_after(limit):
            yield
    except (TimeoutError, KafkaTimeoutError) as error:  # ours or aiokafka's, whichever is first
        raise link.unavailable(f"Kafka at {servers} did not answer within {limit:g} s") from error
    except (KafkaError, OSError) as error:
        raise link.failed(error, operation, name) from error


async def connect(
    link: KafkaLink, group: str | None = None, member_id: str | None = None
) -> AIOKafkaConsumer:
    """Connect a consumer that is subscribed to nothing yet; end it with ``disconnect``.

    Raises:
        LogUnavailableError: No broker answers in time.
        UsageError: Kafka refuses the credentials, or its own are not trusted.
    """
    client = AIOKafkaConsumer(
        group_id=group,
        group_instance_id=member_id,
        **link.options(),
        **_consumer_options(link.settings, grouped=group is not None),
    )
    try:
        with anyio.fail_after(link.settings.connect_timeout):
            await client.start()
    except CONNECTING as error:
        await disconnect(client, link.settings.stop_timeout)
        raise await link.cannot_connect(error) from error
    except BaseException:
        await disconnect(client, link.settings.stop_timeout)
        raise
    link.proven = True
    return client


@asynccontextmanager
async def connected(
    link: KafkaLink, group: str | None = None, member_id: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect as ``connect`` does, and end the client whatever happens."""
    client = await connect(link, group, member_id)
    try:
        yield client
    finally:
        await disconnect(client, link.settings.stop_timeout)


def _consumer_options(settings: KafkaSettings, *, grouped: bool) -> dict[str, Any]:
    return {
        "enable_auto_commit": False,
        # A group member says itself where it starts, lest a gap pass unnoticed.
        "auto_offset_reset": "none" if grouped else "earliest",
        "check_crcs": settings.check_crcs,
        "fetch_max_wait_ms": int(settings.fetch_max_wait * 1000),
        "max_partition_fetch_bytes": settings.max_partition_fetch_bytes,
        "session_timeout_ms": int(settings.session_timeout * 1000),
        # A member hears of a rebalance with its next heartbeat.
        "heartbeat_interval_ms": int(min(1.0, settings.session_timeout / 3) * 1000),
        "rebalance_timeout_ms": int(settings.rebalance_timeout * 1000),
        # Equal partition numbers of all topics go to one member.
        "partition_assignment_strategy": (RangePartitionAssignor,),
    }


async def disconnect(client: AIOKafkaConsumer, budget: float) -> None:
    """Stop a consumer; one that has not stopped after ``budget`` seconds is taken apart.

    An unshielded or interrupted ``stop()`` leaves a heartbeat behind that keeps the partitions.
    """
    with anyio.CancelScope(shield=True):
        # A task inside aiokafka that was cancelled raises CancelledError too, which is not ours.
        with anyio.move_on_after(budget), suppress(KafkaError, asyncio.CancelledError):
            await client.stop()
            return
        for name in ("_coordination_task", "_heartbeat_task", "_commit_refresh_task"):
            if (task := getattr(client._coordinator, name, None)) is not None:
                task.cancel()
        for part in (client._fetcher, client._client):
            if part is not None:
                with anyio.move_on_after(1.0), suppress(KafkaError, asyncio.CancelledError):
                    await part.close()
