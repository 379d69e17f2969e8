"""``roadstream cascade roll`` and ``rolled``: which version judges what begins from now on."""

import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, TypeVar

from cyclopts import Parameter
from rich.table import Table

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.errors import ConfigError, UsageError
from roadstream.schemas.records.claims import Roll
from roadstream.streams.log import Log
from roadstream.streams.topics.versions import Versions
from roadstream.workers.commands.cascade.app import cascade
from roadstream.workers.commands.common import (
    DEFAULT_KAFKA,
    LogLevel,
    LogUrl,
    Namespace,
    Without,
    run_async,
)
from roadstream.workers.observe.terminal import console, screen
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.roll import roll as roll_on
from roadstream.workers.service.access.roll import roll_back

T = TypeVar("T")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d+)?)%|(0?\.\d+)")


@cascade.command
def roll(
    file: Annotated[
        str | None,
        Parameter(name="FILE", help="The new version: a cascade file, or a shipped one's name."),
    ] = None,
    *,
    back: Annotated[
        bool,
        Parameter(negative="", help="Let the version before judge again; drops a candidate first."),
    ] = False,
    share: Annotated[
        str | None,
        Parameter(
            help="Let it judge a share of the sessions only, as a candidate: 5% or 0.05. Images "
            "of one session go one way."
        ),
    ] = None,
    without: Without = None,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    log_level: LogLevel = "warning",
) -> None:
    """Let another version of the cascade judge on a running system, from now on.

    The file is checked, put on the log (topic cascades) and taken up by each worker as soon as it
    has loaded it; nothing is restarted. What is under way is judged to its end by the version that
    it began with, so no image is judged by two; answers say which one it was (cascade_hash).
    Weights are not on the log: they must lie on each worker's host, in the same folder or beside
    the cascade file that the worker was started with. A worker that cannot load the new version
    says so and goes on with the old one.

    Topics of new tiers are made. `up` starts processes for them; where you run `work` yourself,
    start one with --tier NAME. SIGHUP to `up`, `work` or `consensus` rolls the file that it was
    started with.
    """
    if back == (file is not None) or (back and (share is not None or without)):
        raise UsageError("expected FILE, perhaps with --share and --without, or --back alone")
    wanted = None if share is None else parse_share(share)
    where = address(log, namespace)
    if file is None:
        told = run_async(log_level, _on_log, where, partial(roll_back, now=time.time()))
    else:
        new = load_cascade(file, without=without or (), option="FILE")
        rolling = partial(roll_on, cascade=new, share=wanted, now=time.time())
        told = run_async(log_level, _on_log, where, rolling)
    console().print(_said(told), highlight=False, soft_wrap=True)


@cascade.command
def rolled(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    log_level: LogLevel = "warning",
) -> None:
    """Show which versions of the cascade judge on a log, and which did before."""
    where = address(log, namespace)
    table = run_async(log_level, _on_log, where, _table)
    screen().print(table)


async def _on_log(url: str, work: Callable[[Log], Awaitable[T]]) -> T:
    async with open_log(url) as log:
        return await work(log)


async def _table(log: Log) -> Table:
    versions = Versions(log)
    await versions.refresh()
    told = versions.roll
    if told is None and versions.latest is None:
        raise UsageError("no version of a cascade is on this log: nothing has worked here yet")
    table = Table("version", "cascade", "tiers", "judges", box=None, pad_edge=False)
    for version, judges in _roles(told, versions.latest):
        try:
            found = await versions.cascade(version)
        except ConfigError as error:
            table.add_row(version, "cannot be read here", str(error), judges)
            continue
        name, tiers = (
            ("unknown", "") if found is None else (found.name, ", ".join(found.tier_names))
        )
        table.add_row(version, name, tiers, judges)
    return table


def _roles(told: Roll | None, latest: str | None) -> list[tuple[str, str]]:
    if told is None:
        return [] if latest is None else [(latest, "what workers were started with; not rolled")]
    at = datetime.fromtimestamp(told.rolled_at, UTC).strftime("since %Y-%m-%d %H:%M:%S UTC")
    rest = "all" if told.candidate is None else f"all but {told.share:.3g} of the sessions"
    roles = [(told.main, f"{rest}, {at}")]
    if told.candidate is not None:
        roles.append((told.candidate, f"{told.share:.3g} of the sessions, {at}"))
    return [*roles, *((version, "before") for version in told.previous)]


def _said(told: Roll) -> str:
    if told.candidate is not None:
        return (
            f"{told.candidate} judges {told.share:.3g} of the sessions from now on, "
            f"{told.main} the others"
        )
    before = f"; before: {told.previous[0]}" if told.previous else ""
    return f"{told.main} judges from now on{before}"


def parse_share(text: str) -> float:
    """Return a share in (0, 1), given as ``5%`` or ``0.05``.

    Raises:
        UsageError: It is none.
    """
    found = _SHARE.fullmatch(text.strip())
    share = 0.0
    if found is not None:
        percent, plain = found.groups()
        share = float(percent) / 100 if percent else float(plain)
    if not 0 < share < 1:
        raise UsageError(f"--share: expected more than 0% and less than 100%, got {text}")
    return share
