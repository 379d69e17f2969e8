"""A group member in a process of its own, to be frozen: ``python -m tests.kits.kafka_zombie``.

It says what happens to it on standard output, one word and a number a line, and takes one line on
standard input as the order to publish what it holds.
"""

import sys

import anyio
from anyio import to_thread

from roadstream.schemas.errors import FencedError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Consumer, Offsets, Output
from roadstream.workers.observe.logging import configure_logging


def say(word: str, number: int) -> None:
    print(word, number, flush=True)  # noqa: T201


async def main(servers: str, topic: str, session_timeout: float) -> None:
    settings = KafkaSettings(
        bootstrap_servers=servers, session_timeout=session_timeout, stop_timeout=3.0
    )
    async with KafkaLog(settings) as log, log.consumer(topic, [topic]) as consumer:
        held: Offsets = {}
        count = 0
        while not held:
            polled = await consumer.poll(max_records=100, timeout=0.2)
            held = {tp: records[-1].offset + 1 for tp, records in polled.items()}
            count = sum(map(len, polled.values()))
        epoch = consumer.assignment.epoch
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back, consumer, epoch, tasks.cancel_scope)
            say("holds", count)
            await to_thread.run_sync(sys.stdin.readline)
            try:
                await consumer.publish([Output(f"{topic}-out", None, b"zombie", 0)], held, epoch)
                say("published", 1)
            except FencedError:
                say("fenced", log.stats.fenced)
        say("freezes", log.stats.freezes)
        await to_thread.run_sync(sys.stdin.readline)
        while not (polled := await consumer.poll(max_records=100, timeout=0.2)):
            pass
        ends = {tp: records[-1].offset + 1 for tp, records in polled.items()}
        output = Output(f"{topic}-out", None, b"returned", 0)
        await consumer.publish([output], ends, consumer.assignment.epoch)
        say("worked", sum(map(len, polled.values())))


async def come_back(consumer: Consumer, epoch: int, scope: anyio.CancelScope) -> None:
    """Keep polling until there are partitions of a later epoch."""
    while consumer.assignment.epoch <= epoch or not consumer.assignment.partitions:
        await consumer.poll(max_records=0, timeout=0.1)
        await anyio.sleep(0.05)
    say("back", len(consumer.assignment.partitions))


if __name__ == "__main__":
    configure_logging("error")
    anyio.run(main, sys.argv[1], sys.argv[2], float(sys.argv[3]))
