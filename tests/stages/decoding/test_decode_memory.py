"""What decode() takes is told from the header, bounded, and measured here."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from PIL import Image

from roadstream.schemas.errors import ImageError
from roadstream.stages.decoding.decode import DEFAULT, DecodeLimits, decode
from roadstream.workers.service.option_checks import DECODE_MEMORY
from tests.kits.decode_kit import saved
from tests.kits.odd_pictures import turned

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
# MiB beyond what is expected: what allocators keep.
SLACK = 8

# Prints for each line, of a side and a file, how many MiB more a process takes at most when it
# decodes the file. Each time that is a fork, whose peak is what it begins with, of one process that
# has imported everything.
_CHILD = """
import io, os, resource, sys
from pathlib import Path
from PIL import Image
from roadstream.stages.decoding.decode import DecodeLimits, decode

def peak():
    try:
        status = open("/proc/self/status").read()
    except FileNotFoundError:  # macOS, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10

for kind in ("PNG", "JPEG"):
    small = io.BytesIO()
    Image.new("RGB", (9, 9)).save(small, kind)
    decode(small.getvalue(), min_width=9, min_height=9)
for line in iter(sys.stdin.readline, ""):
    side, path = line.split(maxsplit=1)
    if os.fork():
        if os.wait()[1]:
            sys.exit(f"cannot decode {path}")
        continue
    data, side = Path(path.rstrip()).read_bytes(), int(side)
    before = peak()
    decode(data, min_width=side, min_height=side, limits=DecodeLimits(max_memory=1 << 40))
    print(peak() - before, flush=True)
    os._exit(0)
"""

Measured = Callable[[bytes, int], int]


@cache
def wide(mode: str = "RGB", width: int = 2400, height: int = 1600) -> Image.Image:
    y, x = np.ogrid[:height, :width]
    planes = np.broadcast_arrays(x // 12 % 256, y // 8 % 256, (x + y) // 20 % 256)
    image = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray(np.broadcast_to(x * 20, (height, width)).astype(np.uint16))
    return image.convert(mode)


def expected(data: bytes, side: int) -> int:
    """The MiB that are expected."""
    with pytest.raises(ImageError, match="too_many_pixels") as caught:
        decode(data, min_width=side, min_height=side, limits=DecodeLimits(max_memory=0))
    told = re.search(r"take ([\d,]+) MiB", caught.value.problem)
    assert told
    return int(told[1].replace(",", ""))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """Return what tells the MiB that decoding takes."""
    file = tmp_path_factory.mktemp("measured") / "picture"
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT
    ) as child:

        def measure(data: bytes, side: int) -> int:
            assert child.stdin is not None
            assert child.stdout is not None
            file.write_bytes(data)
            print(side, file, file=child.stdin, flush=True)
            return int(child.stdout.readline())

        yield measure


@pytest.mark.parametrize("side", [300, 1 << 20])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"exif": b"Exif\0\0" + turned(6)}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {"compress_level": 1}),
        ("PNG", "RGBA", {"compress_level": 1}),
        ("PNG", "I;16", {"compress_level": 1}),
        ("WEBP", "RGB", {"method": 0}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw", "tiffinfo": {278: 1600}}),
        ("AVIF", "RGBA", {"speed": 10}),
        ("JPEG2000", "RGB", {}),
    ],
)
def test_decoding_takes_no_more_than_expected(
    kind: str, mode: str, options: dict[str, object], side: int, measured: Measured
) -> None:
    data = saved(wide(mode), kind, **options)

    assert measured(data, side) <= expected(data, side) + SLACK


@pytest.mark.parametrize(("kind", "bytes_per_pixel"), [("PNG", 12), ("WEBP", 24), ("JPEG", 7)])
def test_what_is_expected_is_not_far_more_than_what_decoding_takes(
    kind: str, bytes_per_pixel: int
) -> None:
    data = saved(wide(), kind)

    assert expected(data, 1 << 20) <= bytes_per_pixel * 2400 * 1600 / MIB + 60


@pytest.mark.parametrize(("kind", "mode"), [("WEBP", "RGB"), ("PNG", "I;16"), ("GIF", "P")])
def test_a_small_file_of_many_pixels_is_refused_before_it_takes_them(kind: str, mode: str) -> None:
    flat = Image.new(mode, (9000, 9000))
    data = saved(flat, kind, **({"lossless": True, "method": 0} if kind == "WEBP" else {}))

    with pytest.raises(ImageError) as caught:
        decode(data, min_width=300, min_height=300, limits=DecodeLimits(max_memory=64 * MIB))

    assert caught.value.fault == "too_many_pixels"
    assert "9,000×9,000 pixels, which take" in caught.value.problem
    assert "MiB to decode; at most 64 are allowed (--decode-memory)" in caught.value.problem


def test_scans_of_one_component_each_count_as_the_coefficients_they_take() -> None:
    data = saved(wide(), "JPEG")
    interleaved = data.index(b"\xff\xda")
    alone = data[:interleaved] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + data[interleaved + 14 :]

    assert expected(alone, 300) >= expected(data, 300) + 2400 * 1600 * 3 // MIB


def test_the_option_begins_with_the_default_of_the_decoder() -> None:
    assert DEFAULT.max_memory == DECODE_MEMORY * MIB
