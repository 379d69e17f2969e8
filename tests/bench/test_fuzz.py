"""Decoders keep their promises on nearly good inputs."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roadstream.bench.fuzz.target import mend_png
from roadstream.bench.fuzz.targets import targets
from tests.kits.examples import examples

TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_takes_good_inputs(name: str) -> None:
    target, accepted = TARGETS[name], 0
    for seed in target.seeds:
        with suppress(*target.allowed):
            target.call(seed)
            accepted += 1
    assert accepted > 0


@pytest.mark.parametrize("name", TARGETS)
def test_a_decoder_takes_an_input_with_another_piece_or_refuses_it_as_documented(name: str) -> None:
    target = TARGETS[name]
    pieces = st.sampled_from(target.words) | st.binary(max_size=6)
    slow = name in ("log-file", "run-file")

    @settings(deadline=None, max_examples=examples(20 if slow else 100),
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(st.sampled_from(target.seeds), st.lists(pieces, min_size=1, max_size=3), st.data())
    def takes_or_refuses(seed: bytes, some: list[bytes], draw: st.DataObject) -> None:
        data = bytearray(seed)
        for piece in some:
            at = draw.draw(st.integers(0, len(data)))
            data[at : at + draw.draw(st.integers(0, 8))] = piece
        if target.mend is not None and draw.draw(st.booleans()):
            target.mend(data)
        with suppress(*target.allowed):
            target.call(bytes(data))

    takes_or_refuses()


def test_a_mended_png_is_good_again() -> None:
    good = TARGETS["picture-png"].seeds[0]
    data = bytearray(good)
    data[29:33] = b"\0\0\0\0"  # the checksum of its header
    mend_png(data)
    assert data == good
