"""What the tests of the embedded log share: reading all of a topic, forwarding by hand."""

from roadstream.streams.embedded.log import EmbeddedLog
from roadstream.streams.log import Consumer, Output, Polled
from tests.kits.contract import ends, values


async def everything(log: EmbeddedLog, topic: str) -> list[bytes]:
    found: list[bytes] = []
    async with log.reader(topic, "beginning") as reader:
        while polled := await reader.poll(max_records=1000, timeout=0):
            found += values(polled)
    return found


async def forward(consumer: Consumer) -> int:
    polled: Polled = await consumer.poll(max_records=100, timeout=0.05)
    outputs = [Output("out", None, value, 0) for value in values(polled)]
    await consumer.publish(outputs, ends(polled), consumer.assignment.epoch)
    return len(outputs)
