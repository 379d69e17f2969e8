"""A real broker from Python packages: start, answer, stop, and come back with its records."""

import os
import signal
import sys
import uuid
from pathlib import Path
from subprocess import PIPE

import anyio
import pytest

from roadstream.schemas.errors import RunError, UsageError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Output
from roadstream.workers.broker.cluster import BrokerSettings, run_brokers, serve
from tests.kits.kafka_fixture import format_storage

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


async def test_a_broker_restarted_on_its_data_folder_keeps_its_records(tmp_path: Path) -> None:
    topic = f"t-{uuid.uuid4().hex[:12]}"
    settings = BrokerSettings(data=tmp_path / "kafka é 🚧")
    async with run_brokers(settings) as cluster:
        await publish(cluster.bootstrap_servers, topic, b"kept")
        (pid,) = cluster.pids

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    async with run_brokers(settings) as cluster:
        assert await read_first(cluster.bootstrap_servers, topic) == b"kept"
    with pytest.raises(UsageError, match="expected 3 brokers, holds the data of 1"):
        async with run_brokers(BrokerSettings(data=settings.data, brokers=3)):
            pass


async def test_serve_announces_and_reports_a_broker_that_dies(tmp_path: Path) -> None:
    lines: list[str] = []

    def announce(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            os.kill(_broker_pid(tmp_path), signal.SIGKILL)

    format_storage(tmp_path)
    with pytest.raises(RunError, match=rf"broker 1 ended with status -9; {tmp_path}.*server\.log"):
        await serve(BrokerSettings(data=tmp_path), announce)

    assert "answers at 127.0.0.1:" in lines[0]
    assert lines[1] == "This broker is for development and tests, not for production."


async def test_a_broker_ends_with_the_command_that_runs_it_however_that_dies(
    tmp_path: Path,
) -> None:
    command = [*(sys.executable, "-m", "roadstream.workers.cli", "broker", "--port", "0"), "--data"]
    format_storage(tmp_path)
    process = await anyio.open_process([*command, str(tmp_path)], stdout=None, stderr=PIPE)
    try:
        assert process.stderr is not None
        assert b"Kafka" in await process.stderr.receive()
        broker = os.pidfd_open(_broker_pid(tmp_path))
        process.kill()

        with anyio.fail_after(20):
            await anyio.wait_readable(broker)
        os.close(broker)
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def test_a_folder_that_java_cannot_name_is_refused(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf"))

    with pytest.raises(UsageError, match="expected a folder whose path is UTF-8"):
        async with run_brokers(BrokerSettings(data=odd)):
            pass


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
