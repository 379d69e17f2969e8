"""A sound run as data: records, ledgers and commits of four images; tests plant what is wrong."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer, Label, Vote
from roadstream.schemas.records.events import (
    Acknowledged,
    Assigned,
    Committed,
    Delivered,
    Done,
    Event,
    Opened,
    Role,
)
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.records.votes import Escalation
from roadstream.schemas.topics import ANSWERS, CONSENSUS_GROUP, VOTES, all_topics, tier_group
from roadstream.sinks.verification.findings import Report
from roadstream.sinks.verification.run import verify
from roadstream.streams.clock import ManualClock
from roadstream.streams.ledgers.event_ledger import sealed
from roadstream.streams.log import Output, TopicPartition
from roadstream.streams.memory.log import MemoryLog
from tests.kits.builders import CASCADE_HASH, answered, cascade, pack, tier, votes

IMAGES, ESCALATED = "images.archive", "tier.two.archive"
ONE, TWO = tier_group("one"), tier_group("two")
CASCADE = cascade(tier("one"), tier("two"))
BOOT = "boot"


def opened(role: Role, group: str, member: str, at: float = 0.0, boot: str = BOOT) -> Opened:
    return Opened(at, role, group, member, 1, "host", boot, 0.0)


def answer(image_id: str, *tiers: str, p: float = 0.9, label: Label = "roadwork") -> Answer:
    """Return an answer by a vote of each tier."""
    cast = [Vote(name, f"{name}-0", "1", 10 * p, p, 1.0, 0.1, 4) for name in tiers]
    return answered(
        head=Head(image_id=image_id),
        status="answered",
        label=label,
        probability=p,
        confidence=2 * abs(p - 0.5),
        exit_tier=tiers[-1],
        votes=cast,
        answered_at=9.0,
        cascade="test",
        cascade_hash=CASCADE_HASH,
    )


class SoundRun:
    """Images a and b leave at tier one; c and d go on to tier two. Everything in partition 0.

    Attributes:
        records: Values per topic, to be appended in order.
        events: Ledger lines per file.
        commits: Where each group stands on the log.
        clock: When the records are appended.
        log: The log they are written to.
        kind: What the log says it is, before its identity; memory by default.
        cascade: Of tiers one and two.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.cascade = folder, CASCADE
        self.kind = ""
        self.clock = ManualClock(0.5)
        self.log = MemoryLog(self.clock)
        self.records: dict[str, list[object]] = {
            IMAGES: [Image(Head(image_id=name), Inline(name.encode())) for name in "abcd"],
            ESCALATED: [Escalation(Head(image_id=name), Inline(b""), []) for name in "cd"],
            VOTES: [
                pack("one", votes("a"), votes("b"), *(votes(n, next_tier="two") for n in "cd")),
                pack("two", votes("c"), votes("d")),
            ],
            ANSWERS: [
                answer("a", "one"),
                answer("b", "one"),
                answer("c", "one", "two"),
                answer("d", "one", "two"),
            ],
        }
        self.events: dict[str, list[Event]] = {
            "producer": [opened("producer", "", ""), Acknowledged(1.0, ["a", "b", "c", "d"])],
            "one": worked("worker", ONE, "w1", IMAGES, 4),
            "two": worked("worker", TWO, "w2", ESCALATED, 2),
            "consensus": worked("consensus", CONSENSUS_GROUP, "c", VOTES, 2),
        }
        self.commits = {
            (ONE, IMAGES): 4,
            (TWO, ESCALATED): 2,
            (CONSENSUS_GROUP, VOTES): 2,
        }

    async def verify(
        self,
        *,
        ledgers: bool = True,
        trimmed: Sequence[tuple[str, int]] = (),
        baseline: Path | None = None,
    ) -> Report:
        """Write everything and verify it, with the first records of some topics let go of."""
        self._rename()
        await self.log.create_topics(all_topics(CASCADE.tier_names), 1)
        for topic, values in self.records.items():
            for value in values:
                data = value if isinstance(value, bytes) else codec.encode(value)
                self.log.append([Output(topic, b"k", data, 0)])
        for (group, topic), at in self.commits.items():
            self.log.broker.group(group).offsets[TopicPartition(topic, 0)] = at
        for topic, before in trimmed:
            self.log.truncate(topic, 0, before)
        folder = self.folder / "ledgers"
        folder.mkdir()
        identity = await self.log.identity()
        for name, events in self.events.items():
            named = (of(event, identity) for event in events)
            lines = [sealed(event, number) for number, event in enumerate(named, 1)]
            (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
        return await verify(self.log, folder if ledgers else None, CASCADE, baseline=baseline)

    def _rename(self) -> None:
        """Let the log say that it is of another kind."""
        if self.kind:
            self.log.named = f"{self.kind}:{self.log.named}"


def worked(role: Role, group: str, member: str, topic: str, count: int) -> list[Event]:
    """Return the ledger of a member that does ``count`` records and commits them."""
    return [
        opened(role, group, member),
        Assigned(1.0, 1, [(topic, 0, -1)]),
        Delivered(2.0, 1, [(topic, 0, 0, count - 1)]),
        Done(3.0, 1, [(topic, 0, 0, count - 1)]),
        Committed(4.0, [(topic, 0, count)]),
    ]


def of(event: Event, identity: str) -> Event:
    """Return an event that opens a ledger as one of this log, unless it names one."""
    if isinstance(event, Opened) and not event.log:
        return msgspec.structs.replace(event, log=identity)
    return event


def retimed(events: Sequence[Event], by: float) -> list[Event]:
    """Return the events so many seconds later."""
    return [msgspec.structs.replace(event, at=event.at + by) for event in events]
