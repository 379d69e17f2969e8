"""Targets that do what a decoder must not, on chosen inputs: the fuzzer has to see each."""

import os
import signal
import time

from roadstream.bench.fuzz.mutations import Mutator, Target

_leaked: list[bytes] = []


class _Numbers(Mutator):
    """Makes each input from its number alone, so that a target can choose."""

    def input(self, number: int) -> bytes:
        return b"%d" % (number & 0xFFFFFFFF)


def _crash(data: bytes) -> None:
    if data == b"7":
        os.kill(os.getpid(), signal.SIGSEGV)


def _hang(data: bytes) -> None:
    if data == b"7":
        time.sleep(60)


def _error(data: bytes) -> None:
    if data in {b"3", b"5"}:
        raise KeyError(data)
    raise ValueError(data)


def _leak(data: bytes) -> None:
    _leaked.append(b"x" * (1 << 18))  # of zeros, untouched pages would cost nothing


def targets() -> dict[str, Target]:
    numbers = _Numbers([b""])
    return {
        "crash": Target(1, numbers, _crash, ()),
        "hang": Target(1, numbers, _hang, ()),
        "error": Target(1, numbers, _error, (ValueError,)),
        "leak": Target(1, numbers, _leak, ()),
    }
