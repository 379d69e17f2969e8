"""One decoder under atheris: ``python -m roadstream.bench.fuzz.child MODULE TARGET ARGUMENT…``.

The arguments are libFuzzer's: options, then a folder of inputs to begin with. With files instead of
a folder it tries these once, which is how a saved input is repeated.
"""

import gc
import importlib
import logging
import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

from roadstream.bench.fuzz.target import Target


def calling(target: Target) -> Callable[[bytes], None]:
    """Return what gives an input to the target, and raises what it must not raise."""
    call, allowed = target.call, target.allowed

    def try_one(data: bytes) -> None:
        with suppress(*allowed):
            call(data)

    return try_one


def mending(mend: Callable[[bytearray], None]) -> Callable[[bytes, int, int], bytes]:
    """Return a mutator that puts the checksums of every other input right."""

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        changed = bytearray(atheris.Mutate(data, most))
        if seed & 1:
            mend(changed)
        return bytes(changed)

    return mutate


def main() -> None:
    """Fuzz until the time is over or something is found."""
    module, name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["roadstream"]):
        target: Target = importlib.import_module(module).targets()[name]
    logging.disable()
    gc.freeze()
    mutate = {} if target.mend is None else {"custom_mutator": mending(target.mend)}
    atheris.Setup([sys.argv[0], *arguments], calling(target), **mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
