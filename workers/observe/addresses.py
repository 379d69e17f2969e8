"""Addresses that a process listens on: as people type them, and whether they are free."""

import contextlib
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from roadstream.schemas.errors import UsageError

LOOPBACK = "127.0.0.1"
MOST_PORT = 65535


def parse_port(text: str) -> int | None:
    """Return the number of a port, 0 to 65535; ``None`` if the text is none."""
    # Other scripts have digits as well, and too many of them are no number.
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return port if (port := int(text)) <= MOST_PORT else None


class Address(NamedTuple):
    """Where to listen; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse ``HOST:PORT``, or a port alone for this machine only.

    Raises:
        UsageError: It is neither.
    """
    host, _, digits = text.rpartition(":")
    port = parse_port(digits)
    if port is None:
        raise UsageError(f"--metrics: expected HOST:PORT or a port, got {text!r}")
    return Address(host.strip("[]") or LOOPBACK, port)


def family_of(host: str) -> int:
    """Return the address family of a host: of IPv4 or of IPv6."""
    return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0][0]


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn what the system says against listening at an address into a ``UsageError``."""
    try:
        yield
    except (OSError, UnicodeError) as error:  # the latter of a name that DNS could not have
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(f"--metrics {address}: {reason}") from error


def check_free(addresses: Iterable[Address]) -> None:
    """Check that nobody else listens at some addresses.

    Raises:
        UsageError: Somebody does, or a host is not this machine's.
    """
    with contextlib.ExitStack() as stack:
        for address in addresses:
            with explained(address):
                family = family_of(address.host)
                probe = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)


def free_ports(host: str, count: int) -> list[int]:
    """Return ports that nobody listens on just now.

    Raises:
        UsageError: The host is not this machine's.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            with explained(Address(host, 0)):
                probe = stack.enter_context(socket.socket(family_of(host), socket.SOCK_STREAM))
                probe.bind((host, 0))
            ports.append(probe.getsockname()[1])
        return ports
