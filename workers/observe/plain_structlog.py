"""Imported by the command line before structlog is: its console for developers does without rich.

With rich it would load Pygments and tracebacks in colours, a tenth of a command's start, for
lines that nothing here shows.
"""

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog  # noqa: F401

    del sys.modules["rich"]
