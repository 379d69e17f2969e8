"""The produce command on the embedded log: resumed after a kill, duplicates, and outages."""

import os
import signal
from collections import Counter
from pathlib import Path

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.records.events import Acknowledged
from roadstream.schemas.topics import all_topics, images
from roadstream.streams.embedded.log import EmbeddedLog
from tests.kits.command import roadstream, started, write_cascade, write_pictures

FILE = "log.db"


async def prepare(folder: Path) -> list[str]:
    """Make a log and a cascade; return what every command needs."""
    name = write_cascade(folder)
    tiers = load_cascade(str(folder / name)).tier_names
    async with EmbeddedLog(folder / FILE) as log:
        await log.create_topics(all_topics(tiers), 2)
    return ["--log", f"embedded:{FILE}", "--cascade", name]


async def received(folder: Path, at_least: int = 0) -> Counter[str]:
    """Return how often each id was received, once there are so many."""
    found: Counter[str] = Counter()
    async with (
        EmbeddedLog(folder / FILE) as log,
        log.reader(images("archive"), "beginning") as reader,
    ):
        while True:
            polled = await reader.poll(max_records=1000, timeout=0.2)
            for records in polled.values():
                found.update(codec.decode_image(r.value or b"").head.image_id for r in records)
            if found.total() >= at_least and (at_least or not polled):
                return found


async def test_a_producer_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    common = await prepare(tmp_path)
    write_pictures(tmp_path / "pictures", 3000)
    words = ["produce", "pictures", "--resume", "sent.db", "--ledger", "events", *common]
    process = started(*words, folder=tmp_path)
    try:
        await received(tmp_path, at_least=1)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    before = await received(tmp_path)
    assert 0 < before.total() < 3000

    done = roadstream(*words, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    after = await received(tmp_path)
    assert len(after) == 3000
    # The batch between its acknowledgement and its note, at most, was sent twice.
    assert after.total() - 3000 <= 64
    events = [
        codec.decode_event(line)
        for path in (tmp_path / "events").iterdir()
        for line in path.read_bytes().splitlines()
    ]
    acknowledged = {i for event in events if isinstance(event, Acknowledged) for i in event.ids}
    assert len(acknowledged) >= 3000 - 64
    assert acknowledged <= after.keys()


async def test_what_was_sent_is_counted_and_new_content_is_a_new_image(tmp_path: Path) -> None:
    common = await prepare(tmp_path)
    folder = write_pictures(tmp_path / "pictures", 2)
    words = ["produce", "pictures", "--resume", "sent.db", *common]
    assert roadstream(*words, folder=tmp_path).returncode == 0
    (folder / "00000.jpg").write_bytes((folder / "00001.jpg").read_bytes())

    done = roadstream(*words, folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "1 images sent; 1 already sent\n")
    (folder / "00001.jpg").unlink()
    again = roadstream(*words, "pictures/00001.jpg", folder=tmp_path)
    assert again.stderr == "0 images sent; 1 already sent; 1 no longer there\n"
    assert set((await received(tmp_path)).values()) == {1}
    assert (await received(tmp_path)).total() == 3


async def test_the_same_path_on_two_hosts_is_one_image_only_with_the_same_content(
    tmp_path: Path,
) -> None:
    common = await prepare(tmp_path)
    log = ["--log", f"embedded:{tmp_path / FILE}", "--cascade", str(tmp_path / common[-1])]
    first, second = (write_pictures(tmp_path / host / "cam", 2) for host in ("one", "two"))
    (second / "00000.jpg").write_bytes((first / "00001.jpg").read_bytes())
    for host, more in [("one", []), ("two", ["--by-reference"])]:
        done = roadstream("produce", "cam", *log, *more, folder=tmp_path / host)
        assert (done.returncode, done.stderr) == (0, "2 images sent\n")

    assert sorted((await received(tmp_path)).values()) == [1, 1, 2]


def test_a_log_that_is_gone_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 1)
    done = roadstream(
        *("produce", "pictures", "--log", "kafka://127.0.0.1:9", "--patience", "0"),
        folder=tmp_path,
    )

    assert done.returncode == 75
    sent, reported = done.stderr.splitlines()
    assert sent == "0 images sent"
    assert reported.startswith("roadstream: no Kafka broker answers at 127.0.0.1:9")


async def test_nothing_to_send_is_a_failure_unless_it_was_sent_before(tmp_path: Path) -> None:
    common = await prepare(tmp_path)
    folder = write_pictures(tmp_path / "pictures", 1)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("no picture")

    done = roadstream("produce", "texts", *common, folder=tmp_path)

    assert (done.returncode, done.stderr) == (
        1,
        "1 left out: text (texts/a.txt)\n0 images sent\n",
    )
    for sent in ("1 images sent\n", "0 images sent; 1 already sent\n"):
        done = roadstream("produce", folder.name, *common, "--resume", "s.db", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, sent)
