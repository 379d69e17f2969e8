"""``--namespace`` on every command that opens a log, and two systems beside each other."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from roadstream.schemas.topics import ANSWERS
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.commands import answers, dead_letters, produce, score, serve, topics, verify
from tests.kits.command import here, roadstream, write_cascade, write_pictures


def commands() -> Iterator[Callable[..., Any]]:
    for module in (answers, dead_letters, produce, score, serve, topics, verify):
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield function


def test_every_command_that_opens_a_log_has_a_namespace() -> None:
    opening = [one for one in commands() if "log" in inspect.signature(one).parameters]
    public = [one for one in opening if not one.__name__.startswith("_")]
    asked = [one for one in public if "LogUrl" in str(one.__annotations__) or one.__name__ in {
        "score", "work", "up", "consensus", "produce", "answers", "verify"}]  # fmt: skip
    assert len(asked) >= 7
    for one in public:
        if "log_level" in inspect.signature(one).parameters:
            assert "namespace" in inspect.signature(one).parameters, one.__name__


@pytest.mark.parametrize("how", ["option", "variable"])
def test_topics_of_a_namespace_are_made_under_its_name(tmp_path: Path, how: str) -> None:
    write_cascade(tmp_path)
    words = ("topics", "create", "--cascade", "noop.toml", "--log", "embedded:log.db")
    named = ("--namespace", "berlin") if how == "option" else ()
    env = {"ROADSTREAM_NAMESPACE": "berlin"} if how == "variable" else {}
    done = roadstream(*words, *named, folder=tmp_path, environment=env)
    assert done.returncode == 0, done.stderr

    async def counts() -> tuple[dict[str, int], dict[str, int]]:
        async with EmbeddedLog(tmp_path / "log.db") as log:
            plain = await log.partition_counts([ANSWERS])
            return dict(plain), dict(await NamespacedLog(log, "berlin").partition_counts([ANSWERS]))

    assert anyio.run(counts) == ({}, {ANSWERS: 16})


def test_score_and_its_workers_run_in_a_namespace(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    words = ("score", "in", "--cascade", write_cascade(tmp_path), "--out", "a.csv")
    done = here(*words, "--namespace", "berlin", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "answered        3" in done.stdout


def test_a_bad_name_is_refused_by_name(tmp_path: Path) -> None:
    done = here("answers", "--namespace", "a.b", folder=tmp_path)
    assert done.returncode == 2
    assert "--namespace: expected a letter or digit" in done.stderr
    assert "got 'a.b'" in done.stderr


@pytest.mark.parametrize("words", ["dead-letters list", "verify", "answers --no-follow"])
def test_a_missing_topic_has_its_real_name(tmp_path: Path, words: str) -> None:
    common = ["--log", "embedded:log.db"]
    cascade = write_cascade(tmp_path)
    made = here("topics", "create", *common, "--cascade", cascade, folder=tmp_path)
    done = here(*words.split(), *common, "--namespace", "berlin", folder=tmp_path)
    assert (made.returncode, done.returncode) == (0, 2)
    assert re.search(r"topics? berlin\.", done.stderr), done.stderr
