"""Which servers are on this machine: no proxy leads there."""

import ipaddress
import socket


def on_this_machine(host: str) -> bool:
    """Return whether a host, as a URL names it, is this machine; asks no name server."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((name, 0))  # to its own addresses only
        except OSError:
            return address.is_loopback
    return True
