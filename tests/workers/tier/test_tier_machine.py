"""A tier worker on a machine that runs out of file descriptors: no picture is blamed for it."""

import errno
import os
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from roadstream.schemas.backoff import Backoff
from roadstream.schemas.records.image import Reference
from roadstream.workers.service.outage import Persistent
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import picture
from tests.kits.tier_bench import OPTIONS, SURE, Bench, image

LACKING = 6  # opens that fail: more than one run of the worker has patience for


async def test_pictures_are_judged_once_the_machine_has_descriptors_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(picture(SURE))
    failures = LACKING
    opened = os.open

    def lacking(path: str, flags: int, **more: int) -> int:
        nonlocal failures
        if path == str(file) and failures:
            failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, **more)

    bench = Bench(cascade(tier("one", member("a"))))
    await bench.create_topics()
    sent = Reference(path=str(file), size=file.stat().st_size)
    await bench.send("images.archive", image("0", payload=sent))
    options = replace(OPTIONS, pause=lambda seconds: None)
    worker = bench.worker(judge=bench.judge(options=options))
    running = Persistent("one", lambda: 0.0, backoff=Backoff(0.0, 0.0))
    monkeypatch.setattr("os.open", lacking)
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, worker.run, stopping)
        found = await bench.said(1)
        stopping.set()

    assert (found["0"].error, found["0"].raw) == (None, [7.0])
    assert running.failures == 1
    assert running.last_error == "cannot open pictures: Too many open files (tried 4 times)"
