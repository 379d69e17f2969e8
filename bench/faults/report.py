"""What a campaign found, as data and as a table for people."""

from collections.abc import Sequence

import msgspec

from roadstream.bench.faults.chaos.answers import Anomaly
from roadstream.bench.faults.chaos.children import Death
from roadstream.bench.faults.facts import Happened, Recovery
from roadstream.bench.faults.plan import KINDS, Fault
from roadstream.bench.harness import Spread, show, spread
from roadstream.sinks.verification.findings import Report

MIB = 2**20
SHOWN = 20


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the images.

    Attributes:
        acknowledged: Images that the log acknowledged.
        answered: Those of them with an answer.
        statuses: How many answers of each status.
        doubled: Ids with a second answer, the same as the first.
        dead_letters: How many of each reason.
        refused_sends: Sends that the log did not acknowledge, and that were repeated.
    """

    acknowledged: int
    answered: int
    statuses: dict[str, int]
    doubled: int
    dead_letters: dict[str, int]
    refused_sends: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign.

    Attributes:
        seed: With ``log``, ``minutes`` and ``kinds``, gives the same plan again.
        log: Which log.
        minutes: Time for faults that was asked for.
        kinds: Kinds that could be drawn.
        rate: Images per second.
        seconds: What it took in all.
        plan: Every fault that was drawn; those that the time did not suffice for come last.
        happened: Those that were injected.
        recoveries: After each kill.
        images: What became of the images.
        figures: The largest of each measured value.
        memory_peaks: Resident bytes per process, the largest seen.
        restarts: Processes that were started again.
        fenced: Times that stale work was refused.
        deaths: Ends of processes that nobody asked for.
        verified: What ``roadstream verify`` says.
        anomalies: All that must not be; empty if all is well.
    """

    seed: int
    log: str
    minutes: float
    kinds: list[str]
    rate: float
    seconds: float
    plan: list[Fault]
    happened: list[Happened]
    recoveries: list[Recovery]
    images: Images
    figures: dict[str, float]
    memory_peaks: dict[str, int]
    restarts: int
    fenced: int
    deaths: list[Death]
    verified: Report
    anomalies: list[Anomaly]


def recovery_spread(recoveries: Sequence[Recovery]) -> Spread | None:
    """Return median and range of recoveries; ``None`` without any."""
    return spread([recovery.seconds for recovery in recoveries]) if recoveries else None


def show_campaign(result: Result) -> None:
    """Print the table of a campaign, then its figures and its anomalies."""
    rows = []
    for name in KINDS:
        felt = [fault for fault in result.happened if fault.kind == name]
        if not felt:
            continue
        found = recovery_spread([r for r in result.recoveries if r.kind == name])
        rows.append(
            [
                name,
                str(len(felt)),
                found.text(".1f") if found else "",
                f"{max(fault.gap for fault in felt):.1f}",
            ]
        )
    show(
        f"{len(result.happened)} faults on the {result.log} log, seed {result.seed}, "
        f"{result.seconds:.0f} s",
        ["fault", "times", "recovery, s", "longest gap, s"],
        rows,
    )
    images = result.images
    print(
        f"{images.acknowledged:,} images acknowledged, {images.answered:,} answered "
        f"({', '.join(f'{n:,} {status}' for status, n in sorted(images.statuses.items()))}), "
        f"{images.doubled} doubled; {result.restarts} restarts, {result.fenced} fenced"
    )
    for name, value in sorted(result.figures.items()):
        print(f"{name}: {value:g}")
    if result.memory_peaks:
        name, size = max(result.memory_peaks.items(), key=lambda item: item[1])
        print(f"most memory: {size / MIB:.0f} MiB ({name})")
    report = result.verified
    print(
        f"verify: {report.answers:,} answers, {report.events:,} events of {report.ledgers} "
        f"ledgers, anomalies: {report.anomalies or 'none'}"
    )
    for line in (*report.explained, *report.unchecked):
        print(f"verify: {line}")
    for anomaly in result.anomalies[:SHOWN]:
        print(f"ANOMALY {anomaly.name}: {anomaly.what}: {anomaly.seen}")
    if len(result.anomalies) > SHOWN:
        print(f"… and {len(result.anomalies) - SHOWN} anomalies more, in the JSON")
