"""A real broker from Python packages: start, answer, stop, and come back with its records."""

import os
import signal
import uuid
from pathlib import Path

import anyio
import pytest

from schemas.errors import LogUnavailableError, RunError, UsageError
from streams.kafka import KafkaLog, KafkaSettings
from streams.log import Consumer, Output
from workers.broker import BrokerSettings, run_brokers, serve

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka_bootstrap")]


async def publish(bootstrap: str, topic: str, value: bytes) -> None:
    settings = KafkaSettings(bootstrap_servers=bootstrap)
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish([Output(topic, None, value)])


async def read_first(bootstrap: str, topic: str) -> bytes | None:
    async with (
        KafkaLog(KafkaSettings(bootstrap_servers=bootstrap)) as log,
        log.reader(topic, "beginning") as reader,
    ):
        with anyio.fail_after(30):
            while not (polled := await reader.poll(max_records=1, timeout=0.5)):
                pass
    (records,) = polled.values()
    return records[0].value


async def poll_for_ever(consumer: Consumer) -> None:
    while True:
        await consumer.poll(max_records=1, timeout=0.1)


async def test_a_broker_restarted_on_its_data_folder_keeps_its_records(tmp_path: Path) -> None:
    topic = f"t-{uuid.uuid4().hex[:12]}"
    settings = BrokerSettings(data=tmp_path / "kafka")
    async with run_brokers(settings) as cluster:
        await publish(cluster.bootstrap_servers, topic, b"kept")
        (pid,) = cluster.pids

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    async with run_brokers(settings) as cluster:
        assert await read_first(cluster.bootstrap_servers, topic) == b"kept"
    with pytest.raises(UsageError, match="expected 3 brokers, holds the data of 1"):
        async with run_brokers(BrokerSettings(data=tmp_path / "kafka", brokers=3)):
            pass


async def test_clients_of_a_killed_broker_fail_in_time_and_recover_when_it_is_back() -> None:
    topic = f"t-{uuid.uuid4().hex[:12]}"
    async with run_brokers(BrokerSettings()) as cluster:
        settings = KafkaSettings(
            bootstrap_servers=cluster.bootstrap_servers,
            delivery_timeout=2.0,
            request_timeout=2.0,
            stall_timeout=0.5,
            stop_timeout=1.0,
        )
        async with KafkaLog(settings) as log, log.producer() as producer:
            await log.create_topics([topic], 1)
            await producer.publish([Output(topic, None, b"first")])
            async with log.consumer(topic, [topic]) as consumer:
                while not await consumer.poll(max_records=1, timeout=0.1):
                    pass
                await cluster.kill(0)

                with anyio.fail_after(10), pytest.raises(LogUnavailableError, match="2 s"):
                    await producer.publish([Output(topic, None, b"nobody listens")])
                with anyio.fail_after(10), pytest.raises(LogUnavailableError, match="not answer"):
                    await poll_for_ever(consumer)
                left_at = anyio.current_time()
            assert anyio.current_time() - left_at < 8

            await cluster.restart(0)
            await producer.publish([Output(topic, None, b"again")])
            assert await read_first(cluster.bootstrap_servers, topic) == b"first"


async def test_serve_announces_and_reports_a_broker_that_dies(tmp_path: Path) -> None:
    lines: list[str] = []

    def announce(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            os.kill(_broker_pid(tmp_path), signal.SIGKILL)

    with pytest.raises(RunError, match=rf"broker 1 ended with status -9; {tmp_path}.*server\.log"):
        await serve(BrokerSettings(data=tmp_path), announce)

    assert "answers at 127.0.0.1:" in lines[0]
    assert lines[1] == "This broker is for development and tests, not for production."


async def test_a_port_that_is_taken_is_named() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        with pytest.raises(RunError, match=f"port {port}: cannot listen on it"):
            async with run_brokers(BrokerSettings(port=port)):
                pass


async def test_a_broker_that_cannot_start_is_explained_by_its_log(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"broker 1 ended with status 1; .*says: Error .* of VM"):
        async with run_brokers(BrokerSettings(data=tmp_path, heap="1k")):
            pass


def _broker_pid(data: Path) -> int:
    """Find the broker by its settings file among the processes started here."""
    wanted = str(data / "broker-1" / "server.properties").encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
            return int(entry.name)
    raise AssertionError("no broker runs")
