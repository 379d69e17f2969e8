"""A whole campaign: brokers, processes, load, the plan, the drain, the last look."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec

from roadstream.bench.faults.campaign import Campaign, run_plan
from roadstream.bench.faults.chaos.answers import Anomaly, Answers
from roadstream.bench.faults.chaos.child import (
    CLOCK,
    KAFKA_SESSION_TIMEOUT,
    SESSION_TIMEOUT,
    launcher,
)
from roadstream.bench.faults.chaos.children import Children, until
from roadstream.bench.faults.chaos.controls import ControlPanel, SharedClock
from roadstream.bench.faults.chaos.disk import Disk
from roadstream.bench.faults.chaos.expected import expected_verdicts
from roadstream.bench.faults.chaos.ledgers import Ledgers
from roadstream.bench.faults.chaos.load import Load
from roadstream.bench.faults.chaos.mixtures import Mixtures
from roadstream.bench.faults.chaos.pictures import Catalogue, Namer
from roadstream.bench.faults.chaos.variants import BASE, LONGER, text_of, variants
from roadstream.bench.faults.epilogue import run_epilogues
from roadstream.bench.faults.facts import Setting
from roadstream.bench.faults.network import ADVERTISED, Relay, ports_in_a_row, relayed
from roadstream.bench.faults.plan import LogKind, chosen, draw_plan
from roadstream.bench.faults.report import Images, Result
from roadstream.bench.faults.scenarios import SCENARIOS
from roadstream.bench.faults.stage import START_WITHIN, start_all, stop_all
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.topics import all_topics
from roadstream.sinks.verification.coverage import FORGOTTEN
from roadstream.sinks.verification.findings import Report
from roadstream.sinks.verification.run import verify
from roadstream.streams.ledgers.event_ledger import EventLedger
from roadstream.streams.log import Log
from roadstream.workers.broker.cluster import BrokerSettings, Cluster, run_brokers
from roadstream.workers.service.access.connect import open_log

PARTITIONS = 8
# Of each tier, and of the consensus.
PROCESSES = 2
# Faults overlap, so more of them fit into the time than one after the other would.
PLANNED_AHEAD = 2.0
DRAIN_WITHIN = 120.0
BROKERS_WITHIN = 240.0
# Late answers, which would be second ones, come in this time.
LISTEN_ON = 1.0
# With these a cluster has to survive the loss of a broker.
BROKER_KINDS = {
    "kill-broker", "kill-controller", "kill-brokers", "freeze-broker", "freeze-brokers",
    "cut-connection",
}  # fmt: skip
# With these, images are judged by several versions of the cascade.
ROLLS = {"roll", "roll-storm"}
Tell = Callable[[str], None]


class Verdict(NamedTuple):
    """What is wrong with the records on the log, and what became of the images."""

    anomalies: list[Anomaly]
    images: Images
    report: Report


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign is.

    Attributes:
        seed: Decides the plan and the pictures.
        minutes: Time for faults.
        log: Which log.
        kinds: Kinds of fault.
        rate: Images per second.
        folder: Where everything is written.
        bootstrap: Brokers to use on Kafka, which are not to be harmed; ``None`` starts some.
        processes: How many of each tier, and of the consensus.
        disk_bytes: Size of the disk that is mounted on ``folder/log``; 0 if none is.
    """

    seed: int
    minutes: float
    log: LogKind
    kinds: list[str]
    rate: float
    folder: Path
    bootstrap: str | None = None
    processes: int = PROCESSES
    disk_bytes: int = 0


