"""``roadstream verify`` after runs in which processes die, stop and come back; and by command."""

import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
import pytest
import structlog

from roadstream.schemas import codec
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade
from roadstream.schemas.records.answer import Answer
from roadstream.schemas.records.events import Event, Opened
from roadstream.schemas.records.image import Head
from roadstream.schemas.topics import ANSWERS, all_topics
from roadstream.sinks.consensus.worker import Consensus
from roadstream.sinks.verification.findings import Report
from roadstream.sinks.verification.run import verify
from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.group.member import GroupMember, GroupMemberOptions
from roadstream.streams.ledgers.event_ledger import EventLedger, ledger_files
from roadstream.streams.log import Output
from roadstream.streams.memory.log import MemoryLog
from roadstream.workers.cli import run
from roadstream.workers.commands.verify import shown
from roadstream.workers.job.submit import Submitter
from roadstream.workers.service.access.connect import Address, address, open_log
from roadstream.workers.service.deciding import build_consensus
from roadstream.workers.tier.judge import Judge
from roadstream.workers.tier.worker import TierWorker
from tests.kits.command import TIMEOUT, roadstream, started, write_cascade, write_pictures
from tests.workers.test_end_to_end import (
    CASCADE,
    DEADLINE,
    ENGINES,
    LIMITS,
    PARTITIONS,
    Answers,
    Part,
    images,
    settled,
)

SESSION = 10.0


async def send(log: MemoryLog, count: int, ledgers: Path) -> None:
    """Make the topics, and send images as a producer with a ledger does."""
    await log.create_topics(all_topics(CASCADE.tier_names), PARTITIONS)
    events = EventLedger(ledgers, "producer", log=await log.identity())
    async with log.producer() as producer:
        submitter = Submitter(producer, None, PARTITIONS, events=events)
        assert await submitter.submit(images(count)) == count
    events.close()


class Parts:
    """Workers of every tier and two consensus members, each with a name, ledgers and a restart."""

    def __init__(self, log: MemoryLog, ledgers: Path) -> None:
        self._log, self._ledgers = log, ledgers
        self._members: dict[str, GroupMember] = {}
        self.by_name: dict[str, Part] = {}
        for number, tier in enumerate([*CASCADE.tier_names, "one", "two"]):
            self._add(f"{tier}-{number}", partial(self._work, tier))
        for number in range(2):
            self._add(f"consensus-{number}", self._decide)

    def _add(self, name: str, start: Callable[[GroupMemberOptions], Awaitable[None]]) -> None:
        options = GroupMemberOptions(member_id=name, ledger=self._ledgers)
        self.by_name[name] = Part(lambda: start(options))

    async def _work(self, tier: str, options: GroupMemberOptions) -> None:
        judge = Judge(CASCADE, tier, ENGINES)
        worker = TierWorker(self._log, judge, limits=LIMITS, options=options)
        await self._run(worker, options)

    async def _decide(self, options: GroupMemberOptions) -> None:
        await self._run(build_consensus(self._log, CASCADE, options), options)

    async def _run(self, worker: TierWorker | Consensus, options: GroupMemberOptions) -> None:
        self._members[options.member_id or ""] = worker.member
        await worker.run(anyio.Event())

    def _polled_at(self, name: str) -> float:
        member = self._members.get(name)
        return 0.0 if member is None else member.stats.polled_at

    async def polled_anew(self, names: Collection[str]) -> None:
        """Wait until each has polled twice more: then one poll began and ended meanwhile."""
        seen = {name: [self._polled_at(name)] for name in names}
        with anyio.fail_after(DEADLINE):
            while any(len(times) < 3 for times in seen.values()):
                await anyio.lowlevel.checkpoint()
                for name, times in seen.items():
                    if (polled_at := self._polled_at(name)) > times[-1]:
                        times.append(polled_at)


