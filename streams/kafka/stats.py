"""What became of the clients of a Kafka log, in numbers."""

import msgspec


class KafkaStats(msgspec.Struct):
    """Counters of one ``KafkaLog`` since it was made; they only grow.

    Attributes:
        producers_opened: Producers connected, rebuilt ones included.
        producers_rebuilt: Producers given up because they failed; the next publish opens another.
        consumers_opened: Group members connected. Above one per member: they joined again.
        admins_rebuilt: Clients for topics and offsets given up because they failed.
        rebalances: Times that a member of this process was given partitions, or none.
        drains_timed_out: Partitions were due to be given up and work on them was not finished in
            ``drain_timeout``.
        commits: Times that Kafka acknowledged offsets.
        commit_failures: Commits that failed and were tried again.
        commits_dropped: Commits that Kafka refused because the group had moved on, or that were
            pending then. The next owner does that work again.
        fenced: Publishes refused because the partitions may have another owner.
        freezes: Times that the process stood still for more than half the session timeout.
        records_missed: Records that retention took before the group committed them.
        offsets_beyond_end: Partitions shorter than what the group had read of them: records were
            lost by the brokers, or the topic was made anew. They are read from the oldest record.
        unavailable: Errors raised because Kafka did not answer, or not in time.
    """

    producers_opened: int = 0
    producers_rebuilt: int = 0
    consumers_opened: int = 0
    admins_rebuilt: int = 0
    rebalances: int = 0
    drains_timed_out: int = 0
    commits: int = 0
    commit_failures: int = 0
    commits_dropped: int = 0
    fenced: int = 0
    freezes: int = 0
    records_missed: int = 0
    offsets_beyond_end: int = 0
    unavailable: int = 0
