"""``roadstream answers`` and ``votes`` on topics to which a stranger has written too."""

import json
import subprocess
from pathlib import Path

import anyio
import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head
from roadstream.schemas.records.votes import VotesPack
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.sinks.files.readers import read_answers
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output
from tests.kits.builders import pack, votes
from tests.kits.command import ROADSTREAM, TIMEOUT, here

STRAYS = (b'{"image": "x"}', b"", b"\xff\xfe", b"\x91" * 5000, b"\x81\xa6schema\xa8image.v1")


async def prepare(path: Path) -> None:
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(all_topics(["one"]), 1)
        outputs = []
        for i, stray in enumerate(STRAYS):
            answer = Answer(Head(image_id=str(i), uri=f"{i}.jpg"), "failed", error="missing: x")
            outputs += [Output(ANSWERS, None, stray), Output(ANSWERS, None, codec.encode(answer))]
        await producer.publish(outputs)


def test_a_stray_record_keeps_the_answers_from_nobody(tmp_path: Path) -> None:
    anyio.run(prepare, tmp_path / "log.db")
    log = ("--log", "embedded:log.db", "--from", "beginning")
    shown = here("answers", *log, "--no-follow", folder=tmp_path)
    written = here("answers", *log, "--out", "a.csv", folder=tmp_path)

    for done in (shown, written):
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "5 records on answers are no answers, and were left out" in done.stderr
        assert "answers[0]@0" in done.stderr
    wanted = [f"{i}.jpg" for i in range(len(STRAYS))]
    assert [json.loads(line)["uri"] for line in shown.stdout.splitlines()] == wanted
    assert [row["uri"] for row in read_answers(tmp_path / "a.csv")] == wanted
    assert "5 answers: a.csv" in written.stderr


async def prepare_votes(path: Path) -> None:
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["berlin.votes"], 1)
        outputs = [Output("berlin.votes", None, stray) for stray in STRAYS]
        for tier in ("one", "two"):
            said = pack(tier, votes("a", 0.25), votes("ö", None, error="missing: gone"))
            outputs.append(Output("berlin.votes", None, codec.encode(said)))
        await producer.publish(outputs)


def test_votes_are_shown_as_lines_that_their_schema_describes(tmp_path: Path) -> None:
    anyio.run(prepare_votes, tmp_path / "log.db")
    log = ("--log", "embedded:log.db", "--namespace", "berlin")
    shown = here("votes", *log, "--from", "beginning", "--no-follow", folder=tmp_path)
    ended = here("votes", *log, "--from", "end", "--no-follow", folder=tmp_path)

    assert shown.returncode == 0, shown.stderr
    assert f"{len(STRAYS)} records on votes are no votes, and were left out" in shown.stderr
    packs = [msgspec.json.decode(line, type=VotesPack) for line in shown.stdout.splitlines()]
    assert [(one.tier, one.images[0].probability) for one in packs] == [
        ("one", [0.25]),
        ("two", [0.25]),
    ]
    assert [said.head.image_id for said in packs[0].images] == ["a", "ö"]
    assert (ended.returncode, ended.stdout) == (0, "")


def test_following_ends_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    anyio.run(prepare_votes, tmp_path / "log.db")
    log = ("--log", "embedded:log.db", "--namespace", "berlin")
    with subprocess.Popen(
        [ROADSTREAM, "votes", *log, "--from", "beginning"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline().startswith('{"schema":"votes.v1"')
        following.stdout.close()
        assert following.wait(TIMEOUT) == 1
        assert following.stderr is not None
        assert "Traceback" not in following.stderr.read()
