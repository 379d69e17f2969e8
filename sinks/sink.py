"""The port of what answers are written to, which sinks there are, and what drives one."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import TracebackType
from typing import NamedTuple, Self

from roadstream.schemas.errors import OutputError, RoadstreamError, UsageError
from roadstream.schemas.plugins import PlugIn, PlugIns, unlike
from roadstream.schemas.records.answer import Answer
from roadstream.sinks.columns import AnswerRow, row


class AnswerSink(ABC):
    """Where answers go: what ``--out`` names. One is made per run of a command, of its target.

    Then ``write`` is called any number of times, and ``commit`` at the end. ``abort`` is called
    instead of ``commit``, or after ``write`` or ``commit`` has raised; nothing is called after it.
    Calls may block. They come one at a time, not all from the same thread. A process that is killed
    makes none any more.

    **Before the work** a sink is made and aborted, so that a mistake shows at once: check the
    target when made, and leave what stands there as it is until ``write``, better until ``commit``.

    **Repetition.** ``score`` hands over all answers of its run at the end, or when Ctrl-C stops it.
    A run that is resumed, and the same command once more, hands over all of them anew, those that
    were handed over before too. What replaces the target in one step, or keeps one row per
    ``image_id`` in one transaction, therefore has each answer exactly once; what sends them on has
    them at least once, and its receiver tells by ``image_id``. A file that has changed since has
    its new answer under another ``image_id`` and the same ``uri``. ``answers`` hands over what it
    reads from the log, and begins where its ``--from`` says each time.

    **Order** is that of the input with ``--sort``, and any without; of ``answers``, that of the log
    within a partition.

    **Errors.** ``UsageError`` for a target that cannot be (exit status 2), ``OutputError`` for what
    fails (exit status 1). Whatever else another distribution's sink raises becomes an
    ``OutputError`` that names the distribution. The answers stay in the run's ledger or on the log:
    the same command hands them over again.

    Args:
        target: As ``--out`` has it: ``scheme://…``, or the path of a file.
    """

    @abstractmethod
    def __init__(self, target: str) -> None: ...

    @abstractmethod
    def write(self, rows: Sequence[AnswerRow]) -> None:
        """Take rows, some hundreds and never none; they may be kept back until ``commit``."""

    @abstractmethod
    def commit(self) -> None:
        """Finish; what was written is there, durably, when this returns."""

    @abstractmethod
    def abort(self) -> None:
        """Let go of everything, undo what can be undone; must not raise."""


class SinkEntry(NamedTuple):
    """A sink that there is.

    Attributes:
        implementation: Its class, ``module:name``.
        origin: Distribution and version that bring it; empty for ours.
    """

    implementation: str
    origin: str = ""


_FILES = "roadstream.sinks.files"
OURS = {
    ".parquet": SinkEntry(f"{_FILES}.parquet:ParquetSink"),
    ".jsonl": SinkEntry(f"{_FILES}.text_output:JsonLinesSink"),
    ".csv": SinkEntry(f"{_FILES}.text_output:CsvSink"),
}
FORMATS = tuple(OURS)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def _entry(found: PlugIn) -> SinkEntry:
    if (got := unlike(found.made, AnswerSink)) is not None:
        raise found.refused("to be an AnswerSink", got)
    return SinkEntry(found.implementation, found.origin)


sinks = PlugIns("roadstream.sinks", "sink", OURS, _entry)
"""All sinks, by the scheme of their targets or the ending (``.csv``) of their files' names."""


def scheme_of(target: str) -> str | None:
    """Return the scheme of a target; ``None`` if it is the path of a file."""
    found = _SCHEME.match(target)
    return found[1].lower() if found else None


def name_of(target: str) -> str:
    """Return the name of a target's sink: its scheme, or the ending of its file's name."""
    return scheme_of(target) or Path(target).suffix.lower()


def target_of(out: str | os.PathLike[str]) -> str:
    """Return what somebody has named as output as a target: paths as ``Path`` spells them."""
    text = os.fspath(out)
    scheme = scheme_of(text)
    return str(Path(text)) if scheme is None else scheme + text[len(scheme) :]


class AnswerWriter:
    """An open sink; made by ``open_writer``.

    A ``with`` block closes at its end, or aborts on an exception.

    Attributes:
        rows: Rows taken so far.
    """

    def __init__(self, target: str, entry: SinkEntry) -> None:
        self.rows = 0
        self._target, self._origin = target, entry.origin
        with self._blaming():
            self._sink: AnswerSink = resolve_name(entry.implementation)(target)
        self._open = True

    def write(self, answers: Sequence[Answer]) -> None:
        """Append answers in the order given.

        Raises:
            OutputError: They cannot be written; the writer has aborted.
        """
        self.write_rows([row(answer) for answer in answers])

    def write_rows(self, rows: Sequence[AnswerRow]) -> None:
        """Append rows as ``read_answers`` yields them; raises as ``write`` does."""
        if not self._open:
            raise ValueError(f"{self._target}: already closed")
        if rows:
            self._do(partial(self._sink.write, rows))
            self.rows += len(rows)

    def close(self) -> None:
        """Commit; closing again does nothing.

        Raises:
            OutputError: It cannot be committed; the writer has aborted.
        """
        if self._open:
            self._do(self._sink.commit)
            self._open = False

    def abort(self) -> None:
        """Drop what was written; never raises."""
        if self._open:
            self._open = False
            with suppress(Exception):  # of somebody else's: what led here is told
                self._sink.abort()

    def _do(self, call: Callable[[], None]) -> None:
        try:
            with self._blaming():
                call()
        except BaseException:
            self.abort()
            raise

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except RoadstreamError:
            raise
        except Exception as error:
            if not self._origin:
                raise
            got = " ".join(f"{type(error).__name__}: {error}".split())
            raise OutputError(
                f"{self._target}: expected the sink of {self._origin} to take answers, got {got}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def open_writer(out: str | os.PathLike[str]) -> AnswerWriter:
    """Open what a target names for writing.

    Raises:
        UsageError: There is no such sink, or the target is not what it should be.
        OutputError: It cannot be written to.
    """
    target = target_of(out)
    name = name_of(target)
    if name not in OURS and not sinks.offered(name):
        there = sorted(sinks.names(), key=_is_scheme)
        told = ", ".join(f"or {one}://…" if _is_scheme(one) else one for one in there)
        got = f"{name}://…" if _is_scheme(name) else name or "no suffix"
        raise UsageError(f"{target}: expected a name ending in {told}, got {got}")
    return AnswerWriter(target, sinks.named(name, target))


def _is_scheme(name: str) -> bool:
    return bool(name) and not name.startswith(".")


def check_output(out: str | os.PathLike[str]) -> None:
    """Raise what ``open_writer`` would raise, before any work is done; leaves nothing behind."""
    open_writer(out).abort()
