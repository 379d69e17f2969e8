"""Faults that come last, since they end what a campaign's own verdict rests on."""

import subprocess
import sys
import time
from collections.abc import Callable, Collection

import anyio
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaTopicPartition

from roadstream.bench.faults.campaign import ANSWER_WITHIN, Campaign
from roadstream.bench.faults.chaos.children import ROOT, until
from roadstream.bench.faults.facts import Happened
from roadstream.bench.faults.stage import start_all, stop_all
from roadstream.schemas.topics import images
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.workers.service.lifecycle import DRAIN_TIMEOUT

LEFT_BEHIND = 200
AFTERWARDS = 100
# Beyond the drain, a process may take this long to be gone.
STOP_MARGIN = 5.0


async def retention(campaign: Campaign) -> None:
    """Take records away that nobody has worked on: every worker says so, loudly, and goes on."""
    topic = images("archive")
    gone = campaign.load.add_ordinary(LEFT_BEHIND)
    acknowledged = campaign.load.acknowledged
    await until(lambda: all(i in acknowledged for i in gone), ANSWER_WITHIN)
    await _cut(campaign, topic)
    before = len(campaign.ledgers.missed)
    await start_all(campaign)
    kept = campaign.load.add_ordinary(AFTERWARDS)
    verdicts = campaign.answers.verdicts
    if not await until(lambda: all(i in verdicts for i in kept), ANSWER_WITHIN):
        waiting = sum(i not in verdicts for i in kept)
        campaign.note("stood still", "retention", f"{waiting} images sent afterwards wait")
    # Whoever owns a partition before the group has committed there says so once more.
    ranges = {(e.topic, e.partition, e.first, e.oldest) for e in campaign.ledgers.missed[before:]}
    missed = sum(oldest - first for _, _, first, oldest in ranges)
    campaign.figure("records that retention took", missed)
    alarms = sum("records_missed" in campaign.children.log_of(n) for n in campaign.children.by_name)
    if missed != LEFT_BEHIND or not alarms:
        seen = f"{missed} of {LEFT_BEHIND} in the ledgers, alarms of {alarms} processes"
        campaign.note("silent loss", "retention", seen)
    await stop_all(campaign)


async def _cut(campaign: Campaign, topic: str) -> None:
    """Delete every record of a topic, as retention would."""
    log = campaign.load.log
    async with log.reader(topic, "end") as reader:
        ends = await reader.ends()
    if isinstance(log, EmbeddedLog):
        number = log.store.topic(topic).id

        def cut() -> None:
            with log.database.transaction() as tx:
                tx.execute("DELETE FROM records WHERE position >> 50 = ?", (number,))
                tx.execute("UPDATE ends SET first = next WHERE topic=?", (number,))

        await log.database.run(cut)
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=campaign.setting.url.removeprefix("kafka://"))
    await admin.start()
    try:
        await admin.delete_records(
            {KafkaTopicPartition(topic, p): RecordsToDelete(end) for p, end in ends.items()}
        )
    finally:
        await admin.close()


async def dead_log(campaign: Campaign) -> None:
    """End every process while the log does not answer: each returns within its budget."""
    await start_all(campaign)
    campaign.load.rate = 50.0
    await anyio.sleep(2.0)
    campaign.load.rate = 0.0
    if campaign.cluster is not None:
        for index in range(len(campaign.cluster.processes)):
            await campaign.cluster.kill(index)
        await _end_all(campaign)
        return
    file = campaign.setting.url.removeprefix("embedded:")
    command = [sys.executable, "-m", "roadstream.bench.faults.chaos.lock", file, "600"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as lock:  # noqa: ASYNC220
        try:
            assert lock.stdout is not None
            await anyio.to_thread.run_sync(lock.stdout.readline)
            await _end_all(campaign)
        finally:
            lock.kill()


async def _end_all(campaign: Campaign) -> None:
    campaign.children.keeping = False
    for name, (status, seconds) in (await campaign.children.stop()).items():
        campaign.figure("SIGTERM to end, with a dead log", seconds)
        if seconds > DRAIN_TIMEOUT + STOP_MARGIN or status < 0:
            campaign.note("bad end", name, f"status {status} after {seconds:.1f} s, log dead")


EPILOGUES = {"retention": retention, "dead-log": dead_log}


async def run_epilogues(
    campaign: Campaign, kinds: Collection[str], tell: Callable[[str], None]
) -> None:
    """Carry out those of the last faults that are wanted."""
    for name, epilogue in EPILOGUES.items():
        if name not in kinds or (name == "dead-log" and campaign.harmless):
            continue
        at = time.monotonic()
        tell(f"{at - campaign.began:6.1f} s  last: {name}")
        await epilogue(campaign)
        began, took = round(at - campaign.began, 3), round(time.monotonic() - at, 3)
        campaign.happened.append(Happened(-1, name, began, took, [], 0.0))
