"""Runs on the in-memory log in which much goes wrong and nothing is lost, as a list of steps.

A producer, two workers of one tier and two consensus members, each a ``GroupMember`` with a ledger,
do by hand what the product does. Errors come from the log; who meets one leaves and joins again.
"""

import json
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from roadstream.schemas import codec
from roadstream.schemas.errors import LogUnavailableError
from roadstream.schemas.records.events import Event, Role
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import (
    ANSWERS,
    CARRIED,
    CONSENSUS_GROUP,
    VOTES,
    all_topics,
    tier_group,
    tier_inputs,
)
from roadstream.sinks.verification.findings import Report
from roadstream.sinks.verification.run import verify
from roadstream.streams.clock import ManualClock
from roadstream.streams.group.member import GroupMember, GroupMemberOptions
from roadstream.streams.ledgers.event_ledger import EventLedger, LedgerFile, sealed
from roadstream.streams.log import Output, Record, TopicPartition
from roadstream.streams.memory.log import Fault, MemoryLog
from tests.kits.builders import cascade, pack, tier, votes
from tests.kits.sound_run import answer

CASCADE = cascade(tier("one"))
ONE = tier_group("one")
PARTITIONS, SESSION = 2, 10.0
GONE = LogUnavailableError("gone")
FAULTS = {
    "no answer to a poll": Fault("poll", GONE),
    "no answer to a publish": Fault("publish", GONE),
    "a publish that nobody acknowledges": Fault("publish", GONE, after=True),
    "half a publish": Fault("publish", GONE, share=0.5),
    "no answer to a commit": Fault("commit", GONE),
    "a commit that nobody acknowledges": Fault("commit", GONE, after=True),
}


class Hand:
    """A member, and the work that it was given and has not finished."""

    def __init__(self, history: "History", role: Role, name: str) -> None:
        self._history, self.name = history, name
        self._is_worker = role == "worker"
        topics = [*tier_inputs("one", first=True)] if self._is_worker else [VOTES, CARRIED]
        group = ONE if self._is_worker else CONSENSUS_GROUP
        options = GroupMemberOptions(member_id=name, ledger=history.ledgers)
        self._member = GroupMember(self, role, group, topics, options)
        self._stack: AsyncExitStack | None = None
        self._held: list[tuple[TopicPartition, Record]] = []

    async def take_over(self, partitions: Collection[TopicPartition]) -> None:
        self._held.clear()

    async def give_up(self, partitions: Collection[TopicPartition]) -> None:
        self._held.clear()

    async def join(self) -> None:
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._member.joined(self._history.log))

    async def leave(self, error: BaseException | None = None) -> None:
        """Leave in order, or as an error makes it leave."""
        stack, self._stack = self._stack, None
        self._held.clear()
        if stack is not None:
            await stack.__aexit__(type(error) if error else None, error, None)

    async def poll(self, count: int) -> None:
        try:
            polled = await self._member.poll(max_records=count, timeout=0)
        except LogUnavailableError as error:
            await self.again(error)
            return
        self._held += [(tp, record) for tp, records in polled.items() for record in records]

    async def finish(self, which: slice) -> None:
        """Finish some of what it was given, in whatever order."""
        done = self._held[which]
        offsets: dict[TopicPartition, list[int]] = {}
        for tp, record in done:
            offsets.setdefault(tp, []).append(record.offset)
        outputs = self._outputs(done)
        try:
            if done:
                await self._member.finish(outputs, offsets, self._member.epoch)
            else:
                await self._member.flush()
        except LogUnavailableError as error:
            await self.again(error)
            return
        self._held = [one for one in self._held if one not in done]

    def _outputs(self, done: Sequence[tuple[TopicPartition, Record]]) -> list[Output]:
        """Return votes, or an answer for each image that has none; images may come repeatedly."""
        found: dict[tuple[str, int], Output] = {}
        for (_, partition), record in done:
            value = record.value or b""
            if self._is_worker:
                cast = codec.encode(pack("one", votes(codec.decode_image(value).head)))
                found["", len(found)] = Output(VOTES, None, cast, partition)
                continue
            answered = self._history.answered(partition)
            for image_id in (image.head.image_id for image in codec.decode_votes(value).images):
                if image_id not in answered:
                    said = codec.encode(answer(image_id, "one"))
                    found[image_id, 0] = Output(ANSWERS, image_id.encode(), said, partition)
        return list(found.values())

    async def again(self, error: LogUnavailableError | None) -> None:
        with suppress(LogUnavailableError):
            await self.leave(error)
        await self.join()


