"""Finds cones, drums and striped boards by colour and shape: a rule that fails unlike a network.

The picture is searched for saturated orange and red blobs, which are joined across the white
stripes between them. Each blob is described by thirteen measures of shape, place and colour, and
a logistic rule turns these into the log-odds that the blob is roadwork equipment. The picture's
score is the log of the summed odds, so several weak blobs count like one strong one. The rule
knows nothing of signs, workers or machines, and colour fails it at night.
"""

import math
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

WIDTH = 416  # every picture is searched at this width
HEIGHTS = (16, 360)  # bounds of the searched height; taller or flatter pictures are stretched
SMALLEST_BLOB = 11  # pixels at WIDTH; smaller specks are mostly rear lights and JPEG noise
MOST_BLOBS = 18  # only the largest blobs are judged, which bounds the time
NO_BLOB_SCORE = -6.0  # log-odds of a picture without any blob, and the least score there is
MOST_SCORE = 8.0
LEAST_CONFIDENCE = 0.3  # blobs less likely than this are not reported as boxes

# Hue in OpenCV's half degrees, saturation and value in 0..255: cones under sun, shade and fade.
ORANGE = ((0, 95, 70), (17, 255, 255))
RED = ((171, 110, 60), (179, 255, 255))
STRIPE_LEAST_VALUE = 120  # a white stripe: bright and hardly coloured
STRIPE_MOST_SATURATION = 80
STRIPE_KERNEL = (11, 3)  # rows and columns of the gaps that are bridged
UPRIGHT = 0.4  # log of height/width of a typical cone
USUAL_BOTTOM = 0.68  # where on the picture's height cones usually stand
WIDEST_USUAL = 0.1  # share of the picture's width; wider blobs are mostly cars and buildings
SOLID = 0.7  # share of its frame that a cone rarely fills
HUES = 180  # number of OpenCV's hues
RED_TURN = 9  # turns the hues so that RED and ORANGE lie side by side, from 0 on
ORANGE_TURN = ORANGE[1][0] + RED_TURN

# Fitted on boxed training pictures: measure = (mean, spread, weight).
BIAS = -2.289
MEASURES = {
    "log area": (-7.483, 1.626, 1.032),
    "log height/width": (0.268, 0.802, 0.376),
    "distance from an upright shape": (0.626, 0.518, -0.798),
    "fill": (0.330, 0.204, 0.567),
    "bottom edge": (0.546, 0.224, 0.778),
    "distance from the road's usual place": (0.068, 0.101, -0.881),
    "taper": (0.048, 0.284, 0.757),
    "saturation": (0.497, 0.092, 0.591),
    "hue": (0.753, 0.211, -0.518),
    "white stripes": (0.256, 0.253, 0.751),
    "colour around": (0.021, 0.029, -0.053),
    "too wide": (0.071, 0.250, -0.634),
    "too solid": (0.007, 0.034, -0.293),
}
FITTED: Floats = np.array(list(MEASURES.values()))


class Box(NamedTuple):
    """One blob found; corners in [0, 1] of the picture, confidence in [0, 1]."""

    x1: float
    y1: float
    x2: float
    y2: float
    confidence: float


class ConeFinding(msgspec.Struct, frozen=True):
    """What the rule saw: a score in -6..8 (log-odds, not calibrated) and boxes, best first."""

    score: float
    boxes: list[Box]


class Blobs(NamedTuple):
    """The blobs of a searched picture, largest first.

    `frames` is int64 [count, 4]: left, top, width, height in pixels of the searched picture;
    `measures` is float64 [count, 13] in the order of MEASURES.
    """

    frames: NDArray[np.int64]
    measures: Floats


