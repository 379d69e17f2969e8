"""Whether a group's members work on every partition that exists, and on none that is gone. Pure.

A static member that comes back is given what it had, whatever was added meanwhile (KIP-814,
https://issues.apache.org/jira/browse/KAFKA-13435), and a topic that is deleted and made again takes
the group's offsets with it. Both are found by comparing what is assigned with what exists.
"""

from collections.abc import Mapping

from roadstream.streams.kafka.group_requests import Group
from roadstream.streams.log import Offsets, TopicPartition

# Partitions are given out while a group settles; what is wrong twice in a row is wrong.
SURE_AFTER = 2


class Coverage:
    """What is known of one group's topics, from one look to the next.

    Args:
        topics: What the group consumes.
    """

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics
        self._stood: dict[TopicPartition, int] = {}
        self._wrong, self._times = "", 0
        self.unequal = False

    def look(self, group: Group, counts: Mapping[str, int], stood: Offsets) -> str | None:
        """Return why the group must be joined anew; ``None`` if it need not, or not yet.

        Args:
            group: Who is in it, and what each was given.
            counts: Partitions of the topics that exist.
            stood: What the group has committed.
        """
        self.unequal = len(set(counts.values())) > 1
        if set(counts) != set(self._topics) or self.unequal:
            return None  # topics are altered one by one; a deleted one may come again
        wrong = self._gone_back(stood) or self._unassigned(group, counts)
        self._times = self._times + 1 if wrong and wrong == self._wrong else 1
        self._wrong = wrong
        return wrong if wrong and self._times >= SURE_AFTER else None

    def _gone_back(self, stood: Offsets) -> str:
        """Say which topic was made anew: offsets only grow, unless a topic took them with it."""
        gone = sorted(tp for tp, at in self._stood.items() if stood.get(tp, -1) < at)
        if not gone:
            self._stood = dict(stood)
            return ""
        return f"{gone[0].topic} was deleted and made again"

    def _unassigned(self, group: Group, counts: Mapping[str, int]) -> str:
        if group.state != "Stable":
            return ""
        exist = {TopicPartition(topic, p) for topic, count in counts.items() for p in range(count)}
        given = {tp for member in group.members for tp in member.partitions}
        if missed := sorted(exist - given):
            return f"nobody works on {_listed(missed)}"
        if gone := sorted(given - exist):
            return f"{_listed(gone)} do not exist any more"
        return ""


def _listed(tps: list[TopicPartition]) -> str:
    more = f" and {len(tps) - 1} more partitions" if len(tps) > 1 else ""
    return f"{tps[0].topic}[{tps[0].partition}]{more}"
