"""The ``roadstream`` command with a saboteur inside: what the campaign starts in its place.

Everything is the product's own code; added are an engine that obeys pictures, points at which the
process kills itself when told to, a clock that can be wrong, and session timeouts short enough for
hundreds of faults. ``ROADSTREAM_CHAOS`` names the folder in which the campaign keeps its orders.
"""

import functools
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec

from roadstream.bench.faults.chaos.controls import Controls, SharedClock
from roadstream.bench.faults.chaos.engine import ChaosEngine
from roadstream.schemas.cascade.model import Cascade, Member
from roadstream.workers.engines.options import EngineOptions

ENVIRONMENT = "ROADSTREAM_CHAOS"
CLOCK = "clock"
SESSION_TIMEOUT = 3.0
KAFKA_SESSION_TIMEOUT = 6.0


def name_of(arguments: Sequence[str]) -> str:
    """Return the name that the campaign knows a command line by: its member's, or its command."""
    for option, value in pairwise(arguments):
        if option in {"--member", "--name"}:
            return value
    return arguments[0] if arguments else ""


def install_engine(controls: Controls) -> None:
    """Let every member with the engine ``cones`` be run by the one that obeys."""
    from roadstream.workers.engines import rules

    def build(_: Cascade, member: Member, options: EngineOptions) -> ChaosEngine:
        del options
        return ChaosEngine(member, controls)

    rules.ConesEngine = build  # type: ignore[assignment,misc]  # a factory suffices


def install_points(controls: Controls) -> None:
    """Put the points at which the process may have to die around the product's own calls."""
    from roadstream.streams.embedded.log import EmbeddedLog
    from roadstream.streams.embedded.store import Store
    from roadstream.streams.group.member import GroupMember
    from roadstream.streams.kafka.log import KafkaLog
    from roadstream.streams.kafka.producer import KafkaProducer
    from roadstream.workers.tier.judge import Judge

    _around(Judge, "judge", controls, "before-model", "after-model")
    _around(Store, "commit", controls, "in-publish", None)
    _around_async(KafkaProducer, "publish", controls, None, "in-publish")
    _around_async(GroupMember, "finish", controls, "before-publish", None)
    _around_async(GroupMember, "assigned", controls, "in-take-over", None)
    _around_async(GroupMember, "revoked", controls, "in-give-up", None)
    for log in (EmbeddedLog, KafkaLog):
        for port in ("consumer", "producer"):
            _meddle(log, port, controls)


def _around(
    owner: type, name: str, controls: Controls, before: str | None, after: str | None
) -> None:
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            controls.point(before)
        result = function(*args, **kwargs)
        if after:
            controls.point(after)
        return result

    setattr(owner, name, wrapped)


def _around_async(
    owner: type, name: str, controls: Controls, before: str | None, after: str | None
) -> None:
    function: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            controls.point(before)
        result = await function(*args, **kwargs)
        if after:
            controls.point(after)
        return result

    setattr(owner, name, wrapped)


def _meddle(log: type, port: str, controls: Controls) -> None:
    """Wrap ``publish`` of the consumers or producers that a log opens."""
    opening: Callable[..., AbstractAsyncContextManager[Any]] = getattr(log, port)

    @asynccontextmanager
    async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async with opening(*args, **kwargs) as found:
            found.publish = _Publish(found.publish, controls)
            yield found

    setattr(log, port, opened)


class _Publish:
    """``publish`` with orders: die after it, be slow, or let the votes come last."""

    def __init__(self, publish: Callable[..., Awaitable[None]], controls: Controls) -> None:
        self._publish, self._controls = publish, controls

    async def __call__(self, outputs: Sequence[Any], *rest: Any) -> None:
        """See ``Consumer.publish`` and ``Producer.publish``."""
        if pause := self._controls.number("slow-publish"):
            await anyio.sleep(pause)
        if rest and (pause := self._controls.number("hold-votes")):
            await self._hold(outputs, rest, pause)
        else:
            await self._publish(outputs, *rest)
        self._controls.point("after-publish")

    async def _hold(self, outputs: Sequence[Any], rest: tuple[Any, ...], pause: float) -> None:
        """Publish escalations now and votes later, so that a later tier's votes overtake them."""
        commit, epoch = rest
        votes = [output for output in outputs if output.topic == "votes"]
        others = [output for output in outputs if output.topic != "votes"]
        if others and votes:
            await self._publish(others, {}, epoch)
            await anyio.sleep(pause)
            outputs = votes
        await self._publish(outputs, commit, epoch)


def install_timeouts() -> None:
    """Let groups give up on a silent member soon."""
    from roadstream.streams.embedded.log import EmbeddedLog
    from roadstream.streams.kafka.log import KafkaLog

    defaults = EmbeddedLog.__init__.__kwdefaults__
    assert defaults is not None
    defaults["session_timeout"] = SESSION_TIMEOUT
    build = KafkaLog.__init__

    @functools.wraps(build)
    def hasty(log: KafkaLog, settings: Any, *args: Any, **kwargs: Any) -> None:
        settings = msgspec.structs.replace(
            settings,
            session_timeout=KAFKA_SESSION_TIMEOUT,
            rebalance_timeout=20.0,
            drain_timeout=10.0,
        )
        build(log, settings, *args, **kwargs)

    KafkaLog.__init__ = hasty  # type: ignore[method-assign, assignment]


def launcher(folder: Path) -> Path:
    """Write a program that stands for the interpreter in a supervisor, and sabotages its children.

    A supervisor runs ``python -P -m roadstream.workers.cli …``; this replaces the module.
    """
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\nshift 3\nexec "{sys.executable}" -m roadstream.bench.faults.chaos.child "$@"\n'
    )
    path.chmod(0o755)
    return path


def main(arguments: Sequence[str]) -> None:
    """Install everything, then be the command line."""
    folder = Path(os.environ[ENVIRONMENT])
    controls = Controls(folder, name_of(arguments))
    SharedClock(folder / CLOCK).install()
    install_engine(controls)
    install_points(controls)
    install_timeouts()
    if arguments[:1] == ["up"]:
        sys.executable = str(folder / "python")
    from roadstream.workers.cli import main as command

    command(list(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
