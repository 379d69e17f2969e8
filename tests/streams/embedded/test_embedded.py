"""The embedded log's own promises: several processes, kill -9, honest errors, trimming."""

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from roadstream.schemas.errors import OutputError, RunError, UsageError
from roadstream.schemas.records import headers
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.embedded.store import MAX_PARTITIONS
from roadstream.streams.log import Output, TopicPartition
from tests.kits.contract import values
from tests.kits.embedded_kit import everything, forward

TP = TopicPartition("t", 0)


def remove_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_a_file_that_is_removed_and_made_again_is_another_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    found: list[str] = []
    for _ in range(2):
        async with EmbeddedLog(path) as log, EmbeddedLog(path) as other:
            found += [await log.identity(), await other.identity()]
        remove_all(tmp_path)

    assert found[0] == found[1]
    assert found[2] == found[3] != found[0]


async def test_a_file_of_an_older_version_is_given_an_identity(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log:
        log.database.connection.execute("DROP TABLE identity")
    async with EmbeddedLog(tmp_path / "log.db") as log:
        first = await log.identity()
    async with EmbeddedLog(tmp_path / "log.db") as log:
        assert await log.identity() == first


async def test_what_a_producer_is_told_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    said: list[str] = []
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        log.database.connection.set_trace_callback(said.append)
        await producer.publish([Output("t", None, b"1", 0)])
        async with log.consumer("g", ["t"]) as consumer:
            await consumer.poll(max_records=0, timeout=0)
            said.append("hop")
            await consumer.publish([Output("t", None, b"2", 0)], {TP: 0}, consumer.assignment.epoch)
        log.database.connection.set_trace_callback(None)
        level = log.database.connection.execute("PRAGMA synchronous").fetchone()

    steps = [word for word in said if word.startswith(("PRAGMA sync", "BEGIN", "COMMIT", "hop"))]
    assert steps[:4] == [
        "PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", "COMMIT", "PRAGMA synchronous=NORMAL"
    ]  # fmt: skip
    hop = steps[steps.index("hop") :]
    assert not any("FULL" in step for step in hop)
    assert level == (1,)


FORWARD = """
import sys
from pathlib import Path
import anyio
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output

async def main(path):
    async with EmbeddedLog(Path(path)) as log, log.consumer("g", ["in"]) as consumer:
        while True:
            polled = await consumer.poll(max_records=20, timeout=0.05)
            outputs = [Output("out", None, r.value, tp.partition)
                       for tp, records in polled.items() for r in records]
            commit = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            if outputs:
                await consumer.publish(outputs, commit, consumer.assignment.epoch)
                print(len(outputs), flush=True)

anyio.run(main, sys.argv[1])
"""
DIE_INSIDE_A_TRANSACTION = """
import sys
from pathlib import Path
import anyio
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Output, TopicPartition

async def main(path):
    async with EmbeddedLog(Path(path)) as log, log.consumer("g", ["t"]) as consumer:
        await consumer.poll(max_records=1, timeout=1)
        some = [Output("t", None, b"%d" % i, 0) for i in range(1, 100)]
        await consumer.publish(some, {TopicPartition("t", 0): 1}, consumer.assignment.epoch)
        with log.database.transaction() as tx:
            log.store.append([Output("t", None, b"torn", 0)] * 1000)
            tx.execute("UPDATE offsets SET next = 50")
            print("inside", flush=True)
            sys.stdin.read()

anyio.run(main, sys.argv[1])
"""


async def test_processes_share_the_work_of_a_group_each_record_once(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path, session_timeout=2.0) as log, log.producer() as producer:
        await log.create_topics(["in", "out"], 4)
        inputs = [b"%d" % i for i in range(600)]
        async with await anyio.open_process([sys.executable, "-c", FORWARD, str(path)]) as child:
            assert child.stdout is not None
            async with log.consumer("g", ["in"]) as consumer:
                with anyio.fail_after(60):
                    await producer.publish([Output("in", v, v) for v in inputs[:300]])
                    done = 0
                    while len(consumer.assignment.partitions) != 2:
                        done += await forward(consumer)
                    await producer.publish([Output("in", v, v) for v in inputs[300:]])
                    said = await child.stdout.receive()  # it takes its share
                    assert int(said.split()[0]) > 0
                    child.kill()
                    # The dead process misses its heartbeats; its share comes here.
                    while await log.lag("g", ["in"]):
                        done += await forward(consumer)
        assert 0 < done < 600
        assert Counter(await everything(log, "out")) == Counter(inputs)


async def test_a_process_killed_inside_a_transaction_leaves_what_was_committed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", None, b"0", 0)])
        command = [sys.executable, "-c", DIE_INSIDE_A_TRANSACTION, str(path)]
        with subprocess.Popen(  # noqa: ASYNC220 (it blocks for no longer than the line takes)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"inside\n"
            child.send_signal(signal.SIGKILL)

    async with EmbeddedLog(path) as log, log.producer() as producer:
        assert await everything(log, "t") == [b"%d" % i for i in range(100)]
        assert await log.lag("g", ["t"]) == 99
        await producer.publish([Output("t", None, b"100", 0)])
        assert len(await everything(log, "t")) == 101
        # Its membership is still noted; under the same name one goes on at once, else later.


async def test_trimmed_records_are_gone_and_their_offsets_stay(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 2)
        await producer.publish([Output("t", None, b"%d" % i, i % 2) for i in range(20)])
        async with log.consumer("g", ["t"]) as consumer:
            await consumer.poll(max_records=20, timeout=1)
            await consumer.publish([], {TP: 6}, consumer.assignment.epoch)
        await log.trim(["t"], "g")

        assert len(await everything(log, "t")) == 14
        assert await log.lag("g", ["t"]) == 14
        async with log.reader("t", "beginning") as reader:
            assert reader.positions == {0: 6, 1: 0}
            assert await reader.ends() == {0: 10, 1: 10}
        async with log.reader("t", {0: 2, 1: 8}) as reader:
            assert reader.positions == {0: 6, 1: 8}
        async with log.consumer("new", ["t"]) as consumer:
            polled = await consumer.poll(max_records=100, timeout=1)
            assert [r.offset for r in polled[TP]] == [6, 7, 8, 9]
        await producer.publish([Output("t", None, b"next", 0)])
        async with log.reader("t", {0: 10, 1: 10}) as reader:
            polled = await reader.poll(max_records=10, timeout=1)
            assert [(r.offset, r.value) for r in polled[TP]] == [(10, b"next")]


async def test_a_log_is_what_it_was_after_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.db"
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", b"k", b"v")])
    async with EmbeddedLog(path) as log:
        assert await log.partition_counts(["t"]) == {"t": 1}
        assert await everything(log, "t") == [b"v"]


async def test_one_poll_brings_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    big = bytes(5 << 20)
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", None, big)] * 4)
        async with log.reader("t", "beginning") as reader:
            counts = []
            while polled := await reader.poll(max_records=100, timeout=0):
                counts.append(len(values(polled)))
    assert counts == [2, 2]


@pytest.mark.parametrize("partitions", [0, -1, MAX_PARTITIONS + 1])
async def test_a_number_of_partitions_out_of_range_is_refused(
    tmp_path: Path, partitions: int
) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log:
        with pytest.raises(UsageError, match=f"expected 1 to 1024 partitions, got {partitions}"):
            await log.create_topics(["t"], partitions)


async def test_a_file_that_may_not_be_written_is_an_output_error(tmp_path: Path) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        log.database.connection.execute("PRAGMA query_only=ON")
        with pytest.raises(OutputError, match=r"log\.db: cannot be written: .*readonly"):
            await producer.publish([Output("t", None, b"x")])


async def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"file/log\.db: cannot be written"):
        async with EmbeddedLog(tmp_path / "file" / "log.db"):
            pass
    with pytest.raises(OutputError, match="cannot be written: unable to open database file"):
        async with EmbeddedLog(tmp_path):
            pass


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 100)
    with pytest.raises(UsageError, match=r"notes\.txt: expected a Roadstream state file"):
        async with EmbeddedLog(path):
            pass
    assert path.read_text() == "dear diary " * 100


