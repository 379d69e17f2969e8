"""The trace of one picture, in small."""

import re
import subprocess
import sys


def test_one_picture_is_traced_through_tier_and_consensus() -> None:
    command = [sys.executable, "-m", "roadstream.bench.parts.path", "--frames"]

    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert re.search(r"roadstream\.tier\.one .* \d\d ", told)
    assert re.search(r"roadstream\.consensus .* \d\d ", told)
    assert "workers/tier/judge.py:Judge.judge\n" in told
