"""Feeds broken inputs to every decoder of the product: ``python -m roadstream.bench.fuzz``.

Each target gets a process of its own, so that a crash, a hang or a leak is seen and told, with the
input saved; the process is started anew after it. Inputs follow from the seed and their number, so
``--target NAME --seed S`` repeats a run exactly. Only documented errors may come out.
"""

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from roadstream.bench.fuzz.child import (
    BOARD,
    Counts,
    Finished,
    Mistake,
    Plan,
    Step,
    input_number,
    save,
)
from roadstream.bench.fuzz.mutations import Target
from roadstream.bench.harness import RESULTS, cpu_seconds_of, show, write_result

TARGETS = "roadstream.bench.fuzz.targets"
HANG_AFTER = 10.0
"""Seconds of processor time for one input; the slowest legal one (a picture of 100 megapixels)
takes about one."""
IDLE_FACTOR = 6
"""So many times longer it may take by the clock on the wall: other processes want to run too."""
START_AFTER = 300.0
"""Seconds for a process to come to its first input."""
GROWTH_LIMIT = 32 << 20
"""Bytes that a process may hold more after a target's last input than when it was warm."""
MAX_FALLS = 50
"""Crashes and hangs after which a run is given up."""
_LOOK_EVERY = 0.05


class Outcome(msgspec.Struct, kw_only=True):
    """What one target did with its inputs.

    Attributes:
        target: Its name.
        inputs: Inputs it was given.
        accepted: Those that decoded.
        refused: Those refused with a documented error.
        mistaken: Those on which it did what it must not.
        mistakes: One entry per different mistake.
        growth: Most bytes held more at the end of a process than when it was warm.
        ended: Whether it came to its last input.
        seconds: Processor time it took.
    """

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    mistaken: int = 0
    mistakes: list[Mistake] = []
    growth: int = 0
    ended: bool = False
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return self.ended and not self.mistakes and self.growth <= GROWTH_LIMIT

    def add(self, counts: Counts) -> None:
        """Add what became of some inputs."""
        self.accepted += counts.accepted
        self.refused += counts.refused
        self.mistaken += counts.mistaken
        self.inputs += counts.accepted + counts.refused + counts.mistaken


class _Fall(NamedTuple):
    """How a process ended that should not have."""

    kind: str
    what: str
    trace: str


class Run:
    """Targets in one child process, which is started anew after each crash or hang.

    Args:
        plan: What to do.
        out: Folder for the inputs that were mistaken.
        hang_after: Seconds of processor time for one input.
    """

    def __init__(self, plan: Plan, out: Path, hang_after: float = HANG_AFTER) -> None:
        self._plan, self._out, self._hang_after = plan, out, hang_after
        self._todo = list(plan.steps)
        self.outcomes = {step.target: Outcome(target=step.target) for step in plan.steps}

    def run(self) -> list[Outcome]:
        """Run until every step is done, or too many processes fell."""
        falls = 0
        while self._todo and falls <= MAX_FALLS:
            with tempfile.TemporaryDirectory(prefix="roadstream-fuzz-") as folder:
                falls += self._one_process(Path(folder))
        return list(self.outcomes.values())

    def _one_process(self, folder: Path) -> bool:
        plan, board, errors = folder / "plan", folder / "board", folder / "stderr"
        findings = folder / "findings"
        plan.write_bytes(msgspec.json.encode(msgspec.structs.replace(self._plan, steps=self._todo)))
        board.write_bytes(BOARD.pack(0, self._todo[0].first, 0.0, 0.0, 0, 0, 0))
        findings.touch()
        paths = map(str, (plan, board, findings, self._out))
        command = [sys.executable, "-m", "roadstream.bench.fuzz.child", *paths]
        with errors.open("wb") as stderr, subprocess.Popen(command, stderr=stderr) as child:
            try:
                hung = self._wait(child, board)
            finally:
                child.kill()
        self._read(findings)
        trace = errors.read_text(errors="replace")[-2000:]
        if not BOARD.unpack(board.read_bytes())[2]:
            raise RuntimeError(f"the process came to no input: {trace}")
        fall = None
        if hung:
            fall = _Fall("hang", hung, trace)
        elif child.returncode:
            fall = _Fall("crash", _signal_name(child.returncode), trace)
        self._todo = self._rest(board.read_bytes(), fall) if fall else []
        return fall is not None

    def _wait(self, child: "subprocess.Popen[bytes]", board: Path) -> str | None:
        """Wait for the end; return what to say if an input takes too long."""
        started_at = time.monotonic()
        while True:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK_EVERY)
                return None
            _, _, began_at, used, *_ = BOARD.unpack(board.read_bytes())
            if not began_at:
                if time.monotonic() - started_at > START_AFTER:
                    return "no first input"
            elif cpu_seconds_of([child.pid]) - used > self._hang_after:
                return f"no end after {self._hang_after:g} s of processor time"
            elif time.monotonic() - began_at > IDLE_FACTOR * self._hang_after:
                return f"no end after {IDLE_FACTOR * self._hang_after:g} s"

    def _read(self, findings: Path) -> None:
        lines = msgspec.json.Decoder(Mistake | Finished).decode_lines(findings.read_bytes())
        for line in lines:
            outcome = self.outcomes[line.target]
            if isinstance(line, Mistake):
                outcome.mistakes = [*outcome.mistakes, line]
            else:
                outcome.add(line.counts)
                outcome.growth = max(outcome.growth, line.end - line.warm)
                outcome.seconds += line.seconds
                outcome.ended = True

    def _rest(self, board: bytes, fall: _Fall) -> list[Step]:
        """Note a crash or a hang with its input; return the steps that are left after it."""
        index, number, _, _, *counts = BOARD.unpack(board)
        step = self._todo[index]
        outcome = self.outcomes[step.target]
        target = _targets(self._plan.module)[step.target]
        data = target.mutator.input(input_number(self._plan.seed, number))
        mistake = Mistake(
            target=step.target,
            number=number,
            kind=fall.kind,
            what=fall.what,
            trace=fall.trace,
            saved=save(self._out, step.target, number, data),
        )
        outcome.mistakes = [*outcome.mistakes, mistake]
        outcome.add(Counts(*counts))
        outcome.add(Counts(mistaken=1))
        outcome.ended = number + 1 >= step.end
        rest = [] if outcome.ended else [Step(step.target, number + 1, step.end)]
        return [*rest, *self._todo[index + 1 :]]


