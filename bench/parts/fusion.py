"""Weighted boxes fusion: images per second of one core, against ensemble-boxes, in one run.

Ten detectors give twenty boxes each. ``arrays`` is the product's compiled loop on packed arrays,
``records`` the same from and to the boxes of the product's records, as a worker calls it: a batch
after the other, keeping nothing. ``objects`` is the least that this can take: the boxes that go in
are only encoded, the fastest way known to get at their numbers, and those that come out are only
made. ``numpy`` is the method with numpy over many images at once, and ``ensemble-boxes`` the
package of the method's authors, as its documentation has it. Each runs in a fresh process,
contenders in turn; the time is processor time of that process, after a first call. Before that, the
product's boxes, confidences, labels and their order are compared with the package's, for every way
of making confidences that it knows.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np
from ensemble_boxes import weighted_boxes_fusion

from roadstream.bench.harness import Spread, show, spread, write_result
from roadstream.bench.parts.fusion_scenes import LABELS, SCENES, detections, fuse_in_numpy
from roadstream.schemas.cascade.model import Fusion, FusionConfidence
from roadstream.schemas.records.votes import Box
from roadstream.stages.voting.fusion import BoxFusion, Found, load_fusion
from roadstream.stages.voting.fusion_arrays import Detections, Fused

IOU, SKIP = 0.55, 0.05
AIM = 20_000
# Those that the package knows.
CONFIDENCES: tuple[FusionConfidence, ...] = tuple(
    one for one in get_args(FusionConfidence) if one != "geometric"
)
# Images per call, as a worker's batch; numpy is at its best with many.
BATCH, NUMPY_BATCH = 16, 250
# Images per measurement: about a second each.
IMAGES = {
    "arrays": 16_000, "records": 8_000, "objects": 8_000, "numpy": 500, "ensemble-boxes": 100
}  # fmt: skip
T = TypeVar("T")


class Case(msgspec.Struct, frozen=True):
    """One contender on one scene."""

    contender: str
    scene: str
    detectors: int
    boxes: int


def weights(detectors: int) -> list[float]:
    """Return the detectors' weights, 0.7 to 1.5 as in a cascade."""
    return [float(weight) for weight in np.linspace(0.7, 1.5, detectors)]


def fusion(detectors: int, confidence: FusionConfidence = "avg") -> BoxFusion:
    """Return the product's fusion."""
    return BoxFusion(Fusion(iou=IOU, skip=SKIP, confidence=confidence), weights(detectors))


def part(found: Detections, begin: int, end: int) -> Detections:
    """Return some of the images."""
    first, last = found.offsets[begin], found.offsets[end]
    return Detections(
        found.boxes[first:last],
        found.scores[first:last],
        found.labels[first:last],
        found.detectors[first:last],
        found.offsets[begin : end + 1] - first,
        found.looked[begin:end],
    )


def records(found: Detections) -> list[Found]:
    """Return the boxes as the product's records have them, per image and detector."""
    images, detectors = found.looked.shape
    each = len(found.scores) // (images * detectors)
    columns = (found.boxes.tolist(), found.scores.tolist(), found.labels.tolist())
    boxes = [
        Box(x1, y1, x2, y2, score, f"class {label}")
        for (x1, y1, x2, y2), score, label in zip(*columns, strict=True)
    ]
    parts = [boxes[i : i + each] for i in range(0, len(boxes), each)]
    return [parts[i : i + detectors] for i in range(0, len(parts), detectors)]


def package(found: Detections, image: int, confidence: FusionConfidence) -> Any:
    """Return what ensemble-boxes makes of an image: boxes, confidences and labels."""
    count = found.looked.shape[1]
    rows = slice(found.offsets[image], found.offsets[image + 1])
    split = [np.split(array[rows], count) for array in (found.boxes, found.scores, found.labels)]
    return weighted_boxes_fusion(*split, weights(count), IOU, SKIP, confidence)


def each(do: Callable[[T], object], batches: Iterable[T]) -> Callable[[], None]:
    """Return what does it to one after the other and keeps nothing, as a worker does."""

    def run() -> None:
        for batch in batches:
            do(batch)

    return run


def objects(batch: tuple[list[Found], Fused]) -> list[Box]:
    """Encode the boxes that go in, and make those that come out."""
    pictures, fused = batch
    msgspec.msgpack.encode(pictures)
    labels = map([f"class {label}" for label in range(LABELS)].__getitem__, fused.labels.tolist())
    return list(map(Box, *fused.boxes.T.tolist(), fused.scores.tolist(), labels))


