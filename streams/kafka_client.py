"""Bounds in time for aiokafka's clients, which can wait for ever, and their orderly end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, KafkaTimeoutError

from schemas.errors import LogUnavailableError
from streams.kafka_settings import KafkaSettings, unavailable

# Without a handler, Python's last resort prints aiokafka's warnings to stderr.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


@contextmanager
def answering(settings: KafkaSettings, extra: float = 0.0) -> Iterator[None]:
    """Bound requests by the request timeout and ``extra`` seconds, and translate their errors.

    Raises:
        LogUnavailableError: Kafka did not answer in time, or with an error.
    """
    limit = settings.request_timeout + extra
    try:
        with anyio.fail_after(limit):
            yield
    except (TimeoutError, KafkaTimeoutError) as error:  # ours or aiokafka's, whichever is first
        raise LogUnavailableError(
            f"Kafka at {settings.bootstrap_servers} did not answer within {limit:g} s"
        ) from error
    except (KafkaError, OSError) as error:
        raise LogUnavailableError(f"Kafka at {settings.bootstrap_servers}: {error!r}") from error


@asynccontextmanager
async def connected(
    settings: KafkaSettings, group: str | None = None, member_id: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer that is subscribed to nothing yet, and end it whatever happens.

    Raises:
        LogUnavailableError: No broker answers in time.
    """
    client = AIOKafkaConsumer(
        group_id=group, group_instance_id=member_id, **_consumer_options(settings)
    )
    try:
        try:
            with anyio.fail_after(settings.connect_timeout):
                await client.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise unavailable(settings, error) from error
        yield client
    finally:
        await _disconnect(client, settings.stop_timeout)


def _consumer_options(settings: KafkaSettings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": int(settings.request_timeout * 1000),
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
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


async def _disconnect(client: AIOKafkaConsumer, budget: float) -> None:
    """Stop a consumer; one that does not stop in time is taken apart.

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