def _signal_name(status: int) -> str:
    if status < 0:
        with suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit status {status}"


def _targets(module: str) -> Mapping[str, Target]:
    found: Mapping[str, Target] = importlib.import_module(module).targets()
    return found


def steps(targets: Mapping[str, Target], inputs: int, names: Sequence[str]) -> list[Step]:
    """Share ``inputs`` among the named targets, or all if none is named."""
    chosen = {name: targets[name].share for name in names or targets}
    total = sum(chosen.values())
    return [Step(name, 0, max(1, round(inputs * part / total))) for name, part in chosen.items()]


def report(outcomes: Sequence[Outcome]) -> None:
    """Print what each target did, and each mistake."""
    rows = [
        [
            outcome.target,
            f"{outcome.inputs:,}",
            f"{outcome.accepted:,}",
            f"{outcome.refused:,}",
            f"{outcome.mistaken:,}",
            f"{outcome.growth / (1 << 20):.1f}",
            f"{outcome.seconds:.1f}",
        ]
        for outcome in outcomes
    ]
    columns = ["target", "inputs", "accepted", "refused", "mistaken", "growth MiB", "CPU s"]
    show("Fuzzing", columns, rows)
    for outcome in outcomes:
        for mistake in outcome.mistakes:
            print(f"{mistake.kind}: {mistake.target} {mistake.saved}: {mistake.what}")
        if outcome.growth > GROWTH_LIMIT:
            print(f"growth: {outcome.target}: {outcome.growth:,} bytes")


def earlier(name: str, seed: int) -> dict[str, Outcome]:
    """Return what an earlier run under this seed found clean, by target; nothing if there is none.

    Only targets that came to their end count; the others are done again.
    """
    try:
        data = (RESULTS / f"{name}.json").read_bytes()
    except FileNotFoundError:
        return {}
    found = msgspec.json.decode(data, type=_Result)
    return {o.target: o for o in found.targets if found.seed == seed and o.clean}


class _Result(msgspec.Struct):
    seed: int
    targets: list[Outcome]


def run_all(options: argparse.Namespace, targets: Mapping[str, Target]) -> list[Outcome]:
    """Fuzz the targets one after another, writing the result anew after each."""
    kept = earlier(options.out, options.seed) if options.resume else {}
    saved = RESULTS / f"{options.out}-inputs"
    saved.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for step in steps(targets, options.inputs, options.target):
        outcome = kept.get(step.target)
        if outcome is None or outcome.inputs != step.end:
            (outcome,) = Run(Plan(TARGETS, options.seed, [step]), saved).run()
        outcomes.append(outcome)
        print(
            f"{step.target}: {outcome.inputs:,} inputs, {len(outcome.mistakes)} mistakes",
            flush=True,
        )
        facts = {
            "seed": options.seed,
            "inputs": sum(outcome.inputs for outcome in outcomes),
            "mistaken": sum(outcome.mistaken for outcome in outcomes),
            "hang_after": HANG_AFTER,
            "growth_limit": GROWTH_LIMIT,
            "targets": outcomes,
        }
        write_result(options.out, facts)
    with suppress(OSError):  # nothing was saved
        saved.rmdir()
    return outcomes


def main() -> None:
    """Fuzz, print a table, write ``bench/results/NAME.json``; exit 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m roadstream.bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--out", default="fuzz", help="name of the result")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run finished")
    options = parser.parse_args()
    targets = _targets(TARGETS)
    if unknown := sorted(set(options.target) - set(targets)):
        parser.error(f"--target: expected one of {', '.join(targets)}, got {', '.join(unknown)}")
    outcomes = run_all(options, targets)
    report(outcomes)
    if not all(outcome.clean for outcome in outcomes):
        sys.exit(1)
