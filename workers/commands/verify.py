"""``roadstream verify``: finds what was lost, doubled or changed, from ledgers and topics."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.sinks.verification.findings import MEANINGS, Kind, Report, Verdict
from roadstream.sinks.verification.run import KEEP
from roadstream.sinks.verification.run import verify as verify_log
from roadstream.workers.commands.common import (
    DEFAULT_KAFKA,
    CascadeName,
    LogLevel,
    LogUrl,
    Namespace,
    Without,
    run_async,
)
from roadstream.workers.observe.terminal import screen
from roadstream.workers.service.access.connect import address, open_log
from roadstream.workers.service.access.rights import to_verify
from roadstream.workers.service.option_checks import MOST_SHOWN, check_number

STATUSES: dict[Verdict, int] = {"clean": 0, "anomalies": 1, "open": 1, "unchecked": 3}


def verify(
    *,
    log: LogUrl = DEFAULT_KAFKA,
    namespace: Namespace = None,
    ledger: Annotated[
        Path | None,
        Parameter(help="Folder of the ledgers that --ledger made the other commands write."),
    ] = None,
    cascade: CascadeName = "lite",
    without: Without = None,
    baseline: Annotated[
        Path | None,
        Parameter(
            help="Answers (.parquet, .jsonl, .csv) of an undisturbed run over the same images: "
            "any vote that differs in a single bit is reported."
        ),
    ] = None,
    show: Annotated[int, Parameter(help="Ids shown of each anomaly.")] = 5,
    json: Annotated[
        bool, Parameter(negative="", help="One JSON object on standard output, for programs.")
    ] = False,
    log_level: LogLevel = "warning",
) -> int:
    """Prove that nothing was lost and nothing doubled; name what was.

    Reads the topics, and the ledgers if they were kept: give --ledger DIR to produce, work,
    consensus and up, the same folder for all, or gather their folders in one. Without ledgers, what
    is on the log is checked against itself. The log may be in use; an image that a worker has yet
    to finish is said to be worked on, and not lost.

    Anomalies, worst first: lost, doubled, divergent, mixed versions, phantom, skipped offset,
    commit ahead of work, commit moved backwards, stale-epoch commit, late vote changed an answer,
    deadline ignored, neighbour changed by a poison image (with --baseline), doubled by a zombie.

    Exit status: 0 clean: there is none, every image has its answer, and all could be checked; 1 if
    there are some, or images are still being worked on; 2 wrong usage; 3 if nothing was found, but
    not all could be checked (a ledger that is damaged or missing, topics that were trimmed too
    early or made anew): what is missing may hide what was lost.
    """
    where = address(log, namespace)
    check_number("--show", show, 0, MOST_SHOWN, "ids")
    keep = max(show, KEEP)
    loaded = load_cascade(cascade, without=without or ())
    report = run_async(log_level, _verify, where, ledger, loaded, baseline, keep)
    if json:
        sys.stdout.buffer.write(as_json(report) + b"\n")
    else:
        print_report(report, show, screen())
    return STATUSES[report.verdict]


async def _verify(
    url: str, ledger: Path | None, cascade: Cascade, baseline: Path | None, keep: int
) -> Report:
    async with open_log(url) as log:
        await log.check_rights(to_verify(cascade))
        return await verify_log(log, ledger, cascade, baseline=baseline, keep=keep)


def as_json(report: Report) -> bytes:
    """Return a report as JSON, with its verdict."""
    verdict = {
        "verdict": report.verdict,
        "clean": report.clean,
        "tolerable": report.tolerable,
    }
    return codec.encode_json(verdict | msgspec.structs.asdict(report))


def print_report(report: Report, show: int, page: Console) -> None:
    """Print a report for people: anomalies worst first, what is open or unchecked, the verdict."""
    if report.anomalies:
        page.print(_table(report, show))
    for where, count in report.waiting.items():
        page.print(f"still being worked on at {where}: {count:,}")
    if report.waiting_ids and show:
        page.print(f"  {_some(report.waiting_ids, report.unfinished, show)}")
    for line in report.explained:
        page.print(f"note: {shown(line)}")
    for line in report.unchecked:
        page.print(f"not checked: {shown(line)}")
    page.print(
        f"{report.images:,} images, {report.acknowledged:,} acknowledgements, "
        f"{report.answers:,} answers; {report.ledgers:,} ledgers with {report.events:,} events",
        highlight=False,
    )
    page.print(_verdict(report))


def shown(text: str) -> str:
    """Return a stranger's text as a terminal may have it: ids and names can hold anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _table(report: Report, show: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("anomaly")
    table.add_column("count", justify="right")
    table.add_column("what", overflow="fold")
    for kind, count in report.anomalies.items():
        meaning = Text(_meaning(report, kind), style="dim")
        table.add_row(Text(kind, style="bold red"), f"{count:,}", meaning)
        for finding in [f for f in report.findings if f.kind == kind][:show]:
            side = f"[{finding.side}] " if finding.side else ""
            line = f"{finding.what}: {side}{finding.detail}"
            table.add_row("", "", shown(line))
        if count > show > 0:
            table.add_row("", "", f"… and {count - show:,} more")
    return table


def _meaning(report: Report, kind: Kind) -> str:
    if kind != "lost":
        return MEANINGS[kind]
    sides = ", ".join(f"{side}: {count:,}" for side, count in report.lost.items())
    return f"{MEANINGS[kind]}; by {sides}"


def _some(ids: list[str], count: int, show: int) -> str:
    more = f" and {count - show:,} more" if count > show else ""
    return shown(", ".join(ids[:show])) + more


def _verdict(report: Report) -> Text:
    match report.verdict:
        case "clean":
            return _marked("clean", "green", "nothing lost, nothing doubled")
        case "unchecked":
            found = "nothing was found in what could be compared"
            return _marked("not all checked", "yellow", found)
        case _:
            pass
    words = [f"{count:,} {kind}" for kind, count in report.anomalies.items()]
    if report.unfinished:
        words.append(f"{report.unfinished:,} still being worked on")
    return _marked("not clean", "red", ", ".join(words))


def _marked(verdict: str, colour: str, why: str) -> Text:
    return Text.assemble((verdict, f"bold {colour}"), f": {why}")