def find_cones(image: Pixels) -> ConeFinding:
    """Score a picture for cones, drums and striped boards.

    `image` is uint8 RGB [H, W, 3] of any size from 1x1. The same picture always gives the same
    finding. Raises ValueError for another shape or dtype.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
    small = shrink(image)
    height, width = small.shape[:2]
    blobs = find_blobs(small)
    odds = log_odds(blobs.measures)
    likely = (1 / (1 + np.exp(-odds))).tolist()
    corners = blobs.frames.astype(np.float64)
    corners[:, 2:] += corners[:, :2]
    corners /= (width, height, width, height)
    boxes = [
        Box(x1, y1, x2, y2, confidence)
        for (x1, y1, x2, y2), confidence in zip(corners.tolist(), likely, strict=True)
        if confidence >= LEAST_CONFIDENCE
    ]
    return ConeFinding(picture_score(odds), sorted(boxes, key=lambda box: -box.confidence))


def picture_score(odds: Floats) -> float:
    """Join the log-odds of all blobs: the log of their summed odds, bounded to -6..8."""
    if not len(odds):
        return NO_BLOB_SCORE
    return min(MOST_SCORE, max(NO_BLOB_SCORE, float(np.logaddexp.reduce(odds))))


def log_odds(measures: Floats) -> Floats:
    """Apply the fitted logistic rule to measures [count, 13]: log-odds [count] in -12..12."""
    scaled = np.clip((measures - FITTED[:, 0]) / FITTED[:, 1], -3, 3)
    odds: Floats = np.clip(BIAS + scaled @ FITTED[:, 2], -12, 12)
    return odds


def shrink(image: Pixels) -> Pixels:
    """Resize to WIDTH, keeping the shape where the height stays within HEIGHTS.

    Pixels are skipped, not averaged: it is faster, and an average would dull small cones.
    """
    height, width = image.shape[:2]
    target = min(HEIGHTS[1], max(HEIGHTS[0], round(height * WIDTH / width)))
    step = max(1, width // (3 * WIDTH))
    sparse = np.ascontiguousarray(image[::step, ::step])
    resized = cv2.resize(sparse, (WIDTH, target), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def find_blobs(image: Pixels) -> Blobs:
    """Find the largest orange and red blobs of a shrunk picture, joined across stripes."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    coloured = np.asarray(
        cv2.bitwise_or(cv2.inRange(hsv, *ORANGE), cv2.inRange(hsv, *RED)), dtype=np.uint8
    )
    joined = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, np.ones(STRIPE_KERNEL, np.uint8))
    count, _, found, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    stats = np.asarray(found[1:count], dtype=np.int64)
    stats = stats[stats[:, cv2.CC_STAT_AREA] >= SMALLEST_BLOB]
    order = np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable")
    frames = stats[order, :4]
    hits = [coloured[y : y + high, x : x + wide].any() for x, y, wide, high in frames.tolist()]
    frames = frames[np.array(hits, dtype=bool)][:MOST_BLOBS]
    measures = [measure(hsv, coloured, frame) for frame in frames.tolist()]
    return Blobs(frames, np.array(measures, dtype=np.float64).reshape(-1, len(MEASURES)))


def measure(hsv: Pixels, coloured: Pixels, frame: list[int]) -> list[float]:
    """Measure one blob, in the order of MEASURES.

    `hsv` is uint8 [H, W, 3], `coloured` uint8 [H, W] (255 where orange or red), `frame` is left,
    top, width, height in pixels. Returns float64 [11].
    """
    left, top, width, height = frame
    inside = hsv[top : top + height, left : left + width]
    mask = coloured[top : top + height, left : left + width]
    saturation, value = inside[..., 1], inside[..., 2]
    hits, size = cv2.countNonZero(mask), width * height
    mean_saturation = cv2.mean(saturation, mask)[0]
    mean_hue = cv2.mean((inside[..., 0] + RED_TURN) % HUES, mask)[0]
    third = max(1, height // 3)
    taper = cv2.countNonZero(mask[-third:]) - cv2.countNonZero(mask[:third])
    stripe = (value >= STRIPE_LEAST_VALUE) & (saturation <= STRIPE_MOST_SATURATION)
    margin_x, margin_y = 2 + width // 2, 2 + height // 2
    around = coloured[
        max(0, top - margin_y) : top + height + margin_y,
        max(0, left - margin_x) : left + width + margin_x,
    ]
    beside = (cv2.countNonZero(around) - hits) / max(1, around.size - size)
    shape = math.log(height / width)
    bottom = (top + height) / hsv.shape[0]
    return [
        math.log(hits / (hsv.shape[0] * hsv.shape[1])),
        shape,
        abs(shape - UPRIGHT),
        hits / size,
        bottom,
        (bottom - USUAL_BOTTOM) ** 2,
        taper / (third * width),
        mean_saturation / 255,
        mean_hue / ORANGE_TURN,
        int(np.count_nonzero(stripe)) / max(1, size - hits),
        beside,
        max(0.0, math.log(width / hsv.shape[1] / WIDEST_USUAL)),
        max(0.0, hits / size - SOLID),
    ]