async def test_a_run_in_which_everybody_is_killed_again_and_again_is_clean(tmp_path: Path) -> None:
    count, kills = 120, 40
    log = MemoryLog()
    await send(log, count, tmp_path)
    parts = list(Parts(log, tmp_path).by_name.values())
    async with anyio.create_task_group() as tasks:
        for part in parts:
            tasks.start_soon(part.run)
        for kill in range(kills):
            await Answers(log).wait(count * kill // kills)
            parts[kill % len(parts)].kill()
        await Answers(log).wait(count)
        await settled(log)
        tasks.cancel_scope.cancel()

    report = await verify(log, tmp_path, CASCADE)

    assert sum(part.deaths for part in parts) > kills // 2
    assert report.clean, report.findings
    assert (report.images, report.acknowledged, report.answers) == (count, count, count)
    assert report.unchecked == []


async def test_zombies_on_a_log_without_transactions_do_no_more_than_double_an_answer(
    tmp_path: Path,
) -> None:
    """One after the other is frozen until it is put out, goes on as a zombie, and then crashes."""
    count, now = 150, 0.0
    log = MemoryLog(atomic=False, session_timeout=SESSION, monotonic=lambda: now)
    await send(log, count, tmp_path)
    parts = Parts(log, tmp_path)
    async with anyio.create_task_group() as tasks:
        for part in parts.by_name.values():
            tasks.start_soon(part.run)
        for number, name in enumerate(["one-0", "consensus-0", "two-4", "consensus-1"]):
            await Answers(log).wait(count * number // 5)
            log.pause(name)
            for _ in range(2):
                now += 0.6 * SESSION
                await parts.polled_anew(parts.by_name.keys() - {name})
            log.resume(name)
            await parts.polled_anew([name])
            log.crash(name)
        await Answers(log).wait(count)
        await settled(log)
        tasks.cancel_scope.cancel()

    report = await verify(log, tmp_path, CASCADE)

    assert report.tolerable, report.findings
    assert (report.images, report.acknowledged) == (count, count)
    assert report.unchecked == []


async def test_while_a_run_goes_on_nothing_is_called_lost(tmp_path: Path) -> None:
    count = 200
    log = MemoryLog()
    await send(log, count, tmp_path)
    parts = Parts(log, tmp_path)
    seen: list[Report] = []
    async with anyio.create_task_group() as tasks:
        for part in parts.by_name.values():
            tasks.start_soon(part.run)
        while not seen or not seen[-1].clean:
            seen.append(await verify(log, tmp_path, CASCADE))
        tasks.cancel_scope.cancel()

    assert all(report.anomalies == {} for report in seen)
    assert seen[0].unfinished > 0
    assert seen[-1].answers == count


# By command


async def one_ghost(folder: Path, chosen: Cascade) -> None:
    """Leave an embedded log with one image that waits, and an answer that nobody asked for."""
    async with EmbeddedLog(folder / "log.db") as log, log.producer() as producer:
        await log.create_topics(all_topics(chosen.tier_names), 1)
        waiting = codec.encode(images(1)[0])
        ghost = codec.encode(Answer(Head(image_id="[ghost]"), "failed"))
        await producer.publish([Output("images.live", None, waiting), Output(ANSWERS, None, ghost)])


def verified(folder: Path, *options: str, cascade: str = "noop.toml") -> int:
    """Run the command in this process; return its exit status."""
    log, chosen = f"embedded:{folder / 'log.db'}", cascade.replace("noop", f"{folder}/noop")
    try:
        return run(["verify", "--log", log, "--cascade", chosen, *options])
    finally:
        structlog.reset_defaults()  # the command logs to an output that ends with this test


@pytest.fixture
def ghostly(tmp_path: Path) -> Path:
    write_cascade(tmp_path)
    anyio.run(one_ghost, tmp_path, load_cascade(str(tmp_path / "noop.toml")))
    return tmp_path


def test_people_read_each_anomaly_what_is_open_what_was_not_checked_and_the_verdict(
    ghostly: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verified(ghostly) == 1

    said = " ".join(capsys.readouterr().out.split())
    assert "phantom 1 an answer for an image that nobody sent" in said
    assert "[ghost]: answered at answers[0]@0, and on no images.* topic" in said
    assert "still being worked on at tier first: 1 0 note: without --ledger only" in said
    assert "2 images, 0 acknowledgements, 1 answers; 0 ledgers with 0 events" in said
    assert said.endswith("not clean: 1 phantom, 1 still being worked on")


def test_what_strangers_name_does_nothing_to_a_terminal() -> None:
    assert shown("a\x1b[2J\x07b [red]c é") == "a\\x1b[2J\\x07b [red]c é"


def test_programs_read_one_json_object(
    ghostly: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert verified(ghostly, "--json") == 1

    found = msgspec.json.decode(capsysbinary.readouterr().out)
    assert (found["clean"], found["tolerable"]) == (False, False)
    assert found["verdict"] == "anomalies"
    assert found["anomalies"] == {"phantom": 1}
    assert found["findings"][0]["what"] == "[ghost]"
    assert found["waiting"] == {"tier first": 1}


@pytest.mark.parametrize(
    ("options", "cascade", "said"),
    [
        (["--show", "-1"], "noop.toml", "--show: expected ids, 0 to 1000000, got -1"),
        (["--ledger", "nowhere"], "noop.toml", "--ledger: nowhere: expected a folder of ledgers"),
        (["--baseline", "no.jsonl"], "noop.toml", "no.jsonl: expected a file of answers"),
        ([], "lite", "expected topics tier."),
        ([], "nowhere.toml", "nowhere.toml"),
    ],
)
def test_wrong_usage_is_said_in_one_line(
    ghostly: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    cascade: str,
    said: str,
) -> None:
    assert verified(ghostly, *options, cascade=cascade) == 2

    problem = capsys.readouterr().err
    assert said in problem
    assert problem.count("\n") == 1


def events(folder: Path) -> list[Event]:
    return [event for file in ledger_files(folder) for event in file]


def wait_until(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    give_up_at = time.monotonic() + TIMEOUT
    while not condition():
        assert child.poll() is None, child.stderr and child.stderr.read()
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def processes(folder: Path, role: str) -> list[int]:
    """Return the processes of a role that ever opened a ledger, oldest first."""
    return [e.pid for e in events(folder) if isinstance(e, Opened) and e.role == role]


async def _verify(where: Address, folder: Path) -> Report:
    async with open_log(where) as log:
        return await verify(log, folder / "ledgers", load_cascade(str(folder / "noop.toml")))


def kill_and_verify(folder: Path, where: Address) -> None:
    """Run a cascade by command, kill a worker and the consensus under load, and verify it."""
    cascade, ledgers = write_cascade(folder), folder / "ledgers"
    write_pictures(folder / "pictures", 200)
    common = ["--log", where, "--cascade", cascade, "--namespace", where.namespace or ""]
    kept = ["--ledger", "ledgers"]
    up = started("up", *common, *kept, "--partitions", "4", folder=folder)
    try:
        wait_until(lambda: bool(processes(ledgers, "consensus")), up)
        sent = roadstream("produce", "pictures", *common, *kept, folder=folder)
        assert sent.returncode == 0, sent.stderr
        for role in ("worker", "consensus"):
            before = processes(ledgers, role)
            os.kill(before[0], signal.SIGKILL)
            wait_until(lambda: len(processes(ledgers, role)) > len(before), up)  # noqa: B023

        def settled_down() -> bool:
            report = anyio.run(_verify, where, folder)
            assert report.anomalies == {}, report.findings
            return report.clean

        wait_until(settled_down, up)
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=TIMEOUT)
    last = roadstream("verify", *common, *kept, folder=folder)
    assert last.returncode == 0, last.stdout
    assert "200 images, 200 acknowledgements, 200 answers" in last.stdout
    assert "clean: nothing lost, nothing doubled" in last.stdout
    assert "not checked" not in last.stdout


def test_an_embedded_run_whose_processes_are_killed_is_clean(tmp_path: Path) -> None:
    kill_and_verify(tmp_path, address(f"embedded:{tmp_path / 'log.db'}", None))


@pytest.mark.kafka
def test_a_kafka_run_whose_processes_are_killed_is_clean(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    kill_and_verify(tmp_path, address(f"kafka://{kafka_bootstrap}", "killed"))
