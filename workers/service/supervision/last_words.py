"""Why a process ended, from the last lines that it wrote to its standard error."""

import re

from roadstream.workers.observe.logging import read_event

# What a command says of the error that it ends with; see ``roadstream.workers.cli``.
ERROR_PREFIX = "roadstream: "
# A traceback of a group of errors, or a drawn one, has a bar before each line.
_BAR = re.compile(r" *[|\u2502] ?")
# What stands around the line that says what happened: places in the code, borders, headings.
_AROUND = re.compile(
    r"\s|[+\u256d\u2570\u2500-]|Traceback |.*\(most recent call first\):$|Extension modules: |"
    r"(During handling|The above exception) .*:$"
)
_TELLING = frozenset({"warning", "error", "critical"})
# Characters of them: a line without an end, or a dump, would hide all else in the line they go in.
_MOST = 500


def is_error_line(line: str) -> bool:
    """Return whether a line is the error that a command ends with."""
    return line.startswith(ERROR_PREFIX)


def last_words(line: str) -> str | None:
    """Return what a line says about an end that may follow it; ``None`` for nothing.

    Of a traceback that is the error itself: no border, no place in the code. Of a long line it is
    the beginning.
    """
    words = _words(line)
    return words if words is None or len(words) <= _MOST else f"{words[:_MOST]}…"


def _words(line: str) -> str | None:
    if (event := read_event(line)) is not None:
        if event.get("level") not in _TELLING:
            return None
        why = event.get("error") or event.get("reason") or event.get("call") or ""
        return f"{event['event']}: {why}".rstrip(": ")
    if is_error_line(line):
        return line.removeprefix(ERROR_PREFIX)
    said = _BAR.sub("", line, count=1)
    return None if not said or _AROUND.match(said) else said.rstrip(" \u2502")
