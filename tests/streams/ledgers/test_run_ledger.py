"""The ledger: every image once, the first answer stays, positions move with their answers."""

import sqlite3
from pathlib import Path

import pytest

from roadstream.schemas.errors import OutputError
from roadstream.streams.ledgers.run_ledger import READ_BATCH, Count, LedgerRow, RunLedger


def row(
    image_id: str, sequence: int = 0, answer: bytes = b"a", status: str = "answered"
) -> LedgerRow:
    return LedgerRow(image_id, sequence, status, "glance", "roadwork", answer)


def rows_of(ledger: RunLedger, *, in_order: bool = False) -> list[bytes]:
    return [answer for batch in ledger.answers(in_order=in_order) for answer in batch]


async def test_only_images_that_were_not_submitted_are_unknown(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0), ("b", 1)])
        await ledger.submitted([("b", 1), ("c", 2)])

        assert await ledger.unknown(["a", "b", "c", "d"]) == {"d"}
        assert await ledger.unknown([]) == set()
        assert await ledger.counts() == [Count(None, None, None, 3)]


async def test_the_first_answer_of_an_image_stays(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0)])
        first, second = row("a", answer=b"first"), row("a", answer=b"second")

        assert await ledger.record([first, second], {0: 2}) == [first]
        assert await ledger.record([second], {0: 3}) == []
        assert rows_of(ledger) == [b"first"]
        assert await ledger.positions() == {0: 3}


async def test_an_answer_may_come_before_its_image_is_noted(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        assert await ledger.record([row("a", 7)], {}) == []
        assert await ledger.counts() == []
        await ledger.submitted([("a", 7)])

        assert await ledger.unknown(["a"]) == set()
        assert await ledger.counts() == [Count("answered", "glance", "roadwork", 1)]


async def test_answers_and_positions_move_together_or_not_at_all(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0)])
        await ledger.record([row("a")], {0: 1})
        ledger.database.connection.execute("PRAGMA max_page_count=1")
        with pytest.raises(OutputError, match="full"):
            await ledger.record([row("b", answer=bytes(1 << 20))], {0: 2})
        ledger.database.connection.execute("PRAGMA max_page_count=1000000")

        assert await ledger.positions() == {0: 1}
        assert len(rows_of(ledger)) == 1


async def test_what_it_holds_survives_closing(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.set_facts({"run_id": "x", "key": "1"})
        await ledger.set_facts({"key": "2"})
        await ledger.submitted([("a", 0)])
        await ledger.record([row("a")], {3: 9})
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        assert await ledger.facts() == {"run_id": "x", "key": "2"}
        assert await ledger.positions() == {3: 9}
        assert rows_of(ledger) == [b"a"]


async def test_forgetting_keeps_what_was_answered(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0), ("b", 1)])
        await ledger.record([row("a")], {0: 5})
        await ledger.forget_unanswered()

        assert await ledger.unknown(["a", "b"]) == {"b"}
        assert await ledger.positions() == {}
        assert rows_of(ledger) == [b"a"]


async def test_a_log_that_was_put_back_takes_the_ledger_with_it(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([("a", 0), ("b", 1)])
        await ledger.note_ends({0: 4, 1: 2})
        await ledger.record([row("a")], {0: 5, 1: 7})

        assert not await ledger.follow_back({0: 4, 1: 2}, {0: 5, 1: 9})
        assert await ledger.unknown(["a", "b"]) == set()
        assert await ledger.follow_back({0: 4, 1: 2}, {0: 6, 1: 3})  # answers were lost
        assert await ledger.positions() == {0: 5, 1: 3}
        assert await ledger.unknown(["a", "b"]) == {"b"}
        assert rows_of(ledger) == [b"a"]

        await ledger.submitted([("b", 1)])
        await ledger.note_ends({0: 4, 1: 3})
        assert await ledger.follow_back({0: 4, 1: 2}, {0: 6, 1: 3})  # images were
        assert await ledger.unknown(["a", "b"]) == {"b"}
        assert not await ledger.follow_back({0: 4, 1: 2}, {0: 6, 1: 3})


async def test_answers_come_in_input_order_when_asked_for(tmp_path: Path) -> None:
    count = READ_BATCH + 100
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        backwards = [row(f"{i:05}", i, b"%05d" % i) for i in reversed(range(count))]
        await ledger.submitted([(one.image_id, one.sequence) for one in backwards])
        await ledger.record(backwards, {})

        assert rows_of(ledger, in_order=True) == [b"%05d" % i for i in range(count)]
        assert sorted(rows_of(ledger)) == [b"%05d" % i for i in range(count)]
        assert all(len(batch) <= READ_BATCH for batch in ledger.answers(in_order=True))


async def test_counts_group_by_status_exit_and_label(tmp_path: Path) -> None:
    async with RunLedger(tmp_path / "ledger.db") as ledger:
        await ledger.submitted([(name, 0) for name in "abcd"])
        failed = LedgerRow("c", 0, "failed", None, None, b"")
        await ledger.record([row("a"), row("b"), failed], {})

        assert set(await ledger.counts()) == {
            Count("answered", "glance", "roadwork", 2),
            Count("failed", None, None, 1),
            Count(None, None, None, 1),
        }


async def test_a_ledger_of_the_first_version_still_opens(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path)
    old.executescript(
        """
        CREATE TABLE facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE images(
            image_id BLOB PRIMARY KEY, sequence INTEGER NOT NULL,
            status TEXT, exit_tier TEXT, label TEXT, answer BLOB);
        CREATE TABLE positions(partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
        INSERT INTO images VALUES ('a', 0, 'answered', 'glance', 'none', x'01');
        INSERT INTO positions VALUES (2, 5);
        PRAGMA user_version=1;
        """
    )
    old.close()
    async with RunLedger(path) as ledger:
        assert await ledger.positions() == {2: 5}
        assert rows_of(ledger, in_order=True) == [b"\x01"]
