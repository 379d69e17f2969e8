"""The physical limit of the stream benchmark: the same records only decoded and encoded.

No engine that keeps these records can do less per image than decode it, encode its votes, decode
these and encode its answer; the larger of the two hops bounds the rate of one process per hop.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from roadstream.bench.engine.plan import Plan, made_images
from roadstream.schemas import codec
from roadstream.schemas.records.answer import Answer, AnswerTier
from roadstream.schemas.records.votes import ImageVotes, MemberRun, VotesPack

SAMPLE = 2000
REPEATS = 7


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds per image, best of several, and the bytes that cross the log per image."""

    decode_image: float
    encode_votes: float
    decode_votes: float
    encode_answer: float
    bytes_image: float
    bytes_votes: float
    bytes_answer: float

    @property
    def images_per_second(self) -> float:
        """The bound on one process per hop."""
        first = self.decode_image + self.encode_votes
        return 1e6 / max(first, self.decode_votes + self.encode_answer)

    def sentence(self) -> str:
        """Return the limit in words."""
        return (
            f"Limit: decoding and encoding these records alone takes "
            f"{self.decode_image + self.encode_votes:.2f} µs per image in the first hop and "
            f"{self.decode_votes + self.encode_answer:.2f} µs in the second, so one process per "
            f"hop cannot pass {self.images_per_second:,.0f} images/s; per image "
            f"{self.bytes_image:,.0f} + {self.bytes_votes:,.0f} + {self.bytes_answer:,.0f} bytes "
            "cross the log."
        )


def measure_floor(plan: Plan) -> Floor:
    """Time the codecs on this plan's records."""
    made = list(islice(made_images(plan), min(SAMPLE, plan.images)))
    run = MemberRun("first", "1", 1.0, False, 0.0, SAMPLE)
    votes = [
        ImageVotes(image.head, [4.0, 4.0], [0.982, 0.982], None, "last tier") for image in made
    ]
    pack = VotesPack(
        tier="noop", cascade="noop", cascade_hash="", sent_at=0.0, runs=[run, run], images=votes
    )
    tier = AnswerTier("noop", [run, run], [4.0, 4.0], [0.982, 0.982], 0.1, 0.1, 0.1)
    answers = [
        Answer(head=image.head, status="answered", label="roadwork", probability=0.982,
               confidence=0.964, exit_tier="noop", tiers=[tier], disagreement=0.0,
               cascade="noop", answered_at=1.0, took=0.1)
        for image in made
    ]  # fmt: skip
    images, packed = [codec.encode(image) for image in made], codec.encode(pack)
    encoded = [codec.encode(answer) for answer in answers]
    count = len(made)
    return Floor(
        decode_image=_best(lambda: [codec.decode_image(value) for value in images], count),
        encode_votes=_best(lambda: codec.encode(pack), count),
        decode_votes=_best(lambda: codec.decode_votes(packed), count),
        encode_answer=_best(lambda: [codec.encode(answer) for answer in answers], count),
        bytes_image=sum(map(len, images)) / count,
        bytes_votes=len(packed) / count,
        bytes_answer=sum(map(len, encoded)) / count,
    )


def _best(work: Callable[[], Any], count: int) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) / count * 1e6
