"""SQLite files for the embedded log and the run ledger: opening, transactions, and honest errors.

The only module that imports ``sqlite3``. WAL with ``synchronous=NORMAL``: a killed process loses
nothing that was committed; a power cut may lose the last commits but never the order or the file
(https://www.sqlite.org/pragma.html#pragma_synchronous). A durable transaction is ``FULL``: once it
has ended, it and all before it are on the disk.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TypeVar

import anyio
import msgspec
from anyio import to_thread

from roadstream.schemas.errors import LogUnavailableError, OutputError, RunError, UsageError

T = TypeVar("T")
BUSY_TIMEOUT = 30.0
"""Seconds a call waits for the file's lock before it gives up."""
_LOCK_TRY = 0.5
"""Seconds SQLite waits by itself; between two such tries a call can be cancelled."""
_PRAGMAS = (
    # Before the first table. Pictures of 30 kB are written and read in two thirds of the time that
    # the default of 4 KiB takes, answers likewise; above 16 KiB small commits write too much.
    "PRAGMA page_size=16384",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    # macOS: past the drive's own cache too. Elsewhere it means nothing.
    "PRAGMA fullfsync=1",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA wal_autocheckpoint=1000",
    "PRAGMA cache_size=-4096",
    "PRAGMA temp_store=FILE",
)
# One statement, hence one snapshot. A new file has version 0 and no tables.
_WHOSE = "SELECT user_version, (SELECT COUNT(*) FROM sqlite_master) FROM pragma_user_version"
# Primary result codes (https://www.sqlite.org/rescode.html); extended ones have them in byte 0.
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_FAILING = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk fails, or is full",
    sqlite3.SQLITE_TOOBIG: "a record is too large",
    sqlite3.SQLITE_READONLY: "",
    sqlite3.SQLITE_CANTOPEN: "",
    sqlite3.SQLITE_PERM: "",
    sqlite3.SQLITE_AUTH: "",
}


# Device and inode of every file that this process has had open.
_opened: set[tuple[int, int]] = set()


def opened_here(status: os.stat_result) -> bool:
    """Whether a file is a database of this process; to close another handle of it drops its locks.

    See "How To Corrupt An SQLite Database File", section 2.2.
    """
    return (status.st_dev, status.st_ino) in _opened


class DatabaseStats(msgspec.Struct):
    """Counters of one open file, since it was opened in this process."""

    lock_timeouts: Annotated[
        int, "Calls given up as another process held the file's lock too long."
    ] = 0
    write_errors: Annotated[int, "Calls that failed as the file could not be written."] = 0


