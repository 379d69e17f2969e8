"""What one run of the stream benchmark is: its cascade, its images, the check of its answers."""

import random
import time
from collections.abc import Iterator, Mapping

import msgspec

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import parse_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records import headers
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import images
from roadstream.streams.log import Log, Output, Producer

PRELOAD_BYTES = 4 << 20
RUN_ID = "bench"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run, as it is handed to the processes that make it.

    Attributes:
        log: URL of the log, as ``--log`` takes it; ``memory`` for the one in memory.
        images: Number of images.
        payload: Bytes of each, inline.
        partitions: Partitions of every topic.
        tier: Name of the only tier; another for every run, so that its group starts afresh.
        max_batch: Largest batch of the tier.
        check_crcs: Whether Kafka clients verify the brokers' checksums.
        prefix: Of the topics of a peer; the product's names are its own.
        loop: ``asyncio`` or ``uvloop``, for a peer.
        patience: Seconds after which a run is given up.
    """

    log: str
    images: int
    payload: int
    partitions: int = 4
    tier: str = "noop"
    max_batch: int = 1000
    check_crcs: bool = True
    prefix: str = "plain."
    loop: str = "asyncio"
    patience: float = 180.0


class Timing(msgspec.Struct, frozen=True):
    """What a process measured, at its first record and at its last acknowledgement.

    Attributes:
        first_at: Clock at the first (`time.perf_counter`, one clock for all processes).
        last_at: Clock at the last.
        cpu_first: Processor time of the process until the first.
        cpu_last: Processor time until the last.
    """

    first_at: float
    last_at: float
    cpu_first: float
    cpu_last: float

    @property
    def cpu(self) -> float:
        """Processor time between."""
        return self.cpu_last - self.cpu_first


class VoidRunError(Exception):
    """The run did not do what it claims to measure."""


def noop_cascade(plan: Plan) -> Cascade:
    """Return a cascade of one tier, whose two members vote without looking."""
    members = "".join(
        f'[[tiers.members]]\nname = "{name}"\nengine = "noop"\nmodel_version = "1"\n'
        for name in ("first", "second")
    )
    text = f'name = "noop"\n[[tiers]]\nname = "{plan.tier}"\nmax_batch = {plan.max_batch}\n'
    return parse_cascade((text + members).encode(), "bench")


def made_images(plan: Plan) -> Iterator[Image]:
    """Make the run's images: seeded bytes that are no picture, ids of the usual length."""
    dice = random.Random(plan.images)
    now = time.time()
    for i in range(plan.images):
        head = Head(
            image_id=f"{i:032x}",
            uri=f"drives/2026/camera-front/frame-{i:08d}.jpg",
            submitted_at=now,
            run_id=RUN_ID,
            sequence=i,
        )
        yield Image(head, Inline(dice.randbytes(plan.payload)))


async def preload(producer: Producer, plan: Plan, topic: str = images("archive")) -> None:
    """Put the run's images on their topic, with the product's producer."""
    waiting: list[Output] = []
    size = 0
    for image in made_images(plan):
        value = codec.encode(image)
        waiting.append(Output(topic, image.head.key, value, None, headers.IMAGE))
        size += len(value)
        if size > PRELOAD_BYTES:
            await producer.publish(waiting)
            waiting, size = [], 0
    await producer.publish(waiting)


async def check_answers(log: Log, topic: str, plan: Plan) -> None:
    """Check that every image has exactly one answer, of two votes.

    Raises:
        VoidRunError: It has not.
    """
    seen: set[str] = set()
    repeated = 0
    async with log.reader(topic, "beginning") as reader:
        ends: Mapping[int, int] = await reader.ends()
        while any(reader.positions[p] < end for p, end in ends.items()):
            for tp, records in (await reader.poll(max_records=4096, timeout=1.0)).items():
                for record in records:
                    value = record.value or b""
                    answer = codec.decode(codec.decode_answer, value, *tp, record.offset)
                    _check_answer(answer)
                    repeated += answer.head.image_id in seen
                    seen.add(answer.head.image_id)
    if repeated or len(seen) != plan.images:
        raise VoidRunError(
            f"expected {plan.images:,} images answered once, "
            f"got {len(seen):,} and {repeated:,} repeated"
        )


def _check_answer(answer: Answer) -> None:
    if answer.status != "answered" or len(answer.votes) != 2 or answer.label != "roadwork":
        raise VoidRunError(f"not an answer of two votes for roadwork: {answer}")
