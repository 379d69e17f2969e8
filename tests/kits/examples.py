"""How many examples Hypothesis tries: a quarter on a laptop, all of them in CI."""

import os

FULL = "ROADSTREAM_TESTS_EXAMPLES"
"""Set to ``full``, as ``.ci/run`` and ``make mutants`` do, every test tries all its examples."""

_FEWEST = 5


def examples(full: int) -> int:
    """Return how many of ``full`` examples a test tries in this run."""
    return full if os.environ.get(FULL) == "full" else min(full, max(_FEWEST, full // 4))