def work(case: Case, images: int) -> Callable[[], object]:
    """Return what is timed: fusing ``images`` images, made beforehand."""
    found = detections(case.scene, images, case.detectors, case.boxes, seed=1)
    fuses, heavy = fusion(case.detectors), np.array(weights(case.detectors))
    starts = range(0, images, BATCH)
    if case.contender == "arrays":
        return each(fuses.fuse_arrays, [part(found, i, min(i + BATCH, images)) for i in starts])
    if case.contender in ("records", "objects"):
        pictures = records(found)
        taken = [pictures[i : i + BATCH] for i in starts]
        if case.contender == "records":
            return each(fuses.fuse, taken)
        made = [fuses.fuse_arrays(part(found, i, min(i + BATCH, images))) for i in starts]
        return each(objects, list(zip(taken, made, strict=True)))
    if case.contender == "numpy":
        batches = [part(found, i, min(i + NUMPY_BATCH, images))
                   for i in range(0, images, NUMPY_BATCH)]  # fmt: skip
        return each(lambda batch: fuse_in_numpy(batch, heavy, IOU), batches)
    return each(lambda image: package(found, image, "avg"), range(images))


def measure(case: Case) -> float:
    """Return images per second of processor time, after one batch to load code."""
    work(case, min(BATCH, IMAGES[case.contender]))()
    images = IMAGES[case.contender]
    run = work(case, images)
    began = time.process_time()
    run()
    return images / (time.process_time() - began)


def difference(scene: str, detectors: int, boxes: int, images: int) -> dict[str, float]:
    """Return the largest difference from ensemble-boxes per way of making confidences.

    Raises:
        SystemExit: Another number of boxes, another order, or other labels.
    """
    found = detections(scene, images, detectors, boxes, seed=2)
    largest: dict[str, float] = {}
    for confidence in CONFIDENCES:
        ours, worst = fusion(detectors, confidence).fuse_arrays(found), 0.0
        for image in range(images):
            rows = slice(ours.offsets[image], ours.offsets[image + 1])
            sides, scores, labels = package(found, image, confidence)
            if ours.labels[rows].tolist() != labels.tolist():
                raise SystemExit(f"void: {confidence}, image {image}: other boxes than the package")
            beside = np.abs(ours.scores[rows] - np.minimum(scores, 1.0))
            worst = max(worst, float(np.abs(ours.boxes[rows] - sides).max()), float(beside.max()))
        largest[confidence] = worst
    return largest


def start_seconds() -> float:
    """Return what a process waits for the compiled loop, once that is on the disk."""
    began = time.perf_counter()
    load_fusion("bench")
    return time.perf_counter() - began


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m roadstream.bench.parts.fusion", description=__doc__
    )
    parser.add_argument("--detectors", type=int, default=10)
    parser.add_argument("--boxes", type=int, default=20, help="of each detector in each image")
    parser.add_argument("--compared", type=int, default=200, help="images compared per scene")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, contenders in turn")
    parser.add_argument("--name", default="fusion", help="name of the result")
    return parser.parse_args()


def main() -> None:
    """Compare, measure, print the table, write the JSON."""
    options = parse()
    sizes = options.detectors, options.boxes
    same = {scene: difference(scene, *sizes, options.compared) for scene in SCENES}
    print(f"largest difference from ensemble-boxes: {same}")
    cases = [Case(name, scene, *sizes) for scene in SCENES for name in IMAGES]
    rates: dict[Case, list[float]] = {}
    spawn = multiprocessing.get_context("spawn")
    for _ in range(options.rounds):
        for case in cases:
            with spawn.Pool(1) as pool:
                rates.setdefault(case, []).append(pool.apply(measure, (case,)))
    with spawn.Pool(1) as pool:
        start = pool.apply(start_seconds)
    report({case: spread(found) for case, found in rates.items()}, same, start, options)


def report(
    rates: dict[Case, Spread],
    same: dict[str, dict[str, float]],
    start: float,
    options: argparse.Namespace,
) -> None:
    """Print the table and write the JSON."""
    rows, facts = [], []
    for case, rate in rates.items():
        peer = rates[Case("ensemble-boxes", case.scene, case.detectors, case.boxes)]
        ratio = rate.median / peer.median
        rows.append([case.scene, case.contender, rate.text(), f"{ratio:,.1f}"])
        facts.append({**msgspec.structs.asdict(case), "images_per_second": rate, "ratio": ratio})
    title = f"{options.detectors} detectors, {options.boxes} boxes each, one core"
    show(title, ["scene", "contender", "images/s", "× ensemble-boxes"], rows)
    reached = "; ".join(
        f"{scene}: {of['records']:,.0f} images/s of {of['objects']:,.0f} that objects alone allow"
        for scene in SCENES
        for of in [{c.contender: r.median for c, r in rates.items() if c.scene == scene}]
    )
    limit = (
        "From records it is bound by Python objects: encoding those that go in, making those that "
        f"come out; then by comparing each box with every cluster of its label so far. {reached}. "
        f"Aim {AIM:,}."
    )
    print(limit)
    result = {
        "options": vars(options),
        "largest_difference": same,
        "start_seconds": start,
        "cases": facts,
        "aim": AIM,
        "limit_in_words": limit,
    }
    print(f"written: {write_result(options.name, result)}")


if __name__ == "__main__":
    main()
