"""The consensus sink on the in-memory log: its answers, their times, and votes it cannot use."""

from collections import Counter

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records import headers
from roadstream.schemas.records.dead_letters import DeadLetter
from roadstream.schemas.topics import ANSWERS, CARRIED, CONSENSUS_GROUP, DEAD_LETTERS, VOTES
from roadstream.sinks.consensus.join import Join
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.consensus.worker import Consensus
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from tests.kits.builders import cascade, head, pack, votes
from tests.kits.consensus_kit import (
    answers,
    consensus,
    image_ids,
    lag,
    prepared,
    receive,
    running,
    send,
)


async def test_an_image_is_answered_when_the_last_tier_of_its_path_has_voted() -> None:
    log = await prepared()
    async with running(consensus(log)):
        await send(log, pack("one", votes("a", 0.9, next_tier="two"), votes("b", 0.9)))
        assert await image_ids(log, 1) == ["b"]
        await send(log, pack("two", votes("a", 0.1)))
        assert await image_ids(log, 2) == ["a", "b"]

    assert await lag(log) == 0


async def test_an_answer_stands_in_the_partition_of_its_votes_under_its_key() -> None:
    log = await prepared(partitions=3)
    async with running(consensus(log)):
        await send(log, pack("one", votes("a", 0.9)), partition=2)
        await answers(log, 1)

    (record,) = log.topics[ANSWERS][2]
    assert (record.key, record.headers) == (b"a", headers.ANSWER)


async def test_garbage_becomes_a_dead_letter_and_harms_no_neighbour() -> None:
    log = await prepared()
    await send(log, pack("one", votes("a")), b"\xc1garbage", b"", pack("one", votes("b")))
    async with running(consensus(log)):
        assert await image_ids(log, 2) == ["a", "b"]
        letters = [codec.decode_dead_letter(v) for v in await receive(log, DEAD_LETTERS, 2)]

    assert [(x.topic, x.partition, x.offset, x.key, x.value, x.group) for x in letters] == [
        (VOTES, 0, 1, b"k", b"\xc1garbage", CONSENSUS_GROUP),
        (VOTES, 0, 2, b"k", b"", CONSENSUS_GROUP),
    ]
    assert all(isinstance(x, DeadLetter) and f"votes[0]@{x.offset}: " in x.error for x in letters)
    assert await lag(log) == 0


async def test_the_headers_of_garbage_go_with_its_dead_letter() -> None:
    log = await prepared()
    sent = (("from", b"elsewhere"),)
    log.append([Output(VOTES, b"k", b"\xc1", 0, sent)])
    async with running(consensus(log)):
        (value,) = await receive(log, DEAD_LETTERS, 1)

    assert codec.decode_dead_letter(value).headers == list(sent)


async def test_a_pack_of_another_schema_version_is_a_dead_letter() -> None:
    log = await prepared()
    newer = codec.encode(pack("one", votes("a"))).replace(b"votes.v1", b"votes.v9")
    await send(log, newer)
    async with running(consensus(log)):
        (value,) = await receive(log, DEAD_LETTERS, 1)

    letter = codec.decode_dead_letter(value)
    assert letter.value == newer
    assert letter.error == "votes[0]@0: Invalid value 'votes.v9' - at `$.schema`"


async def test_a_pack_whose_votes_do_not_match_its_members_is_a_dead_letter() -> None:
    log = await prepared()
    lopsided = pack("one", votes("a", 0.9), votes("b", 0.9, 0.8))
    await send(log, codec.encode(lopsided), pack("one", votes("c")))
    async with running(consensus(log)):
        assert await image_ids(log, 1) == ["c"]
        (value,) = await receive(log, DEAD_LETTERS, 1)

    letter = codec.decode_dead_letter(value)
    assert letter.error == "votes[0]@0: expected 1 votes for b, got 2 - at `$.images[1].raw`"
    assert await lag(log) == 0


async def test_an_idle_image_is_answered_at_its_deadline() -> None:
    clock = ManualClock()
    log = await prepared(clock=clock)
    live = head("a", deadline_at=clock.now() + 5)
    async with running(consensus(log, clock)):
        await send(log, pack("one", votes(live, 0.9, next_tier="two")), pack("one", votes("b")))
        await answers(log, 1)
        clock.advance(6)
        _, answer = await answers(log, 2)

    assert (answer.head.image_id, answer.status) == ("a", "partial")
    assert await lag(log) == 0


async def test_a_log_made_by_an_older_version_gets_the_topic_for_carried_votes() -> None:
    log = MemoryLog(ManualClock())
    await log.create_topics([VOTES, ANSWERS, DEAD_LETTERS], 3)
    async with running(consensus(log)):
        await send(log, pack("one", votes("a")))
        await answers(log, 1)

    assert await log.partition_counts([CARRIED]) == {CARRIED: 3}