async def run_campaign(options: Options, tell: Tell) -> Result:
    """Run a campaign from nothing to its verdict."""
    began = time.monotonic()
    kinds = chosen(options.log, options.kinds)
    plan = draw_plan(options.seed, kinds, options.minutes * 60 * PLANNED_AHEAD)
    tell(f"seed {options.seed}: {len(plan)} faults planned for {options.minutes:g} min")
    async with _running_log(options) as (url, cluster, relays), open_log(url) as log:
        campaign = await _prepared(options, url, log)
        campaign.cluster, campaign.relays = cluster, relays
        try:
            async with anyio.create_task_group() as tasks:
                for part in campaign.parts:
                    tasks.start_soon(part)
                await start_all(campaign)
                running = len(campaign.children.by_name)
                tell(f"{running} processes, {options.rate:g} images a second")
                campaign.load.rate = options.rate
                await until(lambda: len(campaign.answers.verdicts) > options.rate, START_WITHIN)
                await run_plan(campaign, plan, SCENARIOS, options.minutes * 60, tell)
                await _drain(campaign, tell)
                verdict = await _look(campaign, log, tell)
                await run_epilogues(campaign, options.kinds, tell)
                tasks.cancel_scope.cancel()
        finally:
            campaign.children.kill_all()
            campaign.load.close()
            campaign.ledgers.close()
    children = campaign.children
    campaign.figure("load average of the machine at the end", os.getloadavg()[0])
    deaths = [Anomaly("died", d.name, f"status {d.status}: {d.said}") for d in children.deaths]
    return Result(
        seed=options.seed,
        log=options.log,
        minutes=options.minutes,
        kinds=options.kinds,
        rate=options.rate,
        seconds=round(time.monotonic() - began, 1),
        plan=plan,
        happened=campaign.happened,
        recoveries=campaign.recoveries,
        images=verdict.images,
        figures=campaign.figures,
        memory_peaks=children.peaks,
        restarts=children.restarts,
        fenced=campaign.ledgers.fenced,
        deaths=children.deaths,
        verified=verdict.report,
        anomalies=verdict.anomalies + campaign.anomalies + deaths,
    )


@asynccontextmanager
async def _running_log(
    options: Options,
) -> AsyncIterator[tuple[str, Cluster | None, list[Relay]]]:
    """Yield the URL of a log for the campaign, its brokers if it has some, and their relays."""
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "log").mkdir(exist_ok=True)
    if options.log == "embedded":
        yield f"embedded:{options.folder / 'log' / 'log.db'}", None, []
    elif options.bootstrap is not None:
        yield f"kafka://{options.bootstrap}", None, []
    else:
        cut = "cut-connection" in options.kinds
        several = BROKER_KINDS & set(options.kinds)
        brokers = BrokerSettings(
            brokers=3 if several else 1,
            data=options.folder / "log",
            start_timeout=BROKERS_WITHIN,
            extra=ADVERTISED if cut else {},
        )
        ports = ports_in_a_row(brokers.brokers) if cut else []
        brokers = msgspec.structs.replace(brokers, port=ports[0] if ports else 0)
        async with relayed(ports) as relays, run_brokers(brokers) as cluster:
            servers = ",".join(r.address for r in relays) or cluster.bootstrap_servers
            yield f"kafka://{servers}", cluster, relays


async def _prepared(options: Options, url: str, log: Log) -> Campaign:
    """Return the campaign with all its parts, nothing started yet."""
    folder, ledger = options.folder, options.folder / "ledger"
    for path in (ledger, folder / "logs"):
        path.mkdir(exist_ok=True)
    file = folder / "chaos.toml"
    file.write_text(text_of(BASE))
    cascade = load_cascade(str(file))
    topics = all_topics(cascade.tier_names)
    # On a log that others use as well, topics that exist say how many partitions there are.
    counts = await log.partition_counts(topics)
    partitions = max(counts.values(), default=PARTITIONS)
    await log.create_topics(topics, partitions)
    panel = ControlPanel(folder / "orders")
    SharedClock(panel.folder / CLOCK)
    launcher(panel.folder)
    setting = Setting(
        url=url,
        folder=folder,
        ledger=ledger,
        state=["--state", str(folder / "state")],
        common=["--log", url, "--cascade", str(file), "--ledger", str(ledger)],
        partitions=partitions,
        processes=options.processes,
        session_timeout=SESSION_TIMEOUT if options.log == "embedded" else KAFKA_SESSION_TIMEOUT,
    )
    catalogue = Catalogue()
    namer = Namer(catalogue, options.seed)
    wanted = variants() if ROLLS & set(options.kinds) else {BASE: cascade}
    expected = {name: await expected_verdicts(one, catalogue) for name, one in wanted.items()}
    answers = Answers(log, expected, namer.tag, folder)
    answers.expect(cascade.hash, BASE)
    events = EventLedger(ledger, "producer", member="campaign", log=await log.identity())
    load = Load(log, catalogue, namer, partitions, events)
    disk = Disk(folder / "log", options.disk_bytes)
    children = Children(folder / "logs", panel)
    campaign = Campaign(setting, children, load, answers, Ledgers(ledger), disk)
    campaign.harmless = options.bootstrap is not None
    return campaign