@pytest.mark.parametrize("version", [0, 7])
async def test_another_programs_database_is_refused_and_left_alone(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "places.sqlite"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE bookmarks(url)")
    theirs.execute(f"PRAGMA user_version={version}")
    theirs.close()
    before = path.read_bytes()

    with pytest.raises(UsageError, match=f"expected a state file of version 2, got {version}"):
        async with EmbeddedLog(path):
            pass
    assert path.read_bytes() == before


VERSION_1 = """
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, partitions INTEGER NOT NULL);
CREATE TABLE ends(topic INTEGER, partition INTEGER, first INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY(topic, partition)) WITHOUT ROWID;
CREATE TABLE records(
    position INTEGER PRIMARY KEY, key BLOB, value BLOB, timestamp INTEGER NOT NULL);
CREATE TABLE offsets(grp TEXT, topic INTEGER, partition INTEGER, next INTEGER NOT NULL,
    PRIMARY KEY(grp, topic, partition)) WITHOUT ROWID;
CREATE TABLE identity(id TEXT NOT NULL);
INSERT INTO identity VALUES ('abc');
INSERT INTO topics VALUES (1, 't', 1);
INSERT INTO ends VALUES (1, 0, 0, 1);
INSERT INTO records VALUES (1024 << 40, x'6b', x'76', 1500);
INSERT INTO offsets VALUES ('g', 1, 0, 0);
PRAGMA user_version=1;
"""


async def test_a_log_of_version_1_goes_on_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    sqlite3.connect(path).executescript(VERSION_1).connection.close()
    for opened in (1, 2):
        async with EmbeddedLog(path) as log, log.producer() as producer:
            assert await log.identity() == "embedded:abc"
            await producer.publish([Output("t", None, b"w", 0, headers.VOTES)])
            async with log.reader("t", "beginning") as reader:
                polled = await reader.poll(max_records=9, timeout=0)
            told = [(r.key, r.value, r.headers) for r in polled[TopicPartition("t", 0)]]
            assert told == [(b"k", b"v", ()), *[(None, b"w", headers.VOTES)] * opened]


@pytest.mark.parametrize("damage", ["x'c1'", "'text'", "7", "x'93a0a0a0'"])
async def test_headers_that_were_never_written_are_damage(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.db"
    async with EmbeddedLog(path) as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", None, b"v", 0, headers.VOTES)])
        log.database.connection.execute(f"UPDATE records SET headers = {damage}")
        async with log.reader("t", "beginning") as reader:
            with pytest.raises(RunError, match=r"is damaged \(t\[0\]@0: headers: "):
                await reader.poll(max_records=9, timeout=0)


async def test_numbers_of_headers_mean_for_ever_what_they_mean_in_files(tmp_path: Path) -> None:
    schemas = [
        b"image.v1",
        b"escalation.v1",
        b"votes.v1",
        b"answer.v1",
        b"dead_letter.v1",
        b"dead_letter_settled.v1",
    ]
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", None, b"v", 0, headers.VOTES) for _ in schemas])
        found = log.database.connection.execute("SELECT DISTINCT headers FROM records").fetchall()
        assert found == [(3,)]
        log.database.connection.execute("UPDATE records SET headers = 1 + position % 1024")
        async with log.reader("t", "beginning") as reader:
            polled = await reader.poll(max_records=9, timeout=0)

    assert [record.headers for record in polled[TopicPartition("t", 0)]] == [
        (("content-type", b"application/msgpack"), ("schema", schema)) for schema in schemas
    ]


async def test_a_key_that_is_compacted_each_time_takes_the_room_of_one_record(
    tmp_path: Path,
) -> None:
    async with EmbeddedLog(tmp_path / "log.db") as log, log.producer() as producer:
        await log.create_topics(["t"], 1)
        await producer.publish([Output("t", b"other", b"first", 0)])
        async with log.reader("t", "beginning") as early:
            await early.poll(max_records=10, timeout=1)
            for i in range(20):
                await producer.publish([Output("t", b"k", b"%d" % i, 0)])
                await log.compact("t", b"k")
            assert values(await early.poll(max_records=10, timeout=1)) == [b"19"]
            assert await early.ends() == early.positions == {0: 21}
        assert await everything(log, "t") == [b"first", b"19"]
