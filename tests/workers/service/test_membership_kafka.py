"""Processes under one member name, and processes that end, on a real broker."""

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from roadstream.schemas.errors import ReplacedError
from roadstream.schemas.topics import CONSENSUS_GROUP, all_topics
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.topics.namespace import NamespacedLog
from roadstream.workers.broker.cluster import BrokerSettings
from roadstream.workers.observe.addresses import free_ports
from roadstream.workers.service.lifecycle import DRAIN_TIMEOUT, LEAVING
from tests.kits.command import ROADSTREAM, write_cascade
from tests.kits.kafka_fixture import new_brokers

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace that no other test uses, which every command here takes for its own."""
    name = f"m-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("ROADSTREAM_NAMESPACE", name)
    return name


class Running:
    """A ``roadstream`` process on a broker, and what it says."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.said: list[str] = []

    def says(self, event: str) -> None:
        """Wait until it, or a child of it, logs an event of this name."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if line.startswith("{") and json.loads(line).get("event") == event:
                return
        raise AssertionError(f"ended without {event}: {self.said}")

    def ended(self) -> int:
        """Wait until it has ended; return its exit status."""
        _, rest = self.process.communicate(timeout=60)
        self.said += rest.splitlines(keepends=True)
        return self.process.returncode

    def stop(self) -> int:
        """Tell it to end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


@contextmanager
def running(folder: Path, bootstrap: str, command: str, *options: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [str(ROADSTREAM), command, "--log", f"kafka://{bootstrap}",
         "--cascade", write_cascade(folder), *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


async def make_topics(bootstrap: str, namespace: str) -> None:
    kafka = KafkaLog(KafkaSettings(bootstrap_servers=bootstrap))
    async with NamespacedLog(kafka, namespace) as log:
        await log.create_topics(all_topics(["first", "second"]), 2)


def test_of_two_services_under_one_name_the_older_ends_and_says_where_the_other_is(
    tmp_path: Path, kafka_bootstrap: str, namespace: str
) -> None:
    options = ["--name", "same", "--partitions", "2"]
    with running(tmp_path, kafka_bootstrap, "up", *options) as older:
        for _ in range(3):
            older.says("partitions_assigned")
        with running(tmp_path, kafka_bootstrap, "up", *options) as newer:
            assert older.ended() == ReplacedError.exit_status == 78
            last = older.said[-1]
            where = (
                r"a process on 127\.0\.0\.1 \(client id roadstream-\w+-same-\S+\) has joined under"
            )
            assert re.search(where, last)
            assert "--member (`up`: --name)" in last
            assert not any("child_died" in line for line in older.said)
            for _ in range(3):
                newer.says("partitions_assigned")
            assert newer.stop() == 0


def test_a_zombie_ends_and_leaves_its_successor_alone(
    tmp_path: Path, kafka_bootstrap: str, namespace: str
) -> None:
    anyio.run(make_topics, kafka_bootstrap, namespace)
    options = ["--tier", "first", "--member", "same"]
    with running(tmp_path, kafka_bootstrap, "work", *options) as zombie:
        zombie.says("partitions_assigned")
        zombie.process.send_signal(signal.SIGSTOP)
        with running(tmp_path, kafka_bootstrap, "work", *options) as heir:
            heir.says("partitions_assigned")  # at once, not after a session timeout
            zombie.process.send_signal(signal.SIGCONT)

            assert zombie.ended() == ReplacedError.exit_status
            assert heir.stop() == 0
            assert not any("member_replaced" in line for line in heir.said)


def test_who_ends_leaves_its_partitions_to_the_others_at_once(
    tmp_path: Path, kafka_bootstrap: str, namespace: str
) -> None:
    anyio.run(make_topics, kafka_bootstrap, namespace)
    with (
        running(tmp_path, kafka_bootstrap, "consensus", "--member", "stays") as stays,
        running(tmp_path, kafka_bootstrap, "consensus", "--member", "leaves") as leaves,
    ):
        leaves.says("partitions_assigned")
        stays.says("partitions_assigned")
        with running(tmp_path, kafka_bootstrap, "consensus", "--member", "third") as third:
            third.says("partitions_assigned")
            assert third.stop() == 0
        assert leaves.stop() == 0
        assert anyio.run(members, kafka_bootstrap, namespace) == ["stays"]
        assert stays.stop() == 0
        assert anyio.run(members, kafka_bootstrap, namespace) == []


async def members(bootstrap: str, namespace: str) -> list[str]:
    """Return the names of the members of the consensus's group."""
    async with KafkaLog(KafkaSettings(bootstrap_servers=bootstrap)) as log:
        group = await log.describe(f"{namespace}.{CONSENSUS_GROUP}")
        return sorted(member.name or "" for member in group.members)


@pytest.mark.parametrize("command", ["work", "consensus", "up"])
def test_who_starts_while_kafka_is_away_waits_and_can_be_stopped(
    command: str, tmp_path: Path
) -> None:
    with running(tmp_path, f"127.0.0.1:{free_ports('127.0.0.1', 1)[0]}", command) as waiting:
        waiting.says("waiting_out")
        assert "no Kafka broker answers" in waiting.said[-1]
        assert waiting.stop() == 0


async def test_who_is_told_to_end_while_its_broker_stands_still_waits_for_nothing(
    tmp_path: Path, namespace: str
) -> None:
    async with new_brokers(BrokerSettings()) as cluster:
        await make_topics(cluster.bootstrap_servers, namespace)
        options = ["--tier", "first", "--member", "one"]
        with running(tmp_path, cluster.bootstrap_servers, "work", *options) as worker:
            await anyio.to_thread.run_sync(worker.says, "partitions_assigned")
            os.kill(cluster.pids[0], signal.SIGSTOP)
            try:
                began = anyio.current_time()
                assert await anyio.to_thread.run_sync(worker.stop) == 0
                took = anyio.current_time() - began
            finally:
                os.kill(cluster.pids[0], signal.SIGCONT)
    # Two seconds for what hangs and as many for leaving; it was cut short after ten.
    assert not any("drain_cut_short" in line for line in worker.said)
    assert took < DRAIN_TIMEOUT - LEAVING
