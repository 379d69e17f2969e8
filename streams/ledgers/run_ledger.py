"""The ledger of a run: what was submitted and what was answered, in one SQLite file.

It is what makes a run resumable, whatever log it runs on: an image is submitted once, an answer is
kept once, and the reading position moves in the same transaction as the answers it covers. At each
place that a scan came by, one image is current: the one of the content that was there last.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError, RecordError
from roadstream.streams.database import Database
from roadstream.streams.ledgers.run_places import PathOnly, Placing, decide
from roadstream.streams.sources.identity import owned_id, path_id
from roadstream.streams.sources.places import FileState, Known, Scanned

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS images(
    image_id BLOB PRIMARY KEY, sequence INTEGER NOT NULL,
    current INTEGER NOT NULL, unread INTEGER NOT NULL DEFAULT 0,
    status TEXT, exit_tier TEXT, label TEXT, answer BLOB);
CREATE INDEX IF NOT EXISTS by_sequence ON images(sequence);
CREATE TABLE IF NOT EXISTS places(
    place BLOB PRIMARY KEY, image_id BLOB NOT NULL,
    size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS videos(place BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS path_only(image_id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents(
    image_id BLOB PRIMARY KEY, hash BLOB NOT NULL, uri TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions(partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
"""
# Version 1 knew no places, and its ids told the path alone. Its images stay current until a scan
# comes by their places.
MIGRATIONS = {
    1: """
ALTER TABLE images ADD COLUMN current INTEGER NOT NULL DEFAULT 1;
ALTER TABLE images ADD COLUMN unread INTEGER NOT NULL DEFAULT 0;
CREATE TABLE path_only(image_id BLOB PRIMARY KEY) WITHOUT ROWID;
INSERT INTO path_only SELECT image_id FROM images;
"""
}
READ_BATCH = 512
_ENDS = "log_ends"
_CONTENT = "SELECT hash, uri FROM contents WHERE image_id=?"
_KEEP = """
INSERT INTO images(image_id, sequence, status, exit_tier, label, answer, unread, current)
VALUES (?, ?, ?, ?, ?, ?, ?, 0)
ON CONFLICT(image_id) DO UPDATE SET status=excluded.status, exit_tier=excluded.exit_tier,
    label=excluded.label, answer=excluded.answer, unread=excluded.unread
WHERE answer IS NULL
RETURNING current"""
_SUBMIT = """
INSERT INTO images(image_id, sequence, current) VALUES (?, ?, 1)
ON CONFLICT(image_id) DO UPDATE SET current=1 WHERE NOT current
RETURNING status, exit_tier, label"""
_RETIRE = """
UPDATE images SET current=0 WHERE image_id=? AND current RETURNING status, exit_tier, label"""
_PLACE = """
SELECT places.image_id, size, mtime_ns, ctime_ns, unread FROM places JOIN images USING(image_id)
WHERE place=?"""
_PATH_ONLY = """
SELECT status, hash, answer FROM path_only JOIN images USING(image_id) LEFT JOIN contents
USING(image_id) WHERE path_only.image_id=?"""
# "=" is followed by ">". What else begins so is a file that somebody has named so.
_FRAMES = "SELECT place, image_id FROM places WHERE place>=? AND place<?"
_FRAME = re.compile(rb"#t=\d+\.\d{3}(&stream=\d+)?$")


def _forget_unanswered(tx: Any) -> None:
    tx.execute("DELETE FROM images WHERE answer IS NULL")
    # Also where it lay: its answer may come before the scan, and must not pass for known there.
    for table in ("contents", "places"):
        tx.execute(f"DELETE FROM {table} WHERE image_id NOT IN (SELECT image_id FROM images)")


def _sent_at(answer: object) -> float | None:
    """Return when an answer's image was sent, unless nobody knows."""
    if not isinstance(answer, bytes):
        return None
    try:
        found = codec.decode(codec.decode_answer, answer, "run ledger", 0, 0)
    except RecordError:
        return None
    return found.head.submitted_at


