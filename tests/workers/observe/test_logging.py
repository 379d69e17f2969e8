"""Who says what: identity in every line, as JSON and for people, also of children."""

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import structlog
from anyio import to_thread

import roadstream.workers.observe.logging as voice
from roadstream.streams.group.member import logger as member_logger
from roadstream.workers.observe.logging import configure_logging, identify, pass_on, speaking_as
from roadstream.workers.service.supervision.last_words import last_words


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(voice, "_process", {})
    before = voice._renderer.text, voice._renderer.colours
    yield
    voice._renderer.text, voice._renderer.colours = before


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_every_line_says_who_in_every_room_task_and_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identify(service="work", member_id="vm-1", tier=None)
    configure_logging("info", "json")

    def in_a_thread_of_a_library() -> None:
        member_logger.warning("stray")

    async def part(name: str) -> None:
        member_logger.info("begun")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(to_thread.run_sync, lambda: member_logger.info("thread", of=name))

    async with anyio.create_task_group() as tasks:
        for tier in ("glance", "look"):
            tasks.start_soon(speaking_as, {"tier": tier, "group": f"g.{tier}"}, part, tier)
    thread = threading.Thread(target=in_a_thread_of_a_library)
    thread.start()
    thread.join()

    lines = said(capsys)
    assert len(lines) == 5
    process = {"service": "work", "member_id": "vm-1", "pid": os.getpid()}
    assert all(process.items() <= line.items() for line in lines)
    for line in lines[:4]:
        assert line["group"] == f"g.{line['tier']}"
    assert {(line["of"], line["tier"]) for line in lines if line["event"] == "thread"} == {
        ("glance", "glance"),
        ("look", "look"),
    }
    assert "tier" not in lines[4]
    assert list(lines[0])[:3] == ["timestamp", "level", "event"]


def test_for_people_a_line_begins_with_time_level_and_speaker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    identify(service="work", tier="look", member_id="vm-1", group="roadstream.tier.look")
    configure_logging("info", "text")
    structlog.get_logger().warning("member_out", member="objects", error="a\nb \x1b[31m", out=["x"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line[8:] == (
        r' warning work look vm-1 member_out  member=objects error="a\nb \u001b[31m" out=x'
    )


def test_lines_of_children_are_passed_on_under_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = '{"timestamp":"2026-01-01T00:00:00Z","level":"info","event":"begun","pid":7,"n":1}'
    configure_logging("error", "json")
    pass_on("look 0", 7, theirs)
    pass_on("look 0", 7, "free(): invalid pointer")
    event, stray = said(capsys)
    assert event == {**json.loads(theirs), "child": "look 0"}
    assert (stray["event"], stray["level"], stray["child"], stray["pid"], stray["line"]) == (
        ("said", "warning", "look 0", 7, "free(): invalid pointer")
    )

    configure_logging("error", "text")
    head = {"timestamp": "9999-12-31T23:59:59-12:00"}
    pass_on("worker 1", 7, json.dumps({**head, "level": "info", "event": "begun", "tier": "look"}))
    pass_on("look 0", 7, theirs)
    pass_on("look 0", 7, "free():\x1b[2J invalid\rpointer")
    crash = {"level": "critical", "event": "crashed", "exception": "Traceback\n  File x\nE: y"}
    pass_on("look 0", 7, json.dumps({**head, **crash}))
    shown = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert shown == [
        "info    worker 1 look begun",
        "info    look 0       begun  n=1",
        r"warning look 0       free():\x1b[2J invalid\x0dpointer",
        "critical look 0       crashed",
        "critical look 0       Traceback",
        "critical look 0         File x",
        "critical look 0       E: y",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        '{"event": 1}',
        "[1]",
        "{" * 100_000,
        '{"event"',
        '{"timestamp": 1.5, "level": "info", "event": "x"}',
        '{"timestamp": "t", "level": {"no": 1}, "event": "x"}',
        '{"timestamp": "t", "level": null, "event": "x"}',
        '{"level": "INFO", "event": "x"}',
    ],
)
def test_what_only_looks_like_an_event_is_passed_on_as_it_is(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", "json")
    pass_on("look 0", 7, line)
    (event,) = said(capsys)
    assert event["line"] == line
    assert last_words(line) == (line if len(line) < 500 else f"{line[:500]}…")
    configure_logging("info", "text")
    pass_on("look 0", 7, line)
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("terminal", "setting", "coloured"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_a_text_has_colours_where_they_can_be_shown_and_are_wanted(
    terminal: bool, setting: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure_logging("info", "text")
    assert voice._renderer.colours == coloured


def test_what_libraries_log_becomes_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    identify(service="work")
    configure_logging("info", "json")
    handler = voice._Libraries()
    handler.emit(logging.LogRecord("asyncio", 35, "f.py", 1, "never %s", ("retrieved",), None))
    (event,) = said(capsys)
    assert (event["event"], event["level"], event["logger"], event["service"]) == (
        ("never retrieved", "warning", "asyncio", "work")
    )


def test_a_crash_is_one_event_that_names_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        raise ExceptionGroup("group", [ValueError("no such thing")])
    except ExceptionGroup as group:
        voice._log_crash(type(group), group, group.__traceback__)
    (event,) = said(capsys)
    assert (event["event"], event["error"]) == ("crashed", "ValueError: no such thing")
    assert "Traceback" in event["exception"]
