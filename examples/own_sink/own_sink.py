"""An answer sink of your own: a table in an SQLite database, by ``--out sqlite://answers.db``."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from roadstream.schemas.errors import UsageError
from roadstream.sinks.columns import AnswerRow
from roadstream.sinks.sink import AnswerSink

COLUMNS = ("image_id", "uri", "status", "label", "probability", "votes")
TABLE = f"CREATE TABLE IF NOT EXISTS answers ({', '.join(COLUMNS)}, PRIMARY KEY (image_id))"
PUT = f"INSERT OR REPLACE INTO answers VALUES ({', '.join('?' * len(COLUMNS))})"


class SqliteSink(AnswerSink):
    """One transaction, and one row per image: what is handed over again replaces what was there.

    What SQLite raises, Roadstream reports with the name of this distribution.
    """

    def __init__(self, target: str) -> None:
        path = Path(target.removeprefix("sqlite://"))
        if not path.parent.is_dir():
            raise UsageError(f"{target}: expected an existing folder {path.parent}, found none")
        # Calls come one at a time, but not all from one thread.
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(TABLE)

    def write(self, rows: Sequence[AnswerRow]) -> None:
        """Put rows into the table."""
        for row in rows:
            cells = {**row, "votes": json.dumps(row["votes"])}
            self._database.execute(PUT, [cells[name] for name in COLUMNS])

    def commit(self) -> None:
        """Let others see them, durably."""
        self._database.execute("COMMIT")
        self._database.close()

    def abort(self) -> None:
        """Leave the table as it was."""
        self._database.close()  # which rolls back