class LedgerRow(NamedTuple):
    """An answer to be kept: its encoded bytes and what is counted by.

    ``unread`` says that the picture could not be read where it lay, which another try may mend.
    """

    image_id: str
    sequence: int
    status: str
    exit_tier: str | None
    label: str | None
    answer: bytes
    unread: bool = False


class SentContent(NamedTuple):
    """What was sent under an id.

    Attributes:
        content_hash: As in ``Head.content_hash``; ``None`` if it is not known.
        uri: Where it came from.
    """

    content_hash: bytes | None
    uri: str


class Count(NamedTuple):
    """How many images share status, exit tier and label; status ``None`` is not answered yet.

    Where it is a change, the number may be negative.
    """

    status: str | None
    exit_tier: str | None
    label: str | None
    images: int


class RunLedger:
    """An open ledger. Its methods are coroutines; the work is done in a thread."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        # For the thread that scans: it looks places up while another thread writes.
        self._places = Database(path)
        self._run_id: str | None = None
        self._path_only = False

    async def __aenter__(self) -> "RunLedger":
        try:
            await self.database.run(self.database.open, SCHEMA, SCHEMA_VERSION, MIGRATIONS)
            await self._places.run(self._places.open, SCHEMA, SCHEMA_VERSION)
            self._run_id = (await self.facts()).get("run_id")
            self._path_only = await self.database.run(self._any_path_only)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._places.close()
        self.database.close()

    def _any_path_only(self) -> bool:
        query = "SELECT EXISTS(SELECT 1 FROM path_only)"
        return bool(self.database.connection.execute(query).fetchone()[0])

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
        """Note images without a place whose records the log has acknowledged.

        Args:
            images: As (id, sequence).
            contents: What was sent under those ids whose content is known.
        """
        await self.database.run(self._submitted, images, contents or {})

    def _submitted(
        self, images: Sequence[tuple[str, int]], contents: Mapping[str, SentContent]
    ) -> None:
        with self.database.transaction() as tx:
            for image in images:
                tx.execute(_SUBMIT, image).fetchall()
            tx.executemany(
                "INSERT OR IGNORE INTO contents VALUES (?, ?, ?)",
                [(image_id, *sent) for image_id, sent in contents.items()],
            )

    def known(self, place: str) -> Known | None:
        """Return what stands at a place; blocking, for the one thread that scans."""
        try:
            with self._places.honest():
                return self._known(place)
        except LogUnavailableError:  # locked: reading the file once more does no harm
            return None

    def _known(self, place: str) -> Known | None:
        execute = self._places.connection.execute
        if row := execute(_PLACE, (os.fsencode(place),)).fetchone():
            image_id, size, mtime_ns, ctime_ns, unread = row
            trusted = size is not None and not unread
            return Known(image_id, FileState(size, mtime_ns, ctime_ns) if trusted else None)
        old = self._old(execute, place)
        return None if old is None else Known(old.image_id, None)

    def _old(self, execute: Any, place: str) -> PathOnly | None:
        if not self._path_only:
            return None
        ids = [path_id(place)]
        if self._run_id is not None:
            ids.append(owned_id(self._run_id, ids[0]))
        for image_id in ids:
            if row := execute(_PATH_ONLY, (image_id,)).fetchone():
                status, content, answer = row
                told = content if isinstance(content, bytes) else None
                return PathOnly(image_id, status == "failed", told, _sent_at(answer))
        return None

    async def plan(self, batch: Sequence[Scanned]) -> list[Placing]:
        """Return what is to be done about the places of a batch."""
        return await self.database.run(self._plan, batch)

    def _plan(self, batch: Sequence[Scanned]) -> list[Placing]:
        execute = self.database.connection.execute

        def sent(image_id: str) -> bool | None:
            row = execute("SELECT unread FROM images WHERE image_id=?", (image_id,)).fetchone()
            return None if row is None else bool(row[0])

        placings = (
            decide(s, partial(self._stands, s.place), partial(self._old, execute, s.place), sent)
            for s in batch
        )
        return [placing for placing in placings if placing is not None]

    def _stands(self, place: str) -> bool:
        execute, key = self.database.connection.execute, (os.fsencode(place),)
        return bool(
            execute(_PLACE, key).fetchone()
            or execute("SELECT 1 FROM videos WHERE place=?", key).fetchone()
            or self._old(execute, place)
        )

    async def note(self, placings: Sequence[Placing]) -> list[Count]:
        """Note what stands where now, once the log has acknowledged what was to be sent.

        Returns:
            By how much the counts of current images have changed.
        """
        return await self.database.run(self._note, placings)

    def _note(self, placings: Sequence[Placing]) -> list[Count]:
        changes: Counter[tuple[str | None, str | None, str | None]] = Counter()
        with self.database.transaction() as tx:
            for placing in placings:
                if placing.action == "enter":
                    self._enter(tx, placing.scanned, changes)
                elif placing.image is not None:
                    head = placing.image.head
                    self._leave(tx, placing.scanned.place, head.image_id, changes)
                    row = (head.image_id, head.sequence or 0)
                    changes.update(tx.execute(_SUBMIT, row).fetchall())
                    state = placing.scanned.state or (None, None, None)
                    tx.execute(
                        "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)",
                        (os.fsencode(placing.scanned.place), head.image_id, *state),
                    )
        return [Count(*group, images) for group, images in changes.items() if images]

    def _leave(self, tx: Any, place: str, image_id: str, changes: "Counter[Any]") -> None:
        """Retire what stands at a place, unless it is this image."""
        key = os.fsencode(place)
        row = tx.execute("SELECT image_id FROM places WHERE place=?", (key,)).fetchone()
        before = row[0] if row else None
        if not row and (old := self._old(tx.execute, place)) is not None:
            before = old.image_id
        if before not in (None, image_id):
            changes.subtract(tx.execute(_RETIRE, (before,)).fetchall())
            tx.execute("DELETE FROM path_only WHERE image_id=?", (before,))

    def _enter(self, tx: Any, scanned: Scanned, changes: "Counter[Any]") -> None:
        """Retire what stood for a folder or video as a whole, and the frames of another video."""
        key = os.fsencode(scanned.place)
        if scanned.holds:
            row = tx.execute("SELECT content FROM videos WHERE place=?", (key,)).fetchone()
            if row and row[0] == scanned.holds:
                return
            tx.execute("INSERT OR REPLACE INTO videos VALUES (?, ?)", (key, scanned.holds))
            for place, image_id in tx.execute(_FRAMES, (key + b"#t=", key + b"#t>")).fetchall():
                if _FRAME.match(place, len(key)):
                    changes.subtract(tx.execute(_RETIRE, (image_id,)).fetchall())
                    tx.execute("DELETE FROM places WHERE place=?", (place,))
        self._leave(tx, scanned.place, "", changes)
        tx.execute("DELETE FROM places WHERE place=?", (key,))

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
        """Keep answers and the reading positions after them; return what is new at its place.

        The first answer of an image stays. An answer may come before its image is noted, and is
        counted when it is; one of an image that is no longer current is not counted.
        """
        return await self.database.run(self._record, rows, positions)

    def _record(self, rows: Sequence[LedgerRow], positions: Mapping[int, int]) -> list[LedgerRow]:
        with self.database.transaction() as tx:
            new = [
                row for row in rows if (kept := tx.execute(_KEEP, row).fetchall()) and kept[0][0]
            ]
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
        """Return the current images counted by status, exit tier and label."""
        return await self.database.run(self._counts)

    def _counts(self) -> list[Count]:
        rows = self.database.connection.execute(
            "SELECT status, exit_tier, label, COUNT(*) FROM images WHERE current GROUP BY 1, 2, 3"
        )
        return [Count(*row) for row in rows]

    def answers(self, *, in_order: bool) -> Iterator[list[bytes]]:
        """Yield the encoded answers of current images in batches; blocking, so call it in a thread.

        Args:
            in_order: By the images' input order instead of any.
        """
        order = " ORDER BY sequence" if in_order else ""
        with self.database.honest():
            cursor = self.database.connection.execute(
                f"SELECT answer FROM images WHERE current AND answer IS NOT NULL{order}"
            )
            while rows := cursor.fetchmany(READ_BATCH):
                yield [answer for (answer,) in rows]
