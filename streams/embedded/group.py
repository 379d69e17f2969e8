"""Consumer groups of the embedded log: members, heartbeats, and who owns which partition.

Every change of members raises the group's generation. A member that sees a new generation gives up
all it owns, then takes its share; a partition is taken only once its owner has given it up or has
missed its heartbeats, so that no partition ever has two owners.

Heartbeats are on the monotonic clock, which all processes of a machine share since its start, so
that setting the wall clock does nothing. Rows from before a restart are dead; see ``Watch``.
"""

import math
import os
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any

from roadstream.schemas.errors import ReplacedError
from roadstream.streams.database import Database, DatabaseStats
from roadstream.streams.embedded.watch import BEATS, Watch

GROUP_SCHEMA = """
CREATE TABLE IF NOT EXISTS generations(
    grp TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members(
    grp TEXT, member TEXT, instance TEXT NOT NULL, heartbeat_at REAL NOT NULL,
    PRIMARY KEY(grp, member)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners(
    grp TEXT, partition INTEGER, member TEXT NOT NULL, instance TEXT NOT NULL,
    PRIMARY KEY(grp, partition)) WITHOUT ROWID;
"""


class EmbeddedStats(DatabaseStats):
    """Counters of an embedded log, since this process opened it; each is a metric."""

    appended: Annotated[int, "Records appended."] = 0
    evictions: Annotated[int, "Members that this process declared dead."] = 0
    returns: Annotated[int, "Times a member here found itself declared dead, and came back."] = 0
    fenced: Annotated[int, "Publishes refused because the partitions had another owner."] = 0
    missed: Annotated[int, "Records trimmed before a group of this process had committed them."] = 0


def silence(
    database: Database, group: str, monotonic: Callable[[], float] = time.monotonic
) -> float:
    """Return the seconds since the last heartbeat of a group; infinity without members.

    Runs in the database's thread. It takes the write lock, as heartbeats do: while those wait for
    it, nobody is to be taken as silent.
    """
    with database.transaction() as tx:
        heartbeats = tx.execute("SELECT heartbeat_at FROM members WHERE grp=?", (group,)).fetchall()
        now = monotonic()
    # A heartbeat ahead of the clock stems from before the machine was started anew.
    return min([now - at for (at,) in heartbeats if at <= now], default=math.inf)


