"""What became of the clients of a Kafka log, in numbers."""

from typing import Annotated

import msgspec


class KafkaStats(msgspec.Struct):
    """Counters of one ``KafkaLog`` since it was made; they only grow, and each is a metric."""

    producers_opened: Annotated[int, "Producers connected, rebuilt ones included."] = 0
    producers_rebuilt: Annotated[int, "Producers given up because they failed."] = 0
    consumers_opened: Annotated[int, "Group members connected, again after each failure."] = 0
    admins_rebuilt: Annotated[
        int, "Clients for topics and offsets given up because they failed."
    ] = 0
    rebalances: Annotated[int, "Times a member was given partitions, or none."] = 0
    drains_timed_out: Annotated[int, "Partitions given up with work on them unfinished."] = 0
    commits: Annotated[int, "Commits that Kafka acknowledged."] = 0
    commit_failures: Annotated[int, "Commits that failed and were tried again."] = 0
    commits_dropped: Annotated[int, "Commits refused, or pending, as the group had moved on."] = 0
    fenced: Annotated[int, "Publishes refused because the partitions may have another owner."] = 0
    freezes: Annotated[int, "Times the process stood still for over half the session timeout."] = 0
    records_missed: Annotated[int, "Records that retention took before they were committed."] = 0
    offsets_beyond_end: Annotated[int, "Partitions shorter than what was read of them."] = 0
    unavailable: Annotated[int, "Errors because Kafka did not answer, or not in time."] = 0
