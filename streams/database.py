"""SQLite files for the embedded log and the run ledger: opening, transactions, and honest errors.

The only module that imports ``sqlite3``. WAL with ``synchronous=NORMAL``: a killed process loses
nothing that was committed; a power cut may lose the last commits but never the order or the file
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from schemas.errors import LogUnavailableError, OutputError, RunError, UsageError

T = TypeVar("T")
BUSY_TIMEOUT = 30.0
_PRAGMAS = (
    # Before the first table. Pictures of 30 kB are written and read in two thirds of the time that
    # the default of 4 KiB takes, answers likewise; above 16 KiB small commits write too much.
    "PRAGMA page_size=16384",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA wal_autocheckpoint=1000",
    "PRAGMA cache_size=-4096",
    "PRAGMA temp_store=FILE",
)
# One statement, hence one snapshot. A new file has version 0 and no tables.
_WHOSE = "SELECT user_version, (SELECT COUNT(*) FROM sqlite_master) FROM pragma_user_version"


class Database:
    """One connection, used by one thread at a time and never on the event loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._turn = anyio.CapacityLimiter(1)

    def open(self, schema: str, version: int) -> None:
        """Open or create the file with these tables.

        Raises:
            OutputError: The file cannot be written.
            UsageError: It is another program's file, or another version's.
        """
        with self._honest():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            found, tables = connection.execute(_WHOSE).fetchone()
            if found != version and (found or tables):  # before anything is written to it
                raise UsageError(
                    f"{self.path}: expected a state file of version {version}, got {found}; "
                    "use the Roadstream that wrote it, or another path"
                )
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            with self.transaction() as tx:
                for statement in filter(str.strip, schema.split(";")):
                    tx.execute(statement)
                tx.execute(f"PRAGMA user_version={version}")

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
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Take the write lock, then commit on leaving, or roll back on any error."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run a blocking function in a thread, one at a time, with errors translated.

        Raises:
            LogUnavailableError: Another process held the file's lock for too long.
            OutputError: The disk is full or the file cannot be written.
        """
        return await to_thread.run_sync(self._guarded, function, args, limiter=self._turn)

    def _guarded(self, function: Callable[..., T], args: tuple[object, ...]) -> T:
        with self._honest():
            return function(*args)

    @contextmanager
    def _honest(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise LogUnavailableError(
                    f"{self.path}: expected the file's lock within {BUSY_TIMEOUT:.0f} s, "
                    "but another process holds it"
                ) from error
            raise OutputError(f"{self.path}: cannot be written: {error}") from error
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{self.path}: expected a Roadstream state file: {error}") from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