class History:
    """A run. Steps are tuples of a name and two numbers."""

    def __init__(self, folder: Path, *, atomic: bool) -> None:
        self.ledgers, self._now, self._sent = folder / "ledgers", 0.0, 0
        self._clock = ManualClock(1.0)
        self.log = MemoryLog(
            self._clock, atomic=atomic, session_timeout=SESSION, monotonic=lambda: self._now
        )
        self.hands = [
            Hand(self, "worker", "w0"),
            Hand(self, "worker", "w1"),
            Hand(self, "consensus", "c0"),
            Hand(self, "consensus", "c1"),
        ]

    def answered(self, partition: int) -> set[str]:
        return {
            codec.decode_answer(record.value or b"").head.image_id
            for record in self.log.topics[ANSWERS][partition]
        }

    async def play(self, steps: Sequence[tuple[str, int, int]]) -> None:
        """Take the steps; everybody has joined before."""
        await self.log.create_topics(all_topics(CASCADE.tier_names), PARTITIONS)
        self._events = EventLedger(self.ledgers, "producer", log=await self.log.identity())
        for hand in self.hands:
            await hand.join()
        for name, which, amount in steps:
            self._now += 0.1
            await self._step(name, which, amount)

    async def _step(self, name: str, which: int, amount: int) -> None:
        hand = self.hands[which % len(self.hands)]
        match name:
            case "send":
                await self._send(amount)
            case "poll":
                await hand.poll(amount)
            case "finish first":
                await hand.finish(slice(0, amount))
            case "finish last":
                await hand.finish(slice(max(0, len(hand._held) - amount), None))
            case "leave and join":
                await hand.again(None)
            case "fail and join":
                await hand.again(GONE)
            case "crash and join":
                self.log.crash(hand.name)
                await hand.again(GONE)
            case "be silent":
                self._now += SESSION + 1
            case _:
                self.log.faults.append(FAULTS[name])

    async def _send(self, count: int) -> None:
        ids = [f"image-{self._sent + i}" for i in range(count)]
        self._sent += count
        outputs = [
            Output(
                "images.archive", None, codec.encode(Image(Head(image_id=i), Inline(b""))), n % 2
            )
            for n, i in enumerate(ids)
        ]
        async with self.log.producer() as producer:
            for _ in range(20):
                try:
                    await producer.publish(outputs)
                    break
                except LogUnavailableError:
                    continue
        self._events.acknowledged(ids)

    async def settle(self) -> None:
        """Let everything be finished and everybody leave in order."""
        self.log.faults.clear()
        for _ in range(500):
            for hand in self.hands:
                self._now += 0.1
                await hand.poll(100)
                await hand.finish(slice(None))
            if not await self._lag():
                break
        for hand in self.hands:
            await hand.leave()
        self._events.close()

    async def _lag(self) -> int:
        return await self.log.lag(ONE, list(tier_inputs("one", first=True))) + await self.log.lag(
            CONSENSUS_GROUP, [VOTES]
        )

    async def verify(self) -> Report:
        return await verify(self.log, self.ledgers, CASCADE)

    @property
    def sent(self) -> int:
        return self._sent

    def files(self) -> list[Path]:
        return sorted(self.ledgers.glob("*.jsonl"))


def events(path: Path) -> list[Event]:
    return list(LedgerFile(path))


def write(path: Path, found: Sequence[Event]) -> None:
    """Write a ledger as its process would have, had this happened to it."""
    path.write_bytes(b"".join(sealed(event, number) for number, event in enumerate(found, 1)))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
