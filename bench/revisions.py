"""Two revisions of this repository against each other: unpacked, run in turn, their ratio."""

import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np

from roadstream.bench.harness import show

HERE = Path(__file__).resolve().parent
# A change of 2 % is the least that these benchmarks can tell in the time that anybody has.
SLOWER = 0.98
LEAST_ROUNDS = 7
CONFIDENCE = 0.95


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the working tree is beside a revision; above 1 it is faster.

    Attributes:
        ratio: Geometric mean of the rounds' ratios, after by before.
        low: Lower end of its 95 % interval: Student's t on the logarithms of the rounds' ratios.
        high: Upper end.
        rounds: The ratio of every round.
    """

    ratio: float
    low: float
    high: float
    rounds: list[float]

    @property
    def slower(self) -> bool:
        """Whether the whole interval lies under 0.98."""
        return self.high < SLOWER

    def text(self) -> str:
        """Return it as ``ratio (low to high)``."""
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


def compare(before: Sequence[float], after: Sequence[float]) -> Comparison:
    """Compare figures of which more is better, measured in pairs, one pair a round.

    Raises:
        ValueError: There are not equally many, or fewer than two.
    """
    ratios = [a / b for a, b in zip(after, before, strict=True)]
    logs = [math.log(ratio) for ratio in ratios]
    if len(logs) < 2:
        raise ValueError(f"expected two rounds or more, got {len(logs)}")
    middle = statistics.fmean(logs)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    reach = reach_of_t(CONFIDENCE, len(logs) - 1) * error
    return Comparison(
        ratio=math.exp(middle),
        low=math.exp(middle - reach),
        high=math.exp(middle + reach),
        rounds=ratios,
    )


def reach_of_t(confidence: float, freedom: int) -> float:
    """Return between which bounds, -x and x, a value of Student's t lies with that probability."""
    angles = np.linspace(0.0, np.pi / 2, 100_001)  # their tangents are t / √freedom
    density = np.cos(angles) ** (freedom - 1)
    mass = np.append(0.0, np.cumsum(density[1:] + density[:-1]))
    return float(np.tan(np.interp(confidence, mass / mass[-1], angles)) * math.sqrt(freedom))


def tree_at(revision: str, folder: Path) -> Path:
    """Unpack a revision of the repository.

    Raises:
        SystemExit: There is no such revision.
    """
    packed = subprocess.run(
        ["git", "archive", revision], cwd=HERE.parent, capture_output=True, check=False
    )
    if packed.returncode:
        raise SystemExit(f"--before {revision}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextmanager
def both_trees(revision: str) -> Iterator[dict[str, Path]]:
    """Unpack a revision while the block runs; yield the trees ``before`` and ``after``."""
    with tempfile.TemporaryDirectory(prefix="roadstream-before-") as folder:
        yield {"before": tree_at(revision, Path(folder)), "after": HERE.parent}


def one_name(tree: Path) -> bool:
    """Return whether the rooms of a tree are packages of ``roadstream``, as since November 2026."""
    return (tree / "src" / "roadstream").is_dir()


def run_module(tree: Path, module: str, *arguments: str, folder: Path | None = None) -> str:
    """Run a module of ``tree`` as a program; see ``python_in``.

    Args:
        tree: Where a revision lies.
        module: As in this tree, with ``roadstream.`` before it.
        arguments: Its arguments.
        folder: The working directory; ``tree`` by default.
    """
    name = module if one_name(tree) else module.removeprefix("roadstream.")
    return python_in(tree, "-m", name, *arguments, folder=folder)


def python_in(tree: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run a fresh Python that imports from ``tree``; return its standard output.

    Raises:
        SystemExit: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder or tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src" if one_name(tree) else tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"void: {tree}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def in_turn(
    trees: Mapping[str, Path], rounds: int, run: Callable[[Path], Mapping[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """Measure trees in turn, the first of a round being the last of the next, after a warm-up.

    Args:
        trees: By name.
        rounds: Timed rounds.
        run: Measures one tree in fresh processes and returns figures by name.

    Returns:
        Per figure and tree, what each round found.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        names = list(trees) if number % 2 else list(trees)[::-1]
        for name in names:
            figures = run(trees[name])
            label = f"round {number}" if number else "warm-up"
            told = ", ".join(f"{what} {figure:,.1f}" for what, figure in figures.items())
            print(f"{label}: {name}: {told}", flush=True)
            for what, figure in figures.items() if number else ():
                found.setdefault(what, {tree: [] for tree in trees})[name].append(figure)
    return found


def verdict(
    title: str, found: Mapping[str, Mapping[str, Sequence[float]]]
) -> tuple[dict[str, Comparison], bool]:
    """Compare what ``in_turn`` found and print it; return that, and whether anything is slower."""
    compared = {what: compare(trees["before"], trees["after"]) for what, trees in found.items()}
    rows = [
        [
            what,
            f"{statistics.median(found[what]['before']):,.1f}",
            f"{statistics.median(found[what]['after']):,.1f}",
            one.text(),
            "slower" if one.slower else "not slower",
        ]
        for what, one in compared.items()
    ]
    columns = ["images/s", "before, median", "after, median", "ratio, 95 % interval", "verdict"]
    show(title, columns, rows)
    return compared, any(one.slower for one in compared.values())


def check_rounds(rounds: int) -> int:
    """Return the number of rounds of a comparison.

    Raises:
        SystemExit: They are too few for an interval that says anything.
    """
    if rounds < LEAST_ROUNDS:
        raise SystemExit(f"--rounds: expected {LEAST_ROUNDS} or more with --before, got {rounds}")
    return rounds
