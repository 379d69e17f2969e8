"""From a ``--log`` argument to a log."""

from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import UsageError
from streams.log import Log

LOG_HELP = "embedded:FILE or kafka://host:port[,host:port…]"


def open_log(url: str) -> Log:
    """Return the log that ``url`` names, not yet connected.

    Raises:
        UsageError: The URL is of neither kind.
    """
    if url.startswith("embedded:") and len(url) > len("embedded:"):
        from streams.embedded import EmbeddedLog

        return EmbeddedLog(Path(url.removeprefix("embedded:")))
    if url.startswith("kafka://"):
        from streams.kafka import KafkaLog
        from streams.kafka_settings import KafkaSettings

        servers = urlsplit(url).netloc
        if servers and all(_is_address(server) for server in servers.split(",")):
            return KafkaLog(KafkaSettings(bootstrap_servers=servers))
    raise UsageError(f"--log: expected {LOG_HELP}, got {url!r}")


def _is_address(server: str) -> bool:
    host, _, port = server.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536
