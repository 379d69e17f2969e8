"""Makes a page out of values that nobody has checked: file names, model texts, errors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment() -> "Environment":
    """Return what renders the templates; values become text in which markup is harmless.

    Characters that do not print, among them line ends and those that turn the direction of
    writing, are shown as Python escapes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "commas": "{:,}".format,
        "cut": cut,
        "number": number,
        "percent": percent,
        "seconds": seconds,
    }
    return made


def printable(value: object) -> object:
    """Return a text with escapes for what does not print; markup of a template stays as it is."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)


def cut(value: object, most: int) -> str:
    """Return a value as a text; what is longer than ``most`` characters loses its middle."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"


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
