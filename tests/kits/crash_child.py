"""A tier worker in a process of its own, on an embedded log, with an engine that may kill it.

Run as ``python -m tests.kits.crash_child LOG NOTES LIVES``: the process is started again when it
is killed, at most so often, and ends once every image has left the tier. Prints each exit status.
"""

import os
import sys
from pathlib import Path

import anyio

from roadstream.schemas.topics import tier_group
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.group.member import GroupMemberOptions
from roadstream.workers.tier.crash_notes import CrashNotes
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.worker import ProcessParts, TierWorker, WorkerLimits
from tests.kits.builders import cascade, member, tier
from tests.kits.fake_engine import GreyEngine

CASCADE = cascade(tier("one", member("a"), max_batch=4))
TOPIC = "images.archive"


async def work(path: Path, notes: Path) -> None:
    """Judge everything that is on the log, then stop."""
    stopping = anyio.Event()
    async with EmbeddedLog(path) as log:
        judge = Judge(CASCADE, "one", {"a": GreyEngine()})
        worker = TierWorker(
            log,
            judge,
            limits=WorkerLimits(poll_timeout=0.02),
            options=GroupMemberOptions(member_id="w"),
            process=ProcessParts(notes=CrashNotes(notes)),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.run, stopping)
            while await log.lag(tier_group("one"), [TOPIC]):  # noqa: ASYNC110 (only asking tells)
                await anyio.sleep(0.01)
            stopping.set()


def live(path: Path, notes: Path) -> int:
    """Work in a process of its own; return its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        anyio.run(work, path, notes)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        status = live(Path(sys.argv[1]), Path(sys.argv[2]))
        print(status, flush=True)  # noqa: T201 (what the test reads)
        if status >= 0:
            break
