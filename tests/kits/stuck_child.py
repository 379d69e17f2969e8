"""A worker process whose model hangs, for tests of how a process ends nevertheless.

``python stuck_child.py HOW LOG CASCADE DRAIN_TIMEOUT``, where HOW is ``waits`` (for something that
never comes) or ``computes`` (for ever from when its time to end begins to count, and never lets
another thread of Python run).
"""

import functools
import re
import sys
import threading
from pathlib import Path

import anyio

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.stages.inference import Engine, Pictures, Score
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.workers.engines.rules import NoopEngine
from roadstream.workers.observe.logging import configure_logging
from roadstream.workers.service import loading, process, runtime
from roadstream.workers.service.lifecycle import Deadline
from roadstream.workers.service.process import ServiceOptions

counting = threading.Event()


class CountingDeadline(Deadline):
    """Says when it has begun to count."""

    def start(self) -> None:
        """See ``Deadline.start``."""
        super().start()
        counting.set()


class StuckEngine(NoopEngine):
    """Says that it was reached, and never returns."""

    def __init__(self, how: str) -> None:
        self._how = how

    def warm_up(self, largest: int = 1) -> None:
        """Nothing to warm: it would hang here."""

    def infer(self, batch: Pictures) -> list[Score]:
        """Hang."""
        sys.stderr.write("stuck\n")
        sys.stderr.flush()
        if self._how == "computes":
            counting.wait()
            # Exponential backtracking, all within one call that keeps the interpreter's lock.
            re.match("(a+)+$", "a" * 60 + "b")
        threading.Event().wait()
        return []


def build(how: str, _cascade: Cascade, _member: Member, _threads: int) -> Engine:
    """Return the stuck engine, whatever the member is."""
    return StuckEngine(how)


if __name__ == "__main__":
    configure_logging("info")
    how, log, cascade, drain = sys.argv[1:]
    vars(process)["Deadline"] = CountingDeadline
    vars(loading)["build_engine"] = functools.partial(build, how)
    # Nothing is learnt from the model before work begins: a hang there is dropped, not drained.
    vars(loading)["learn"] = lambda *_: {}
    anyio.run(
        runtime.serve_workers,
        EmbeddedLog(Path(log)),
        load_cascade(cascade),
        runtime.WorkOptions(),
        ServiceOptions(drain_timeout=float(drain)),
        backend_options={"use_uvloop": True},
    )
