"""The folder beside the output that makes a scoring run resumable, and its lock."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from roadstream.schemas.errors import OutputError, UsageError
from roadstream.sinks.sink import scheme_of
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.sources.listing import Readable, keep_list


class RunKey(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same for a run to be resumed.

    ``listed`` tells the list on standard input from any other; ``None`` if there is none.
    """

    paths: list[str]
    folder: str
    log: str
    cascade: str
    cascade_hash: str
    namespace: str | None = None
    fps: float | None
    stream: int | Literal["all"] | None = None
    listed: str | None = None


class RunFolder:
    """``answers.parquet.roadstream/`` beside ``answers.parquet``: ledger, log, state, lock.

    Of a target that is no file it lies in the working folder, and does not show the target.
    """

    def __init__(self, out: str) -> None:
        self.out = name = out
        if scheme := scheme_of(out):
            digest = hashlib.sha256(out.encode(errors="backslashreplace")).hexdigest()
            name = f"{scheme}-{digest[:12]}"
        self.path = Path(f"{name}.roadstream")
        self.ledger = self.path / "ledger.db"
        self.log = self.path / "log.db"
        self.state = self.path / "state"

    @contextlib.contextmanager
    def locked(self, *, restart: bool) -> Iterator[None]:
        """Make the folder, hold its lock, and with ``restart`` forget what an earlier run left.

        Raises:
            UsageError: Another process is scoring into the same output.
            OutputError: The folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"{self.out}: another roadstream is scoring into it") from None
            if restart:
                self._remove("ledger.db")
                self.remove_log()
            yield

    @contextlib.contextmanager
    def list_kept(self, stream: Readable) -> Iterator[tuple[BinaryIO, str]]:
        """Read a list of paths to its end; yield a file without a name, and what tells the list.

        Raises:
            UsageError: It is no list.
            OutputError: The disk is full.
        """
        try:
            file = tempfile.TemporaryFile(dir=self.path)  # noqa: SIM115 (it is closed below)
            with contextlib.ExitStack() as opened:
                opened.enter_context(file)
                listed = keep_list(stream, file)
                opened.pop_all()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from None
        with file:
            yield file, listed

    def remove_log(self) -> None:
        """Delete the embedded log, and the notes of workers on it; the ledger stays."""
        self._remove("log.db")
        shutil.rmtree(self.state, ignore_errors=True)

    def _remove(self, name: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            (self.path / f"{name}{suffix}").unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the whole folder."""
        shutil.rmtree(self.path, ignore_errors=True)


async def resume(ledger: RunLedger, key: RunKey, folder: RunFolder) -> str:
    """Check that the ledger is of this very run; return the run's id, made on the first start.

    Raises:
        UsageError: It is of another run; the message says what differs.
    """
    facts = await ledger.facts()
    wanted = msgspec.to_builtins(key)
    if "run_id" not in facts:
        run_id = uuid.uuid4().hex
        await ledger.set_facts({"run_id": run_id, "key": json.dumps(wanted)})
        return run_id
    found = json.loads(facts["key"])
    for name, value in wanted.items():
        # Runs that noted nothing of their list are taken at their word, once.
        if found.get(name, value if name == "listed" else None) != value:
            holds = f"a run with {name} {found.get(name)!r}, not {value!r}"
            if name == "listed":
                holds = "a run over another list on standard input"
            raise UsageError(
                f"{folder.path} holds {holds}; give another --out, or --restart to forget that run"
            )
    if "listed" not in found:
        await ledger.set_facts({"key": json.dumps(wanted)})
    return facts["run_id"]


def working_folder() -> str:
    """Return the folder that relative paths are relative to."""
    return os.getcwd()  # noqa: PTH109 (a string for the run key)
