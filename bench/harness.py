"""What the benchmarks share: the machine's facts, medians with spread, tables and JSON."""

import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from roadstream.workers.service.machine import usable_cpus

RESULTS = Path(__file__).resolve().parent / "results"
_PACKAGES = (
    "aiokafka", "anyio", "av", "ensemble-boxes", "msgspec", "numba", "numpy", "onnxruntime",
    "opencv-python-headless", "pillow", "simplejpeg", "timm", "torch", "transformers", "uvloop",
)  # fmt: skip


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what a figure was measured.

    Attributes:
        cpu: Model name of the processor.
        cores: Cores this process may use.
        memory: Bytes of main memory.
        load: Load average of the last minute when the run began: above 0.5, somebody else was busy.
        python: Version of the interpreter.
        system: Kernel and architecture.
        packages: Versions of the libraries that matter.
        commit: Revision of the working tree, ``-dirty`` if it had changes.
        date: UTC, ISO 8601.
    """

    cpu: str
    cores: int
    memory: int
    load: float
    python: str
    system: str
    packages: dict[str, str]
    commit: str
    date: str


class Spread(msgspec.Struct, frozen=True):
    """Median of several rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float
    rounds: list[float]

    def text(self, form: str = ",.0f") -> str:
        """Return it as ``median (low to high)``."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise the figures of the rounds; at least one."""
    return Spread(statistics.median(values), min(values), max(values), list(values))


def machine() -> Machine:
    """Return this machine's facts."""
    return Machine(
        cpu=_cpu_model(),
        cores=usable_cpus(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=_versions(),
        commit=_commit(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def cpu_seconds() -> float:
    """Return the processor time of this process so far, all threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_seconds_of(pids: Sequence[int]) -> float:
    """Return the processor time of other processes so far, user and system."""
    tick = os.sysconf("SC_CLK_TCK")
    total = 0
    for pid in pids:
        # Fields 14 and 15 of proc(5) stat, counted after the command name in brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / tick


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, its share of libraries included."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write_result(name: str, facts: dict[str, Any]) -> Path:
    """Write ``bench/results/<name>.json``: the machine, then ``facts``; return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"benchmark": name, "machine": machine(), **facts}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return path


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=max(100, Console().width)).print(table, highlight=False)
