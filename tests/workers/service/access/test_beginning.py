"""Where a group begins that has committed nothing yet."""

import pytest

from roadstream.schemas.errors import UsageError
from roadstream.schemas.topics import ANSWERS, all_topics, images, tier_group
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import MemoryLog
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.service.access.beginning import FORGOTTEN_AFTER, begin_tier
from tests.kits.builders import cascade, tier

CASCADE = cascade(tier("one"), tier("two"))
INPUT = TopicPartition(images("archive"), 0)


async def log_with(pictures: int, answers: int) -> MemoryLog:
    log = MemoryLog()
    await log.create_topics(all_topics(CASCADE.tier_names), 1)
    log.append([Output(INPUT.topic, None, b"", 0)] * pictures)
    log.append([Output(ANSWERS, None, b"", 0)] * answers)
    return log


async def committed(log: MemoryLog) -> int | None:
    inputs = [images("live"), images("archive")]
    return (await log.committed(tier_group("one"), inputs)).get(INPUT)


@pytest.mark.parametrize(("pictures", "answers"), [(0, 0), (7, 0), (0, 3)])
async def test_on_fresh_topics_it_begins_at_the_beginning(pictures: int, answers: int) -> None:
    log = await log_with(pictures, answers)
    await begin_tier(log, CASCADE, "one", None, 1.0)
    assert await committed(log) is None


async def test_where_others_have_answered_it_says_how_many_and_wants_to_be_told() -> None:
    log = await log_with(60, 58)
    with pytest.raises(
        UsageError,
        match=r"^group roadstream\.tier\.one is new, and 60 images lie on images\.live, "
        r"images\.archive, .*\(58 answers\): say --from beginning .* or --from end ",
    ):
        await begin_tier(log, CASCADE, "one", None, 1.0)


async def test_told_to_begin_at_the_end_it_does_and_is_not_asked_again() -> None:
    log = await log_with(60, 58)
    await begin_tier(log, CASCADE, "one", "end", 1.0)
    assert await committed(log) == 60
    await begin_tier(log, CASCADE, "one", None, 9e9)
    assert await committed(log) == 60


async def test_told_to_begin_at_the_beginning_a_crash_before_its_first_commit_asks_nothing() -> (
    None
):
    log = await log_with(60, 58)
    await begin_tier(log, CASCADE, "one", "beginning", 1.0)
    await begin_tier(log, CASCADE, "one", None, 5.0)
    assert await committed(log) is None


async def test_a_crash_between_the_first_answer_and_the_first_commit_asks_nothing() -> None:
    log = await log_with(60, 0)
    await begin_tier(log, CASCADE, "one", None, 1.0)
    log.append([Output(ANSWERS, None, b"", 0)])
    await begin_tier(log, CASCADE, "one", None, 30.0)


async def test_a_group_whose_commits_the_log_has_forgotten_asks() -> None:
    log = await log_with(60, 0)
    await begin_tier(log, CASCADE, "one", None, 1.0)
    log.append([Output(ANSWERS, None, b"", 0)])
    with pytest.raises(UsageError, match="60 images"):
        await begin_tier(log, CASCADE, "one", None, 2.0 + FORGOTTEN_AFTER)


async def test_a_later_tier_begins_with_what_waits_for_it() -> None:
    log = await log_with(60, 58)
    await begin_tier(log, CASCADE, "two", None, 1.0)
    await begin_tier(log, CASCADE, "two", "end", 1.0)
    assert await log.committed(tier_group("two"), ["tier.two.live", "tier.two.archive"]) == {}


async def test_the_names_on_the_cluster_are_told() -> None:
    log = await log_with(0, 0)
    south = NamespacedLog(log, "south")
    await south.create_topics(all_topics(CASCADE.tier_names), 1)
    log.append([Output("south.images.live", None, b"", 0), Output("south.answers", None, b"", 0)])
    with pytest.raises(UsageError, match=r"^group south\.roadstream\.tier\.one is new, and 1 imag"):
        await begin_tier(south, CASCADE, "one", None, 1.0)
