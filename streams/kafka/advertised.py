"""Finds brokers that advertise an address which does not answer, the usual trouble of containers.

A client reaches a bootstrap server, is told where the brokers are, and goes on there.
"""

import socket

import anyio
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from roadstream.streams.kafka.security import client_options
from roadstream.streams.kafka.settings import KafkaSettings

_PATIENCE = 3.0
"""Seconds for asking all bootstrap servers, and trying all brokers."""
_TRY = 1.0
"""Seconds for a broker to let us connect."""


async def misled(settings: KafkaSettings) -> str | None:
    """Say in one line where brokers say that they are and are not; ``None`` without such.

    Raises:
        UsageError: A certificate or the password cannot be read.
    """
    options = client_options(settings)
    del options["bootstrap_servers"]
    with anyio.move_on_after(_PATIENCE):
        for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False):
            try:
                connection = await create_conn(host, port, **options)
                try:
                    told = await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
            except (KafkaError, OSError, TimeoutError):
                continue
            wrong = [at for _, *to, _ in told.brokers if (at := await _silent(*to)) is not None]
            if wrong:
                return (
                    f"Kafka at {host}:{port} answers, but advertises {' and '.join(wrong)}, which "
                    "this machine cannot reach; set that broker's advertised.listeners to an "
                    "address that its clients reach, or start what should be there"
                )
    return None


async def _silent(host: str, port: int) -> str | None:
    """Return an address with what is wrong with it; ``None`` if one can connect to it."""
    try:
        with anyio.fail_after(_TRY):
            await (await anyio.connect_tcp(host, port)).aclose()
    except socket.gaierror:
        return f"{host}:{port} (there is no such host)"
    except TimeoutError:
        return f"{host}:{port} (no answer within {_TRY:g} s)"
    except OSError:
        return f"{host}:{port} (nothing listens there)"
    return None
