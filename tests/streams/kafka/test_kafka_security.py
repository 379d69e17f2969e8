"""TLS and SASL against a real broker: who gets in, and what is said to those who do not."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import anyio
import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from roadstream.schemas.errors import UsageError
from roadstream.streams.kafka.log import KafkaLog, KafkaSettings
from roadstream.streams.log import Output
from roadstream.workers.broker.cluster import BrokerSettings
from roadstream.workers.broker.process import java, kafka_jars
from tests.kits.kafka_fixture import new_brokers

PASSWORD = "correct-horse-7413"
WRONG = "wrong-battery-2690"
VARIABLE = "ROADSTREAM_KAFKA_PASSWORD"


class Certificates:
    """An authority, a broker's certificate for 127.0.0.1, a client's, and a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority, stranger = trustme.CA(), trustme.CA()
        self.ca, self.stranger = folder / "ca.pem", folder / "stranger.pem"
        authority.cert_pem.write_to_path(self.ca)
        stranger.cert_pem.write_to_path(self.stranger)
        self.broker = self._keep(authority.issue_cert("127.0.0.1"), "broker.pem")
        self.client = self._keep(authority.issue_cert("camera@example.org"), "client.pem")

    def _keep(self, issued: trustme.LeafCert, name: str) -> Path:
        """Write key and certificates into one file; Kafka reads keys in PKCS 8 only."""
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.folder / name
        path.write_bytes(text + b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def secure_broker(certificates: Certificates) -> AsyncIterator[tuple[str, str]]:
    """Run a broker; yield the addresses where it wants a password, and a client's certificate."""
    sasl, tls = free_port(), free_port()
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    extra = {
        "listeners": "PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port},"
        f"SASL://{{host}}:{sasl},TLS://{{host}}:{tls}",
        "advertised.listeners": "PLAINTEXT://{host}:{port},"
        f"SASL://{{host}}:{sasl},TLS://{{host}}:{tls}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "SASL:SASL_SSL,TLS:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": f'{plain} user_camera="{PASSWORD}";',
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
    }
    async with new_brokers(BrokerSettings(extra=extra)) as cluster:
        await add_scram_user(cluster.bootstrap_servers, "camera", PASSWORD)
        yield f"127.0.0.1:{sasl}", f"127.0.0.1:{tls}"


async def add_scram_user(servers: str, name: str, password: str) -> None:
    jars = await kafka_jars()
    config = f"SCRAM-SHA-512=[iterations=4096,password={password}]"
    command = [java(), "-cp", f"{jars}/*", "kafka.admin.ConfigCommand", "--alter"]
    where = ["--bootstrap-server", servers, "--entity-type", "users", "--entity-name", name]
    done = await anyio.run_process([*command, *where, "--add-config", config], stderr=PIPE)
    assert b"Completed" in done.stdout


async def round_trip(settings: KafkaSettings, topic: str) -> None:
    """Use each kind of client: admin, producer, reader, group member, probe."""
    async with KafkaLog(settings) as log, log.producer() as producer:
        await log.create_topics([topic], 1)
        await producer.publish([Output(topic, None, b"hello")])
        async with log.reader(topic, "beginning") as reader:
            with anyio.fail_after(20):
                while not await reader.poll(max_records=1, timeout=0.2):
                    pass
        async with log.consumer(topic, [topic]) as consumer:
            with anyio.fail_after(20):
                while not await consumer.poll(max_records=1, timeout=0.2):
                    pass
        assert await log.lag(topic, [topic]) == 1


@pytest.mark.kafka
@pytest.mark.usefixtures("kafka_bootstrap")
async def test_tls_and_sasl_on_a_real_broker(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # One test, since one broker takes as long as everything that is asked of it.
    caplog.set_level(logging.DEBUG, "aiokafka")
    certificates = Certificates(tmp_path)
    monkeypatch.setenv(VARIABLE, PASSWORD)
    async with secure_broker(certificates) as (sasl, tls):
        scram = KafkaSettings(
            bootstrap_servers=sasl,
            security_protocol="SASL_SSL",
            ssl_ca_file=str(certificates.ca),
            sasl_username="camera",
        )
        plain = msgspec.structs.replace(scram, sasl_mechanism="PLAIN")
        await round_trip(scram, "scram")
        await round_trip(plain, "plain")
        await round_trip(await mutual_tls(certificates, tls), "mutual")

        other_name = sasl.replace("127.0.0.1", "localhost")
        strange = str(certificates.stranger)
        replace = msgspec.structs.replace
        said = [
            await error_of(replace(scram, ssl_ca_file=strange)),
            await error_of(replace(scram, bootstrap_servers=other_name)),
            await error_of(replace(scram, sasl_mechanism="SCRAM-SHA-256")),
        ]
        monkeypatch.setenv(VARIABLE, WRONG)
        said += [await error_of(scram), await error_of(plain)]
        said.append(await error_of(replace(plain, sasl_username="nobody")))

    assert said[0].startswith(f"Kafka at {sasl} has a certificate that is not trusted (")
    assert said[0].endswith("; set ssl_ca_file to its authority")
    assert said[1].startswith(f"Kafka at {other_name} has a certificate for another host: ")
    assert said[2:] == [
        f"Kafka at {sasl} does not offer SCRAM-SHA-256",
        f"Kafka at {sasl} refuses the user camera: wrong name or password (SCRAM-SHA-512)",
        f"Kafka at {sasl} refuses the user camera: wrong name or password (PLAIN)",
        f"Kafka at {sasl} refuses the user nobody: wrong name or password (PLAIN)",
    ]
    output = capfd.readouterr()
    everything = caplog.text + output.out + output.err + repr(scram) + "".join(said)
    assert "Authenticated as camera via PLAIN" in everything  # the debug log was on
    assert PASSWORD not in everything
    assert WRONG not in everything


async def mutual_tls(certificates: Certificates, address: str) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=address,
        security_protocol="SSL",
        ssl_ca_file=str(certificates.ca),
        ssl_certificate_file=str(certificates.client),
    )


async def error_of(settings: KafkaSettings) -> str:
    with pytest.raises(UsageError) as caught:
        async with KafkaLog(settings):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value)
