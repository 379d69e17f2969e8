"""What box fusion hands to its compiled loop, and gets back, as arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Wholes = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Detections(NamedTuple):
    """What M detectors found in N images: K boxes in all, those of one image together.

    Attributes:
        boxes: Corners x1, y1, x2, y2 in [0, 1]: float64 [K, 4].
        scores: Confidences in [0, 1]: float64 [K].
        labels: Numbers of their labels: int64 [K].
        detectors: Positions of the detectors that found them: int64 [K].
        offsets: Image ``i`` has the boxes from ``offsets[i]`` to ``offsets[i + 1]``: int64 [N + 1].
        looked: Whether a detector answered for an image, with boxes or without: bool [N, M].
    """

    boxes: Reals
    scores: Reals
    labels: Wholes
    detectors: Wholes
    offsets: Wholes
    looked: Flags


class Read(NamedTuple):
    """Boxes as they are read from msgpack.

    Attributes:
        found: The boxes; labels are numbered as they come.
        labels: Where each label begins and ends in the bytes: int64 [L, 2].
        plain: Whether the bytes are boxes, and all numbers floats. If not, the rest means nothing.
    """

    found: Detections
    labels: Wholes
    plain: bool


class Fused(NamedTuple):
    """Fused boxes, per image the most confident first; the arrays are those of ``Detections``."""

    boxes: Reals
    scores: Reals
    labels: Wholes
    offsets: Wholes


class Adaptation(NamedTuple):
    """What is otherwise for one picture: in fog, say, where models are less sure.

    Attributes:
        skip_factor: By which ``skip`` is multiplied, at least 0.
        margin: Share of its width and height by which a fused box grows, half of it on each side,
            as far as the picture goes; at least 0.
    """

    skip_factor: float = 1.0
    margin: float = 0.0


class Rules(NamedTuple):
    """Weights per detector (float64 [M]) and settings, as the compiled loop takes them.

    Sums over detectors run from the lightest, so that their order does not show in the last digit.
    """

    weights: Reals
    lightest_first: Wholes
    iou: float
    skip: float
    confidence: int
    merge: bool