class Database:
    """One connection, used by one thread at a time and never on the event loop.

    Args:
        path: The file.
        busy_timeout: Seconds to wait for the file's lock.
        stats: Counted in.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        stats: DatabaseStats | None = None,
    ) -> None:
        self.path = path
        self.stats = stats or DatabaseStats()
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._turn = anyio.CapacityLimiter(1)

    def open(self, schema: str, version: int, migrations: Mapping[int, str] | None = None) -> None:
        """Open or create the file with these tables.

        Args:
            schema: Statements that make the tables where they are not there.
            version: That of the tables.
            migrations: Per older version, the statements that make the next one of it. All of them
                are done in one transaction, in place.

        Raises:
            OutputError: The file cannot be written.
            UsageError: It is another program's file, or another version's.
            RunError: It is damaged.
        """
        self.close()
        if "\0" in str(self.path):
            raise UsageError(f"{str(self.path)!r}: expected the name of a file")
        with self.honest():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path,
                timeout=min(_LOCK_TRY, self._busy_timeout),
                isolation_level=None,
                check_same_thread=False,
            )
            status = self.path.stat()
            _opened.add((status.st_dev, status.st_ino))
            try:
                self._prepare(self._connection, schema, version, migrations or {})
            except BaseException:
                self.close()
                raise

    def _prepare(
        self,
        connection: sqlite3.Connection,
        schema: str,
        version: int,
        migrations: Mapping[int, str],
    ) -> None:
        self._check(connection, version, migrations)  # before anything is written to it
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        with self.transaction() as tx:
            # Again, with the lock: another process may have migrated it meanwhile.
            found = self._check(connection, version, migrations)
            older = range(found, version) if found in migrations else ()
            for script in (*(migrations[at] for at in older), schema):
                for statement in filter(str.strip, script.split(";")):
                    tx.execute(statement)
            tx.execute(f"PRAGMA user_version={version}")

    def _check(
        self, connection: sqlite3.Connection, version: int, migrations: Mapping[int, str]
    ) -> int:
        """Return the version found; raise ``UsageError`` for one that this cannot make of it."""
        found, tables = connection.execute(_WHOSE).fetchone()
        if found != version and found not in migrations and (found or tables):
            raise UsageError(
                f"{self.path}: expected a state file of version {version}, got {found}; "
                "use the Roadstream that wrote it, or another path"
            )
        return int(found)

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, for reading in autocommit."""
        if self._connection is None:
            raise RunError(f"{self.path} is closed")
        return self._connection

    @contextmanager
    def durable(self) -> Iterator[sqlite3.Connection]:
        """Be in a transaction that is on the disk once it has ended, and all before it."""
        connection = self.connection
        connection.execute("PRAGMA synchronous=FULL")
        try:
            with self.transaction():
                yield connection
        finally:
            connection.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Take the write lock, then commit on leaving, or roll back on any error."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back when a disk is full
                with suppress(sqlite3.Error):  # what is told is the error that led here
                    connection.execute("ROLLBACK")
            raise

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run a blocking function in a thread, one at a time, with errors translated.

        A function that finds the file locked has done nothing yet and is called again, until
        ``busy_timeout`` is over; it can be cancelled meanwhile.

        Raises:
            LogUnavailableError: Another process held the file's lock for too long.
            OutputError: The disk is full or the file cannot be written.
            RunError: The file is damaged, or closed.
            UsageError: It is no Roadstream state file.
        """
        give_up_at = time.monotonic() + self._busy_timeout
        while True:
            try:
                return await to_thread.run_sync(self._guarded, function, args, limiter=self._turn)
            except LogUnavailableError:
                if time.monotonic() >= give_up_at:
                    self.stats.lock_timeouts += 1
                    raise

    def _guarded(self, function: Callable[..., T], args: tuple[object, ...]) -> T:
        with self.honest():
            return function(*args)

    @contextmanager
    def honest(self) -> Iterator[None]:
        """Translate the errors of what is done inside; raises as ``run`` does."""
        try:
            yield
        except sqlite3.ProgrammingError:  # a mistake here, not a fault of the file
            raise
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except UnicodeDecodeError as error:  # SQLite's message quotes the damaged bytes
            raise self.damaged("its tables cannot be read") from error
        except MemoryError as error:
            problem = "a value in it asks for more memory than there is"
            raise self.damaged(problem) from error
        except OSError as error:
            self.stats.write_errors += 1
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _translated(self, error: sqlite3.Error) -> RunError | UsageError:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if code in _LOCKED:
            return LogUnavailableError(
                f"{self.path}: expected the file's lock within {self._busy_timeout:g} s, "
                "but another process holds it"
            )
        if code in _FAILING:
            self.stats.write_errors += 1
            name: str = getattr(error, "sqlite_errorname", "")
            done = "read" if "READ" in name and "READONLY" not in name else "written"
            why = ", ".join(part for part in (_FAILING[code], f"{name}") if part)
            return OutputError(f"{self.path}: cannot be {done}: {error} ({why})")
        if code == sqlite3.SQLITE_NOTADB:
            return UsageError(f"{self.path}: expected a Roadstream state file: {error}")
        return self.damaged(str(error))

    def damaged(self, problem: str) -> RunError:
        """Build the error of a file that holds what was never written."""
        return RunError(
            f"{self.path}: is damaged ({problem}); `sqlite3 FILE .recover` shows what is left of "
            "it; to begin anew, move it away"
        )
