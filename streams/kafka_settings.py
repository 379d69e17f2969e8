"""What can be set about a Kafka log, and the words for one that does not answer."""

from typing import Literal

import msgspec

from schemas.errors import LogUnavailableError


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a Kafka cluster and how patient to be. Times are seconds, sizes bytes.

    Args:
        bootstrap_servers: One or more ``host:port``, separated by commas.
        client_id: Name that the brokers' logs and quotas show.
        replication_factor: Copies of new topics; ``None`` for three or as many as brokers exist.
        max_record_bytes: Largest record: a picture of 8 MiB and room for the rest of its record.
        compression: ``lz4``, ``zstd`` or ``snappy`` need ``cramjam``; pictures do not compress.
        check_crcs: Verify the brokers' checksums of what is fetched. It takes 20 µs for 30 kB.
        max_partition_fetch_bytes: Most that one fetch brings of one partition. Bounds memory: each
            partition holds one fetch. 16 MiB was measured to be slower than 4.
        fetch_max_wait: How long a broker may hold a fetch that finds nothing. Another partition of
            that broker cannot be fetched meanwhile, so this bounds latency.
        commit_interval: Least time between two commits of offsets; a crash repeats that much work.
        connect_timeout: For connecting.
        request_timeout: For one request to a broker.
        delivery_timeout: For the acknowledgement of published records, with all tries.
        session_timeout: After this silence the group gives a member's partitions away.
        rebalance_timeout: How long the group waits for a member that must give up its partitions.
        drain_timeout: How much of that is spent on finishing work.
        stop_timeout: For each step of disconnecting.
        stall_timeout: A consumer that waited this long for records asks whether Kafka still answers
            and whether there were none.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    client_id: str = "roadstream"
    replication_factor: int | None = None
    max_record_bytes: int = 8 * 2**20 + 2**16
    compression: Literal["gzip", "lz4", "zstd", "snappy"] | None = None
    check_crcs: bool = True
    max_partition_fetch_bytes: int = 4 * 2**20
    fetch_max_wait: float = 0.1
    commit_interval: float = 0.05
    connect_timeout: float = 5.0
    request_timeout: float = 15.0
    delivery_timeout: float = 30.0
    session_timeout: float = 30.0
    rebalance_timeout: float = 60.0
    drain_timeout: float = 40.0
    stop_timeout: float = 5.0
    stall_timeout: float = 30.0


def unavailable(settings: KafkaSettings, reason: BaseException) -> LogUnavailableError:
    """Return the error for a cluster that cannot be reached, with what to do about it."""
    late = isinstance(reason, TimeoutError)
    why = f"nothing came within {settings.connect_timeout:g} s" if late else "cannot connect"
    return LogUnavailableError(
        f"no Kafka broker answers at {settings.bootstrap_servers} ({why}); "
        "start one with `roadstream broker`"
    )
