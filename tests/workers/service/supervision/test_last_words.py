"""What a supervisor tells of a child that died: its last useful words."""

import json

import pytest

from roadstream.workers.service.supervision.last_words import is_error_line, last_words

GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/workers/cli.py", line 8, in <module>
  |     main()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/workers/tier.py", line 5, in run
    |     raise ValueError("no such thing")
    |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    | ValueError: no such thing
    +------------------------------------"""
DRAWN = """\
╭─────────── Traceback (most recent call last) ───────────╮
│ /app/workers/tier.py:5 in run                            │
╰──────────────────────────────────────────────────────────╯
ValueError: no such thing"""
NATIVE = """\
Fatal Python error: Segmentation fault

Current thread 0x00007f3a (most recent call first):
  File "/app/engine.py", line 3 in infer
Extension modules: numpy.core._multiarray_umath (total: 1)"""
DETAILED = """\
Traceback (most recent call last):
  File "/app/engine.py", line 3, in infer
    model(batch)
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/engine.py", line 5, in infer
RuntimeError: no model"""


def words_of(text: str) -> str | None:
    found = [words for line in text.splitlines() if (words := last_words(line))]
    return found[-1] if found else None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GROUP, "ValueError: no such thing"),
        (DRAWN, "ValueError: no such thing"),
        (NATIVE, "Fatal Python error: Segmentation fault"),
        (
            NATIVE.replace("Current thread 0x00007f3a", "Stack"),
            "Fatal Python error: Segmentation fault",
        ),
        (DETAILED, "RuntimeError: no model"),
        ("Killed by somebody", "Killed by somebody"),
        ("roadstream: no broker\n", "no broker"),
        ("{not json", "{not json"),
    ],
)
def test_the_error_itself_is_told_and_no_border_or_place(text: str, words: str) -> None:
    assert words_of(text) == words


def test_of_log_lines_only_those_tell_that_something_is_wrong() -> None:
    said = {"event": "crashed", "level": "critical", "error": "ValueError: no such thing"}
    assert event_words(**said) == "crashed: ValueError: no such thing"
    assert event_words(event="drain_cut_short", level="warning") == "drain_cut_short"
    assert event_words(event="worker_started", level="info") is None


def event_words(**said: str) -> str | None:
    return last_words(json.dumps({"timestamp": "2026-01-01T00:00:00Z", **said}))


def test_only_what_a_command_ends_with_is_an_error_line() -> None:
    assert is_error_line("roadstream: no broker")
    assert not is_error_line('{"event": "roadstream: "}')
