"""Runs over files that change in between: each place has the answer of what stands there."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import av
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError, UsageError
from roadstream.schemas.records.answer import Answer, Status
from roadstream.schemas.records.image import Head, Image, Inline, Reference, Unreadable
from roadstream.schemas.topics import images
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.ledgers.run_ledger import Count, LedgerRow, RunLedger
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.streams.sources import places
from roadstream.streams.sources.identity import path_id
from roadstream.streams.sources.places import file_state
from roadstream.streams.sources.scan import ScanOptions, scan_places
from roadstream.streams.sources.source import VideoOptions
from roadstream.workers.job.progress import Tally
from roadstream.workers.job.run import ledger_row
from roadstream.workers.job.submit import Submitter, next_batch
from tests.kits.examples import examples
from tests.kits.video_kit import film, tenths

TOPIC = images("archive")


class Run:
    """A run over a folder that is done again and again, in which all that is sent is answered.

    Args:
        folder: Where the ledger lies.
        log: Where to; its faults are waited out.
    """

    def __init__(self, folder: Path, log: MemoryLog) -> None:
        self._path, self.log = folder / "ledger.db", log
        self.tally = Tally()
        self.faults: dict[str, str] = {}

    async def once(self, *paths: str, answered: bool = True, read: bool = True) -> list[str]:
        """Scan and submit; return the uris that were sent."""
        async with RunLedger(self._path) as ledger:
            options = ScanOptions(
                known=ledger.known if read else None,
                video=VideoOptions(encode=encode_jpeg, fps=1, stream="all"),
            )
            found = scan_places(paths, options)
            self.tally = Tally()
            for group in await ledger.counts():
                self.tally.count(group)
            before = await self.received()
            async with self.log.producer() as producer:
                submitter = Submitter(producer, ledger, 2)
                while batch := next_batch(found, 3):
                    await self._submit(submitter, batch)
            self.repeated, self.vanished = submitter.repeated, submitter.vanished
            sent = (await self.received())[len(before) :]
            if answered:
                await self.answer(ledger, sent)
        return [image.head.uri for image in sent]

    async def _submit(self, submitter: Submitter, batch: list[places.Scanned]) -> None:
        while True:
            try:
                for change in await submitter.submit_places(batch):
                    self.tally.count(change)
                return
            except LogUnavailableError:
                await anyio.lowlevel.checkpoint()

    async def received(self) -> list[Image]:
        records = [r for part in self.log.topics[TOPIC] for r in part]
        records.sort(key=lambda record: record.timestamp)
        return [codec.decode_image(record.value or b"") for record in records]

    async def answer(self, ledger: RunLedger, sent: list[Image]) -> None:
        rows = [self._row(image) for image in sent]
        for row in await ledger.record(rows, {}):
            self.tally.add(row.status, row.exit_tier, row.label)

    def _row(self, image: Image) -> LedgerRow:
        fault = self.faults.get(image.head.uri)
        if isinstance(image.payload, Unreadable):
            fault = image.payload.fault
        status: Status = "failed" if fault else "answered"
        answer = Answer(image.head, status, error=f"{fault}: so" if fault else seen(image))
        return ledger_row(answer, codec.encode(answer))

    async def rows(self) -> dict[str, str]:
        """Return what the output says about each uri; no uri comes twice."""
        async with RunLedger(self._path) as ledger:
            answers = [
                codec.decode_answer(value)
                for batch in ledger.answers(in_order=True)
                for value in batch
            ]
            counts = await ledger.counts()
        found = {answer.head.uri: (answer.error or "").split(":")[0] for answer in answers}
        assert len(found) == len(answers)
        expected = Tally()
        for group in counts:
            expected.count(group)
        mine = msgspec.structs.replace(self.tally, exits={}, vanished=0)
        mine.answered = {status: n for status, n in mine.answered.items() if n}
        assert mine == msgspec.structs.replace(expected, exits={})
        return found


def seen(image: Image) -> str:
    """Return what a worker would have seen."""
    match image.payload:
        case Reference(path=path):
            return Path(path).read_text()
        case Inline():
            return "frame"
        case _:
            return ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # What is written here differs in size, so that no state hides a change.
    monkeypatch.setattr(places, "SETTLING_NS", 0)
    return tmp_path


async def started(folder: Path) -> Run:
    log = MemoryLog()
    await log.create_topics([TOPIC], 2)
    return Run(folder, log)


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)


def changed_ns(name: str) -> int:
    return file_state(Path(name).stat()).ctime_ns


def standing() -> dict[str, str]:
    """Return what a run should find in the folder."""
    return {str(path): path.read_text() or "empty" for path in Path("d").glob("*.jpg")}


async def test_new_content_replaces_the_answer_of_its_place(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    write("d/b.jpg", "two")
    assert await run.once("d") == ["d/a.jpg", "d/b.jpg"]

    write("d/a.jpg", "three")
    assert await run.once("d") == ["d/a.jpg"]
    assert await run.rows() == {"d/a.jpg": "three", "d/b.jpg": "two"}
    assert (run.repeated, run.tally.submitted) == (1, 2)

    write("d/a.jpg", "one")  # as it was: its answer is known
    assert await run.once("d") == []
    assert await run.rows() == {"d/a.jpg": "one", "d/b.jpg": "two"}


async def test_new_content_that_is_not_answered_yet_shows_no_old_answer(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    await run.once("d")
    write("d/a.jpg", "three")
    await run.once("d", answered=False)

    assert await run.rows() == {}
    assert (run.tally.submitted, run.tally.total_answered) == (1, 0)


async def test_an_answer_of_content_that_was_replaced_meanwhile_is_not_counted(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    await run.once("d", answered=False)
    write("d/a.jpg", "three")
    await run.once("d", answered=False)

    async with RunLedger(here / "ledger.db") as ledger:
        first, second = await run.received()
        await run.answer(ledger, [first])
        assert run.tally.total_answered == 0
        await run.answer(ledger, [second])
    assert await run.rows() == {"d/a.jpg": "three"}


async def test_a_copy_and_a_repeated_path_are_told_apart(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    write("d/copy.jpg", "one")

    assert await run.once("d/a.jpg", "d/a.jpg", "d/copy.jpg") == ["d/a.jpg", "d/copy.jpg"]
    assert await run.rows() == {"d/a.jpg": "one", "d/copy.jpg": "one"}
    assert run.repeated == 1


async def test_a_file_that_is_gone_keeps_its_answer_and_is_told(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    await run.once("d/a.jpg", "d")
    remove("d/a.jpg")

    assert await run.once("d/a.jpg", "d") == []
    assert await run.rows() == {"d/a.jpg": "one"}
    assert run.vanished == 1


@pytest.mark.parametrize("fault", ["empty", "missing"])
async def test_a_file_that_could_not_be_read_is_tried_again(here: Path, fault: str) -> None:
    run = await started(here)
    if fault == "empty":
        write("d/a.jpg", "")
    await run.once("d/a.jpg")
    assert await run.rows() == {"d/a.jpg": fault}
    assert await run.once("d/a.jpg") == []
    assert run.tally.answered == {"failed": 1}

    write("d/a.jpg", "one")
    assert await run.once("d/a.jpg") == ["d/a.jpg"]
    assert await run.rows() == {"d/a.jpg": "one"}
    assert run.tally.answered.get("failed", 0) == 0


@pytest.mark.parametrize("fault", ["changed", "missing", "unreadable"])
async def test_a_file_that_a_worker_could_not_read_is_sent_again(here: Path, fault: str) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    run.faults["d/a.jpg"] = fault
    await run.once("d")
    assert await run.rows() == {"d/a.jpg": fault}
    assert await run.once("d") == ["d/a.jpg"]

    run.faults.clear()
    assert await run.once("d") == ["d/a.jpg"]
    assert await run.rows() == {"d/a.jpg": "one"}
    assert await run.once("d") == []
    assert len({image.head.image_id for image in await run.received()}) == 3


async def test_a_file_that_was_read_and_not_judged_is_not_sent_again(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    run.faults["d/a.jpg"] = "not_an_image"
    await run.once("d")

    assert await run.once("d") == []
    assert await run.rows() == {"d/a.jpg": "not_an_image"}


async def test_a_folder_that_was_missing_is_forgotten_once_it_is_there(here: Path) -> None:
    run = await started(here)
    await run.once("e")
    assert await run.rows() == {"e": "missing"}
    write("e/a.jpg", "one")

    assert await run.once("e") == ["e/a.jpg"]
    assert await run.rows() == {"e/a.jpg": "one"}


def write_video(path: str, shade: int, seconds: int) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(seconds):
            pixels = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


async def test_another_video_at_a_place_takes_the_frames_of_the_first_with_it(here: Path) -> None:
    run = await started(here)
    write_video("d/v.mp4", 40, seconds=4)
    write("d/v.mp4#t=", "no frame")
    first = await run.once("d", "d/v.mp4#t=")
    assert len(first) == 5
    assert await run.once("d") == []

    write_video("d/v.mp4", 200, seconds=2)
    second = await run.once("d")
    assert second == ["d/v.mp4#t=0.000", "d/v.mp4#t=1.000"]
    assert set(await run.rows()) == {*second, "d/v.mp4#t="}


async def test_frames_of_other_streams_go_with_their_video_too(here: Path) -> None:
    run = await started(here)
    sizes = [("libx264", (160, 96)), ("libx264", (320, 192))]
    write("d/a.jpg", "one")
    film(Path("d/v.mp4"), tenths(15), codecs=sizes)
    frames = [f"d/v.mp4#t={t}.000{stream}" for stream in ("", "&stream=0") for t in (0, 1)]
    assert sorted(await run.once("d")) == sorted(["d/a.jpg", *frames])
    assert await run.once("d") == []

    write_video("d/v.mp4", 200, seconds=1)
    assert await run.once("d") == ["d/v.mp4#t=0.000"]
    assert set(await run.rows()) == {"d/a.jpg", "d/v.mp4#t=0.000"}


async def test_a_broken_video_is_forgotten_once_it_is_whole(here: Path) -> None:
    run = await started(here)
    write("d/v.mp4", "no video")
    await run.once("d")
    assert await run.rows() == {"d/v.mp4": "damaged_video"}
    write_video("d/v.mp4", 40, seconds=2)
    await run.once("d")
    assert set(await run.rows()) == {"d/v.mp4#t=0.000", "d/v.mp4#t=1.000"}

    remove("d/v.mp4")
    assert await run.once("d/v.mp4") == []
    assert (len(await run.rows()), run.vanished) == (2, 1)
    write("d/v.mp4", "")
    await run.once("d")
    assert await run.rows() == {"d/v.mp4": "empty"}


async def test_a_log_that_is_gone_is_sent_to_anew(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    await run.once("d", answered=False)
    assert await run.once("d", answered=False) == []
    async with RunLedger(here / "ledger.db") as ledger:
        await ledger.forget_unanswered()

    assert await run.once("d") == ["d/a.jpg"]
    assert await run.rows() == {"d/a.jpg": "one"}


async def test_an_answer_from_a_log_that_was_put_back_may_come_before_the_scan(here: Path) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    await run.once("d", answered=False)
    async with RunLedger(here / "ledger.db") as ledger:
        await ledger.forget_unanswered()
        await run.answer(ledger, await run.received())

    assert await run.once("d") == []
    assert await run.rows() == {"d/a.jpg": "one"}


@pytest.mark.parametrize("after", [False, True])
async def test_an_outage_between_publishing_and_noting_loses_no_count(
    here: Path, *, after: bool
) -> None:
    run = await started(here)
    write("d/a.jpg", "one")
    run.log.faults.append(Fault("publish", LogUnavailableError("gone"), after=after))

    await run.once("d")
    assert await run.rows() == {"d/a.jpg": "one"}
    assert run.tally.submitted == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.integers(0, 4)),
        st.just(("", 0)),
    ),
    min_size=1,
    max_size=14,
)


@settings(deadline=None, max_examples=examples(25))
@given(STEPS)
async def test_every_place_has_the_answer_of_what_was_there_last(
    steps: list[tuple[str, int]],
) -> None:
    """A step writes a file of that many bytes, removes it at 4, or runs."""
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.chdir(name)
        patch.setattr(places, "SETTLING_NS", 0)
        write("d/other.txt", "")
        stood: dict[str, str] = {}
        run = await started(Path(name))
        for file, size in [*steps, ("", 0)]:
            if file and size < 4:
                write(f"d/{file}.jpg", "x" * size)
            elif file:
                remove(f"d/{file}.jpg")
            else:
                await run.once("d")
                stood |= standing()
                assert await run.rows() == stood


def old_ledger(path: Path, rows: Iterator[tuple[str, str, float, bytes | None]]) -> None:
    """Write a ledger of version 1 with answers, as (path, status, sent at, content hash)."""
    ledger = sqlite3.connect(path)
    ledger.executescript(
        """
        CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE images(
            image_id BLOB PRIMARY KEY, sequence INTEGER NOT NULL,
            status TEXT, exit_tier TEXT, label TEXT, answer BLOB);
        CREATE INDEX by_sequence ON images(sequence);
        CREATE TABLE contents(
            image_id BLOB PRIMARY KEY, hash BLOB NOT NULL, uri TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE positions(partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
        PRAGMA user_version=1;
        """
    )
    for place, status, at, content in rows:
        head = Head(image_id=path_id(place), uri=place, submitted_at=at)
        value = codec.encode(Answer(head, "failed" if status == "failed" else "answered"))
        ledger.execute(
            "INSERT INTO images VALUES (?, 0, ?, NULL, NULL, ?)", (head.image_id, status, value)
        )
        if content is not None:
            ledger.execute("INSERT INTO contents VALUES (?, ?, ?)", (head.image_id, content, place))
    ledger.commit()
    ledger.close()


async def test_a_run_of_the_first_version_goes_on_and_judges_what_may_have_changed(
    here: Path,
) -> None:
    for name in ("same", "changed", "failed", "new"):
        write(f"d/{name}.jpg", f"now {name}")
    later = changed_ns("d/same.jpg") / 1e9 + 60
    old = [
        ("d/same.jpg", "answered", later, None),
        ("d/changed.jpg", "answered", later - 120, None),
        ("d/failed.jpg", "failed", later, None),
        ("d/gone.jpg", "answered", later, None),
    ]
    old_ledger(here / "ledger.db", iter(old))
    run = await started(here)

    assert sorted(await run.once("d")) == ["d/changed.jpg", "d/failed.jpg", "d/new.jpg"]
    assert await run.rows() == {
        "d/same.jpg": "",  # the answer of then
        "d/gone.jpg": "",
        "d/changed.jpg": "now changed",
        "d/failed.jpg": "now failed",
        "d/new.jpg": "now new",
    }
    assert await run.once("d") == []
    assert run.tally.submitted == 5


async def test_what_a_producer_noted_in_the_first_version_is_told_by_its_content(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SETTLING_NS", 10**18)  # no state of a file is ever trusted
    write("d/same.jpg", "one")
    write("d/changed.jpg", "two")
    hashes = {name: hashlib.sha256(b"one").digest()[:16] for name in ("same", "changed")}
    old = [(f"d/{name}.jpg", "answered", 5.0, content) for name, content in hashes.items()]
    old_ledger(here / "ledger.db", iter(old))
    run = await started(here)

    assert await run.once("d") == ["d/changed.jpg"]
    assert (await run.once("d"), run.repeated) == ([], 2)


async def test_a_ledger_of_a_later_version_names_itself_and_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with RunLedger(path) as ledger:
        ledger.database.connection.execute("PRAGMA user_version=3")
    with pytest.raises(UsageError, match=r"ledger\.db: expected a state file of version 2, got 3"):
        async with RunLedger(path):
            pass


async def test_a_migration_that_breaks_off_leaves_the_first_version(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old_ledger(path, iter([("a.jpg", "answered", 5.0, None)]))
    with sqlite3.connect(path) as damaged:  # it stands in the way of the migration's last step
        damaged.execute("CREATE TABLE path_only(x)")
    damaged.close()
    with pytest.raises(Exception, match="path_only"):
        async with RunLedger(path):
            pass
    with sqlite3.connect(path) as mended:
        columns = [row[1] for row in mended.execute("PRAGMA table_info(images)")]
        assert mended.execute("PRAGMA user_version").fetchone() == (1,)
        assert "current" not in columns
        mended.execute("DROP TABLE path_only")
    mended.close()
    async with RunLedger(path) as ledger:
        assert await ledger.counts() == [Count("answered", None, None, 1)]