class Membership:
    """One member's place in a group. All methods run in the database's thread.

    Args:
        database: The log's file.
        group: Name of the group.
        member: Name of the member; a newer instance of the same name takes its place for good.
        session_timeout: Seconds of silence after which a member may be declared dead.
        stats: Counted in.
        monotonic: Seconds on a clock that all processes share and that never steps.

    Attributes:
        instance: Tells it from every other membership, of the same name too.
        partitions: Partitions of the group's topics; set before joining.
        earlier: The instance by which this process had the name before, if it had; set before
            joining. Whoever has taken the name since keeps it.
    """

    def __init__(
        self,
        database: Database,
        group: str,
        member: str,
        session_timeout: float,
        stats: EmbeddedStats,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.member = member
        self.partitions = 1
        self.earlier: str | None = None
        self._database, self._group, self._stats = database, group, stats
        self._beat_after = session_timeout / BEATS
        self._watch = Watch(session_timeout)
        self._monotonic = monotonic
        self.instance = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._generation = -1
        self._complete = False
        self._began_at: float | None = None
        self._heartbeat_at = -math.inf

    def join(self) -> None:
        """Enter the group. An earlier instance of the same member loses its place at once.

        Raises:
            ReplacedError: Another process has taken the name since this one had it.
        """
        if self._began_at is None:  # it is called again while the file is locked
            self._began_at = self._monotonic()
        with self._database.transaction() as tx:
            if self.earlier is not None:
                self._check_name(tx, self.earlier)
            now = self._monotonic()
            tx.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
                (self._group, self.member, self.instance, now),
            )
            tx.execute("DELETE FROM owners WHERE grp=? AND member=?", (self._group, self.member))
            self._raise_generation(tx)
        self._watch.start(now, waited=now - self._began_at)

    def leave(self) -> None:
        """Leave the group and give up everything, unless a newer instance took the place."""
        mine = (self._group, self.member, self.instance)
        with self._database.transaction() as tx:
            tx.execute("DELETE FROM owners WHERE grp=? AND member=? AND instance=?", mine)
            left = tx.execute(
                "DELETE FROM members WHERE grp=? AND member=? AND instance=?", mine
            ).rowcount
            if left:
                self._raise_generation(tx)

    def follow(self) -> int | None:
        """Keep the membership alive; return the group's generation if it calls for an exchange.

        Raises:
            ReplacedError: A newer instance has joined under this member's name.
        """
        if abs(self._monotonic() - self._heartbeat_at) > self._beat_after:
            self._heartbeat()
        row = self._database.connection.execute(
            "SELECT generation FROM generations WHERE grp=?", (self._group,)
        ).fetchone()
        generation: int = row[0]
        if generation != self._generation:  # whoever joins raises it
            self._check_name(self._database.connection, self.instance)
        if generation == self._generation and (self._complete or not self._gains()):
            return None
        return generation

    def _check_name(self, connection: Any, instance: str) -> None:
        row = connection.execute(
            "SELECT instance FROM members WHERE grp=? AND member=?", (self._group, self.member)
        ).fetchone()
        if row is not None and row[0] != instance:
            raise ReplacedError(
                f"{self._group}: another process on this machine (pid {row[0].split('-')[0]}) has "
                f"joined under this member's name, {self.member}; this one ends. Give each process "
                "a --member (`up`: --name) of its own"
            )

    def _gains(self) -> bool:
        """Return whether an exchange would bring a partition that was taken the last time.

        Without asking, a member that waits for a dead one's partition would give up everything at
        every poll.
        """
        read = self._database.connection.execute
        members = [
            instance
            for (instance,) in read(
                "SELECT instance FROM members WHERE grp=? ORDER BY member", (self._group,)
            )
        ]
        if self.instance not in members:
            return False
        taken = {p for (p,) in read("SELECT partition FROM owners WHERE grp=?", (self._group,))}
        rank = members.index(self.instance)
        return any(p % len(members) == rank and p not in taken for p in range(self.partitions))

    def exchange(self, generation: int) -> list[int]:
        """Give up what is owned and take this member's share, as far as it is free already."""
        with self._database.transaction() as tx:
            tx.execute(
                "DELETE FROM owners WHERE grp=? AND instance=?", (self._group, self.instance)
            )
            instances = [
                instance
                for (instance,) in tx.execute(
                    "SELECT instance FROM members WHERE grp=? ORDER BY member", (self._group,)
                )
            ]
            # A newer instance may have taken this member's name; then nothing is ours.
            rank = instances.index(self.instance) if self.instance in instances else -1
            share = [p for p in range(self.partitions) if p % max(1, len(instances)) == rank]
            taken = {
                partition
                for (partition,) in tx.execute(
                    "SELECT partition FROM owners WHERE grp=?", (self._group,)
                )
            }
            mine = [partition for partition in share if partition not in taken]
            tx.executemany(
                "INSERT INTO owners VALUES (?, ?, ?, ?)",
                [(self._group, p, self.member, self.instance) for p in mine],
            )
        self._generation, self._complete = generation, len(mine) == len(share)
        return mine

    def owned(self, tx: Any) -> set[int]:
        """Return the partitions this instance owns, within a transaction."""
        rows = tx.execute(
            "SELECT partition FROM owners WHERE grp=? AND instance=?", (self._group, self.instance)
        )
        return {partition for (partition,) in rows}

    def _heartbeat(self) -> None:
        with self._database.transaction() as tx:
            now = self._monotonic()  # after the wait for the lock, so that nobody's is later
            known = tx.execute(
                "UPDATE members SET heartbeat_at=? WHERE grp=? AND member=? AND instance=?",
                (now, self._group, self.member, self.instance),
            ).rowcount
            returned = 0 if known else self._return(tx, now)
            others = tx.execute(
                "SELECT instance, heartbeat_at FROM members WHERE grp=? AND instance<>?",
                (self._group, self.instance),
            ).fetchall()
            dead = self._watch.dead(others, now)
            for instance in dead:
                gone = (self._group, instance)
                tx.execute("DELETE FROM members WHERE grp=? AND instance=?", gone)
                tx.execute("DELETE FROM owners WHERE grp=? AND instance=?", gone)
            if dead:
                self._raise_generation(tx)
        self._heartbeat_at = now
        self._stats.evictions += len(dead)
        self._stats.returns += returned

    def _return(self, tx: Any, now: float) -> int:
        """Come back after having been declared dead, unless a newer instance has the name."""
        added: int = tx.execute(
            "INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)",
            (self._group, self.member, self.instance, now),
        ).rowcount
        if added:
            self._raise_generation(tx)
        return added

    def _raise_generation(self, tx: Any) -> None:
        tx.execute(
            "INSERT INTO generations VALUES (?, 1) "
            "ON CONFLICT DO UPDATE SET generation = generation + 1",
            (self._group,),
        )
