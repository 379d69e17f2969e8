"""Ports, as people type them."""

MOST_PORT = 65535


def parse_port(text: str) -> int | None:
    """Return the number of a port, 0 to 65535; ``None`` if the text is none."""
    # Other scripts have digits as well, and too many of them are no number.
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    return port if (port := int(text)) <= MOST_PORT else None