async def test_votes_for_another_picture_of_the_same_id_become_a_dead_letter() -> None:
    log = await prepared()
    first, second = (
        votes(msgspec.structs.replace(head("a"), content_hash=content * 16), p)
        for content, p in ((b"1", 0.9), (b"2", 0.1))
    )
    async with running(member := consensus(log)):
        await send(log, pack("one", first), pack("one", second, votes("b")))
        assert await image_ids(log, 2) == ["a", "b"]
        (value,) = await receive(log, DEAD_LETTERS, 1)

    letter = codec.decode_dead_letter(value)
    assert (letter.reason, letter.image_id, letter.tier) == ("duplicate", "a", "one")
    assert (letter.topic, letter.partition, letter.offset) == (VOTES, 0, 1)
    assert codec.decode_votes(letter.value).images == [second]
    assert all(word in letter.error for word in ("31" * 16, "32" * 16, "votes[0]@1", "file:a"))
    assert (member.stats.join.refused_duplicates, member.stats.dead_letters) == (1, 1)
    assert await lag(log) == 0


async def test_votes_that_would_wait_for_a_tier_nobody_runs_become_dead_letters() -> None:
    log = await prepared()
    lost = votes("a", 0.9, next_tier="nine")
    await send(log, pack("one", lost, votes("b")), pack("eight", votes("c")))
    async with running(consensus(log)):
        assert await image_ids(log, 1) == ["b"]
        letters = [codec.decode_dead_letter(v) for v in await receive(log, DEAD_LETTERS, 2)]

    assert codec.decode_votes(letters[0].value).images == [lost]
    assert [letter.error for letter in letters] == [
        "votes[0]@0: a: escalated to nine, which is no tier here",
        "votes[0]@1: expected votes of a tier of the cascade, got eight",
    ]
    assert await lag(log) == 0


async def test_packs_of_another_cascade_are_counted_and_answered() -> None:
    log = await prepared()
    foreign = msgspec.structs.replace(pack("one", votes("a")), cascade_hash="other")
    async with running(member := consensus(log)):
        await send(log, foreign, pack("one", votes("b")))
        await answers(log, 2)

    assert member.stats.foreign_packs == 1


async def test_a_clock_that_steps_back_postpones_no_answer() -> None:
    clock, steady = ManualClock(), ManualClock(0.0)
    log = await prepared(clock=clock)
    chosen = cascade()
    join = Join(KnownVersions(chosen, vote_math))
    live = head("a", deadline_at=clock.now() + 5)
    async with running(Consensus(log, join, clock=clock, steady=steady.now)):
        await send(log, pack("one", votes(live, 0.9, next_tier="two"), votes("b")))
        await answers(log, 1)
        clock.advance(-3_600)
        steady.advance(6)
        _, answer = await answers(log, 2)

    assert (answer.head.image_id, answer.status) == ("a", "partial")


async def test_answers_are_counted_by_status_and_waits_are_measured() -> None:
    clock = ManualClock()
    log = await prepared(clock=clock)
    async with running(member := consensus(log, clock)):
        await send(
            log,
            pack("one", votes("a", 0.9, next_tier="two"), votes("b"), votes("c", None)),
            pack("one", votes("d", 0.9, next_tier="two", error="model_failed: x")),
        )
        await answers(log, 2)
        clock.advance(3)
        await send(log, pack("two", votes("a", 0.9), votes("d", 0.9, error="expired: x")))
        await answers(log, 4)

    stats = member.stats
    assert +Counter(stats.answers.given) == {
        ("answered", "roadwork"): 2,
        ("partial", "roadwork"): 1,
        ("failed", None): 1,
    }
    assert stats.answers.probability.count == 3
    assert (stats.answers.joining.count, stats.answers.joining.sum) == (2, 6.0)
    assert stats.open_images == 0


async def test_latency_is_that_of_images_that_say_when_they_were_submitted_by_lane() -> None:
    clock = ManualClock()
    log = await prepared(clock=clock)
    due = clock.now() + 60
    async with running(member := consensus(log, clock)):
        said = head("a", deadline_at=due, submitted_at=clock.now() - 2)
        early = head("b", deadline_at=due, submitted_at=clock.now() + 2)
        silent = head("c", deadline_at=due)
        archived = head("d", submitted_at=clock.now() - 7200)
        heads = (said, early, silent, archived)
        await send(log, pack("one", *(votes(one, 0.9) for one in heads)))
        await answers(log, 4)

    latency = member.stats.answers.latency
    assert (latency["live"].count, latency["live"].sum) == (2, 2.0)
    assert (latency["archive"].count, latency["archive"].sum) == (1, 7200.0)
    assert dict(latency["archive"].cumulative())["10800.0"] == 1
    assert dict(latency["archive"].cumulative())["3600.0"] == 0
