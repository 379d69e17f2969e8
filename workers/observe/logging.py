"""Logging: one line per event that says who speaks; for people on a terminal, as JSON otherwise.

Who that is stands in the fields ``IDENTITY``. What holds for a whole process is given to
``identify``, what holds for one of its parts to ``speaking_as``. A supervisor passes the lines of
its children on in the form of its own: ``pass_on``.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TypeVarTuple

import structlog

from roadstream.workers.observe.terminal import on_one_line

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "text", "json"]
Event = MutableMapping[str, Any]
Ts = TypeVarTuple("Ts")

IDENTITY = ("service", "tier", "group", "member_id", "pid")
_TEXTS = ("timestamp", "level", "event")
_HEAD = (*_TEXTS, *IDENTITY)
_NAME_WIDTH = 12
# Of a member; the id of a run, say, would leave little room for what people want to read.
_LONGEST_NAME = 24
_DIM, _CYAN = "2", "36"
_COLOURS = {"warning": "33", "error": "31", "critical": "31"}

_process: dict[str, Any] = {}
_in_library: ContextVar[bool] = ContextVar("in_library", default=False)


def identify(**known: object) -> None:
    """Note who this process is, in fields of ``IDENTITY``; ``None`` stands for nothing known."""
    _process.update({name: value for name, value in known.items() if value is not None})


def identity() -> Mapping[str, Any]:
    """Return what is known of who this process is."""
    return {**_process, "pid": os.getpid()}


async def speaking_as(
    fields: Mapping[str, str], part: Callable[[*Ts], Awaitable[None]], *args: *Ts
) -> None:
    """Run a part of this process; its lines have these fields, in whatever task or thread."""
    with structlog.contextvars.bound_contextvars(**fields):
        await part(*args)


class Renderer:
    """Makes a line of an event: the last processor of structlog.

    Attributes:
        text: Whether it is for people; else it is JSON.
        colours: Whether a text has colours.
    """

    def __init__(self) -> None:
        self.text = self.colours = False

    def __call__(self, logger: object, method: str, event: Event) -> str:
        """Return the line of an event of this process."""
        member = str(event.get("member_id", ""))
        last = member if 0 < len(member) <= _LONGEST_NAME else event.get("pid")
        who = event.get("service"), event.get("tier"), last
        return self.line(event, " ".join(str(part) for part in who if part))

    def line(self, event: Event, who: str) -> str:
        """Return the line of an event; to people ``who`` tells all of its identity."""
        if self.text:
            return self._for_people(event, who)
        first = {name: event[name] for name in (*_TEXTS, "child", *IDENTITY) if name in event}
        return json.dumps({**first, **event}, default=str)

    def _for_people(self, event: Event, who: str) -> str:
        fields = {key: value for key, value in event.items() if key not in _HEAD}
        exception, level = fields.pop("exception", ""), event.get("level", "")
        told = " ".join(f"{key}={_value(value)}" for key, value in fields.items())
        lines = [f"{event['event']}  {told}".rstrip(), *str(exception).splitlines()]
        head = " ".join(
            [
                self._painted(_clock(event.get("timestamp")), _DIM),
                self._painted(f"{level:<7}", _COLOURS.get(level)),
                self._painted(f"{on_one_line(who):<{_NAME_WIDTH}}", _CYAN),
            ]
        )
        return "\n".join(f"{head} {on_one_line(line)}" for line in lines)

    def _painted(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours and colour else text


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_value, value)) or "-"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text else text


def _clock(timestamp: object) -> str:
    """Return the time of day here at an ISO timestamp."""
    try:
        moment = datetime.fromisoformat(str(timestamp)).astimezone()
    except (ValueError, OverflowError):  # a year 9999 is none here
        moment = datetime.now(UTC).astimezone()
    return f"{moment:%H:%M:%S}"


class _StandardError:
    """Standard error as it is at the time: a live display stands in for it while it is shown."""

    def write(self, text: str) -> None:
        sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


# Its lock keeps lines whole, whichever threads write them.
_writer = structlog.WriteLogger(_StandardError())  # type: ignore[arg-type]
_renderer = Renderer()


def for_people() -> bool:
    """Return whether this process logs text, beside which other text may stand."""
    return _renderer.text


def configure_logging(level: Level, form: Format = "auto") -> None:
    """Send events of ``level`` and above to standard error.

    Args:
        level: The level.
        form: Text, JSON, or whichever suits standard error.
    """
    terminal = sys.stderr.isatty()
    _renderer.text = form == "text" or (form == "auto" and terminal)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    _renderer.colours = terminal and not plain
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_identity,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *args: _writer,
        cache_logger_on_first_use=True,
    )
    # aiokafka reports each lost connection by itself; what matters of it is raised to us.
    logging.getLogger("aiokafka").setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)


def log_as_library() -> None:
    """Send this context's events to the standard library's logger ``roadstream``.

    Where the program has configured structlog, they go where that says. Else structlog goes on as
    it does by default for everybody outside of this context, the threads and tasks begun in it.
    """
    _in_library.set(True)
    if not structlog.is_configured():
        structlog.configure(
            processors=[_to_standard_library, *structlog.get_config()["processors"]],
            # Its default cannot be made without a standard output, as in a daemon that closed it.
            logger_factory=None if sys.stdout else structlog.ReturnLoggerFactory(),
        )


def _to_standard_library(logger: object, method: str, event: Event) -> Event:
    if not _in_library.get():
        return event
    tell_library({**structlog.contextvars.get_contextvars(), "level": method, **event})
    raise structlog.DropEvent


def tell_library(event: Mapping[str, Any]) -> None:
    """Give an event to the standard library's logger ``roadstream``, as one line."""
    told = {key: value for key, value in event.items() if key not in (*_TEXTS, "exc_info")}
    line = " ".join([str(event["event"]), *(f"{key}={_value(told[key])}" for key in told)])
    level = logging.getLevelNamesMapping().get(str(event["level"]).upper(), logging.WARNING)
    logging.getLogger("roadstream").log(level, "%s", line, exc_info=event.get("exc_info"))


