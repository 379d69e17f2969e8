"""Submitting: each id once, what was sent is known again, and a second picture is refused."""

from pathlib import Path

import msgspec
import pytest

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.image import Head, Image, Inline, Payload, Reference
from roadstream.schemas.topics import images
from roadstream.streams.ledgers.run_ledger import RunLedger
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.workers.job.submit import Submitter

TOPIC = images("archive")
DIGEST = bytes(range(32))


def image(image_id: str, data: bytes = b"jpeg", uri: str = "") -> Image:
    return Image(Head(image_id=image_id, uri=uri or f"{image_id}.jpg"), Inline(data))


async def prepared() -> MemoryLog:
    log = MemoryLog()
    await log.create_topics([TOPIC], 2)
    return log


def sent(log: MemoryLog) -> list[Image]:
    return [
        codec.decode_image(record.value or b"") for part in log.topics[TOPIC] for record in part
    ]


async def submit(log: MemoryLog, ledger: RunLedger | None, *batches: list[Image]) -> Submitter:
    async with log.producer() as producer:
        submitter = Submitter(producer, ledger, 2)
        for batch in batches:
            await submitter.submit(batch)
        return submitter


async def test_the_same_picture_is_sent_once_within_and_across_batches() -> None:
    log = await prepared()
    submitter = await submit(log, None, [image("a"), image("a"), image("b")], [image("a")])

    assert sorted(found.head.image_id for found in sent(log)) == ["a", "b"]
    assert submitter.refused == 0


@pytest.mark.parametrize("together", [False, True])
async def test_another_picture_under_an_id_is_refused_with_both_uris(
    capsys: pytest.CaptureFixture[str], *, together: bool
) -> None:
    log = await prepared()
    first, second = image("a", uri="one.jpg"), image("a", b"other", uri="two.jpg")
    batches = [[first, second, image("b")]] if together else [[first], [second, image("b")]]
    submitter = await submit(log, None, *batches)

    assert sorted(found.head.uri for found in sent(log)) == ["b.jpg", "one.jpg"]
    assert submitter.refused == 1
    said = capsys.readouterr()
    assert "one.jpg" in said.out + said.err
    assert "two.jpg" in said.out + said.err


async def test_a_later_run_knows_what_an_earlier_one_sent(tmp_path: Path) -> None:
    log = await prepared()
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await submit(log, ledger, [image("a"), image("b")])
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        submitter = await submit(log, ledger, [image("a"), image("b", b"other"), image("c")])

    assert sorted(found.head.image_id for found in sent(log)) == ["a", "b", "c"]
    assert submitter.refused == 1


async def test_a_ledger_without_contents_takes_every_known_id_for_the_same_picture(
    tmp_path: Path,
) -> None:
    log = await prepared()
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0)])
        submitter = await submit(log, ledger, [image("a", b"other")])

    assert (sent(log), submitter.refused) == ([], 0)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (Inline(b"abc"), bytes.fromhex("ba7816bf8f01cfea414140de5dae2223")),
        (Reference(path="/a", size=3, sha256=DIGEST), DIGEST[:16]),
        (Reference(path="/a", size=3), None),
    ],
    ids=["inline", "reference", "reference without hash"],
)
async def test_the_head_says_which_picture_it_is(payload: Payload, expected: bytes | None) -> None:
    log = await prepared()
    await submit(log, None, [Image(Head(image_id="a"), payload)])

    assert [found.head.content_hash for found in sent(log)] == [expected]


@pytest.mark.parametrize("after", [False, True])
async def test_a_batch_can_be_sent_again_after_an_outage(*, after: bool) -> None:
    log = await prepared()
    batch = [image("a"), image("b")]
    async with log.producer() as producer:
        submitter = Submitter(producer, None, 2)
        log.faults.append(Fault("publish", LogUnavailableError("gone"), after=after))
        with pytest.raises(LogUnavailableError):
            await submitter.submit(batch)
        assert await submitter.submit(batch) == 2
        assert await submitter.submit(batch) == 0

    found = [msgspec.structs.replace(one.head, submitted_at=0.0) for one in sent(log)]
    assert {head.image_id for head in found} == {"a", "b"}
    assert submitter.refused == 0
