"""The ledger of a scoring run: what was submitted and what was answered, in one SQLite file.

It is what makes a run resumable, whatever log it runs on: an image is submitted once, an answer is
kept once, and the reading position moves in the same transaction as the answers it covers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from streams.database import Database

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images(
    image_id BLOB PRIMARY KEY, sequence INTEGER NOT NULL,
    status TEXT, exit_tier TEXT, label TEXT, answer BLOB);
CREATE INDEX IF NOT EXISTS by_sequence ON images(sequence);
CREATE TABLE IF NOT EXISTS contents(
    image_id BLOB PRIMARY KEY, hash BLOB NOT NULL, uri TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions(partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
"""
READ_BATCH = 512
_ENDS = "log_ends"
_CONTENT = "SELECT hash, uri FROM contents WHERE image_id=?"
_KEEP = """
INSERT INTO images(image_id, sequence, status, exit_tier, label, answer) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT(image_id) DO UPDATE SET status=excluded.status, exit_tier=excluded.exit_tier,
    label=excluded.label, answer=excluded.answer
WHERE answer IS NULL"""


def _forget_unanswered(tx: Any) -> None:
    tx.execute("DELETE FROM images WHERE answer IS NULL")
    tx.execute("DELETE FROM contents WHERE image_id NOT IN (SELECT image_id FROM images)")


class LedgerRow(NamedTuple):
    """An answer to be kept: its encoded bytes and what is counted by."""

    image_id: str
    sequence: int
    status: str
    exit_tier: str | None
    label: str | None
    answer: bytes


class SentContent(NamedTuple):
    """What was sent under an id.

    Attributes:
        content_hash: As in ``Head.content_hash``; ``None`` if it is not known.
        uri: Where it came from.
    """

    content_hash: bytes | None
    uri: str


class Count(NamedTuple):
    """How many images share status, exit tier and label; status ``None`` is not answered yet."""

    status: str | None
    exit_tier: str | None
    label: str | None
    images: int