def _add_identity(logger: object, method: str, event: Event) -> Event:
    for name, value in identity().items():
        event.setdefault(name, value)
    return event


def read_event(line: str) -> Event | None:
    """Return the event of a line in JSON; ``None`` if the line is something else.

    Other programs log JSON too, with heads of other kinds: those are none of our events.
    """
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ours = isinstance(event, dict) and all(isinstance(event.get(name), str) for name in _TEXTS)
    return event if ours else None


def pass_on(child: str, pid: int | None, line: str) -> None:
    """Write what a child process has written, under its name and in the form of this process.

    What is no event, but comes from a library or from Python itself, is the event ``said``.
    """
    event = read_event(line) or {
        "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "level": "warning",
        "event": "said",
        "pid": pid,
        "line": line,
    }
    tier, who = str(event.get("tier", "")), child
    if not _renderer.text:
        event["child"] = child
    elif event["event"] == "said":
        event["event"] = event.pop("line", "")
    if not child.startswith(tier):  # it works for several
        who = f"{child} {tier}"
    _writer.msg(_renderer.line(event, who))


class _Libraries(logging.Handler):
    """Turns what libraries log, and Python's warnings, into events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        if not structlog.is_configured():
            assert logging.lastResort is not None
            logging.lastResort.handle(record)
            return
        level = min(max(record.levelno // 10, 1), 5) * 10
        structlog.get_logger().log(
            level, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def log_strays() -> None:
    """Log what else would go to standard error as text: crashes, and what libraries say.

    For the whole process, once. A command that does not log keeps Python's own ways.
    """
    logging.basicConfig(handlers=[_Libraries()])
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(
        crash.exc_type, crash.exc_value or crash.exc_type(), crash.exc_traceback
    )


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not structlog.is_configured() or not isinstance(error, Exception):
        sys.__excepthook__(kind, error, traceback)
        return
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    said = f"{type(cause).__name__}: {cause}"
    structlog.get_logger().critical("crashed", error=said, exc_info=(kind, error, traceback))
