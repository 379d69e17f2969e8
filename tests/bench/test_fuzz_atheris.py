"""The fuzzer sees decoders that do not keep their promises; it needs atheris."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from roadstream.bench.fuzz.command import Fuzzer

FAULTY = "tests.kits.fuzz_faulty"
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="atheris is made for Linux on x86-64",
)


@pytest.mark.parametrize(
    ("target", "option", "kind", "seen"),
    [
        ("crash", "-runs=9", "crash", "deadly signal"),
        ("hang", "-timeout=1", "timeout", "libFuzzer: timeout"),
        ("error", "-runs=9", "crash", "KeyError: b'seed'"),
        ("leak", "-rss_limit_mb=300", "oom", "out-of-memory"),
    ],
)
def test_the_fuzzer_saves_the_input_on_which_a_decoder_does_what_it_must_not(
    target: str, option: str, kind: str, seen: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    outcome = Fuzzer(FAULTY, out, tmp_path / "corpus").run(target, 60, option)

    assert outcome.saved.startswith(f"{target}-{kind}-")
    assert seen in outcome.trace
    if target in ("crash", "error"):
        assert (out / outcome.saved).read_bytes() == b"seed"
        again = [sys.executable, "-m", "roadstream.bench.fuzz.child", FAULTY, target]
        repeated = subprocess.run([*again, str(out / outcome.saved)], check=False, timeout=60)
        assert repeated.returncode != 0


def test_the_fuzzer_says_that_nothing_was_found_and_keeps_what_reaches_more(tmp_path: Path) -> None:
    outcome = Fuzzer(FAULTY, tmp_path / "out", tmp_path / "corpus").run("fine", 60, "-runs=500")

    assert (outcome.saved, outcome.trace) == ("", "")
    assert outcome.inputs >= 500
    assert {path.name for path in (tmp_path / "corpus" / "fine").iterdir()} >= {"seed-0", "seed-1"}
