"""A broker that answers, and says that it is where it is not."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack, unpack

import pytest
from aiokafka.protocol.metadata import MetadataResponse_v1

from roadstream.schemas.errors import LogUnavailableError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings

API_VERSIONS, METADATA = 18, 3
SUPPORTED = pack(">hi", 0, 2) + pack(">hhh", API_VERSIONS, 0, 0) + pack(">hhh", METADATA, 0, 1)


@contextmanager
def bootstrap(*advertised: tuple[str, int]) -> Iterator[str]:
    """Serve as a bootstrap server that names these brokers; yield its address."""
    brokers = [(node, *address, None) for node, address in enumerate(advertised)]
    answers = {API_VERSIONS: SUPPORTED, METADATA: MetadataResponse_v1(brokers, 0, []).encode()}

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rb") as asked:
            while head := asked.read(4):
                request = asked.read(*unpack(">i", head))
                key, _, correlation = unpack(">hhi", request[:8])
                body = pack(">i", correlation) + answers[key]
                client.sendall(pack(">i", len(body)) + body)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=[client], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("advertised", "named"),
    [
        ([("no-such-host.invalid", 9092)], "no-such-host.invalid:9092 (there is no such host)"),
        ([("127.0.0.1", 9)], "127.0.0.1:9 (nothing listens there)"),
        (
            [("kafka.invalid", 9092), ("127.0.0.1", 9)],
            "kafka.invalid:9092 (there is no such host) and 127.0.0.1:9 (nothing listens there)",
        ),
    ],
)
async def test_a_broker_that_advertises_what_cannot_be_reached_is_named(
    advertised: list[tuple[str, int]], named: str
) -> None:
    with bootstrap(*advertised) as address:
        log = KafkaLog(KafkaSettings(bootstrap_servers=address))
        with pytest.raises(LogUnavailableError) as failed:
            async with log:
                pass

    assert str(failed.value).startswith(
        f"Kafka at {address} answers, but advertises {named}, which this machine cannot reach; "
        "set that broker's advertised.listeners"
    )
