"""From a ``--log`` argument to a log."""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from roadstream.schemas.errors import UsageError
from roadstream.streams.log import Log
from roadstream.streams.topics.namespace import NamespacedLog, check_namespace
from roadstream.workers.observe.addresses import parse_port
from roadstream.workers.observe.logging import identity

LOG_HELP = "embedded:FILE or kafka://host:port[,host:port…]"

KAFKA_CONFIG = "ROADSTREAM_KAFKA_CONFIG"
"""Environment variable that names a file of Kafka settings; see ``docs/guide/kafka.md``."""


class Address(str):
    """A log's URL with the namespace of its topics and groups.

    Attributes:
        namespace: The namespace; ``None`` for none.
    """

    namespace: str | None = None


def address(url: str, namespace: str | None) -> Address:
    """Return where a command's records lie.

    Raises:
        UsageError: The namespace is none.
    """
    place = Address(url)
    if namespace:  # an empty variable of the environment is none
        place.namespace = check_namespace(namespace)
    return place


def open_log(url: str, asked: Mapping[str, object] | None = None) -> Log:
    """Return the log that ``url`` names, not yet connected.

    Args:
        url: Where it is.
        asked: Settings of Kafka that were asked for on the command line; they count before those
            in the file.

    Raises:
        UsageError: The URL is of neither kind, the file of Kafka settings or what was asked for is
            wrong, or something was asked for of a log that is not Kafka's.
    """
    log = _open(url, asked or {})
    if isinstance(url, Address) and url.namespace is not None:
        return NamespacedLog(log, url.namespace)
    return log


def _open(url: str, asked: Mapping[str, object]) -> Log:
    if url.startswith("embedded:") and len(url) > len("embedded:"):
        from roadstream.streams.embedded.log import EmbeddedLog

        if asked:
            raise UsageError(f"{_option(next(iter(asked)))}: expected a kafka:// log, got {url}")
        return EmbeddedLog(Path(url.removeprefix("embedded:")))
    if url.startswith("kafka://"):
        try:
            servers = urlsplit(url).netloc
        except ValueError:  # half an IPv6 address
            servers = ""
        if "@" in servers:  # not repeated: it may hold a password
            raise UsageError(
                "--log: expected no user or password in the URL, got one; "
                f"they belong into the file that {KAFKA_CONFIG} names, see docs/guide/kafka.md"
            )
        if servers and all(_is_address(server) for server in servers.split(",")):
            return _kafka(servers, asked)
    raise UsageError(f"--log: expected {LOG_HELP}, got {url!r}")


def _kafka(servers: str, asked: Mapping[str, object]) -> Log:
    from roadstream.streams.kafka.log import KafkaLog
    from roadstream.streams.kafka.settings import KafkaSettings, load_kafka_settings

    file = os.environ.get(KAFKA_CONFIG)
    settings = load_kafka_settings(Path(file)) if file else KafkaSettings()
    told = {**msgspec.structs.asdict(settings), **asked, "bootstrap_servers": servers}
    told["client_id"] = settings.client_id or _client_id()
    try:
        return KafkaLog(msgspec.convert(told, KafkaSettings))
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`")
        if not key:  # two settings that do not go together
            raise UsageError(problem) from None
        expected = problem.replace("`", "").removeprefix("Expected ")
        raise UsageError(f"{_option(key)}: expected {expected}, got {asked.get(key)}") from None


def _option(setting: str) -> str:
    """Return the option of the command line that stands for a setting."""
    return f"--{setting.replace('_', '-').removeprefix('topic-')}"


def _client_id() -> str:
    """Return a name that tells this process from all others: what it is, and which member."""
    who = identity()
    kind = who.get("tier") or who.get("service")
    member = who.get("member_id") or f"{socket.gethostname()}-{who['pid']}"
    return re.sub(
        r"[^\w.-]", "_", "-".join(filter(None, ["roadstream", kind, member])), flags=re.ASCII
    )


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and bool(parse_port(port))
