"""``roadstream topics``: makes the topics that a cascade needs."""

from typing import Annotated

from cyclopts import App, Parameter

from schemas.cascade import load_cascade
from schemas.errors import UsageError
from schemas.topics import all_topics
from workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LogLevel,
    LogUrl,
    Namespace,
    console,
    run_async,
)
from workers.commands.numbers import MOST_PARTITIONS, check_number
from workers.connect import address, open_log

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
    names = all_topics(loaded.tier_names)
    counts = run_async(log_level, create_topics, where, names, partitions)
    for name in names:
        console().print(f"{name}  {counts[name]} partitions", highlight=False)


async def create_topics(url: str, names: list[str], partitions: int) -> dict[str, int]:
    """Create topics; return the partition count of each.

    Raises:
        UsageError: Some exist with other counts.
    """
    async with open_log(url) as log:
        await log.create_topics(names, partitions)
        counts = dict(await log.partition_counts(names))
    if len(set(counts.values())) > 1:
        raise UsageError(
            f"expected topics of equal partition counts, got {counts}; "
            "delete those that differ, or use another cluster"
        )
    return counts
