"""The process that eats the fuzzer's inputs; it may crash, hang or grow, and its parent sees it.

``python -m roadstream.bench.fuzz.child PLAN BOARD FINDINGS INPUTS``: the plan is JSON, the board a
small file mapped into memory where the parent reads which input is being tried, the findings a
JSONL file; inputs that were mistaken go to the folder ``INPUTS``.
"""

import ctypes
import faulthandler
import gc
import importlib
import mmap
import os
import resource
import struct
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import msgspec

from roadstream.bench.fuzz.mutations import Target
from roadstream.bench.harness import resident_bytes

BOARD = struct.Struct("<QQddQQQ")
"""Step of the plan, number of the input, when it began (on the monotonic clock, and in seconds of
processor time), and three counts."""
WARM_SHARE, WARM_LEAST = 0.2, 200
"""The process is warm after this share of a target's inputs, or this many if that is more."""
MEMORY_LIMIT = 8 << 30
"""Bytes of address space; a decoder that wants more gets ``MemoryError``, not the whole machine."""
DIFFERENT = 50
"""Different mistakes of one process that are written down with their inputs."""


class Step(msgspec.Struct, frozen=True):
    """Numbers ``first`` up to ``end`` of one target's inputs."""

    target: str
    first: int
    end: int


class Plan(msgspec.Struct, frozen=True):
    """What a child is to do.

    Attributes:
        module: Where ``targets()`` is.
        seed: Chooses the inputs.
        steps: In order.
    """

    module: str
    seed: int
    steps: list[Step]


class Mistake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An input on which a target did what it must not.

    Attributes:
        target: Name of the target.
        number: Number of the input.
        kind: ``error``, ``crash`` or ``hang``.
        what: The error's last line, the signal, or the seconds waited.
        trace: Where, as far as it is known.
        saved: File of the input.
    """

    target: str
    number: int
    kind: str
    what: str
    trace: str = ""
    saved: str = ""


class Counts(msgspec.Struct):
    """What became of the inputs: accepted, refused with a documented error, or a mistake."""

    accepted: int = 0
    refused: int = 0
    mistaken: int = 0


class Finished(msgspec.Struct, frozen=True, tag=True):
    """A step came to its end.

    Attributes:
        target: Name of the target.
        counts: What became of its inputs.
        warm: Bytes that the process held when it was warm.
        end: Bytes that it held after the last input.
        seconds: Processor time it took.
    """

    target: str
    counts: Counts
    warm: int
    end: int
    seconds: float


def input_number(seed: int, number: int) -> int:
    """Return the number under which the mutator makes this input."""
    return (seed & 0xFFFFFF) << 40 | number


class Child:
    """Eats the inputs of one plan."""

    def __init__(self, plan: Plan, board: mmap.mmap, findings: Path, inputs: Path) -> None:
        self._plan, self._board, self._findings, self._inputs = plan, board, findings, inputs
        self._targets: dict[str, Target] = importlib.import_module(plan.module).targets()
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Take every step; write what is found."""
        gc.freeze()  # what is there now stays, so that tidying up need not look at it
        for index, step in enumerate(self._plan.steps):
            self._step(index, step)

    def _step(self, index: int, step: Step) -> None:
        target, counts = self._targets[step.target], Counts()
        make, call, allowed = target.mutator.input, target.call, target.allowed
        total, began_at = step.end - step.first, time.process_time()
        warm_at = step.first + min(max(WARM_LEAST, int(WARM_SHARE * total)), total - 1)
        warm = 0
        for number in range(step.first, step.end):
            self._note(index, number, counts)
            data = make(input_number(self._plan.seed, number))
            try:
                call(data)
                counts.accepted += 1
            except allowed:
                counts.refused += 1
            except Exception as error:  # whatever else comes out is what is looked for
                counts.mistaken += 1
                self._mistake(step.target, number, data, error)
            if number == warm_at:
                warm = held_bytes()
        seconds = time.process_time() - began_at
        self._write(Finished(step.target, counts, warm, held_bytes(), seconds))

    def _note(self, index: int, number: int, counts: Counts) -> None:
        BOARD.pack_into(
            self._board, 0, index, number, time.monotonic(), time.process_time(),
            counts.accepted, counts.refused, counts.mistaken,
        )  # fmt: skip

    def _mistake(self, target: str, number: int, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        key = (target, f"{type(error).__name__} at {place}")
        if key in self._seen or len(self._seen) >= DIFFERENT:
            return
        self._seen.add(key)
        trace = "".join(traceback.format_exception(error))[-2000:]
        what = f"{type(error).__name__}: {error}"[:300]
        saved = save(self._inputs, target, number, data)
        self._write(
            Mistake(target=target, number=number, kind="error", what=what, trace=trace, saved=saved)
        )

    def _write(self, line: Mistake | Finished) -> None:
        with self._findings.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def save(folder: Path, target: str, number: int, data: bytes) -> str:
    """Write an input down; return the file's name."""
    path = folder / f"{target}-{number}.bin"
    path.write_bytes(data)
    return path.name


def held_bytes() -> int:
    """Return the resident bytes that the process holds on to, after tidying up."""
    gc.collect()
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes(os.getpid())


def main() -> None:
    """Obey the plan that the arguments name."""
    plan_path, board_path, findings, inputs = map(Path, sys.argv[1:5])
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    plan = msgspec.json.decode(plan_path.read_bytes(), type=Plan)
    with board_path.open("r+b") as file, mmap.mmap(file.fileno(), BOARD.size) as board:
        Child(plan, board, findings, inputs).run()


if __name__ == "__main__":
    main()
