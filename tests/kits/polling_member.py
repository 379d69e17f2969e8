"""A group member in a process of its own, to be killed or stopped.

``python -m tests.kits.polling_member PLACE NAME`` polls the topic ``NAME`` in the group ``NAME``,
and prints a line once it has partitions. ``PLACE`` is the path of a log's file or Kafka's servers.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Log
from tests.kits.contract import DEADLINE, kafka_log


def place(log: Log) -> str:
    """Return the log's path or servers, by which another process finds it."""
    if isinstance(log, EmbeddedLog):
        return str(log.database.path)
    servers: str = log.settings.bootstrap_servers  # type: ignore[attr-defined]  # KafkaLog
    return servers


@asynccontextmanager
async def polling_member(log: Log, name: str) -> AsyncIterator[anyio.abc.Process]:
    """Start one, wait until it has partitions, and kill it in the end."""
    command = [sys.executable, "-m", "tests.kits.polling_member", place(log), name]
    async with await anyio.open_process(command, stderr=None) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(DEADLINE):
                await process.stdout.receive()
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


async def main(where: str, name: str) -> None:
    log = EmbeddedLog(Path(where)) if where.startswith("/") else kafka_log(where)
    async with log, log.consumer(name, [name]) as consumer:
        while not consumer.assignment.partitions:
            await consumer.poll(max_records=0, timeout=0)
        print("polls", flush=True)  # noqa: T201
        while True:
            await consumer.poll(max_records=10, timeout=0.1)
            await anyio.sleep(0.01)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
