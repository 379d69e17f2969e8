"""Targets that do what a decoder must not, on their only seed: the fuzzer has to see each."""

import os
import signal
import time

from roadstream.bench.fuzz.target import Target

_kept: list[bytes] = []


def _crash(data: bytes) -> None:
    if data == b"seed":
        os.kill(os.getpid(), signal.SIGSEGV)


def _hang(data: bytes) -> None:
    if data == b"seed":
        time.sleep(60)


def _error(data: bytes) -> None:
    if data == b"seed":
        raise KeyError(data)
    raise ValueError(data)


def _leak(data: bytes) -> None:
    _kept.append(b"x" * (8 << 20))  # of zeros, untouched pages would cost nothing


def targets() -> dict[str, Target]:
    return {
        "crash": Target([b"seed"], [b"word"], _crash),
        "hang": Target([b"seed"], [b"word"], _hang),
        "error": Target([b"seed"], [b"word"], _error, (ValueError,)),
        "leak": Target([b"seed"], [b"word"], _leak),
        "fine": Target([b"other"], [b"x" * 65, b'"\\'], _error, (KeyError, ValueError)),
    }
