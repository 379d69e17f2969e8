"""What can be set about a Kafka log, and how it is read from a file."""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from roadstream.schemas.errors import ConfigError

PASSWORD_VARIABLE = "ROADSTREAM_KAFKA_PASSWORD"

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Retention = Annotated[float, Meta(ge=60, le=1e9)]
# As wide as the field of Kafka's protocol, or of its settings, that takes it.
Copies = Annotated[int, Meta(ge=1, le=2**15 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Total = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Codec = Literal["gzip", "lz4", "zstd", "snappy"]

_FILES = ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file", "sasl_password_file")
_OURS = re.compile(r"(\w+): expected (.*), got (.*)")
_VALUE = re.compile(r"Invalid enum value (.*)")


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a Kafka cluster and how patient to be. Times are seconds, sizes bytes.

    Args:
        bootstrap_servers: One or more ``host:port``, separated by commas.
        client_id: Name that the brokers' logs and quotas show; ``None`` for one that tells the
            process.
        security_protocol: As Kafka names them: whether TLS, SASL or both are spoken.
        ssl_ca_file: PEM file of the authorities that may have signed the brokers' certificates;
            ``None`` for those the system trusts. Host names are always checked.
        ssl_certificate_file: PEM file of this client's certificate, for brokers that ask for one.
        ssl_key_file: PEM file of its private key, not encrypted; ``None`` if it is in the former.
        sasl_mechanism: How the password is proved. PLAIN sends it, so use it with TLS only.
        sasl_username: User name. The password is never part of settings, see the next two.
        sasl_password_file: File that holds the password. It is read at every connection.
        sasl_password_variable: Environment variable that holds it, if there is no file.
        replication_factor: Copies of new topics; ``None`` for three or as many as brokers exist.
        min_insync_replicas: Copies that must have a record before it is acknowledged; ``None`` for
            two where a topic has three or more, else one.
        retention: How long the records of ``images.*``, ``tier.*`` and ``votes`` are kept, read or
            not: longer than the longest outage that is to cost nothing.
        retention_bytes: Most of those that a partition keeps; ``None`` for no bound.
        answers_retention: How long answers and dead letters are kept; ``None`` for as long.
        topic_compression: How brokers keep votes and answers.
        max_record_bytes: Largest record: a picture of 8 MiB and room for the rest of its record.
        compression: Of what is sent. Pictures do not compress, votes and answers do.
        check_crcs: Verify the brokers' checksums of what is fetched. It takes 20 µs for 30 kB.
        max_partition_fetch_bytes: Most that one fetch brings of one partition. Bounds memory: each
            partition holds one fetch. 16 MiB was measured to be slower than 4.
        fetch_max_wait: How long a broker may hold a fetch that finds nothing. Another partition of
            that broker cannot be fetched meanwhile, so this bounds latency.
        commit_interval: Least time between two commits of offsets; a crash repeats that much work.
        connect_timeout: For connecting.
        request_timeout: For one request to a broker.
        delivery_timeout: For the acknowledgement of published records, with all tries. Less than
            ``session_timeout``, so that nothing a member sends arrives after its successor began.
        session_timeout: After this silence the group gives a member's partitions away.
        rebalance_timeout: How long the group waits for a member that must give up its partitions.
        drain_timeout: How much of that is spent on finishing work.
        stop_timeout: For leaving: the last commit, leaving the group, disconnecting, in all.
        stall_timeout: A consumer that waited this long for records asks whether Kafka still answers
            and whether there were none.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    client_id: str | None = None
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_ca_file: str | None = None
    ssl_certificate_file: str | None = None
    ssl_key_file: str | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password_file: str | None = None
    sasl_password_variable: str = PASSWORD_VARIABLE
    replication_factor: Copies | None = None
    min_insync_replicas: Copies | None = None
    retention: Retention = 604_800.0
    retention_bytes: Total | None = None
    answers_retention: Retention | None = None
    topic_compression: Codec | Literal["producer", "uncompressed"] = "zstd"
    max_record_bytes: Size = 8 * 2**20 + 2**16
    compression: Codec | None = None
    check_crcs: bool = True
    max_partition_fetch_bytes: Size = 4 * 2**20
    fetch_max_wait: Seconds = 0.1
    commit_interval: Seconds = 0.05
    connect_timeout: Seconds = 5.0
    request_timeout: Seconds = 15.0
    delivery_timeout: Seconds = 20.0
    session_timeout: Seconds = 30.0
    rebalance_timeout: Seconds = 60.0
    drain_timeout: Seconds = 40.0
    stop_timeout: Seconds = 5.0
    stall_timeout: Seconds = 30.0

    def __post_init__(self) -> None:
        protocol = self.security_protocol
        if self.uses_sasl and not self.sasl_username:
            raise ValueError(f"sasl_username: expected a user name for {protocol}, got nothing")
        if self.sasl_username and not self.uses_sasl:
            raise ValueError(
                f"security_protocol: expected SASL_SSL for a sasl_username, got {protocol}"
            )
        if not self.uses_tls:
            for name in _FILES[:3]:
                if getattr(self, name):
                    raise ValueError(
                        f"security_protocol: expected SSL or SASL_SSL for {name}, got {protocol}"
                    )
        if self.ssl_key_file and not self.ssl_certificate_file:
            raise ValueError("ssl_certificate_file: expected one beside ssl_key_file, got nothing")
        if self.answers_retention is not None and self.answers_retention < self.retention:
            raise ValueError(
                f"answers_retention: expected at least retention ({self.retention:g}), since what "
                f"is not among the answers is answered again, got {self.answers_retention:g}"
            )
        most = self.rebalance_timeout - self.stop_timeout
        if self.drain_timeout >= most:
            raise ValueError(
                "drain_timeout: expected less than rebalance_timeout - stop_timeout "
                f"({most:g}), got {self.drain_timeout:g}"
            )

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def uses_sasl(self) -> bool:
        """Whether brokers ask for a user name and password."""
        return self.security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}


def load_kafka_settings(path: Path) -> KafkaSettings:
    """Read settings from a TOML file; relative paths in it start at its folder.

    Raises:
        ConfigError: The file is missing, is not TOML, has an unknown key or a wrong value.
    """
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=KafkaSettings)
    except OSError as error:
        raise ConfigError(str(path), "a file of Kafka settings", f"{error.strerror}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(*_explained(path, str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(str(path), "a TOML file", str(error)) from None
    folder = path.resolve().parent
    files = {name: getattr(settings, name) for name in _FILES}
    return msgspec.structs.replace(
        settings, **{name: str(folder / file) for name, file in files.items() if file}
    )


def _explained(path: Path, problem: str) -> tuple[str, str, str]:
    """Return where, expected and got of what msgspec or ``__post_init__`` says."""
    if ours := _OURS.fullmatch(problem):
        return f"{path}: {ours[1]}", ours[2], ours[3]
    said, _, place = problem.replace("`", "").partition(" - at $.")
    where = f"{path}: {place}" if place else str(path)
    if "unknown field" in said:
        key = said.rsplit(" ", 1)[-1]
        return where, "a setting of docs/guide/kafka.md", f"the unknown key {key}"
    if value := _VALUE.fullmatch(said):
        return where, "a value that docs/guide/kafka.md names", value[1]
    expected, _, got = said.removeprefix("Expected ").partition(", got ")
    return where, expected, got or "another value"
