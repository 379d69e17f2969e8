"""The dead-letters command on the embedded log: list, show, replay, discard."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from roadstream.schemas import codec
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.records.headers import Headers
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import DEAD_LETTERS, all_topics, images
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output, TopicPartition
from roadstream.workers import cli
from roadstream.workers.tier.records import RecordDecoder

FILE = "log.db"
PICTURE = b"\xff\xd8 not really"


def letter(image_id: str, offset: int) -> bytes:
    image = Image(Head(image_id=image_id, uri=f"{image_id}.jpg"), Inline(PICTURE))
    return codec.encode(
        DeadLetter(
            topic=images("archive"),
            partition=1,
            offset=offset,
            key=image_id.encode(),
            value=codec.encode(image),
            error="model_failed: RuntimeError: [x]",
            group="roadstream.tier.one",
            failed_at=1_700_000_000.0,
            attempts=2,
            reason="model_failed",
            image_id=image_id,
            tier="one",
            member="m",
        )
    )


async def prepare(folder: Path) -> None:
    async with EmbeddedLog(folder / FILE) as log:
        await log.create_topics(all_topics(["one"]), 3)
        async with log.producer() as producer:
            await producer.publish(
                [Output(DEAD_LETTERS, None, letter(name, i), 1) for i, name in enumerate("abc")]
            )


async def received(folder: Path) -> list[Image]:
    async with (
        EmbeddedLog(folder / FILE) as log,
        log.reader(images("archive"), "beginning") as reader,
    ):
        polled = await reader.poll(max_records=100, timeout=0)
    assert all(tp.partition == 1 for tp in polled)
    return [codec.decode_image(r.value or b"") for some in polled.values() for r in some]


class Command:
    """Runs the command in this process, as a process of its own would take a second each time."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capfd = folder, capfd

    def run(self, *words: str) -> tuple[int, str, str]:
        self._capfd.readouterr()
        status = cli.run(["dead-letters", *words, "--log", f"embedded:{self.folder / FILE}"])
        said = self._capfd.readouterr()
        return status, said.out, said.err

    def __call__(self, *words: str) -> str:
        status, out, err = self.run(*words)
        assert status == 0, err
        return out

    def listed(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("list", "--json", *words).splitlines()]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    anyio.run(prepare, tmp_path)
    return Command(tmp_path, capfd)


HAD = (("content-type", b"image/jpeg"), ("traceparent", b"00-1"), ("note", None))


async def send_unreadable(folder: Path) -> None:
    decoder = RecordDecoder("one", first=True)
    tp = TopicPartition(images("archive"), 1)
    async with EmbeddedLog(folder / FILE) as log, log.producer() as producer:
        await producer.publish([Output(tp.topic, b"k", PICTURE, 1, HAD)])
        async with log.reader(images("archive"), "beginning") as reader:
            polled = await reader.poll(max_records=10, timeout=0)
        await producer.publish(decoder.decode(polled, 5.0).letters)


async def sent_again(folder: Path) -> list[tuple[bytes | None, bytes | None, Headers]]:
    async with (
        EmbeddedLog(folder / FILE) as log,
        log.reader(images("archive"), "beginning") as reader,
    ):
        polled = await reader.poll(max_records=10, timeout=0)
    return [(r.key, r.value, r.headers) for some in polled.values() for r in some]


def test_a_record_that_could_not_be_read_is_replayed_with_its_headers(command: Command) -> None:
    anyio.run(send_unreadable, command.folder)
    (one,) = command.listed("--reason", "unreadable_record")
    assert "its headers say content-type: image/jpeg" in one["error"]
    shown = json.loads(command("show", one["place"]))
    assert shown["headers"] == [[name, value and value.decode()] for name, value in HAD]

    command("replay", one["place"])

    assert anyio.run(sent_again, command.folder) == [(b"k", PICTURE, HAD)] * 2


def test_letters_are_listed_shown_replayed_and_discarded(command: Command) -> None:
    listed = command.listed()
    assert [one["place"] for one in listed] == [f"dead-letters[1]@{i}" for i in range(3)]
    assert listed[0]["record"] == "images.archive[1]@0"

    target = command.folder / "c.jpg"
    shown = json.loads(command("show", "1@2", "--save", str(target)))
    assert shown["holds"]["head"]["uri"] == "c.jpg"
    assert target.read_bytes() == PICTURE

    command("replay", "dead-letters[1]@0")
    command("discard", "--all", "--image", "b")
    (sent,) = anyio.run(received, command.folder)
    assert (sent.head.image_id, sent.payload) == ("a~replay-0", Inline(PICTURE))
    assert [one["image_id"] for one in command.listed()] == ["c"]
    settled = [one["settled"] for one in command.listed("--all")]
    assert [one and one["action"] for one in settled] == ["replayed", "discarded", None]

    table = command("list")
    assert "dead-letters[1]@2" in table
    assert "RuntimeError: [x]" in table


def test_a_replay_that_died_before_its_mark_sends_the_same_image_again(command: Command) -> None:
    command("replay", "--all", "--reason", "model_failed")
    first = anyio.run(received, command.folder)
    anyio.run(forget_marks, command.folder)
    assert len(command.listed()) == 3

    command("replay", "--all")

    ids = [image.head.image_id for image in anyio.run(received, command.folder)]
    assert ids == [image.head.image_id for image in first] * 2


async def forget_marks(folder: Path) -> None:
    async with EmbeddedLog(folder / FILE) as log:
        log.database.connection.execute("DELETE FROM records WHERE length(value) < 100")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["replay"], "expected either PLACEs or --all"),
        (["replay", "1@0", "--all"], "expected either PLACEs or --all"),
        (["discard", "1@0", "--tier", "one"], "go with --all"),
        (["replay", "1@9"], "dead-letters[1]@9: there is no dead letter"),
        (["show", "nowhere"], "expected a place such as dead-letters[3]@17"),
    ],
)
def test_wrong_usage_is_told(command: Command, words: list[str], said: str) -> None:
    status, _, err = command.run(*words)

    assert status == 2
    assert said in err
