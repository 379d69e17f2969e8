"""Whatever lies on the topics, every image that came in ends once, and nobody dies or spins of it.

Hypothesis draws whole records, those of other clients and nearly those, and lays them on a log on
which two tiers and a consensus work. The wall clock stands until the end, and then leaps beyond all
deadlines.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstream.schemas import codec
from roadstream.schemas.errors import RecordError
from roadstream.schemas.records.image import Image
from roadstream.schemas.records.votes import Escalation, VotesPack
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    DEAD_LETTERS,
    VOTES,
    all_topics,
    images,
    tier_group,
    tier_inputs,
)
from roadstream.schemas.topics import tier as tier_topic
from roadstream.sinks.consensus.join import Join
from roadstream.sinks.consensus.versions import KnownVersions
from roadstream.sinks.consensus.worker import Consensus
from roadstream.sinks.verification.run import verify
from roadstream.stages.voting.rules import vote_math
from roadstream.streams.clock import ManualClock
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.tier.judge import JudgeOptions
from roadstream.workers.tier.worker import ProcessParts, WorkerLimits
from tests.kits.examples import examples
from tests.kits.fake_engine import picture
from tests.kits.records_kit import around, evened, packed, within
from tests.kits.tier_bench import CASCADE, DEADLINE, SURE, UNSURE, Bench, running

NOW = 1.7e9
TIERS = CASCADE.tier_names
INPUTS = [images("live"), images("archive")]
OTHERS = [tier_topic("two", "live"), tier_topic("two", "archive"), VOTES, CARRIED]
# Few, so that records of several kinds are about one image.
IDS = st.sampled_from(["a", "b", "c"])
TIMES = st.sampled_from([None, 0.0, NOW, NOW + 60, 1e11, -1e11])


@st.composite
def heads(draw: st.DrawFn, head: dict[str, Any]) -> dict[str, Any]:
    """Draw a head that may be that of another record's image."""
    if draw(st.booleans()):
        head |= {"image_id": draw(IDS), "content_hash": None}
    if draw(st.booleans()):
        head |= {"deadline_at": draw(TIMES)}
    return head


@st.composite
def pictures(draw: st.DrawFn, kind: type) -> Any:
    record = draw(within(kind))
    record["head"] = draw(heads(record["head"]))
    if draw(st.integers(0, 3)):
        data = picture(draw(st.sampled_from([SURE, UNSURE])))
        record["payload"] = {"kind": "inline", "data": data}
    return record


@st.composite
def packs(draw: st.DrawFn) -> Any:
    record = evened(draw(within(VotesPack)))
    if draw(st.integers(0, 3)):
        record["tier"] = draw(st.sampled_from(TIERS))
    for said in record["images"]:
        said[0] = draw(heads(said[0]))
        if draw(st.integers(0, 3)):
            said[3] = draw(st.sampled_from([None, *TIERS]))
    if draw(st.integers(0, 4)) == 0:
        record["images"] *= 2
    return record


KINDS = {images(lane): Image for lane in ("live", "archive")} | {
    tier_topic("two", lane): Escalation for lane in ("live", "archive")
}
KEYS = st.sampled_from([None, b"", b"k", b"\xff\x00", b"x" * 5000])


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    topic = draw(st.sampled_from([*INPUTS, *OTHERS]))
    if (kind := KINDS.get(topic)) is not None:
        record = draw(pictures(kind) | around(kind))
    else:
        record = draw(packs() | around(VotesPack))
    return Output(topic, draw(KEYS), packed(record), 0)


class System:
    """Two tiers and a consensus on one log, with clocks moved by hand."""

    def __init__(self) -> None:
        self.clock, self.steady = ManualClock(NOW), 0.0
        self.polls = 0
        self.bench = Bench()
        self.log = self.bench.log = MemoryLog(self.clock, latency=self._count)
        options = JudgeOptions(max_bytes=1 << 20, clock=self.clock, pause=lambda _: None)
        around = ProcessParts(clock=self.clock)
        self.workers = [
            self.bench.worker(
                tier,
                WorkerLimits(poll_timeout=0.25),
                self.bench.judge(tier, options),
                around,
            )
            for tier in TIERS
        ]
        join = Join(KnownVersions(CASCADE, vote_math))
        self.consensus = Consensus(self.log, join, clock=self.clock, steady=lambda: self.steady)

    def _count(self, operation: str) -> float:
        self.polls += operation == "poll"
        return 0.0

    def values(self, topic: str) -> Iterator[tuple[int, int, bytes]]:
        for number, partition in enumerate(self.log.topics[topic]):
            for record in partition.read(0, 1 << 20):
                yield number, record.offset, record.value or b""

    def ended(self) -> tuple[Counter[str], set[str], set[tuple[str, int, int]]]:
        """Return the answers per image, and the images and places of dead letters."""
        answers = [codec.decode_answer(value) for _, _, value in self.values(ANSWERS)]
        letters = [codec.decode_dead_letter(value) for _, _, value in self.values(DEAD_LETTERS)]
        return (
            Counter(answer.head.image_id for answer in answers),
            {letter.image_id for letter in letters if letter.image_id},
            {(letter.topic, letter.partition, letter.offset) for letter in letters},
        )

    def unended(self) -> list[object]:
        """Return what came in and has neither an answer nor a dead letter."""
        answers, named, places = self.ended()
        left: list[object] = []
        for topic in INPUTS:
            for partition, offset, value in self.values(topic):
                place = topic, partition, offset
                try:
                    image_id = codec.decode(codec.decode_image, value, *place).head.image_id
                except RecordError:
                    left += [] if place in places else [place]
                else:
                    left += [] if image_id in answers or image_id in named else [image_id]
        return left

    async def until_worked_off(self) -> None:
        """Wait until every tier has published what became of its images."""
        with anyio.fail_after(DEADLINE):
            for tier in TIERS:
                topics = list(tier_inputs(tier, first=tier == TIERS[0]))
                while await self.log.lag(tier_group(tier), topics):
                    await anyio.lowlevel.checkpoint()
            # A record that nobody holds open is behind all of them.
            await self._through(VOTES)
            await self._through(CARRIED)

    async def _through(self, topic: str) -> None:
        before = self.consensus.stats.dead_letters
        self.log.append([Output(topic, None, b"", 0)])
        while self.consensus.stats.dead_letters <= before:
            await anyio.lowlevel.checkpoint()

    async def polls_at_rest(self) -> int:
        """Return how often the log is asked while nothing happens, in so many turns of the loop."""
        before = self.polls
        for _ in range(500):
            await anyio.lowlevel.checkpoint()
        return self.polls - before


async def live_through(some: list[Output]) -> None:
    system = System()
    await system.log.create_topics(all_topics(TIERS), 1)
    system.log.append(some)
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks, running(*system.workers):
        tasks.start_soon(system.consensus.run, stopping)
        await system.until_worked_off()
        assert await system.polls_at_rest() < 50
        system.clock.advance(1e11 - NOW)
        system.steady += 1e11
        with anyio.fail_after(DEADLINE):
            while system.unended():
                await anyio.lowlevel.checkpoint()
        stopping.set()
    answers, _, _ = system.ended()
    assert set(answers.values()) <= {1}
    report = await verify(system.log, None, CASCADE)
    assert not report.lost


@settings(deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(outputs(), min_size=1, max_size=12))
def test_every_image_ends_whatever_lies_on_the_topics(some: list[Output]) -> None:
    anyio.run(live_through, some)
