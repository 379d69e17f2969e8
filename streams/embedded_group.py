"""Consumer groups of the embedded log: members, heartbeats, and who owns which partition.

Every change of members raises the group's generation. A member that sees a new generation gives up
all it owns, then takes its share; a partition is taken only once its owner has given it up or has
missed its heartbeats, so that no partition ever has two owners.
"""

import time
import uuid
from typing import Any

from streams.database import Database

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


class Membership:
    """One member's place in a group. All methods run in the database's thread."""

    def __init__(self, database: Database, group: str, member: str, session_timeout: float) -> None:
        self.member = member
        self.partitions = 1
        self._database, self._group = database, group
        self._session_timeout = session_timeout
        self._instance = uuid.uuid4().hex
        self._generation = -1
        self._complete = False
        self._heartbeat_at = 0.0

    def join(self) -> None:
        """Enter the group. An earlier instance of the same member loses its partitions at once."""
        with self._database.transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
                (self._group, self.member, self._instance, time.time()),
            )
            tx.execute("DELETE FROM owners WHERE grp=? AND member=?", (self._group, self.member))
            self._raise_generation(tx)

    def leave(self) -> None:
        """Leave the group and give up everything, unless a newer instance took the place."""
        mine = (self._group, self.member, self._instance)
        with self._database.transaction() as tx:
            tx.execute("DELETE FROM owners WHERE grp=? AND member=? AND instance=?", mine)
            left = tx.execute(
                "DELETE FROM members WHERE grp=? AND member=? AND instance=?", mine
            ).rowcount
            if left:
                self._raise_generation(tx)

    def follow(self) -> int | None:
        """Keep the membership alive; return the group's generation if it calls for an exchange."""
        now = time.time()
        if abs(now - self._heartbeat_at) > self._session_timeout / 8:
            self._heartbeat(now)
        row = self._database.connection.execute(
            "SELECT generation FROM generations WHERE grp=?", (self._group,)
        ).fetchone()
        generation: int = row[0]
        if generation == self._generation and self._complete:
            return None
        return generation

    def exchange(self, generation: int) -> list[int]:
        """Give up what is owned and take this member's share, as far as it is free already."""
        with self._database.transaction() as tx:
            tx.execute(
                "DELETE FROM owners WHERE grp=? AND instance=?", (self._group, self._instance)
            )
            instances = [
                instance
                for (instance,) in tx.execute(
                    "SELECT instance FROM members WHERE grp=? ORDER BY member", (self._group,)
                )
            ]
            # A newer instance may have taken this member's name; then nothing is ours.
            rank = instances.index(self._instance) if self._instance in instances else -1
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
                [(self._group, p, self.member, self._instance) for p in mine],
            )
        self._generation, self._complete = generation, len(mine) == len(share)
        return mine

    def owned(self, tx: Any) -> set[int]:
        """Return the partitions this instance owns, within a transaction."""
        rows = tx.execute(
            "SELECT partition FROM owners WHERE grp=? AND instance=?", (self._group, self._instance)
        )
        return {partition for (partition,) in rows}

    def _heartbeat(self, now: float) -> None:
        with self._database.transaction() as tx:
            known = tx.execute(
                "UPDATE members SET heartbeat_at=? WHERE grp=? AND member=? AND instance=?",
                (now, self._group, self.member, self._instance),
            ).rowcount
            if not known:
                known = self._rejoin(tx, now)
            dead = tx.execute(
                "DELETE FROM members WHERE grp=? AND heartbeat_at < ? RETURNING member",
                (self._group, now - self._session_timeout),
            ).fetchall()
            for (member,) in dead:
                tx.execute("DELETE FROM owners WHERE grp=? AND member=?", (self._group, member))
            if dead:
                self._raise_generation(tx)
        self._heartbeat_at = now

    def _rejoin(self, tx: Any, now: float) -> int:
        """Come back after having been declared dead, unless a newer instance has the name."""
        added: int = tx.execute(
            "INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)",
            (self._group, self.member, self._instance, now),
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
