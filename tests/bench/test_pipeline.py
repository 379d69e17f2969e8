"""The pipeline, decode and memory benchmarks, in small."""

from pathlib import Path

import pytest

from roadstream.bench.parts import decode, memory
from roadstream.stages.decoding.decode import encode_jpeg
from roadstream.workers.demo.render import render_drive


@pytest.mark.parametrize("name", decode.DECODERS)
def test_every_decoder_gives_the_wanted_size(name: str) -> None:
    data = encode_jpeg(next(iter(render_drive(1, 640, 360, 1))).image)

    image = decode.DECODERS[name](data, 256, 160)

    assert getattr(image, "shape", None) == (160, 256, 3)


def test_an_archive_has_as_many_pictures_as_asked(tmp_path: Path) -> None:
    memory.make_archive(tmp_path, 1003)

    assert sum(1 for _ in tmp_path.rglob("*.jpg")) == 1003
