"""JPEG decoding per core: at the DCT scale that is needed, against full decoding and resizing.

Rendered pictures of 720p and 1080p are brought to the sizes that the lite cascade's tiers take:
by the product (libjpeg-turbo at 1/2, 1/4 or 1/8 where that leaves enough, then a linear resize), by
OpenCV (full, then resize; and with its own reduced flag) and by Pillow (full, then resize; and with
its draft mode). One thread each. The work that no scale saves is the entropy decoding of the whole
file, so the cost at 1/8 is the bound.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from PIL import Image

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.stages.decoding.decode import Pixels, decode, encode_jpeg, resize
from roadstream.workers.demo.render import render_drive

SOURCES = {"720p": (1280, 720), "1080p": (1920, 1080)}
TARGETS = ((256, 160), (512, 352), (960, 640))
Decoder = Callable[[bytes, int, int], object]


def product(data: bytes, width: int, height: int) -> object:
    """Decode as the product does."""
    return resize(decode(data, min_width=width, min_height=height), width, height)


def product_full(data: bytes, width: int, height: int) -> object:
    """Decode whole with the product's decoder, then resize."""
    return resize(decode(data, min_width=1 << 16, min_height=1 << 16), width, height)


def opencv_full(data: bytes, width: int, height: int) -> object:
    """Decode whole, resize over areas (without aliasing), swap the channels."""
    image = _opencv(data, cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def opencv_reduced(data: bytes, width: int, height: int) -> object:
    """Decode at the scale OpenCV offers that leaves enough; the caller must know the size."""
    flag = cv2.IMREAD_COLOR_RGB
    header = Image.open(BytesIO(data)).size
    for scale, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if header[0] >= scale * width and header[1] >= scale * height:
            flag = reduced
            break
    image = _opencv(data, flag)
    if flag != cv2.IMREAD_COLOR_RGB:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _opencv(data: bytes, flag: int) -> Pixels:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    assert image is not None, "OpenCV cannot decode what was encoded here"
    return np.asarray(image, np.uint8)


def pillow_full(data: bytes, width: int, height: int) -> object:
    """Decode whole, resize with a filter as wide as the reduction."""
    image = Image.open(BytesIO(data)).convert("RGB")
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def pillow_draft(data: bytes, width: int, height: int) -> object:
    """Decode at the scale Pillow's draft mode picks, then resize."""
    image = Image.open(BytesIO(data))
    image.draft("RGB", (width, height))
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


DECODERS: dict[str, Decoder] = {
    "product, scaled": product,
    "product, full": product_full,
    "OpenCV, full": opencv_full,
    "OpenCV, reduced": opencv_reduced,
    "Pillow, full": pillow_full,
    "Pillow, draft": pillow_draft,
}


class Case(NamedTuple):
    """One decoder on one source and target size."""

    decoder: str
    source: str
    target: tuple[int, int]


def pictures(source: str, count: int) -> list[bytes]:
    """Render pictures of a size and encode them."""
    width, height = SOURCES[source]
    return [encode_jpeg(frame.image) for frame in render_drive(count, width, height, 1)]


def measure(case: Case, encoded: list[bytes]) -> float:
    """Return milliseconds of one core per picture, after one pass to warm up."""
    cv2.setNumThreads(1)
    function = DECODERS[case.decoder]
    for data in encoded[:5]:
        function(data, *case.target)
    began = time.process_time()
    for data in encoded:
        function(data, *case.target)
    return (time.process_time() - began) / len(encoded) * 1e3


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.decode", description=__doc__
    )
    parser.add_argument("--images", type=int, default=40, help="pictures per size")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, decoders in turn")
    parser.add_argument("--name", default="decode", help="name of the result")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    times: dict[Case, list[float]] = {}
    sizes: dict[str, float] = {}
    for source in SOURCES:
        encoded = pictures(source, options.images)
        sizes[source] = sum(map(len, encoded)) / len(encoded)
        for _ in range(options.rounds):
            for target in TARGETS:
                for name in DECODERS:
                    case = Case(name, source, target)
                    with spawn.Pool(1) as pool:
                        took = pool.apply(measure, (case, encoded))
                    times.setdefault(case, []).append(took)
    report({case: spread(found) for case, found in times.items()}, sizes, options)


def report(found: dict[Case, Spread], sizes: dict[str, float], options: argparse.Namespace) -> None:
    """Print the table and write the JSON."""
    rows, facts = [], []
    for case, took in found.items():
        full = found[Case("product, full", case.source, case.target)].median
        gain = full / took.median
        width, height = case.target
        rows.append(
            [f"{case.source} to {width}×{height}", case.decoder, took.text(".2f"), f"{gain:.1f}"]
        )
        facts.append(
            {
                "source": case.source,
                "width": width,
                "height": height,
                "decoder": case.decoder,
                "milliseconds": took,
                "times_full": gain,
            }
        )
    show(
        f"JPEG to model size, one core, {options.images} pictures",
        ["case", "decoder", "ms per picture", "× product, full"],
        rows,
    )
    bound = {
        source: found[Case("product, scaled", source, TARGETS[0])].median for source in SOURCES
    }
    limit = "Bound by entropy decoding of the whole file, which no scale saves: " + ", ".join(
        f"{source} ({sizes[source] / 1000:.0f} kB) {took:.2f} ms" for source, took in bound.items()
    )
    print(limit)
    settings = msgspec.to_builtins({k: str(v) for k, v in vars(options).items()})
    result = {"options": settings, "picture_bytes": sizes, "cases": facts, "limit_in_words": limit}
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
