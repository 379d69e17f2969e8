"""Feeds broken inputs to every decoder of the product: ``python -m roadstream.bench.fuzz``.

The inputs are made by atheris, Google's libFuzzer for Python (dependency group ``fuzz``), guided by
the code they reach. Each decoder has a process of its own and an equal part of the time. Only
documented errors may come out: another error, a crash, ten seconds without an end, or two GiB of
memory end its part, and the input is saved. It is tried again by
``python -m roadstream.bench.fuzz.child roadstream.bench.fuzz.targets TARGET FILE``.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from roadstream.bench.fuzz.target import Target
from roadstream.bench.harness import RESULTS, show, write_result

TARGETS = "roadstream.bench.fuzz.targets"
TIMEOUT = 10
"""Seconds for one input; the slowest legal one (a picture of 100 megapixels) takes about one."""
MEMORY_LIMIT = 2 << 10
"""MiB that a process may hold."""
MAX_SIZE = 1 << 16
"""Bytes that an input may grow to; longer ones find little more and cost much."""
WORD_SIZE = 64
"""Bytes of the longest word that libFuzzer takes; longer ones are inputs to begin with."""
START = 300
"""Seconds for a process to come to its first input, and to end."""
_STATS = {
    "inputs": re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE),
    "new": re.compile(r"^stat::new_units_added:\s*(\d+)", re.MULTILINE),
    "peak": re.compile(r"^stat::peak_rss_mb:\s*(\d+)", re.MULTILINE),
}


class Outcome(msgspec.Struct, kw_only=True):
    """What one decoder did with its inputs.

    Attributes:
        target: Its name.
        inputs: How many it was given.
        new: Those of them that reached code which none had reached before.
        peak: Most MiB that its process held.
        saved: File of the input on which it did what it must not; empty if it did not.
        trace: What was seen of that.
    """

    target: str
    inputs: int
    new: int
    peak: int
    saved: str = ""
    trace: str = ""


class Fuzzer:
    """Fuzzes the targets of a module.

    Args:
        module: Has ``targets()``.
        out: Folder for the inputs that are saved.
        corpus: Folder of inputs that reach much, by target; it grows.
    """

    def __init__(self, module: str, out: Path, corpus: Path) -> None:
        self._module, self._out, self._corpus = module, out, corpus
        self.targets: Mapping[str, Target] = importlib.import_module(module).targets()

    def run(self, name: str, seconds: int, *options: str) -> Outcome:
        """Fuzz one target for so long; ``options`` are more of libFuzzer's.

        Raises:
            RuntimeError: Its process came to no input.
        """
        corpus, words = self._prepare(name)
        self._out.mkdir(parents=True, exist_ok=True)
        before = set(self._out.iterdir())
        command = [
            sys.executable, "-m", "roadstream.bench.fuzz.child", self._module, name,
            f"-max_total_time={seconds}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY_LIMIT}",
            f"-max_len={MAX_SIZE}", f"-dict={words}", f"-artifact_prefix={self._out}/{name}-",
            "-print_final_stats=1", "-verbosity=1", *options, str(corpus),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, timeout=seconds + START, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        stats = {key: shown.search(done.stderr) for key, shown in _STATS.items()}
        counts = {key: int(found[1]) for key, found in stats.items() if found is not None}
        saved = [path.name for path in sorted(set(self._out.iterdir()) - before)]
        if len(counts) < len(_STATS) or (done.returncode and not saved):
            raise RuntimeError(f"{name} came to no input: {done.stderr[-2000:]}")
        trace = _trace(done.stdout + done.stderr) if saved else ""
        return Outcome(target=name, **counts, saved=" ".join(saved), trace=trace)

    def _prepare(self, name: str) -> tuple[Path, Path]:
        """Write the inputs to begin with, and the dictionary; return where they are."""
        target, folder = self.targets[name], self._corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        long = [word for word in target.words if len(word) > WORD_SIZE]
        for number, data in enumerate([*target.seeds, *long]):
            (folder / f"seed-{number}").write_bytes(data)
        words = self._corpus / f"{name}.words"
        lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words]
        words.write_text("".join(f'"{line}"\n' for line in lines if len(line) <= 4 * WORD_SIZE))
        return folder, words


def _trace(output: str) -> str:
    """Return what tells of the fault: the error that came out, or libFuzzer's report."""
    begins = re.search(r"=== Uncaught Python exception|==\d+== ?ERROR", output)
    return output[begins.start() if begins else -2000 :][:2000]


def report(outcomes: Sequence[Outcome]) -> None:
    """Print what each target did, and each fault."""
    rows = [
        [one.target, f"{one.inputs:,}", f"{one.new:,}", f"{one.peak:,}", one.saved or "none"]
        for one in outcomes
    ]
    show("Fuzzing", ["target", "inputs", "new code", "peak MiB", "fault"], rows)
    for one in outcomes:
        if one.saved:
            print(f"{one.target}: {one.saved}\n{one.trace}")


def parse(targets: Sequence[str], arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m roadstream.bench.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="over all targets (30)")
    parser.add_argument("--only", action="append", choices=targets, help="target; repeatable")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (1)")
    parser.add_argument("--corpus", type=Path, help="folder of inputs, kept from run to run")
    parser.add_argument("--out", default="fuzz", help="name of the result (fuzz)")
    return parser.parse_args(arguments)


def main() -> None:
    """Fuzz, print a table, write ``bench/results/NAME.json``; exit 1 if anything was found."""
    if find_spec("atheris") is None:
        raise SystemExit("bench.fuzz: expected atheris: uv sync --inexact --group fuzz")
    options = parse(list(importlib.import_module(TARGETS).targets()))
    saved = RESULTS / f"{options.out}-inputs"
    with tempfile.TemporaryDirectory(prefix="roadstream-fuzz-") as folder:
        fuzzer = Fuzzer(TARGETS, saved, options.corpus or Path(folder))
        names = options.only or list(fuzzer.targets)
        seconds = max(1, round(60 * options.minutes / len(names)))
        outcomes = []
        for name in names:
            outcomes.append(fuzzer.run(name, seconds, f"-seed={options.seed}"))
            print(f"{name}: {outcomes[-1].inputs:,} inputs, {outcomes[-1].saved or 'no fault'}",
                  flush=True)  # fmt: skip
    report(outcomes)
    facts = {
        "seed": options.seed,
        "seconds": seconds,
        "inputs": sum(one.inputs for one in outcomes),
        "timeout": TIMEOUT,
        "memory_limit": MEMORY_LIMIT,
        "targets": outcomes,
    }
    print(f"written: {write_result(options.out, facts)}")
    if any(one.saved for one in outcomes):
        sys.exit(1)
    saved.rmdir()
