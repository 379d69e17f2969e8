"""What each member of a cascade takes by itself: one thread, one picture a run, no stream.

Processor time of the thread, median and lower quartile over all runs: the quartile is what a quiet
machine would need. Decoding and resizing, as a worker does them, stand beside; a tier decodes a
picture once, at the scale that its largest member needs. Members take turns, picture by picture.

For comparison, a detector of the usual nano size with random weights
(``roadstream.bench.models.nano_detector``) run plainly in onnxruntime on the same pictures,
640×640: its time only, as it finds nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import msgspec

from roadstream.bench.harness import show, write_result
from roadstream.bench.models.nano_detector import SIDE, Detector
from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Cascade, Member, Tier
from roadstream.stages.decoding.decode import decode, encode_jpeg, resize
from roadstream.stages.inference import Picture, Pictures
from roadstream.workers.demo.render import render_drive
from roadstream.workers.engines.options import EngineOptions
from roadstream.workers.engines.registry import build_engine

NANO = "nano detector, random weights"
WARM_UP = 3
Run = Callable[[bytes], float]


class Took(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of processor time per picture.

    Attributes:
        median: Of all runs.
        lower_quartile: Likewise.
        runs: How many.
    """

    median: float
    lower_quartile: float
    runs: int

    def text(self) -> str:
        """Return it as ``median (lower quartile)``."""
        return f"{self.median:.2f} ({self.lower_quartile:.2f})"


def took(milliseconds: Sequence[float]) -> Took:
    """Summarise runs; at least two."""
    quarter, median, _ = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Took(median=median, lower_quartile=quarter, runs=len(milliseconds))


def clocked(work: Callable[[], object]) -> float:
    """Return the milliseconds of this thread that it takes."""
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1e3


def decoding(tier: Tier) -> Run:
    """Return what decodes a picture as the tier does."""
    width, height = _largest(tier)
    return lambda data: clocked(lambda: decode(data, min_width=width, min_height=height))


def resizing(tier: Tier, member: Member) -> Run:
    """Return what brings a picture, decoded for the tier, to the member's size."""
    width, height = _largest(tier)

    def run(data: bytes) -> float:
        pixels = decode(data, min_width=width, min_height=height)
        return clocked(lambda: resize(pixels, member.width, member.height))

    return run


def inferring(cascade: Cascade, member: Member) -> Run:
    """Return what has the member's engine judge a picture of the member's size."""
    engine = build_engine(cascade, member, EngineOptions(threads=1))
    engine.load()

    def run(data: bytes) -> float:
        pixels = decode(data, min_width=member.width, min_height=member.height)
        batch = Pictures([Picture(resize(pixels, member.width, member.height))])
        engine.prepare(batch)
        return clocked(lambda: engine.infer(batch))

    return run


def nano(model: bytes) -> Run:
    """Return what runs the nano detector on a picture."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(data: bytes) -> float:
        pixels = resize(decode(data, min_width=SIDE, min_height=SIDE), SIDE, SIDE)[None]
        return clocked(lambda: session.run(None, {"images": pixels}))

    return run


def _largest(tier: Tier) -> tuple[int, int]:
    return max(m.width for m in tier.members), max(m.height for m in tier.members)


def measure(runs: dict[str, Run], encoded: Sequence[bytes], rounds: int) -> dict[str, Took]:
    """Return what each took, in turn on every picture of every round."""
    cv2.setNumThreads(1)
    found: dict[str, list[float]] = {name: [] for name in runs}
    for data in encoded[:WARM_UP]:
        for run in runs.values():
            run(data)
    for data in list(encoded) * rounds:
        for name, run in runs.items():
            found[name].append(run(data))
    return {name: took(milliseconds) for name, milliseconds in found.items()}


def planned(cascade: Cascade) -> dict[str, Run]:
    """Return what is measured of a cascade, by name."""
    runs: dict[str, Run] = {}
    for tier in cascade.tiers:
        width, height = _largest(tier)
        runs[f"{tier.name}: decode for {width}×{height}"] = decoding(tier)
        for member in tier.members:
            name = f"{tier.name}/{member.name}"
            runs[f"{name}: resize to {member.width}×{member.height}"] = resizing(tier, member)
            runs[f"{name}: {member.engine}"] = inferring(cascade, member)
    return runs


def pictures(options: argparse.Namespace) -> list[bytes]:
    """Return JPEG files: of a folder, evenly spread over it, or rendered.

    Raises:
        SystemExit: The folder has none.
    """
    if options.pictures is None:
        return [encode_jpeg(frame.image) for frame in render_drive(options.images, 1280, 720, 1)]
    files = sorted(options.pictures.rglob("*.jpg"))
    if not files:
        raise SystemExit(f"--pictures: expected a folder with JPEGs, got {options.pictures}")
    return [path.read_bytes() for path in files[:: -(-len(files) // options.images)]]


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.models.members", description=__doc__
    )
    parser.add_argument("--cascade", default="lite", help="name or file; its engines run here")
    parser.add_argument("--pictures", type=Path, help="folder of JPEGs; rendered by default")
    parser.add_argument("--images", type=int, default=30, help="pictures to render, or to take")
    parser.add_argument("--rounds", type=int, default=3, help="runs over all pictures")
    parser.add_argument("--name", default="members", help="name of the result")
    options = parser.parse_args()
    detector = Detector()
    runs = {
        **planned(load_cascade(options.cascade)),
        f"{NANO}: onnxruntime": nano(detector.model()),
    }
    found = measure(runs, pictures(options), options.rounds)
    show(
        f"Milliseconds of one thread per picture, {options.cascade} cascade",
        ["what", "median (lower quartile)"],
        [[name, time.text()] for name, time in found.items()],
    )
    limit = (
        "Bound by multiply-adds: the nano detector's "
        f"{detector.multiply_adds / 1e9:.1f} billion run at "
        f"{detector.multiply_adds / found[f'{NANO}: onnxruntime'].median / 1e6:.0f} billion/s."
    )
    print(limit)
    size = {"weights": detector.weights, "multiply_adds": detector.multiply_adds}
    settings = {key: str(value) for key, value in vars(options).items()}
    result = {"options": settings, "nano": size, "milliseconds": found, "limit_in_words": limit}
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
