"""Makes HTML out of values that nobody has checked: file names, model texts, errors."""

import html
from typing import NewType

Html = NewType("Html", str)
"""Text that is safe to stand in a page."""


def escape(text: object, most: int = 400) -> Html:
    """Return a value as text in which markup, quotes and control characters are harmless.

    Characters that do not print, among them line ends and those that turn the direction of
    writing, are shown as Python escapes. What is longer than ``most`` characters loses its middle.
    """
    plain = str(text)
    if len(plain) > most:
        plain = f"{plain[: most // 2]} … {plain[-most // 2 :]}"
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain)
    return Html(html.escape(plain))


def join(parts: "list[Html] | tuple[Html, ...]") -> Html:
    """Put pieces of a page one after another."""
    return Html("".join(parts))


def percent(part: int, whole: int) -> str:
    """Return a share in percent, with a decimal."""
    return f"{part / whole:.1%}" if whole else "–"


def seconds(duration: float) -> str:
    """Return a duration with three digits and its unit, from µs to hours."""
    for limit, unit, size in ((1e-3, "µs", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0)):
        if duration < limit:
            return f"{duration / size:.3g} {unit}"
    return f"{duration / 60:.3g} min" if duration < 7200 else f"{duration / 3600:.3g} h"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with fixed decimals, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"
