"""The engine benchmark: honest runs are timed, dishonest ones void."""

from pathlib import Path

import pytest

from roadstream.bench.engine.contenders import Embedded, Memory
from roadstream.bench.engine.floor import measure_floor
from roadstream.bench.engine.plan import (
    Plan,
    VoidRunError,
    check_answers,
    made_images,
    noop_cascade,
    preload,
)
from roadstream.schemas import codec
from roadstream.schemas.topics import ANSWERS, images
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog

PLAN = Plan(log="", images=300, payload=64, max_batch=100)


def test_the_same_plan_makes_the_same_pictures() -> None:
    first, again = list(made_images(PLAN)), list(made_images(PLAN))

    assert [i.payload for i in first] == [i.payload for i in again]
    assert len({i.head.image_id for i in first}) == PLAN.images


def test_the_cascade_has_two_voting_members_in_one_tier() -> None:
    cascade = noop_cascade(PLAN)

    assert [m.weight for m in cascade.tier("noop").members] == [1.0, 1.0]


async def test_preloading_puts_every_image_on_the_log() -> None:
    log = MemoryLog()
    await log.create_topics([images("archive")], PLAN.partitions)
    async with log.producer() as producer:
        await preload(producer, PLAN)

    assert sum(map(len, log.topics[images("archive")])) == PLAN.images


async def test_a_run_without_all_answers_is_void() -> None:
    log = MemoryLog()
    await log.create_topics([ANSWERS], 1)

    with pytest.raises(VoidRunError, match=r"expected 300 images answered once, got 0"):
        await check_answers(log, ANSWERS, PLAN)


async def test_a_run_with_another_kind_of_answer_is_void() -> None:
    log = MemoryLog()
    await log.create_topics([ANSWERS], 1)
    head = next(made_images(PLAN)).head
    answer = codec.decode_answer(
        codec.encode(
            {
                "schema": "answer.v1",
                "head": head,
                "status": "failed",
                "latency": {"total": 0.0, "joining": 0.0, "tiers": []},
            }
        )
    )
    async with log.producer() as producer:
        await producer.publish([Output(ANSWERS, None, codec.encode(answer), 0)])

    with pytest.raises(VoidRunError, match="not an answer of two votes"):
        await check_answers(log, ANSWERS, PLAN)


@pytest.mark.parametrize("log", ["embedded", "memory"])
async def test_a_small_run_answers_every_image_in_fresh_processes(log: str, tmp_path: Path) -> None:
    contender = Embedded(tmp_path) if log == "embedded" else Memory()

    outcome = await contender.run(PLAN)

    assert outcome.images_per_second > 0
    assert outcome.cpu_worker > 0


def test_the_floor_is_below_what_any_engine_takes() -> None:
    floor = measure_floor(PLAN)

    assert floor.bytes_image > PLAN.payload
    assert "images/s" in floor.sentence()
