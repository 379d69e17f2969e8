"""``roadstream topics``: makes the topics that a cascade needs."""

import time
from typing import Annotated

from cyclopts import App, Parameter

from schemas.cascade import Cascade, load_cascade
from schemas.errors import UsageError
from schemas.topics import all_topics
from streams.claims import claim_topics
from workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LogLevel,
    LogUrl,
    Namespace,
    run_async,
)
from workers.commands.numbers import MOST_PARTITIONS, check_number
from workers.connect import address, open_log
from workers.terminal import console

topics = App(name="topics", help="Make the topics that a cascade needs.")


@topics.command
def create(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    partitions: Annotated[
        int,
        Parameter(
            help="Partitions of each topic: an upper bound for how "
            "many workers of a tier share the work."
        ),
    ] = 16,
    log_level: LogLevel = "warning",
) -> None:
    """Create the topics that do not exist yet, all with the same number of partitions."""
    where = address(log, namespace)
    check_number("--partitions", partitions, 1, MOST_PARTITIONS, "partitions")
    loaded = load_cascade(cascade)
    counts = run_async(log_level, create_topics, where, loaded, partitions)
    for name in all_topics(loaded.tier_names):
        console().print(f"{name}  {counts[name]} partitions")


@topics.command
def adopt(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    cascade: CascadeName = "lite",
    log_level: LogLevel = "warning",
) -> None:
    """Take the topics over for a cascade that was renamed. The one that had them must not run."""
    loaded = load_cascade(cascade)
    run_async(log_level, _adopt, address(log, namespace), loaded)
    line = f"the topics belong to cascade {loaded.name!r} now"
    console().print(line)


async def _adopt(url: str, cascade: Cascade) -> None:
    async with open_log(url) as log:
        await claim_topics(log, cascade, time.time(), adopt=True)


async def create_topics(url: str, cascade: Cascade, partitions: int) -> dict[str, int]:
    """Create a cascade's topics and claim them for it; return the partition count of each.

    Raises:
        UsageError: Some exist with other counts, or they are another cascade's.
    """
    names = all_topics(cascade.tier_names)
    async with open_log(url) as log:
        await claim_topics(log, cascade, time.time())
        await log.create_topics(names, partitions)
        counts = dict(await log.partition_counts(names))
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"expected topics of equal partition counts, got {counts}; "
            "delete those that differ, or use another cluster"
        )
    return counts
