"""A worker process on a real broker that dies, comes back, and dies for good."""

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import anyio
import pytest

from roadstream.schemas.records.image import Head, Image, Inline
from roadstream.schemas.topics import all_topics
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.workers.broker.cluster import BrokerSettings
from roadstream.workers.job.submit import Submitter
from tests.kits.command import ROADSTREAM, write_cascade
from tests.kits.kafka_fixture import new_brokers

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(180),
    pytest.mark.usefixtures("kafka_bootstrap", "impatient"),
]
DRAIN_TIMEOUT = 6.0
# What ending may take on a slow host beyond the drain timeout and its last resort.
SLACK = 14.0


class Worker:
    """A ``roadstream work`` process and what it says."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.process = subprocess.Popen(
            [ROADSTREAM, "work", "--tier", "first", "--log", f"kafka://{bootstrap}",
             "--cascade", write_cascade(folder), "--metrics", "0",
             "--drain-timeout", str(DRAIN_TIMEOUT)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.at = ""

    def _wait_for(self, event: str) -> None:
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            found = json.loads(line) if line.startswith("{") else {}
            if found.get("event") == "metrics":
                self.at = found["at"]
            if found.get("event") == event:
                return
        raise AssertionError(f"ended without {event}: {said}")

    async def says(self, event: str) -> None:
        """Wait until it logs an event of this name."""
        await anyio.to_thread.run_sync(self._wait_for, event)

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and text at a path."""
        return await anyio.to_thread.run_sync(self._get, path)

    def _get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.at}{path}", timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


async def send(bootstrap: str, count: int) -> None:
    pictures = [Image(Head(image_id=f"{i}", uri=f"{i}.jpg"), Inline(b"x")) for i in range(count)]
    async with KafkaLog(KafkaSettings(bootstrap_servers=bootstrap)) as log:
        await log.create_topics(all_topics(["first", "second"]), 2)
        async with log.producer() as producer:
            await Submitter(producer, None, 2).submit(pictures)


async def test_a_worker_waits_an_outage_out_and_ends_in_time_when_the_broker_is_gone_for_good(
    tmp_path: Path,
) -> None:
    async with new_brokers(BrokerSettings()) as cluster:
        bootstrap = cluster.bootstrap_servers
        await send(bootstrap, 0)
        worker = Worker(tmp_path, bootstrap)
        try:
            await worker.says("worker_started")
            await cluster.kill(0)
            await worker.says("waiting_out")
            status, why = await worker.get("/readyz")
            assert status == 503
            assert "first: down for" in why
            assert (await worker.get("/healthz"))[0] == 200

            await cluster.restart(0)
            await worker.says("worker_started")  # again, and it is the same process
            await send(bootstrap, 20)
            judged = 'roadstream_images_judged_total{tier="first"} 20.0'
            while judged not in (await worker.get("/metrics"))[1]:
                assert worker.process.poll() is None

            await cluster.kill(0)
            worker.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, said = await anyio.to_thread.run_sync(worker.process.communicate, None, 60)
            took = time.monotonic() - began
        finally:
            worker.process.kill()
            worker.process.wait()
    assert "stopping" in said
    assert took < DRAIN_TIMEOUT + SLACK
