"""Whose topics are: the first claim holds, whatever races or compaction do; adopting moves it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.errors import ForbiddenError, UsageError
from roadstream.schemas.records.claims import Begun, Claim, Claims
from roadstream.schemas.topics import CASCADES
from roadstream.streams.log import Log, Output
from roadstream.streams.memory.log import Fault, MemoryLog
from roadstream.streams.topics.claims import check_owner, claim_topics, read_claims, tell
from roadstream.streams.topics.namespace import NamespacedLog
from tests.kits.builders import cascade, tier


def named(name: str, **more: Any) -> Cascade:
    return msgspec.structs.replace(cascade(tier("one")), name=name, **more)


def claim(name: str, *, adopts: bool = False) -> Claim:
    return Claim(cascade=name, cascade_hash="h", claimed_at=0.0, adopts=adopts)


async def owner(log: Log) -> str | None:
    return (await read_claims(log)).owner


async def test_the_first_claim_holds_and_another_cascade_is_told_whose_they_are(log: Log) -> None:
    log = NamespacedLog(log, "claims-first")
    async with log:
        await claim_topics(log, named("ours"), 1.0)
        await claim_topics(log, named("ours", hash="another version"), 2.0)
        with pytest.raises(
            UsageError,
            match=r"^the topics here \(claims-first\.answers, …\) belong to cascade 'ours', not to "
            r"'theirs': .*--namespace NAME or ROADSTREAM_NAMESPACE.*topics adopt",
        ):
            await claim_topics(log, named("theirs"), 3.0)
        with pytest.raises(UsageError, match="belong to cascade 'ours'"):
            await check_owner(log, named("theirs"))
        await check_owner(log, named("ours"))
        assert await owner(log) == "ours"


async def test_who_adopts_has_them_and_the_former_owner_is_refused(log: Log) -> None:
    log = NamespacedLog(log, "claims-adopt")
    async with log:
        await claim_topics(log, named("old"), 1.0)
        await claim_topics(log, named("new"), 2.0, adopt=True)
        assert await owner(log) == "new"
        with pytest.raises(UsageError, match="belong to cascade 'new', not to 'old'"):
            await claim_topics(log, named("old"), 3.0)
        await claim_topics(log, named("old"), 4.0, adopt=True)
        assert await owner(log) == "old"


async def test_of_two_that_claim_at_once_the_first_on_the_log_wins() -> None:
    """Both have read that nobody has them; the other's claim comes between reading and telling."""
    log = MemoryLog()
    await log.create_topics([CASCADES], 1)

    class Between(MemoryLog):
        def producer(self) -> Any:
            log.append(
                [Output(CASCADES, b"cascade:theirs", msgspec.msgpack.encode(claim("theirs")))]
            )
            return super().producer()

    ours = Between()
    ours.broker, ours.store, ours.topics = log.broker, log.store, log.topics
    with pytest.raises(UsageError, match="belong to cascade 'theirs', not to 'ours'"):
        await claim_topics(ours, named("ours"), 1.0)
    await claim_topics(log, named("theirs"), 1.0)


async def test_a_record_of_a_stranger_is_no_claim() -> None:
    log = MemoryLog()
    await log.create_topics([CASCADES], 1)
    log.append([Output(CASCADES, b"k", b"\xc1 what"), Output(CASCADES, b"k", b"")])
    await claim_topics(log, named("ours"), 1.0)
    with capture_logs() as lines:
        assert await owner(log) == "ours"
    assert [(one["event"], one["records"], one["first"]) for one in lines] == [
        ("unreadable_claims", 2, 0)
    ]


async def test_who_may_not_claim_goes_on_and_may_not_adopt() -> None:
    log = MemoryLog()
    log.faults.append(Fault("publish", ForbiddenError("no right")))
    await claim_topics(log, named("ours"), 1.0)
    assert await owner(log) is None
    log.faults.append(Fault("publish", ForbiddenError("no right")))
    with pytest.raises(UsageError, match=r"^cannot adopt: no right$"):
        await claim_topics(log, named("ours"), 1.0, adopt=True)


async def test_looking_on_makes_no_topic() -> None:
    log = MemoryLog()
    await check_owner(log, named("ours"))
    assert CASCADES not in log.topics


async def test_a_group_that_has_begun_is_known() -> None:
    log = MemoryLog()
    await read_claims(log)
    await tell(log, Begun(group="g", start="end", begun_at=3.0))
    assert (await read_claims(log)).begun == {"g": Begun(group="g", start="end", begun_at=3.0)}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=8), st.integers(0, 255))
def test_compaction_never_changes_the_owner(steps: list[tuple[str, bool]], taken: int) -> None:
    """Whoever has topics does not claim them again: only what can come about is drawn."""
    told: list[Claim] = []
    for name, adopts in steps:
        known = {one.cascade for one in told}
        if (adopts and Claims(told).owner != name) or (not adopts and name not in known):
            told.append(claim(name, adopts=adopts))
    before = Claims(told).owner
    for i, one in enumerate(list(told)):
        later = [o for o in told[told.index(one) + 1 :] if o.key == one.key]
        if later and taken >> i & 1:
            told.remove(one)
    assert Claims(told).owner == before
