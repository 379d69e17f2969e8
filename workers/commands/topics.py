"""``roadstream topics``: makes the topics that a cascade needs."""

import time
from typing import Annotated, Literal, NamedTuple

from cyclopts import App, Parameter

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import all_topics
from roadstream.streams.log import Log, TopicFault
from roadstream.streams.topics.claims import claim_topics
from roadstream.workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LogLevel,
    LogUrl,
    Namespace,
    Without,
    run_async,
)
from roadstream.workers.observe.terminal import console
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.topics import create_topics, settings_faults
from roadstream.workers.service.option_checks import MOST_PARTITIONS, check_number

TopicCodec = Literal["zstd", "lz4", "gzip", "snappy", "producer", "uncompressed"]

topics = App(name="topics", help="Make the topics that a cascade needs.")


@topics.command
def create(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    partitions: Annotated[
        int,
        Parameter(
            help="Partitions of each topic: an upper bound for how "
            "many workers of a tier share the work."
        ),
    ] = 16,
    replication_factor: Annotated[
        int | None, Parameter(help="Copies of each partition: 3, or as many as there are brokers.")
    ] = None,
    min_insync_replicas: Annotated[
        int | None,
        Parameter(
            help="Copies that must have a record before it counts as written: 2 of 3 or more, "
            "else 1. With 1, a lost disk can lose what was acknowledged."
        ),
    ] = None,
    retention: Annotated[
        float | None,
        Parameter(
            help="Seconds for which pictures, escalations and votes are kept, read or not: 604800 "
            "(a week). Longer than any outage of the workers that is to cost nothing."
        ),
    ] = None,
    retention_bytes: Annotated[
        int | None,
        Parameter(
            help="Most bytes that a partition of them keeps; older ones go, read or not. No bound "
            "by default."
        ),
    ] = None,
    answers_retention: Annotated[
        float | None,
        Parameter(help="Seconds for which answers and dead letters are kept: as --retention."),
    ] = None,
    compression: Annotated[
        TopicCodec | None,
        Parameter(
            help="How brokers keep votes and answers: zstd. Pictures are kept as they come, since "
            "they do not get smaller."
        ),
    ] = None,
    log_level: LogLevel = "warning",
) -> int:
    """Create the topics that do not exist yet, and check those that do.

    Topics that exist are left as they are. Where one would lose records or refuse them (compacted,
    too small a max.message.bytes, partition counts that differ), the command ends with status 2 and
    says what to run. What only puts records at risk (a short retention, one copy) is a warning.
    Defaults of these options can stand in the file that ROADSTREAM_KAFKA_CONFIG names; `work`,
    `consensus` and `up` read it too, and warn of the same (docs/guide/kafka.md).
    """
    where = address(log, namespace)
    check_number("--partitions", partitions, 1, MOST_PARTITIONS, "partitions")
    wanted = {
        "replication_factor": replication_factor,
        "min_insync_replicas": min_insync_replicas,
        "retention": retention,
        "retention_bytes": retention_bytes,
        "answers_retention": answers_retention,
        "topic_compression": compression,
    }
    asked = {name: value for name, value in wanted.items() if value is not None}
    loaded = load_cascade(cascade, without=without or ())
    made = run_async(log_level, _create, open_log(where, asked), loaded, partitions)
    for name in all_topics(loaded.named_tiers):
        console().print(f"{name}  {made.counts[name]} partitions")
    if made.kept and (asked or set(made.counts.values()) != {partitions}):
        line = f"warning: {made.kept} topics existed already: options change nothing of those"
        console().print(line, soft_wrap=True)
    for fault in made.faults:
        kind = "warning" if fault.harm == "risks" else "error"
        console().print(f"{kind}: {fault}", soft_wrap=True)
    return 2 if any(fault.harm != "risks" for fault in made.faults) else 0


@topics.command
def adopt(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    log_level: LogLevel = "warning",
) -> None:
    """Take the topics over for a cascade that was renamed. The one that had them must not run."""
    loaded = load_cascade(cascade, without=without or ())
    run_async(log_level, _adopt, address(log, namespace), loaded)
    line = f"the topics belong to cascade {loaded.name!r} now"
    console().print(line)


async def _adopt(url: str, cascade: Cascade) -> None:
    async with open_log(url) as log:
        await claim_topics(log, cascade, time.time(), adopt=True)


class _Made(NamedTuple):
    """Topics that exist now.

    Attributes:
        counts: Their partition counts.
        kept: How many of them existed before.
        faults: What is wrong with them.
    """

    counts: dict[str, int]
    kept: int
    faults: list[TopicFault]


async def _create(log: Log, cascade: Cascade, partitions: int) -> _Made:
    async with log:
        kept = await log.partition_counts(all_topics(cascade.named_tiers))
        counts = await create_topics(log, cascade, partitions)
        return _Made(counts, len(kept), await settings_faults(log, cascade))
