"""What one picture passes in a tier and in the consensus: own files, functions, classes, frames.

It is traced, not guessed: one picture goes through a tier of one member on the log in memory, then
its votes through the consensus, with a profile function in every thread. Frames are those of our
own code on the stack when the engine is called: in the thread that judges, and in the task that
waits for it.
"""

import argparse
import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import anyio
import numpy as np

import roadstream
from roadstream.bench.harness import show
from roadstream.schemas import codec
from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.schemas.records import headers
from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import CONSENSUS_GROUP, VOTES, all_topics, images, tier_group
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.streams.log import Log, Output, Producer
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.service.runtime import WorkOptions, run_workers

ROOT = Path(roadstream.__file__).resolve().parents[2]
ROOMS = ("schemas", "streams", "stages", "sinks", "workers")
CASCADE = Cascade(
    name="path",
    tiers=[Tier(name="one", members=[Member(name="cones", engine="cones", width=480, height=270)])],
)
ARCHIVE = images("archive")
Part = Callable[[anyio.Event], Coroutine[Any, Any, None]]


class Trace:
    """What was called of our own code while it was on."""

    def __init__(self) -> None:
        self.on = False
        self.files, self.functions, self.classes = set[str](), set[str](), set[str]()
        self.frames: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self._names: dict[CodeType, str | None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Take note of a call; a profile function."""
        if not self.on or event != "call" or (name := self.name_of(frame.f_code)) is None:
            return
        self.files.add(name.partition(":")[0])
        self.functions.add(name)
        owner = type(frame.f_locals.get("self"))
        if owner.__module__.startswith("roadstream."):
            self.classes.add(owner.__qualname__)
        if name.endswith("Engine.infer"):
            self.frames = [*self._stack(frame.f_back), *self._waiting()]

    def name_of(self, code: CodeType) -> str | None:
        """Return ``file:function`` of our own code; ``None`` for other code."""
        if code not in self._names:
            file = Path(code.co_filename).resolve()
            ours = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in ROOMS
            self._names[code] = f"{file.relative_to(ROOT)}:{code.co_qualname}" if ours else None
        return self._names[code]

    def _stack(self, frame: FrameType | None) -> Iterator[str]:
        while frame is not None:
            if (name := self.name_of(frame.f_code)) is not None:
                yield name
            frame = frame.f_back

    def _waiting(self) -> list[str]:
        """Return the frames of the task that waits for the batch: the one that runs it."""
        chains = []
        for task in asyncio.all_tasks(self.loop):
            waits: object = task.get_coro()
            chain: list[str] = []
            while (code := getattr(waits, "cr_code", None)) is not None:
                if (name := self.name_of(code)) is not None:
                    chain.append(name)
                waits = getattr(waits, "cr_await", None)
            chains.append(chain)
        return next((c for c in chains if c and c[0].endswith("TierWorker._run")), [])


async def measure(trace: Trace) -> list[list[str]]:
    """Return a row per part: what one picture, or its votes, passed."""
    trace.loop, log, rows = asyncio.get_running_loop(), MemoryLog(), []
    await log.create_topics(all_topics(CASCADE.tier_names), 1)
    jpeg = encode_jpeg(np.full((240, 320, 3), 128, np.uint8))
    async with log.producer() as producer:
        work = partial(run_workers, log, CASCADE, WorkOptions())
        pictures = [_image(number, jpeg) for number in range(2)]
        rows.append(await _traced(trace, log, producer, work, pictures, tier_group("one")))
        async with log.reader(VOTES, "beginning") as reader:
            (records,) = (await reader.poll(max_records=10, timeout=10.0)).values()
        decide = build_consensus(log, CASCADE).run
        value = records[0].value or b""
        votes = [
            Output(VOTES, None, value.replace(b"%032d" % 0, b"%032d" % other), 0, headers.VOTES)
            for other in (7, 8)
        ]
        rows.append(await _traced(trace, log, producer, decide, votes, CONSENSUS_GROUP))
    return rows


def _image(number: int, jpeg: bytes) -> Output:
    head = Head(image_id=f"{number:032d}", uri="file:///a.jpg", submitted_at=1.0, lane="archive")
    return Output(ARCHIVE, b"k", codec.encode(Image(head, Inline(jpeg))), 0, headers.IMAGE)


async def _traced(
    trace: Trace, log: Log, producer: Producer, part: Part, outputs: list[Output], group: str
) -> list[str]:
    """Run a part, give it a record that warms it up, then trace it over another."""
    stopping, topic = anyio.Event(), outputs[0].topic
    trace.files, trace.functions, trace.classes = set(), set(), set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(part, stopping)
        for trace.on, output in zip((False, True), outputs, strict=True):
            await producer.publish([output])
            while await log.lag(group, [topic]):  # noqa: ASYNC110 (a log tells by being asked)
                await anyio.sleep(0.01)
            await anyio.sleep(0.2)
        trace.on = False
        stopping.set()
    return [group, *map(str, map(len, (trace.files, trace.functions, trace.classes)))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.path", description=__doc__
    )
    parser.add_argument("--frames", action="store_true", help="also name the frames")
    options = parser.parse_args()
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    rows = anyio.run(measure, trace)
    sys.setprofile(None)
    show("one picture", ["part", "files", "functions", "classes"], rows)
    print(f"own frames from the worker's task to the engine: {len(trace.frames)}")
    if options.frames:
        print(*trace.frames, sep="\n")


if __name__ == "__main__":
    main()
