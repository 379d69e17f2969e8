"""Consumer groups of the in-memory log: who is a member, who owns what, how far the group is. Pure.

Time enters as ``now``, in seconds of a clock that only grows.
"""

import math
from collections.abc import Iterable

from roadstream.streams.log import TopicPartition


class Session:
    """One stay of a member in its group; it ends for good when the member leaves or is evicted.

    Attributes:
        member: The member's name.
        seen_at: When it last polled.
    """

    __slots__ = ("member", "seen_at")

    def __init__(self, member: str, now: float) -> None:
        self.member, self.seen_at = member, now


class Group:
    """Members by name; owners per partition; a generation per change of members.

    A partition that its owner must hand over stays with it until it gives it up, leaves, or is
    evicted: nobody else works on it meanwhile.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.owners: dict[int, Session] = {}
        self.generation = 0
        self.offsets: dict[TopicPartition, int] = {}

    def join(self, member: str, now: float) -> Session:
        """Enter. An earlier session of the same member ends, and loses its partitions at once."""
        if (earlier := self.sessions.get(member)) is not None:
            self.give_up(earlier)
        session = self.sessions[member] = Session(member, now)
        self.sessions = dict(sorted(self.sessions.items()))
        self.generation += 1
        return session

    def leave(self, session: Session) -> None:
        """End a session and give up everything; one that has ended is left as it is."""
        self.give_up(session)
        if self.is_member(session):
            del self.sessions[session.member]
            self.generation += 1

    def evict(self, now: float, timeout: float) -> list[Session]:
        """End the sessions of those who have not polled for longer than ``timeout``."""
        silent = [s for s in self.sessions.values() if now - s.seen_at > timeout]
        for session in silent:
            self.leave(session)
        return silent

    def silence(self, now: float) -> float:
        """Return for how long nobody has polled; infinity without members."""
        return min([now - s.seen_at for s in self.sessions.values()], default=math.inf)

    def is_member(self, session: Session) -> bool:
        """Return whether the session lasts."""
        return self.sessions.get(session.member) is session

    def owns(self, session: Session, partitions: Iterable[int]) -> bool:
        """Return whether the session lasts and owns every one of these partitions."""
        if not self.is_member(session):
            return False
        return all(self.owners.get(partition) is session for partition in partitions)

    def give_up(self, session: Session) -> None:
        """Free what the session owns."""
        self.owners = {p: owner for p, owner in self.owners.items() if owner is not session}

    def share(self, session: Session, partitions: int) -> list[int]:
        """Return the partitions that a session is to own, once their owners have let go."""
        if not self.is_member(session):
            return []
        rank = list(self.sessions).index(session.member)
        return [p for p in range(partitions) if p % len(self.sessions) == rank]

    def gains(self, session: Session, partitions: int) -> bool:
        """Return whether an exchange would bring the session a partition."""
        return any(p not in self.owners for p in self.share(session, partitions))

    def exchange(self, session: Session, partitions: int) -> tuple[list[int], bool]:
        """Give up what the session owns, and take its share as far as it is free.

        Returns:
            What it owns now, and whether that is its whole share.
        """
        self.give_up(session)
        share = self.share(session, partitions)
        mine = [p for p in share if p not in self.owners]
        self.owners.update(dict.fromkeys(mine, session))
        return mine, len(mine) == len(share)

    def commit(self, tp: TopicPartition, offset: int) -> None:
        """Move a committed offset on; never backwards."""
        self.offsets[tp] = max(offset, self.offsets.get(tp, 0))
