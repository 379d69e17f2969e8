"""Members on a Triton server, for tests: engines that are loaded and closed, and pictures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from msgspec import convert

from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.schemas.records.image import Head
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.stages.inference import Picture, Score
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.triton.engine import TritonEngine
from tests.kits.builders import cascade, tier
from tests.kits.triton_server import TritonServer

# One loop for all engines of the tests, as a process has one.
SHARED = EngineOptions()
# What the detectors of `lite` find.
KINDS = ["cone", "drum", "barrier", "post", "work_sign", "worker", "machine"]


def triton_member(
    server: TritonServer, model: str, size: tuple[int, int] = (8, 8), **settings: Any
) -> Member:
    """Return a member whose model is on the server."""
    return Member(
        name="m",
        engine="triton",
        model=model,
        width=size[0],
        height=size[1],
        settings=convert({"url": server.url, "wait": 0.0, **settings}, TritonSettings),
    )


def around(member: Member) -> Cascade:
    """Return a cascade of that one member."""
    return cascade(tier("one", member))


@contextmanager
def engine_on(
    server: TritonServer, model: str, size: tuple[int, int] = (8, 8), **settings: Any
) -> Iterator[TritonEngine]:
    """Load an engine; close it in the end."""
    member = triton_member(server, model, size, **settings)
    engine = TritonEngine(around(member), member, SHARED)
    engine.load()
    try:
        yield engine
    finally:
        engine.close()


def grey(level: int, deadline_at: float | None = None) -> Picture:
    """Return a picture of one grey level that is looked at by its pixels."""
    head = Head(image_id=f"{level}", deadline_at=deadline_at)
    return Picture(np.full((8, 8, 3), level, np.uint8), head=head)


def raws(found: Sequence[object]) -> list[float]:
    """Return the raw scores, checking that there are nothing but scores."""
    scores = [one for one in found if isinstance(one, Score)]
    assert len(scores) == len(found), found
    return [one.raw for one in scores]


def noise(count: int) -> list[Picture]:
    """Return pictures of coloured noise."""
    random = np.random.default_rng(0)
    return [Picture(random.integers(0, 256, (90, 160, 3), np.uint8)) for _ in range(count)]