class RunLedger:
    """An open ledger. Its methods are coroutines; the work is done in a thread."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)

    async def __aenter__(self) -> "RunLedger":
        await self.database.run(self.database.open, SCHEMA, SCHEMA_VERSION)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.database.close()

    async def facts(self) -> dict[str, str]:
        """Return the run's facts (what it was started with)."""
        return await self.database.run(self._facts)

    def _facts(self) -> dict[str, str]:
        return dict(self.database.connection.execute("SELECT name, value FROM facts"))

    async def set_facts(self, facts: Mapping[str, str]) -> None:
        """Add or replace facts."""
        await self.database.run(self._set_facts, facts)

    def _set_facts(self, facts: Mapping[str, str]) -> None:
        with self.database.transaction() as tx:
            tx.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))

    async def unknown(self, image_ids: Sequence[str]) -> set[str]:
        """Return those of ``image_ids`` that were not submitted yet."""
        return await self.database.run(self._unknown, image_ids)

    def _unknown(self, image_ids: Sequence[str]) -> set[str]:
        execute = self.database.connection.execute
        return {
            image_id
            for image_id in image_ids
            if not execute("SELECT 1 FROM images WHERE image_id=?", (image_id,)).fetchone()
        }

    async def contents(self, image_ids: Sequence[str]) -> dict[str, SentContent]:
        """Return what was sent under those of ``image_ids`` whose content is known."""
        return await self.database.run(self._contents, image_ids)

    def _contents(self, image_ids: Sequence[str]) -> dict[str, SentContent]:
        execute = self.database.connection.execute
        found = ((image_id, execute(_CONTENT, (image_id,)).fetchone()) for image_id in image_ids)
        return {image_id: SentContent(*row) for image_id, row in found if row}

    async def submitted(
        self,
        images: Sequence[tuple[str, int]],
        contents: Mapping[str, SentContent] | None = None,
    ) -> None:
        """Note images whose records the log has acknowledged.

        Args:
            images: As (id, sequence).
            contents: What was sent under those ids whose content is known.
        """
        await self.database.run(self._submitted, images, contents or {})

    def _submitted(
        self, images: Sequence[tuple[str, int]], contents: Mapping[str, SentContent]
    ) -> None:
        with self.database.transaction() as tx:
            tx.executemany("INSERT OR IGNORE INTO images(image_id, sequence) VALUES (?, ?)", images)
            tx.executemany(
                "INSERT OR IGNORE INTO contents VALUES (?, ?, ?)",
                [(image_id, *sent) for image_id, sent in contents.items()],
            )

    async def forget_unanswered(self) -> None:
        """Forget what was submitted and not answered, and where reading stood: the log is gone."""
        await self.database.run(self._forget_unanswered)

    def _forget_unanswered(self) -> None:
        with self.database.transaction() as tx:
            _forget_unanswered(tx)
            tx.execute("DELETE FROM positions")
            tx.execute("DELETE FROM facts WHERE name=?", (_ENDS,))

    async def note_ends(self, ends: Mapping[int, int]) -> None:
        """Note where the log ended, per partition, after what is noted as submitted."""
        await self.set_facts({_ENDS: json.dumps(dict(ends))})

    async def follow_back(self, ends: Mapping[int, int], answers: Mapping[int, int]) -> bool:
        """Go back with a log that has lost its last records; return whether it has.

        A power cut can put the log back to an older state than this file, and so can a copy of it.
        Reading goes on from where the log ends, and what has no answer counts as not submitted.

        Args:
            ends: Where the log ends now, per partition of the topic it was submitted to.
            answers: The same of the topic of answers.
        """
        return await self.database.run(self._follow_back, ends, answers)

    def _follow_back(self, ends: Mapping[int, int], answers: Mapping[int, int]) -> bool:
        noted = json.loads(self._facts().get(_ENDS, "{}"))
        stood = self._positions()
        lost = any(ends.get(int(partition), 0) < at for partition, at in noted.items())
        if not lost and all(answers.get(partition, 0) >= at for partition, at in stood.items()):
            return False
        positions = [(p, min(at, answers.get(p, 0))) for p, at in stood.items()]
        with self.database.transaction() as tx:
            _forget_unanswered(tx)
            tx.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions)
            tx.execute("DELETE FROM facts WHERE name=?", (_ENDS,))
        return True

    async def record(
        self, rows: Sequence[LedgerRow], positions: Mapping[int, int]
    ) -> list[LedgerRow]:
        """Keep answers and the reading positions after them; return those that were new.

        The first answer of an image stays. An answer may come before its image is noted.
        """
        return await self.database.run(self._record, rows, positions)

    def _record(self, rows: Sequence[LedgerRow], positions: Mapping[int, int]) -> list[LedgerRow]:
        with self.database.transaction() as tx:
            new = [row for row in rows if tx.execute(_KEEP, row).rowcount]
            tx.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?)", list(positions.items())
            )
        return new

    async def positions(self) -> dict[int, int]:
        """Return where to read on, per partition of the answers topic."""
        return await self.database.run(self._positions)

    def _positions(self) -> dict[int, int]:
        return dict(self.database.connection.execute("SELECT partition, next FROM positions"))

    async def counts(self) -> list[Count]:
        """Return the images counted by status, exit tier and label."""
        return await self.database.run(self._counts)

    def _counts(self) -> list[Count]:
        rows = self.database.connection.execute(
            "SELECT status, exit_tier, label, COUNT(*) FROM images GROUP BY 1, 2, 3"
        )
        return [Count(*row) for row in rows]

    def answers(self, *, in_order: bool) -> Iterator[list[bytes]]:
        """Yield the encoded answers in batches; blocking, so call it in a thread.

        Args:
            in_order: By the images' input order instead of any.
        """
        order = " ORDER BY sequence" if in_order else ""
        with self.database.honest():
            cursor = self.database.connection.execute(
                f"SELECT answer FROM images WHERE answer IS NOT NULL{order}"
            )
            while rows := cursor.fetchmany(READ_BATCH):
                yield [answer for (answer,) in rows]