async def _drain(campaign: Campaign, tell: Tell) -> None:
    """Let everything be answered, and listen on for answers too many."""
    campaign.load.rate = 0.0
    tell(f"draining: {len(campaign.unanswered())} images wait")
    await until(lambda: not campaign.unanswered(), DRAIN_WITHIN)
    await anyio.sleep(LISTEN_ON)
    await stop_all(campaign)
    await anyio.sleep(LISTEN_ON)
    campaign.ledgers.read()


def _allowed(campaign: Campaign) -> set[str]:
    """Return the findings that are counted and yet no failure.

    When a broker is lost, the next coordinator of a group may say for a while that the group stands
    where it stood before its last commits: it answers from what it knows to be replicated. Work is
    then done again, which nobody sees.
    """
    return {"doubled by a zombie"} | (
        {"commit moved backwards"} if _lost_brokers(campaign) else set()
    )


def _lost_brokers(campaign: Campaign) -> bool:
    return any(fault.kind in BROKER_KINDS for fault in campaign.happened)


def _unchecked(campaign: Campaign, report: Report) -> list[Anomaly]:
    """Return what could not be checked, but for commits that brokers forgot for a while."""
    allowed = FORGOTTEN if _lost_brokers(campaign) else None
    return [
        Anomaly("verify: not checked", "", line)
        for line in report.unchecked
        if allowed is None or allowed not in line
    ]


def _widest(campaign: Campaign) -> Cascade:
    """Return the cascade with all tiers that images went through."""
    if any(fault.kind == "roll-storm" for fault in campaign.happened):
        return variants()[LONGER]
    return load_cascade(str(campaign.setting.folder / "chaos.toml"))


async def _mixtures(campaign: Campaign, log: Log) -> list[Anomaly]:
    """Look for answers whose votes are not all of their version; count the versions."""
    found = Mixtures(campaign.answers.tag)
    await found.look(log)
    campaign.figure("versions of the cascade that answered", len(found.answers))
    campaign.figure("images with votes of several versions", found.begun_twice)
    rolled = any(fault.kind in ROLLS for fault in campaign.happened)
    if rolled and len(found.answers) < 2:
        found.anomalies.append(Anomaly("not carried out", "roll", "one version answered all"))
    return found.anomalies


async def _look(campaign: Campaign, log: Log, tell: Tell) -> Verdict:
    """Compare everything with everything: what is wrong with the records on the log?"""
    tell("verifying")
    answers, lost = campaign.answers, sorted(campaign.unanswered())
    report = await verify(log, campaign.setting.ledger, _widest(campaign))
    allowed = _allowed(campaign)
    by_zombies = {f.what for f in report.findings if f.kind == "doubled by a zombie"}
    anomalies = [Anomaly("lost", image_id, "acknowledged, never answered") for image_id in lost]
    anomalies += [
        found
        for found in answers.anomalies
        if found.name != "doubled" or found.what not in by_zombies
    ]
    anomalies += [
        Anomaly(f"verify: {found.kind}", found.what, found.detail)
        for found in report.findings
        if found.kind not in allowed
        and (not campaign.harmless or found.what.startswith(answers.tag))
    ]
    anomalies += await _mixtures(campaign, log)
    if not campaign.harmless:
        if report.unfinished:
            anomalies.append(Anomaly("verify: unfinished", "", str(report.waiting)))
        anomalies += _unchecked(campaign, report)
    acknowledged = len(campaign.load.acknowledged)
    images = Images(
        acknowledged=acknowledged,
        answered=acknowledged - len(lost),
        statuses=dict(answers.statuses),
        doubled=len(answers.repeated),
        dead_letters=dict(answers.letters),
        refused_sends=campaign.load.refusals,
    )
    return Verdict(anomalies, images, report)
