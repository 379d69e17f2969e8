"""TLS and SASL for Kafka's clients: certificates, the password, and why a broker refuses them.

The password is read when a client is made and given to that client alone: it is in no setting, no
message and no log, aiokafka's own included.
"""

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import anyio
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError

from roadstream.schemas.errors import UsageError
from roadstream.streams.kafka.settings import KafkaSettings

_SASL_AUTHENTICATE = 36
"""Kafka's key of the request that carries credentials."""


def _without_credentials(record: logging.LogRecord) -> bool:
    """Drop what aiokafka logs of requests with credentials when it logs every request."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return all(getattr(arg, "API_KEY", None) != _SASL_AUTHENTICATE for arg in arguments)


logging.getLogger("aiokafka.conn").addFilter(_without_credentials)


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options that every kind of aiokafka's clients takes.

    Raises:
        UsageError: A certificate or the password cannot be read.
    """
    return {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id or "roadstream",
        "request_timeout_ms": int(settings.request_timeout * 1000),
        **_security_options(settings),
    }


def _security_options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.uses_tls:
        options["ssl_context"] = _tls_context(settings)
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.sasl_username
        options["sasl_plain_password"] = _password(settings)
    return options


def _tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Return a context that checks certificates and host names."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"ssl_ca_file: expected a PEM file of certificates, got {settings.ssl_ca_file}: "
            f"{_short(error)}"
        ) from None
    if settings.ssl_certificate_file is not None:
        files = settings.ssl_certificate_file, settings.ssl_key_file
        try:
            context.load_cert_chain(*files, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                "ssl_certificate_file: expected a PEM file of a certificate and its key, got "
                f"{' and '.join(filter(None, files))}: {_short(error)}"
            ) from None
    return context


def _no_password() -> str:
    """Keep OpenSSL from asking at the terminal."""
    raise UsageError("ssl_key_file: expected a key that is not encrypted")


def _password(settings: KafkaSettings) -> str:
    if (file := settings.sasl_password_file) is not None:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"sasl_password_file: expected a text file, got {file}: {_short(error)}"
            ) from None
    password = os.environ.get(settings.sasl_password_variable)
    if not password:
        raise UsageError(
            f"Kafka user {settings.sasl_username}: expected a password in the environment "
            f"variable {settings.sasl_password_variable} or in sasl_password_file, got none"
        )
    return password


async def refusal(settings: KafkaSettings) -> str | None:
    """Say in one line why brokers do not let us in; ``None`` if that is not the trouble.

    aiokafka keeps the reason to itself when none of the servers can be used, so each is asked
    again. It takes up to ``connect_timeout``.

    Raises:
        UsageError: A certificate or the password cannot be read.
    """
    if settings.security_protocol == "PLAINTEXT":
        return None
    options = client_options(settings)
    del options["bootstrap_servers"]
    with anyio.move_on_after(settings.connect_timeout):
        for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False):
            try:
                connection = await create_conn(host, port, **options)
            except (KafkaError, OSError, TimeoutError) as error:
                if (why := _why(settings, error)) is not None:
                    return f"Kafka at {host}:{port} {why}"
            else:
                connection.close()
    return None


def _why(settings: KafkaSettings, error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        if "match" in said:
            return f"has a certificate for another host: {said}"
        return f"has a certificate that is not trusted ({said}); set ssl_ca_file to its authority"
    if isinstance(error, ssl.SSLError):
        return f"does not agree on TLS: {_short(error)}"
    if isinstance(error, SaslAuthenticationFailed):
        return (
            f"refuses the user {settings.sasl_username}: wrong name or password "
            f"({settings.sasl_mechanism})"
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return f"does not offer {settings.sasl_mechanism}"
    return None


def _short(error: BaseException) -> str:
    """Return an operating system's or OpenSSL's words without their numbers."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not readable").lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
