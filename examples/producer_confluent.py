"""Send the pictures of a folder to Roadstream with confluent-kafka, as msgpack or as JSON.

pip install confluent-kafka msgpack
python producer_confluent.py photos/ --servers 127.0.0.1:9092
"""

import argparse
import base64
import hashlib
import json
import sys
import time
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
# The largest record that Roadstream's topics take: a picture of 8 MiB, and room for the rest.
MOST_BYTES = 8 * 2**20 + 2**16


def image(uri: str, data: bytes, lane: str, deadline: float | None) -> dict:
    """Return the record of a picture, as `roadstream schema image` describes it."""
    now = time.time()
    head = {
        # The same place and picture have the same id: sent twice, they are answered once.
        "image_id": hashlib.sha256(uri.encode() + b"\0" + data).hexdigest()[:32],
        "uri": uri,
        "lane": lane,
        "submitted_at": now,
        "deadline_at": None if deadline is None else now + deadline,
        "content_hash": hashlib.sha256(data).digest()[:16],
    }
    return {"schema": "image.v1", "head": head, "payload": {"kind": "inline", "data": data}}


def as_json(record: dict) -> bytes:
    """Encode as JSON, in which bytes are base64."""
    return json.dumps(record, default=lambda data: base64.b64encode(data).decode()).encode()


def as_msgpack(record: dict) -> bytes:
    """Encode as msgpack, in which bytes are bytes: a quarter smaller."""
    import msgpack

    return msgpack.packb(record)


FORMATS = {"json": as_json, "msgpack": as_msgpack}


class Sender:
    """Sends records to one topic, and counts what was acknowledged."""

    def __init__(self, servers: str, topic: str, content_type: str) -> None:
        self.topic, self.sent, self.failed = topic, 0, 0
        self.headers = [("content-type", content_type), ("schema", "image.v1")]
        self.producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,  # with acks=all
                "message.max.bytes": MOST_BYTES,
                "message.timeout.ms": 60_000,  # then a record has failed
                "log_level": 2,  # what fails is told record by record
                "compression.type": "none",  # pictures are compressed already
                # CRC-32 of the key: with the image id as the key, as `roadstream produce` has it.
                "partitioner": "consistent_random",
            }
        )

    def send(self, image_id: str, value: bytes) -> None:
        """Send a record; wait where too many are on their way."""
        while True:
            try:
                self.producer.produce(
                    self.topic, value, image_id, headers=self.headers, on_delivery=self.delivered
                )
                self.producer.poll(0)
                return
            except BufferError:
                self.producer.poll(1)
            except KafkaException as error:  # too large for this producer
                self.fail(image_id, error.args[0])
                return

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        """Hear what became of a record."""
        image_id = (message.key() or b"").decode()
        if error is not None:
            self.fail(image_id, error)
            return
        self.sent += 1
        print(f"{image_id} {message.topic()}[{message.partition()}]@{message.offset()}")

    def fail(self, image_id: str, error: KafkaError) -> None:
        """Say that a record was not sent."""
        self.failed += 1
        print(f"{image_id}: {error.str()}", file=sys.stderr)


def main() -> int:
    """Send what the command line names; return 0 if all of it was acknowledged."""
    parser = argparse.ArgumentParser(description="Send the pictures of a folder to Roadstream.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--servers", default="127.0.0.1:9092")
    parser.add_argument("--namespace", help="of `roadstream up --namespace`")
    parser.add_argument("--lane", choices=["live", "archive"], default="archive")
    parser.add_argument("--deadline", type=float, help="seconds in which a live answer is wanted")
    parser.add_argument("--format", choices=sorted(FORMATS), default="msgpack")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"there is no folder {given.folder}")
    topic = f"{given.namespace}." if given.namespace else ""
    sender = Sender(given.servers, f"{topic}images.{given.lane}", f"application/{given.format}")
    for path in sorted(given.folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            record = image(path.as_posix(), path.read_bytes(), given.lane, given.deadline)
            sender.send(record["head"]["image_id"], FORMATS[given.format](record))
    sender.producer.flush()
    print(f"{sender.sent} sent, {sender.failed} failed", file=sys.stderr)
    return 1 if sender.failed else 0


if __name__ == "__main__":
    sys.exit(main())
