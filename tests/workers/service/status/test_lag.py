"""The lag of a process's groups: what is asked of the log, and when."""

from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.topics import CARRIED, CONSENSUS_GROUP, VOTES
from roadstream.streams.memory.log import Fault
from roadstream.workers.service.status.lag import Lags
from tests.kits.builders import pack, votes
from tests.kits.consensus_kit import consensus, prepared, receive, running, send


async def test_the_log_is_asked_only_once_somebody_wants_to_know() -> None:
    lags = Lags(await prepared())
    assert not lags.wanted
    assert list(lags.known()) == []
    assert lags.wanted


async def test_packs_that_are_held_for_open_images_are_lag_and_do_not_wait_to_be_polled() -> None:
    log = await prepared(partitions=2)
    lags = Lags(log)
    member = consensus(log)
    lags.watch(member.member, [CARRIED, VOTES])
    await send(log, *(pack("one", votes(f"{i}", 0.9, next_tier="two")) for i in range(7)))

    await lags.ask()
    ((group, before),) = lags.known()
    assert group == CONSENSUS_GROUP
    assert before.by_topic(before.uncommitted) == {CARRIED: 0, VOTES: 7}
    assert before.by_topic(before.unpolled) == {CARRIED: 0, VOTES: 0}  # it owns nothing yet

    async with running(member):
        await send(log, pack("one", votes("last")), partition=0)
        await receive(log, "answers", 1)
        await lags.ask()
        ((_, after),) = lags.known()
        assert after.by_topic(after.uncommitted)[VOTES] == 8
        assert after.by_topic(after.unpolled) == {CARRIED: 0, VOTES: 0}


async def test_a_log_that_does_not_answer_leaves_what_was_known() -> None:
    log = await prepared()
    lags = Lags(log)
    lags.watch(consensus(log).member, [VOTES])
    await lags.ask()
    log.faults.append(Fault("lag", LogUnavailableError("gone")))
    await send(log, pack("one", votes("a")))
    await lags.ask()
    ((_, lag),) = lags.known()
    assert lag.by_topic(lag.uncommitted) == {VOTES: 0}
